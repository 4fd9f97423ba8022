"""The checks that stand apart from the comparison of whole networks, by name."""

import functools
from collections.abc import Callable, Iterable

import torch

from parity import lockstep
from parity.comparison import Comparison
from parity.standalone.batch_norm import check_batch_norm
from parity.standalone.data_path import check_data_path
from parity.standalone.dropout import check_dropout
from parity.standalone.export import check_export
from parity.standalone.functions import check_functions
from parity.standalone.shapes import check_shapes

Check = Callable[[int, bool], Iterable[Comparison]]


def on_one_thread(check: Check) -> Check:
    """The check with PyTorch on one thread: networks this small only wait for more of them."""

    @functools.wraps(check)
    def run(seed: int, quick: bool) -> list[Comparison]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return list(check(seed, quick))
        finally:
            torch.set_num_threads(threads)

    return run


# In the order of ``parity.comparison.CHECKS``; each takes a seed, and whether to do less of it.
STANDALONE: dict[str, Check] = {
    "lockstep": on_one_thread(lockstep.check),
    "batch norm": on_one_thread(check_batch_norm),
    "functions": on_one_thread(check_functions),
    "data path": on_one_thread(check_data_path),
    "dropout": on_one_thread(check_dropout),
    "shapes": on_one_thread(check_shapes),
    "export": on_one_thread(check_export),
}
