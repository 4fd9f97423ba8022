"""Which pictures a network takes, and what shape comes out of each of its stages.

Nothing is computed: Flax is traced and PyTorch runs on its ``meta`` device. That the numbers agree
at odd sizes too is shown by small networks.

A shape does not depend on how often a stage repeats its block, nor on the width of a WRN or the
growth rate of a DenseNet. Networks that differ in these alone, or in number of classes,
initialisation or dropout, share a *form*, which stands for all of them.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx
from torch import nn

import flaxnets
import torchref
from flaxnets import registry
from flaxnets.layers import shapes_only
from flaxnets.registry import Config
from parity.cases import find_case
from parity.checks import check_pair
from parity.comparison import MODES, Comparison, Mode
from parity.execution import quick_compilation
from parity.pairs import make_pair
from parity.standalone.compiled import COMPILED_CHECKS, CompiledPair
from parity.standalone.findings import Recorder, in_short
from torchref.registry import TORCHVISION

CHECK = "shapes"
# Height and width; in the small ones some networks run out of pixels, or of values a channel.
SMALL = ((4, 4), (8, 8), (32, 32))
SIZES = ((40, 24), (33, 47))
IMAGENET_SIZES = ((224, 224), (97, 161))
BATCHES_OF_SMALL = {"train": (1, 2), "eval": (1,)}
BATCHES = {"train": (2,), "eval": (7,)}

QUICK = ("resnet20", "resnet50", "preact_resnet110", "densenet_bc_40_12", "wrn_10_1")
# Its average pooling refuses maps that can't be halved.
OPTION = "resnet, avg_pool_pad"
COMPUTED = (
    "preact basic, late stride",
    "resnet, zero_pad_both",
    "densenet, compression 0.7",
    "wrn, raw projection",
    "bottleneck, ImageNet stem",
    "densenet, ImageNet stem",
)
COMPUTED_SIZE = (33, 47)

Outcome = dict[str, tuple[int, ...]] | str


@dataclasses.dataclass(frozen=True)
class Form:
    """Networks whose shapes are the same function of the pictures'.

    Attributes:
        config: of the smallest of them.
        names: the named networks, or the option case, that it stands for.
    """

    config: Config
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        """The first network's name and how many more there are."""
        first, *others = self.names
        return f"{first} and {len(others)} like it" if others else first

    def make_torch(self, device: str) -> nn.Module:
        """The PyTorch twin; its values mean nothing."""
        name = find_case(self.names[0]).arch
        named = flaxnets.get_config(name)
        overrides = {
            field.name: getattr(self.config, field.name)
            for field in dataclasses.fields(self.config)
            if getattr(self.config, field.name) != getattr(named, field.name)
        }
        with torch.device("meta"):
            module = torchref.create(name, **overrides)
        return module.to_empty(device=device)


def check_shapes(seed: int, quick: bool) -> Iterator[Comparison]:
    """Compare the shapes that both sides give, and what they refuse.

    Args:
        seed: of the weights and pictures of the small networks that are computed.
        quick: fewer networks.
    """
    for form in forms():
        if not quick or set(QUICK) & {*form.names}:
            yield from compare_form(form)
    if not quick:
        yield from torchvision_networks()
    for name in COMPUTED[: 1 if quick else None]:
        yield from computed(name, seed)


def computed(name: str, seed: int) -> list[Comparison]:
    """Compare the numbers of a small network at an odd size."""
    height, width = COMPUTED_SIZE
    case = dataclasses.replace(find_case(name), height=height, width=width)
    pair = dataclasses.replace(make_pair(case, seed=seed), name=f"{name}, {height}x{width}")
    with quick_compilation():
        compiled = CompiledPair(**vars(pair))
        groups = [*check_pair(compiled, dtypes=("float64",), checks=COMPILED_CHECKS)]
    return in_short(CHECK, (comparison for group in groups for comparison in group))


def forms() -> list[Form]:
    """The forms of all named networks and of ``OPTION``."""
    names: dict[Config, list[str]] = {}
    for name in [*flaxnets.list_models(), OPTION]:
        case = find_case(name)
        config = flaxnets.get_config(case.arch, **case.overrides)
        names.setdefault(smallest(config), []).append(name)
    return [Form(config, tuple(named)) for config, named in names.items()]


def smallest(config: Config) -> Config:
    """The smallest network of the same form: at most two blocks, or dense layers, a stage."""
    changes: dict[str, Any] = {"num_classes": 10, "init": "torch"}
    match config:
        case flaxnets.WideResNetConfig():
            depth = 16 if config.block == "basic" else 22
            changes |= {"depth": min(depth, config.depth), "widen_factor": 1, "dropout": 0.0}
        case flaxnets.DenseNetConfig():
            sizes = tuple(min(2, size) for size in config.block_sizes)
            changes |= {"block_sizes": sizes, "growth_rate": 12, "stem_width": 24, "dropout": 0.0}
        case flaxnets.ResNetConfig():
            sizes = tuple(min(2, size) for size in config.stage_sizes)
            changes |= {"stage_sizes": sizes, "dropout": 0.0}
        case flaxnets.PreActResNetConfig():
            changes |= {"stage_sizes": tuple(min(2, size) for size in config.stage_sizes)}
    return dataclasses.replace(config, **changes)


