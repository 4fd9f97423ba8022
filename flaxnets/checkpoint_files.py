"""Reading and writing PyTorch checkpoints: ``.pth``, ``.pt``, ``.th``, ``.pt7`` and
``.safetensors``.

Nothing in a file is ever executed: ``torch.load`` runs with ``weights_only=True``, and what that
refuses is refused here.
"""

import importlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from flaxnets.dialects import BATCHES_TRACKED
from flaxnets.matching import CheckpointError

StateDict = Mapping[str, Any]  # PyTorch key -> torch tensor or NumPy array

# What training code wraps a state dict in, and what wrappers of modules put before every key.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")
PREFIXES = ("module.", "_orig_mod.")
MOST_WRAPPERS = 4  # one inside another

FLOATS = tuple(np.dtype(name) for name in ("float16", jnp.bfloat16, "float32", "float64"))

_NO_MODULE = (
    "it holds something else than tensors, probably a whole pickled module, which runs code when "
    "it is read. Where you trust it, turn it into a state dict with\n"
    "    checkpoint = torch.load({path!r}, map_location='cpu', weights_only=False)\n"
    "    torch.save(checkpoint['net'].state_dict(), 'weights.pth')"
    "  # or checkpoint.state_dict(), if that is the module itself"
)


def read_state_dict(source: StateDict | str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """A state dict as NumPy arrays, from a file or from memory, without its wrapping.

    Args:
        source: a state dict of torch tensors or NumPy arrays, or the path of a file. Wrappings are
            peeled: ``{"state_dict": ...}`` and its like, and "module." or "_orig_mod." before every
            key.

    Returns:
        Arrays of float16, bfloat16, float32, float64, or a whole number for
        ``num_batches_tracked``; they may share memory with ``source``.

    Raises:
        CheckpointError: the file can't be read, or holds something else than a state dict.
        FileNotFoundError: there is no such file.
        ImportError: the package that reads it is not installed.
    """
    if isinstance(source, Mapping):
        return _arrays(_peel(source))
    if not isinstance(source, str | os.PathLike):
        hint = "; pass its state_dict()" if hasattr(source, "state_dict") else ""
        raise CheckpointError(
            f"a checkpoint is a state dict or a path, not a {type(source).__name__}{hint}"
        )
    path = Path(source)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a checkpoint file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint file at {path}")
    try:
        return _arrays(_peel(_read(path)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as opened:
        head = opened.read(64)
    _check_head(path, head)
    if path.suffix == ".safetensors":
        safetensors = import_reader("safetensors", "safetensors", path)
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except Exception as error:  # whatever the reader raises, the person needs one message
            raise CheckpointError(_unreadable(error)) from error
    torch = import_reader("torch", "torch", path)
    zipped = head.startswith(b"PK")
    if zipped:
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about details of the file that only torch can change
            # A mapped file is read where it is used, and once.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise CheckpointError(_NO_MODULE.format(path=str(path))) from error
        raise CheckpointError(_unreadable(error)) from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        article = "an" if kind[0] in "aeiou" else "a"
        raise CheckpointError(f"it holds {article} {kind}, not a state dict")
    return content


def _unreadable(error: Exception) -> str:
    return (
        f"it could not be read ({type(error).__name__}); it is cut short, damaged, or another kind "
        "of file. Download or save it again"
    )


def _check_head(path: Path, head: bytes) -> None:
    """Refuse what is plainly no checkpoint, by its first bytes."""
    start = head.lstrip().lower()
    if not head:
        raise CheckpointError("the file is empty; download or save it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError("it is a web page, not weights; download the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError("it is a Git LFS pointer, not weights; run git lfs pull")
    safe = head[8:9] == b"{"  # behind the header's length
    if path.suffix == ".safetensors" and not safe and head.startswith((b"PK", b"\x80")):
        raise CheckpointError("it is a PyTorch file named .safetensors; rename it to .pth")
    if path.suffix != ".safetensors" and safe and not head.startswith(b"PK"):
        raise CheckpointError("it is a safetensors file; rename it to .safetensors")


def _check_archive(path: Path) -> None:
    """Refuse an archive that would unpack to more than it is: torch stores, it never compresses."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(_unreadable(error)) from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise CheckpointError(
                f"its archive declares {sum(each.file_size for each in entries):,} bytes, the file "
                f"has {size:,}; PyTorch never compresses, so this is no file of torch.save"
            )


def _peel(content: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(MOST_WRAPPERS):
        inside = {name: content[name] for name in WRAPPERS if name in content}
        modules = [name for name, value in inside.items() if hasattr(value, "state_dict")]
        if modules:
            raise CheckpointError(
                f"{modules[0]!r} holds a module; pass its state dict, "
                f"checkpoint[{modules[0]!r}].state_dict()"
            )
        inside = {name: value for name, value in inside.items() if isinstance(value, Mapping)}
        if not inside:
            break
        if len(inside) > 1:
            raise CheckpointError(
                f"it holds several state dicts, {', '.join(inside)}; pass the one you mean"
            )
        (content,) = inside.values()
    if not content:
        raise CheckpointError("it holds an empty state dict")
    unnamed = [key for key in content if not isinstance(key, str)]
    if unnamed:
        raise CheckpointError(f"a state dict's keys are names, found {unnamed[0]!r}")
    while any(all(key.startswith(prefix) for key in content) for prefix in PREFIXES):
        content = {key.partition(".")[2]: value for key, value in content.items()}
    return content


def _arrays(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays, problems = {}, []
    for key, value in content.items():
        array = _to_numpy(value)
        counts = key.endswith(BATCHES_TRACKED)
        if array is None or not (array.dtype.kind in "iu" if counts else array.dtype in FLOATS):
            found = type(value).__name__ if array is None else f"{array.dtype} array"
            problems.append(f"{key}: {found}")
        else:
            arrays[key] = array
    if problems:
        raise CheckpointError(
            f"{len(problems)} of {len(content)} entries are no weights (floating-point tensors):"
            + "".join(f"\n  {problem}" for problem in problems)
        )
    return arrays


def _to_numpy(value: Any) -> np.ndarray | None:
    """A dense torch tensor or an array as a NumPy array, without a copy where that can be."""
    if isinstance(value, np.ndarray | np.generic | int) and not isinstance(value, bool):
        return np.asarray(value)
    if hasattr(value, "detach"):
        try:
            value = value.detach().cpu()
            if str(value.dtype) == "torch.bfloat16":  # which torch can't give to NumPy
                return value.float().numpy().astype(jnp.bfloat16)
            return value.numpy()
        except (TypeError, RuntimeError):  # sparse or quantized
            return None
    if hasattr(value, "__array__"):
        return np.asarray(value)
    return None


def write_state_dict(arrays: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write a state dict to ``.safetensors``, or to a file of ``torch.save``; whole or not at all.

    Args:
        arrays: by key.
        path: its suffix decides: .safetensors, or .pth, .pt, .th.

    Raises:
        ValueError: another suffix.
        OSError: it can't be written; where there is no such folder, a FileNotFoundError.
        ImportError: the package that writes it is not installed.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth", ".pt", ".th"):
        raise ValueError(f"{path} should end in .safetensors, .pth, .pt or .th")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.absolute().parent} to write to")
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        if path.suffix == ".safetensors":
            safetensors = import_reader("safetensors.numpy", "safetensors", path)
            safetensors.save_file(dict(arrays), name)
        else:
            torch = import_reader("torch", "torch", path)
            torch.save({key: _to_tensor(torch, array) for key, array in arrays.items()}, name)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except (OSError, ImportError):
        raise
    except Exception as error:  # the libraries' own, for a full disk
        raise OSError(f"{path} could not be written ({error})") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _to_tensor(torch: Any, array: np.ndarray) -> Any:
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def import_reader(module: str, package: str, file: str | os.PathLike[str]) -> Any:
    """A module that reads or writes ``file``, or an ``ImportError`` that says how to install it.

    The one place where this package reaches for what it does not require.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        other = "; .safetensors files need no torch" if package == "torch" else ""
        raise ImportError(f"{file} needs {package}: pip install {package}{other}") from error
