"""Train a ResNet, DenseNet or WRN.

    python -m train.cifar --arch densenet                    CIFAR-10, the published recipe
    python -m train.cifar --arch densenet --dataset digits   minutes on a laptop, no download
    python -m train.cifar --resume --out runs/NAME           go on with a run that was stopped

Every default is that of the network's published recipe on the data set. The run's folder holds
config.json, metrics.jsonl, curves.png and the last and the best checkpoint.
"""

import argparse
import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

import flaxnets
from train import datasets, devices, loop, recipes
from train.run_folder import RunFolder
from train.trainer import Trainer

_DEFAULT_DATASET = "cifar10"
_EXAMPLE = "densenet"


def _shown(metavar: str, default: str) -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"({default})")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The command line.

    Attributes:
        arch: resnet (ResNet-32), densenet (DenseNet-BC-100-12), wrn (WRN-28-10), or the name of any
            network, such as resnet20, densenet_bc_40_12 or wrn_16_4.
        dataset: cifar10, cifar100 or digits (scikit-learn's handwritten digits at 16x16).
        data_dir: folder with the CIFAR files, which are downloaded there if they are missing.
        epochs: passes over the training pictures.
        batch_size: pictures in an update, over all devices.
        learning_rate: the highest learning rate.
        schedule: how the learning rate falls: times --decay-factor at each of the --milestones,
            along a cosine to 0 with every update, or not at all.
        milestones: epochs, counted from 0, that begin with a multiplied learning rate.
        decay_factor: what a milestone multiplies the learning rate by.
        warmup_epochs: epochs in which the learning rate rises linearly at first.
        momentum: of SGD.
        nesterov: Nesterov's momentum.
        weight_decay: of all parameters, as in torch.optim.SGD.
        dropout: the network's dropout rate.
        seed: of the initial parameters, the order of the pictures, crops, flips and dropout.
        dtype: what the network computes in; parameters and batch statistics are float32.
        steps_per_dispatch: updates that run without the host; the end of each is a chance to stop.
        checkpoint_every: save after so many steps too, at the next end of a dispatch.
        out: the run's folder.
        resume: go on with the run in --out, with its own settings.
    """

    arch: Annotated[str, _shown("NAME", "required")]
    dataset: Annotated[str, tyro.conf.arg(metavar="NAME")]
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: Literal["step", "cosine", "constant"]
    decay_factor: float
    warmup_epochs: float
    momentum: float
    nesterov: bool
    weight_decay: float
    milestones: Annotated[
        tuple[int, ...] | None, _shown("EPOCH ...", "default: the recipe's, rescaled to --epochs")
    ] = None
    dropout: Annotated[float | None, _shown("FLOAT", "default: the network's own")] = None
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    steps_per_dispatch: Annotated[int | None, _shown("INT", "default: chosen for the device")] = (
        None
    )
    checkpoint_every: Annotated[int | None, _shown("INT", "default: once an epoch")] = None
    data_dir: Path = Path("data")
    out: Annotated[Path | None, _shown("PATH", "default: runs/DATE-TIME-ARCH-DATASET")] = None
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


_CONFIG_FIELDS = [field.name for field in dataclasses.fields(recipes.Config)]


def main(command: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    command = sys.argv[1:] if command is None else command
    with contextlib.ExitStack() as stack:
        try:
            trainer = stack.enter_context(_prepared(command))
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        try:
            return trainer.run()
        except KeyboardInterrupt:
            print(
                "\nStopped at once. Go on from the last checkpoint with\n"
                f"  python -m train.cifar --resume --out {shlex.quote(str(trainer.folder.path))}"
            )
            return 130
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(f"error: out of memory; try a smaller --batch-size\n{error}", file=sys.stderr)
            return 1


def _prepared(command: Sequence[str]) -> contextlib.AbstractContextManager[Trainer]:
    """Understand the command, load the data and make the network.

    Raises:
        ValueError: flags that can't be, or a run, checkpoint or data that can't be understood.
        OSError: files that aren't there, or that are and shouldn't.
    """
    chosen = _choose(command)
    if chosen.resume:
        if chosen.out is None:
            raise ValueError("--resume needs the run's folder: --out DIR")
        folder = RunFolder.open(chosen.out)
        config = folder.config
        settings = dataclasses.asdict(config)
        defaults = Arguments(**settings, data_dir=folder.data_dir, out=chosen.out)
        arguments = _parse(command, defaults, f"the settings of the run in {chosen.out}")
        _refuse_contradictions(arguments, config)
    else:
        recipe = recipes.find(chosen.arch, chosen.dataset)
        defaults = Arguments(chosen.arch, chosen.dataset, **recipe.settings())
        text = f"the recipe of {chosen.arch} on {chosen.dataset} ({recipe.source})"
        arguments = _parse(command, defaults, text)
        given = {name: getattr(arguments, name) for name in _CONFIG_FIELDS}
        config = recipes.resolve(**given)
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    out = arguments.out or Path("runs") / f"{now}-{config.arch}-{config.dataset}"
    dataset = datasets.load(config.dataset, arguments.data_dir)
    devices.use_cores(config.batch_size)
    return loop.prepare(config, dataset, out, resume=arguments.resume, data_dir=arguments.data_dir)


def _choose(command: Sequence[str]) -> argparse.Namespace:
    """Read the flags that decide what the other flags' defaults are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--arch")
    parser.add_argument("--dataset", default=_DEFAULT_DATASET)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", action="store_true")
    chosen, others = parser.parse_known_args(command)
    if not chosen.resume:
        if chosen.arch is None and {"-h", "--help"} & set(others):
            chosen.arch = _EXAMPLE
        if chosen.arch is None:
            raise ValueError(
                "--arch is missing: resnet, densenet, wrn or the name of a network; see --help"
            )
        chosen.arch = flaxnets.canonical_name(chosen.arch)
    return chosen


def _parse(command: Sequence[str], defaults: Arguments, what: str) -> Arguments:
    """Read all flags; on a mistake or --help, exit with a message."""
    description = f"{__doc__}\nThe defaults below are {what}."
    return tyro.cli(
        Arguments,
        prog="python -m train.cifar",
        description=description,
        args=command,
        default=defaults,
        config=(tyro.conf.HelptextFromCommentsOff,),
    )


def _refuse_contradictions(arguments: Arguments, config: recipes.Config) -> None:
    """Check that no flag says other than the run that is to be resumed.

    Raises:
        ValueError: some do; the message names them.
    """
    asked = dataclasses.asdict(arguments) | {"arch": flaxnets.canonical_name(arguments.arch)}
    wrong = [
        f"--{name.replace('_', '-')} {asked[name]} (the run has {value})"
        for name, value in dataclasses.asdict(config).items()
        if asked[name] != value
    ]
    if wrong:
        raise ValueError(
            f"a run goes on with its own settings, which these flags contradict: {', '.join(wrong)}"
        )
