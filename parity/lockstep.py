"""Both frameworks train the same network on the same batches, step by step.

    python -m parity.lockstep --arch resnet20 --data-dir data --steps 100 --plot curves.png

The Flax side is the step that ``python -m train.cifar`` runs, with its recipe, its order of
pictures, its crops and its flips; the PyTorch side is the twin with ``torch.optim.SGD`` on those
very batches, from the same initial weights. In float64 the trajectories agree to rounding for as
long as one looks; in float32 rounding errors grow with every step, in both frameworks alike.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from matplotlib.figure import Figure
from rich.progress import track

import flaxnets
import torchref
from train import datasets, loop, recipes
from train.engine import steps_per_epoch
from train.optimizer import sgd
from train.step import Batches, Preprocessing, make_train_step, split


class Lockstep(NamedTuple):
    """What the two frameworks did.

    Attributes:
        flax_loss: (steps,), the loss before each update.
        torch_loss: (steps,), of the twin.
        distance: (steps,), the largest difference of any parameter after each update, over that
            parameter's largest magnitude.
    """

    flax_loss: np.ndarray
    torch_loss: np.ndarray
    distance: np.ndarray


def run(
    config: recipes.Config, dataset: datasets.Dataset, steps: int, *, dtype: str = "float32"
) -> Lockstep:
    """Make ``steps`` updates in both frameworks, from the same weights, on the same batches.

    Args:
        config: as of ``python -m train.cifar``; the network must have no dropout.
        dataset: the pictures.
        steps: number of updates.
        dtype: "float32", or "float64" (needs ``jax_enable_x64``).
    """
    length = steps_per_epoch(config, dataset)
    rates = config.learning_rates(length)
    optimizer = sgd(
        rates,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
    initial = flaxnets.to_torch(loop.build_network(config, dataset))
    model = flaxnets.load_torch(
        initial,
        config.arch,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(dtype),
        num_classes=dataset.num_classes,
        dropout=0.0,
    )
    graph, _, state = split(model, optimizer)
    flax_step = jax.jit(make_train_step(graph, optimizer), donate_argnums=0)

    twin = torchref.create(config.arch, num_classes=dataset.num_classes, dropout=0.0).to(
        getattr(torch, dtype)
    )
    twin.load_state_dict({key: torch.from_numpy(value) for key, value in initial.items()})
    torch_sgd = torch.optim.SGD(
        twin.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )

    flax_loss, torch_loss, distance = [], [], []
    batches = augmented_batches(config, dataset, steps, jnp.dtype(dtype))
    for step, (images, labels) in enumerate(track(batches, "steps", total=steps)):
        state, metrics = flax_step(state, images, labels)
        flax_loss.append(float(metrics["loss"]))
        for group in torch_sgd.param_groups:
            group["lr"] = float(rates(step))
        logits = twin(torch.from_numpy(np.moveaxis(np.asarray(images), -1, 1).copy()))
        targets = torch.from_numpy(np.asarray(labels, np.int64))
        loss = torch.nn.functional.cross_entropy(logits, targets)
        torch_sgd.zero_grad()
        loss.backward()
        torch_sgd.step()
        torch_loss.append(loss.item())
        distance.append(_distance(nnx.merge(graph, state.params, state.model_state), twin))
    return Lockstep(np.array(flax_loss), np.array(torch_loss), np.array(distance))


def augmented_batches(
    config: recipes.Config, dataset: datasets.Dataset, steps: int, dtype: np.dtype
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """The normalised pictures (N, H, W, 3) and labels (N,) that training sees, step by step."""
    key = jax.random.key(config.seed)
    preprocessing = Preprocessing.of(dataset, dtype)
    batches = Batches(preprocessing, config.batch_size, steps_per_epoch(config, dataset))

    @jax.jit
    def batch(step: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        indices = batches.indices(batches.order(key, step, len(labels)), step)
        return batches.inputs(key, step, images[indices]), labels[indices]

    pictures = jax.device_put((dataset.train_images, dataset.train_labels))
    for step in range(steps):
        yield batch(jnp.int32(step), *pictures)


def draw(result: Lockstep, title: str, file: Path) -> None:
    """Both loss curves in one panel, the distance of the parameters in another, as a PNG."""
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    losses, distances = figure.subplots(1, 2)
    steps = np.arange(1, len(result.flax_loss) + 1)
    losses.plot(steps, result.torch_loss, color="#d95f02", linewidth=3, label="PyTorch")
    losses.plot(steps, result.flax_loss, color="#1b1b3a", linewidth=1, label="Flax")
    losses.set(xlabel="step", ylabel="cross-entropy before the update")
    losses.legend(frameon=False)
    distances.plot(steps, result.distance, color="#1b1b3a")
    distances.set(
        xlabel="step", ylabel="largest difference of a parameter,\nrelative to its magnitude"
    )
    distances.set_yscale("log")
    for axes in (losses, distances):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    temporary = file.with_name(f".{file.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(file)


def main(command: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m parity.lockstep", description="Train in both frameworks, step by step."
    )
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir", type=Path, default=datasets.DEFAULT_DATA_DIR)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--plot", type=Path, help="PNG of the curves")
    arguments = parser.parse_args(command)
    try:
        config = recipes.resolve(
            arguments.arch,
            arguments.dataset,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
            dropout=0.0,
        )
        dataset = datasets.load(arguments.dataset, arguments.data_dir)
        with jax.enable_x64(arguments.dtype == "float64"):
            result = run(config, dataset, arguments.steps, dtype=arguments.dtype)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    gap = np.abs(result.flax_loss - result.torch_loss)
    print(f"{config.arch} on {config.dataset}, {arguments.dtype}, batch {config.batch_size}")
    print(f"{'step':>6}{'Flax loss':>14}{'PyTorch loss':>14}{'gap':>11}{'parameters':>12}")
    for step in sorted({0, 1, 4, 9, 19, 49, 99, arguments.steps - 1}):
        if step < arguments.steps:
            print(
                f"{step + 1:>6}{result.flax_loss[step]:>14.6f}{result.torch_loss[step]:>14.6f}"
                f"{gap[step]:>11.1e}{result.distance[step]:>12.1e}"
            )
    if arguments.plot is not None:
        title = f"{config.arch} on {config.dataset}, the same batches in {arguments.dtype}"
        draw(result, title, arguments.plot)
    return 0


def _distance(model: nnx.Module, twin: torch.nn.Module) -> float:
    ours = flaxnets.to_torch(model)
    return max(
        float(np.max(np.abs(ours[key] - value)) / np.max(np.abs(value)))
        for key, value in ((k, p.detach().numpy()) for k, p in twin.named_parameters())
    )


if __name__ == "__main__":
    sys.exit(main())