def compare_form(form: Form) -> Iterator[Comparison]:
    """One record for each shape of a batch, and where the map is small for PyTorch's devices."""
    meta, cpu = form.make_torch("meta"), form.make_torch("cpu")
    large = SIZES + (IMAGENET_SIZES if has_imagenet_stem(form.config) else ())
    for mode in MODES:
        trace = make_trace(form.config, mode)
        for height, width in SMALL + large:
            small = (height, width) in SMALL
            for batch in (BATCHES_OF_SMALL if small else BATCHES)[mode]:
                shape = (batch, height, width, 3)
                theirs = torch_outcome(meta, shape, mode)
                yield compare_outcomes(form.title, mode, shape, trace(shape), theirs)
                if small:
                    computed = torch_outcome(cpu, shape, mode)
                    same = (
                        "refuses" if isinstance(outcome, str) else outcome
                        for outcome in (computed, theirs)
                    )
                    yield Recorder(CHECK, form.title, mode=mode).fact(
                        f"{_written(shape)}: PyTorch without computing, and computing",
                        len({str(outcome) for outcome in same}) == 1,
                        f"{theirs}; {computed}",
                    )


def torchvision_networks() -> Iterator[Comparison]:
    """torchvision's own modules as they are, which the forms' twins are not."""
    for name in sorted(TORCHVISION):
        trace = make_trace(flaxnets.get_config(name), "eval")
        with torch.device("meta"):
            module = torchref.create(name)
        shape = (2, *IMAGENET_SIZES[-1], 3)
        theirs = torch_outcome(module, shape, "eval")
        yield compare_outcomes(f"torchvision's {name}", "eval", shape, trace(shape), theirs)


def has_imagenet_stem(config: Config) -> bool:
    """Whether the network's stem shrinks the picture by 4."""
    return getattr(config, "stem", "cifar") == "imagenet"


def make_trace(config: Config, mode: Mode) -> Any:
    """A function from the shape of a batch to the shapes of stages and logits, or to the refusal's
    message.
    """
    with shapes_only():
        model: Any = registry.build(config, rngs=nnx.Rngs(0))
    (model.train if mode == "train" else model.eval)()
    graphdef, state = nnx.split(model)

    def features(state: Any, images: jax.Array) -> dict[str, jax.Array]:
        return nnx.merge(graphdef, state, copy=True).features(images)

    def outcome(shape: tuple[int, ...]) -> Outcome:
        try:
            shapes = jax.eval_shape(features, state, jax.ShapeDtypeStruct(shape, jnp.float32))
        except ValueError as error:
            return str(error)
        except TypeError as error:
            # Maps that don't fit together are no refusal: no outcome of PyTorch's is the same.
            return {str(error).partition("\n")[0]: ()}
        return {name: value.shape for name, value in shapes.items() if reported(name)}

    return outcome


def reported(name: str) -> bool:
    """Whether PyTorch has a module whose output that is."""
    return name.startswith("stage") or name == "logits"


def torch_outcome(module: nn.Module, shape: tuple[int, ...], mode: Mode) -> Outcome:
    """The same of a PyTorch network, on its parameters' device."""
    batch, height, width, channels = shape
    device = next(module.parameters()).device
    outputs: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            outputs[name] = tuple(output.movedim(1, -1).shape)

        return hook

    stages = [child for child, _ in module.named_children() if child[:-1] in STAGES]
    hooks = [
        getattr(module, child).register_forward_hook(keep(f"stage{child[-1]}")) for child in stages
    ]
    module.train(mode == "train")
    try:
        with torch.no_grad():
            images = torch.zeros((batch, channels, height, width), device=device)
            outputs["logits"] = tuple(module(images).shape)
    except (ValueError, RuntimeError) as error:
        return str(error)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


STAGES = ("layer", "denseblock")


def compare_outcomes(
    name: str, mode: Mode, shape: tuple[int, ...], ours: Outcome, theirs: Outcome
) -> Comparison:
    """A record: the same shapes, or a refusal on both sides and a message on ours."""
    if isinstance(ours, str) and isinstance(theirs, str):
        agree, note = bool(ours.strip()), f"both refuse: {ours}"
    elif isinstance(ours, str) or isinstance(theirs, str):
        agree, note = False, f"Flax: {ours}; PyTorch: {theirs}"
    else:
        agree = ours == theirs
        note = f"stages {ours}" if agree else f"Flax: {ours}; PyTorch: {theirs}"
    return Recorder(CHECK, name, mode=mode).fact(_written(shape), agree, note)


def _written(shape: tuple[int, ...]) -> str:
    batch, height, width, _ = shape
    return f"{batch} of {height}x{width}"
