import os

import pytest

from parity import workers
from parity.workers import QUICK_XLA, Workers, xla_takes


def test_flags_that_xla_does_not_know_are_found_out() -> None:
    assert xla_takes("--xla_cpu_multi_thread_eigen=false")
    assert not xla_takes("--xla_cpu_no_such_flag=false")


@pytest.mark.parametrize("known", [True, False])
def test_workers_have_the_flag_only_if_xla_takes_it(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "xla_takes", lambda flags: known)
    before = os.environ.get("XLA_FLAGS")
    with Workers() as made:
        inside = made.make(0).submit(os.getenv, "XLA_FLAGS", "").result()
    assert (QUICK_XLA in inside.split()) is known
    assert os.environ.get("XLA_FLAGS") == before
