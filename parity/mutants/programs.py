"""Mistakes that only show in the network as one program."""

from functools import partial

from flaxnets import dense_run, repetition
from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from parity.mutants.native_changes import edited_cpp, edited_without_native


def _whole(key: str) -> Place:
    return Place("whole network", key)


# For where there is a C++ compiler.
NATIVE_MUTANTS = (
    Mutant(
        name="native dense run forgets later readers",
        description="the same in the C++ form",
        expected=_whole("denseblock2.denselayer1.conv2.weight"),
        subject="dense run",
        change=partial(edited_cpp, "expansion.h", "Load<V>(total + place) + passed", "passed"),
    ),
    Mutant(
        name="native dense layer's dead units have gradients",
        description="the C++ form lets a gradient pass where ReLU gave 0",
        expected=_whole(""),
        subject="dense run",
        change=partial(edited_cpp, "expansion.h", "active_here > zero", "active_here >= zero"),
    ),
    Mutant(
        name="native dense layer skips a channel",
        description="the C++ form leaves out the last channel that a layer reads",
        expected=_whole(""),
        subject="dense run",
        change=partial(
            edited_cpp,
            "expansion.h",
            "!expansion.Reads(read.last - 1)) --read.last;",
            "!expansion.Reads(read.last - 1)) --read.last;\n  --read.last;",
        ),
    ),
)

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
