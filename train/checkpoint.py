"""Checkpoints on disk: complete ones only, each a named set of arrays with the run's progress.

A checkpoint is written under a temporary name, renamed when it is complete, and only then is the
one before it deleted, so that a crash at any moment leaves one that can be loaded.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from train.step import TrainState

# Orbax reports every file that it opens, through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)

_SHOWN = 6


class Restored(NamedTuple):
    """A checkpoint read back: the state, and what was saved beside it."""

    state: TrainState
    progress: dict[str, Any]


class Checkpoints:
    """The newest checkpoint of a folder, in a subfolder named by its step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
            ),
        )

    @property
    def step(self) -> int | None:
        """The newest complete checkpoint's step, or None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Mapping[str, Any]) -> None:
        """Save a state, and JSON-able ``progress`` beside it, under the state's step.

        A step that is already there is left as it is: it holds the same numbers.

        Raises:
            OSError: it couldn't be written; the checkpoint before it is still there.
        """
        step = int(state.step)
        if step == self.step:
            return
        arrays = _named_arrays(state)
        manifest = {"arrays": _shapes(arrays), "progress": dict(progress)}
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(arrays), manifest=ocp.args.JsonSave(manifest)
                ),
                force=True,
            )
        except Exception as error:
            raise OSError(f"cannot write a checkpoint to {self.folder}: {error}") from error

    def restore(self, like: TrainState) -> Restored:
        """Read the newest checkpoint into arrays of the shapes and shardings of ``like``.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: it is of another network, or unreadable; the message lists what differs.
        """
        step = self.step
        if step is None:
            raise FileNotFoundError(f"no checkpoint in {self.folder}")
        where = self.folder / str(step)
        arrays = _named_arrays(like)
        try:
            read = self._manager.restore(
                step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore())
            )
            manifest = read["manifest"]
            differences = _differences(manifest["arrays"], _shapes(arrays))
            if not differences:
                abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays)
                read = self._manager.restore(
                    step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
                )
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"cannot read the checkpoint {where}: {reason}") from error
        if differences:
            lines = "\n  ".join(differences)
            raise ValueError(f"the checkpoint {where} is of another network:\n  {lines}")
        leaves = [read["state"][name] for name in arrays]
        state = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return Restored(state, manifest["progress"])

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


def _named_arrays(state: TrainState) -> dict[str, jax.Array]:
    """Name every array by its path, as in ``params/layer1/0/conv1/kernel``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value"): leaf
        for path, leaf in leaves
    }


def _shapes(arrays: Mapping[str, jax.Array]) -> dict[str, str]:
    return {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}


def _differences(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Describe the arrays that are missing, unexpected or wrongly shaped, a few of each."""
    groups = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape or dtype": [
            f"{name} is {found[name]}, expected {expected[name]}"
            for name in expected
            if name in found and found[name] != expected[name]
        ],
    }
    lines = []
    for title, names in groups.items():
        shown = names[:_SHOWN] + (["..."] if len(names) > _SHOWN else [])
        if names:
            lines.append(f"{len(names)} {title}: {', '.join(shown)}")
    return lines
