"""Mistakes that only show in the network as one program."""

from functools import partial

from flaxnets import dense_run, repetition
from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from parity.mutants.native_changes import edited_without_native


def _whole(key: str) -> Place:
    return Place("whole network", key)


MUTANTS = (
    Mutant(
        name="dense run forgets later readers",
        description="in a run of dense layers, maps have the gradient of their first reader alone",
        expected=_whole("denseblock2.denselayer1.conv2.weight"),
        subject="dense run",
        change=partial(
            edited_without_native,
            dense_run._add_gradients,
            ("return total + of_maps,", "return of_maps,"),
        ),
    ),
    Mutant(
        name="dense run normalises with another layer's bias",
        description="in a run of dense layers, all have the first norm's bias of the first",
        expected=_whole(""),
        subject="dense run",
        change=partial(
            edited,
            dense_run.run_layers,
            (
                "buffer, new, after =",
                "expansions = [each._replace(bias=expansions[0].bias) for each in expansions]\n"
                "    buffer, new, after =",
            ),
        ),
    ),
    Mutant(
        name="looped blocks share running statistics",
        description="all blocks of a loop have the first's running statistics after it",
        expected=_whole("layer1.1.bn1.running_mean"),
        subject="row of blocks",
        change=partial(edited, repetition._loop, ("value[index]", "value[0]")),
    ),
)
