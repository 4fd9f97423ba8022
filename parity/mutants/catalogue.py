"""All mutants, by name."""

from flaxnets import native_library
from parity.mutants import (
    blocks,
    bridge,
    convolutions,
    data,
    densenets,
    dropout,
    native_functions,
    norms,
    optimizers,
    pooling,
    programs,
    schedules,
    shortcuts,
    statistics,
    training,
)
from parity.mutants.mutant import Mutant


def _by_name(*groups: tuple[Mutant, ...]) -> dict[str, Mutant]:
    mutants = [mutant for group in groups for mutant in group]
    by_name = {mutant.name: mutant for mutant in mutants}
    assert len(by_name) == len(mutants), "two mutants have the same name"
    return by_name


MUTANTS: dict[str, Mutant] = _by_name(
    convolutions.MUTANTS,
    pooling.MUTANTS,
    norms.MUTANTS,
    statistics.MUTANTS,
    blocks.MUTANTS,
    shortcuts.MUTANTS,
    densenets.MUTANTS,
    dropout.MUTANTS,
    programs.MUTANTS,
    bridge.MUTANTS,
    optimizers.MUTANTS,
    training.MUTANTS,
    schedules.MUTANTS,
    data.MUTANTS,
    native_functions.MUTANTS if native_library.is_available() else (),
)
