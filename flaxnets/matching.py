"""Which network and which dialect a state dict is of; or an error that says what does not fit."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from flaxnets import registry, rules
from flaxnets.dialects import BATCHES_TRACKED, DIALECTS, OWN, REFUSED, Dialect
from flaxnets.layout import layout
from flaxnets.recognition import Shapes, read_traits
from flaxnets.registry import Config


class CheckpointError(ValueError):
    """A checkpoint that can't be read, or is not one of the network it was to be loaded into."""


@dataclasses.dataclass(frozen=True)
class Match:
    """A network and a dialect that a state dict was held against.

    Attributes:
        dialect: whose names the keys were taken for.
        config: of the network.
        missing: upstream keys that the state dict lacks, with their shapes.
        unexpected: its keys that the network does not have.
        wrong: keys of another shape, with both shapes.
        undecided: config fields that neither the keys, nor the dialect, nor the caller decide, with
            the values they may have; () for any rate.
        contradicted: config fields that the caller wants otherwise than the code with these names
            has them, with that code's values.
    """

    dialect: Dialect
    config: Config
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    undecided: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    contradicted: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def problems(self) -> int:
        """Number of keys that don't fit."""
        return len(self.missing) + len(self.unexpected) + len(self.wrong)

    def listed(self) -> str:
        """Every key that does not fit."""
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.wrong,
        }
        return "".join(
            f"\n{len(keys)} {kind}:" + "".join(f"\n  {key}" for key in keys)
            for kind, keys in kinds.items()
            if keys
        )


def match(
    shapes: Shapes, *, arch: str | None, dialect: str | None, options: Mapping[str, Any]
) -> Match:
    """The network and the dialect of a state dict's keys and shapes.

    Args:
        shapes: PyTorch shape of every tensor by upstream's key.
        arch: named network; None to recognise it.
        dialect: name of a code base; None to recognise it.
        options: config fields that the caller decides.

    Raises:
        CheckpointError: it is no known network's, or not this one's (every key that does not fit is
            listed), or its keys leave open what it computes (the candidates are named).
        ValueError: unknown network, dialect or option.
    """
    dialects = find_dialects(dialect)
    for option in options:
        families = {each.family for each in dialects}
        rules.require_choice("an option", option, set().union(*map(field_names, families)))
    refuse(shapes)
    if arch is not None:
        return _match_arch(shapes, arch, dialects, options)
    return _match_any(shapes, dialects, options, confirmed=dialect is not None)


def find_dialects(name: str | None) -> tuple[Dialect, ...]:
    """The dialects of a code base, one for each family; all of them for None.

    Raises:
        ValueError: there is none of that name.
    """
    if name is not None:
        rules.require_choice("dialect", name, dict.fromkeys(each.name for each in DIALECTS))
    return tuple(each for each in DIALECTS if name in (None, each.name))


def field_names(family: type) -> set[str]:
    """The names of a config's fields."""
    return {field.name for field in dataclasses.fields(family)}


def refuse(shapes: Shapes) -> None:
    """Raise ``CheckpointError`` for a network that is known, and known not to be expressible."""
    for refusal in REFUSED:
        if refusal.marks <= shapes.keys() and not refusal.absent & shapes.keys():
            raise CheckpointError(f"these are weights of {refusal.source}: {refusal.reason}")


def _match_arch(
    shapes: Shapes, arch: str, dialects: Iterable[Dialect], options: Mapping[str, Any]
) -> Match:
    config = registry.get_config(arch, **options)
    own = [dialect for dialect in dialects if isinstance(config, dialect.family)]
    if not own:
        raise CheckpointError(f"that dialect has no {type(config).__name__}, which {arch} is")
    matches = sorted((_hold(shapes, dialect, config) for dialect in own), key=_problems)
    fitting = [found for found in matches if not found.problems]
    if not fitting:
        hint = _classes_hint(shapes, matches[0])
        raise CheckpointError(
            f"these are not the weights of {arch} in the names of {matches[0].dialect.source}:"
            f"{matches[0].listed()}{hint}"
        )
    nearest = min(fitting, key=lambda found: len(found.contradicted))
    if nearest.contradicted:
        raise CheckpointError(
            f"these are weights of {nearest.dialect.source}, which computes something else than "
            f"{arch}: {_settings(nearest.contradicted)}. Pass these options, or leave arch out"
        )
    return nearest


def _match_any(
    shapes: Shapes, dialects: Iterable[Dialect], options: Mapping[str, Any], *, confirmed: bool
) -> Match:
    found = [
        each
        for each in (_recognise(shapes, dialect, options, confirmed) for dialect in dialects)
        if each is not None
    ]
    if not found:
        raise CheckpointError(
            f"these {len(shapes)} tensors ({', '.join(list(shapes)[:3])}, ...) are of no network "
            "that is known here. Name it with arch=..., to see what doesn't fit; "
            "or rename the keys"
        )
    fitting = [each for each in found if not each.problems]
    if fitting and all(each.contradicted for each in fitting):
        nearest = min(fitting, key=lambda each: len(each.contradicted))
        raise CheckpointError(
            f"these are weights of {nearest.dialect.source}, whose code has "
            f"{_settings(nearest.contradicted)}, which is not what the options ask for"
        )
    if not fitting:
        nearest = min(found, key=_problems)
        raise CheckpointError(
            f"these are the weights of no network that is known here; {_closest(nearest)} is the "
            f"nearest:{nearest.listed()}"
        )
    fitting = [each for each in fitting if not each.contradicted]
    # This package's own names are torchvision's, so code bases that decide more come first.
    fitting = [each for each in fitting if each.dialect.name != OWN] or fitting
    decided = [each for each in fitting if not each.undecided]
    if decided:
        functions = {_function(each.config) for each in decided}
        if len(functions) == 1:
            return decided[0]
        raise CheckpointError(
            "these weights fit networks that compute different things: "
            + "; ".join(f"dialect={each.dialect.name!r}: {each.config}" for each in decided)
            + ". Pass dialect=... or arch=..."
        )
    raise CheckpointError(_undecided_message(fitting))


def _recognise(
    shapes: Shapes, dialect: Dialect, options: Mapping[str, Any], confirmed: bool
) -> Match | None:
    names = {key: dialect.from_upstream(key) for key in shapes}
    ours = {name: shapes[key] for key, name in names.items() if name is not None}
    traits = read_traits(dialect.family, ours)
    if traits is None:
        return None
    read, open_fields = traits
    decided = {**dialect.fixed, **(dialect.assumed if confirmed else {})}
    if any(read.get(field, value) != value for field, value in decided.items()):
        return None
    if not options.keys() <= field_names(dialect.family):
        return None
    known = {**decided, **read, **options}
    undecided = {
        field: tuple(value for value in values if value in dialect.choices.get(field, values))
        for field, values in open_fields.items()
        if field not in known
    }
    if known.get("dropout") == 0:
        for field in ("dropout_before", "dropout_after"):
            undecided.pop(field, None)
    # Any of the values will do: none of them leaves a trace in keys or shapes.
    placeholders = {field: values[0] for field, values in undecided.items() if values}
    try:
        config = dialect.family(**(placeholders | known))
    except ValueError:
        return None
    held = _hold(shapes, dialect, config)
    return dataclasses.replace(held, undecided=undecided)


def _hold(shapes: Shapes, dialect: Dialect, config: Config) -> Match:
    """Compare a state dict's keys and shapes with those of a network in a dialect."""
    expected = upstream_shapes(dialect, config)
    return Match(
        dialect=dialect,
        config=config,
        contradicted=dialect.contradictions(config, look_alikes=True),
        missing=tuple(
            f"{key} {shape}"
            for key, shape in expected.items()
            if key not in shapes and not key.endswith(BATCHES_TRACKED)
        ),
        unexpected=tuple(key for key in shapes if key not in expected),
        wrong=tuple(
            f"{key} {shapes[key]} instead of {shape}"
            for key, shape in expected.items()
            if key in shapes and shapes[key] != shape
        ),
    )


def upstream_shapes(dialect: Dialect, config: Config) -> dict[str, tuple[int, ...]]:
    """PyTorch shape of every tensor of a network by upstream's key, in the network's order."""
    return {
        dialect.to_upstream(entry.key): entry.shape
        for entry in layout(config)
        if dialect.counts_batches or not entry.key.endswith(BATCHES_TRACKED)
    }


def _problems(found: Match) -> int:
    # A key that is no classifier's in some dialect must not pass for a network without one.
    return found.problems + (3 if found.problems and not found.config.num_classes else 0)


def _closest(found: Match) -> str:
    names = named_networks(found.config)
    network = names[0] if names else type(found.config).__name__.removesuffix("Config")
    return f"{network} in the names of {found.dialect.source}"


def named_networks(
    config: Config, undecided: Mapping[str, tuple[Any, ...]] | None = None
) -> list[str]:
    """Named networks with this config, if what is undecided is decided as they have it."""
    undecided = undecided or {}

    def agrees(other: Config) -> bool:
        return isinstance(other, type(config)) and all(
            getattr(other, field) in (undecided[field] or (getattr(other, field),))
            if field in undecided
            else getattr(other, field) == getattr(config, field)
            for field in field_names(type(config)) - {"init"}
        )

    return [name for name, network in registry.NETWORKS.items() if agrees(network.config)]


def _function(config: Config) -> Config:
    """The config without what has no bearing on loaded weights, to be compared with others."""
    return dataclasses.replace(config, init="torch")


def _classes_hint(shapes: Shapes, found: Match) -> str:
    """What to do where nothing but the number of classes differs."""
    classifier = {"fc.weight", "fc.bias", "classifier.weight", "classifier.bias"}
    ours = {found.dialect.from_upstream(line.partition(" ")[0]) for line in found.wrong}
    if found.missing or found.unexpected or not found.wrong or not ours <= classifier:
        return ""
    key = found.wrong[0].partition(" ")[0]
    return (
        f"\nOnly the number of classes differs: pass num_classes={shapes[key][0]} to load all of "
        'it, or head="new" to keep everything but the classifier'
    )


def _settings(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{field}={value!r}" for field, value in fields.items())


def _undecided_message(fitting: list[Match]) -> str:
    lines = ["these weights do not tell all that their network computes. They fit"]
    names: dict[str, None] = {}
    for each in fitting:
        family = type(each.config).__name__.removesuffix("Config")
        lines.append(f"  a {family} in the names of {each.dialect.source}, where it is open")
        for field, values in each.undecided.items():
            choices = " or ".join(map(repr, values)) if values else "any rate from 0 up to 1"
            lines.append(f"    {field}: {choices}")
        names |= dict.fromkeys(named_networks(each.config, each.undecided))
    ways = ["arch=" + " or ".join(map(repr, names))] if names else []
    assumed = dict.fromkeys(each.dialect.name for each in fitting if each.dialect.assumed)
    ways.extend(f"dialect={name!r} if the file comes from that code" for name in assumed)
    return "\n".join([*lines, "Pass " + "; or ".join([*ways, "what is open, by its name"])])
