"""CIFAR-10, CIFAR-100 and scikit-learn's digits as arrays in memory."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

DEFAULT_DATA_DIR = Path("data")

_PIXELS = 3 * 32 * 32


class DataError(ValueError):
    """A data set that is unknown, missing, damaged or not what its layout promises."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels of one classification task, and the augmentation that suits it.

    Attributes:
        name: The name :func:`load` knows it by.
        train_images: uint8 (N, H, W, 3).
        train_labels: int32 (N,), from 0 to ``num_classes - 1``.
        test_images: uint8 (M, H, W, 3).
        test_labels: int32 (M,).
        mean: Channel means of the training images, in units where white is 1.
        std: Channel standard deviations over all training pixels, in the same units.
        num_classes: Number of classes.
        class_names: One name per class.
        flip: Whether a mirror image is still of its class.
        crop_padding: Border in pixels for random crops.
        notes: What a person should be told about the files, one sentence each.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    class_names: tuple[str, ...]
    flip: bool
    crop_padding: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layout:
    """One form in which a CIFAR data set is distributed.

    ``train`` and ``test`` map each file name to the digest of the official file. Digests of the
    binary files are those that torchvision for Ruby checks, of the Python files those that
    torchvision checks.
    """

    archive: str
    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    algorithm: str

    @property
    def digests(self) -> dict[str, str]:
        return {**self.train, **self.test}


@dataclass(frozen=True)
class _Cifar:
    """What tells CIFAR-10 and CIFAR-100 apart.

    ``url`` and ``sha256`` are of the binary version's archive, the one that is downloaded: unlike
    the Python version it holds no pickles. A binary record is ``label_bytes`` labels, of which the
    last one counts, and then the pixels as planes of red, green and blue.
    """

    name: str
    title: str
    url: str
    sha256: str
    binary: _Layout
    python: _Layout
    label_bytes: int
    label_key: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]


_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"

_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

# The standard deviations are over all pixels, as bamos and andreasveit have them. Many other
# codes use (0.2023, 0.1994, 0.2010), the mean over images of each image's own deviation.
_CIFAR10 = _Cifar(
    name="cifar10",
    title="CIFAR-10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    binary=_Layout(
        archive="cifar-10-binary.tar.gz",
        folder="cifar-10-batches-bin",
        train={
            "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        },
        test={
            "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        },
        algorithm="sha256",
    ),
    python=_Layout(
        archive="cifar-10-python.tar.gz",
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        algorithm="md5",
    ),
    label_bytes=1,
    label_key="labels",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    class_names=tuple(_CIFAR10_CLASSES.split()),
)

_CIFAR100 = _Cifar(
    name="cifar100",
    title="CIFAR-100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    binary=_Layout(
        archive="cifar-100-binary.tar.gz",
        folder="cifar-100-binary",
        train={"train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"},
        test={"test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"},
        algorithm="sha256",
    ),
    python=_Layout(
        archive="cifar-100-python.tar.gz",
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        algorithm="md5",
    ),
    label_bytes=2,
    label_key="fine_labels",
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    class_names=tuple(_CIFAR100_CLASSES.split()),
)


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    digits_size: int = 16,
    crop_padding: int | None = None,
) -> Dataset:
    """Load a data set by name: "cifar10", "cifar100" or "digits".

    CIFAR is taken from ``data_dir``, or from the folder in it that the official archive unpacks
    to, in the binary or the Python version; else from an official archive that lies there; else it
    is downloaded there. Files need the official layout but not the official content: what differs
    is said in ``notes``. The digits are scikit-learn's 1,797, in a fixed split.

    Args:
        name: Name of the data set.
        data_dir: Folder with the CIFAR files, ``data`` in the working directory if None.
        digits_size: Height and width of the digits in pixels, a multiple of 8.
        crop_padding: Border in pixels for random crops; None is 4 for CIFAR and one pixel of the
            original 8x8 picture for the digits.

    Returns:
        The data set.

    Raises:
        DataError: The name is unknown, an option makes no sense, or files are missing, damaged or
            can't be downloaded.
    """
    if name == "digits":
        dataset = _load_digits(digits_size)
    elif name in ("cifar10", "cifar100"):
        spec = _CIFAR10 if name == "cifar10" else _CIFAR100
        dataset = _load_cifar(spec, Path(data_dir or DEFAULT_DATA_DIR).expanduser())
    else:
        raise DataError(f"unknown data set {name!r}; known are cifar10, cifar100 and digits")
    if crop_padding is None:
        return dataset
    if crop_padding < 0:
        raise DataError(f"crop_padding must not be negative, got {crop_padding}")
    return dataclasses.replace(dataset, crop_padding=crop_padding)


def _load_digits(size: int) -> Dataset:
    # Imported late: scikit-learn takes a second, and CIFAR doesn't need it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if size < 8 or size % 8:
        raise DataError(f"digits are 8x8 pixels: the size must be a multiple of 8, got {size}")
    scale = size // 8
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    enlarged = grey.repeat(scale, axis=1).repeat(scale, axis=2)
    train_images, test_images, train_labels, test_labels = train_test_split(
        np.stack([enlarged] * 3, axis=-1),
        digits.target.astype(np.int32),
        test_size=0.2,
        random_state=0,
        stratify=digits.target,
    )
    return Dataset(
        name="digits",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        # Of the training split. Repeating pixels leaves them the same at every size.
        mean=(0.3054,) * 3,
        std=(0.3760,) * 3,
        num_classes=10,
        class_names=tuple("0123456789"),
        flip=False,
        crop_padding=scale,
    )


def _load_cifar(spec: _Cifar, data_dir: Path) -> Dataset:
    if data_dir.exists() and not data_dir.is_dir():
        raise DataError(f"{data_dir} is a file; name the folder that holds {spec.title}")
    found = _find(spec, data_dir)
    if found is None:
        _unpack_or_download(spec, data_dir)
        found = _find(spec, data_dir)
    assert found is not None
    layout, folder = found
    train, test = _read(spec, layout, folder, shown=folder)
    notes = []
    if not (train.official and test.official):
        notes.append(
            f"{folder} holds {len(train.labels):,} training and {len(test.labels):,} test images "
            f"that are not the official {spec.title} files (checksums differ): accuracies are not "
            "comparable with published ones"
        )
    return Dataset(
        name=spec.name,
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        mean=spec.mean,
        std=spec.std,
        num_classes=len(spec.class_names),
        class_names=spec.class_names,
        flip=True,
        crop_padding=4,
        notes=tuple(notes),
    )


def _find(spec: _Cifar, data_dir: Path) -> tuple[_Layout, Path] | None:
    """Find the folder with the files, complete or not; None where there is no trace of them."""
    candidates = [
        (layout, folder)
        for layout in (spec.binary, spec.python)
        for folder in (data_dir / layout.folder, data_dir)
    ]
    found = [
        (layout, folder)
        for layout, folder in candidates
        if any((folder / name).is_file() for name in layout.digests)
    ] or [
        (layout, folder) for layout, folder in candidates if folder != data_dir and folder.exists()
    ]
    if not found:
        return None
    layout, folder = found[0]
    missing = [name for name in layout.digests if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)} of {spec.title}; add what is missing, or name "
            "another folder to have all of it downloaded"
        )
    return layout, folder


class _Split(NamedTuple):
    images: np.ndarray
    labels: np.ndarray
    official: bool


def _read(spec: _Cifar, layout: _Layout, folder: Path, *, shown: Path) -> tuple[_Split, _Split]:
    """Read training and test split; errors name the files as members of ``shown``."""
    train, test = (
        _read_split(spec, layout, folder, digests, shown) for digests in (layout.train, layout.test)
    )
    return train, test


def _read_split(
    spec: _Cifar, layout: _Layout, folder: Path, digests: Mapping[str, str], shown: Path
) -> _Split:
    images, labels, official = [], [], True
    for name, digest in digests.items():
        path = shown / name
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise DataError(f"can't read {path}: {error.strerror}") from None
        if not content:
            raise DataError(f"{path} is empty; get {layout.archive} again")
        if content[:64].lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise DataError(f"{path} is a web page, not data; get {layout.archive} again")
        if layout is spec.binary:
            pixels, file_labels = _parse_binary(content, path, spec)
        else:
            pixels, file_labels = _parse_pickle(content, path, spec)
        classes = len(spec.class_names)
        wrong = np.flatnonzero((file_labels < 0) | (file_labels >= classes))
        if wrong.size:
            raise DataError(
                f"{path} is not {spec.title} or is damaged: image {wrong[0]} has the label "
                f"{file_labels[wrong[0]]}, expected 0 to {classes - 1}"
            )
        images.append(np.stack(np.split(pixels, 3, axis=1), axis=-1).reshape(-1, 32, 32, 3))
        labels.append(file_labels.astype(np.int32))
        found = hashlib.new(layout.algorithm, content, usedforsecurity=False).hexdigest()
        official = official and found == digest
    return _Split(np.concatenate(images), np.concatenate(labels), official)


def _parse_binary(content: bytes, path: Path, spec: _Cifar) -> tuple[np.ndarray, np.ndarray]:
    """Split the records into pixels (n, 3072) and labels (n,)."""
    record = spec.label_bytes + _PIXELS
    if len(content) % record:
        raise DataError(
            f"{path} is cut off or not {spec.title}: its {len(content):,} bytes are not a multiple "
            f"of {record:,}, the size of a record"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, spec.label_bytes :], records[:, spec.label_bytes - 1]


def _parse_pickle(content: bytes, path: Path, spec: _Cifar) -> tuple[np.ndarray, np.ndarray]:
    """Take pixels (n, 3072) and labels (n,) from a pickled dictionary."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # damaged pickles raise nearly anything
        reason = str(error) or type(error).__name__
        raise DataError(f"{path} is damaged or not {spec.title}: {reason}") from None
    if not isinstance(batch, dict):
        raise DataError(f"{path} is not {spec.title}: it holds no dictionary")
    entries = {key.decode("latin1") if isinstance(key, bytes) else key: batch[key] for key in batch}
    data, labels = entries.get("data"), entries.get(spec.label_key)
    if not isinstance(data, _PickledArray) or not isinstance(labels, list):
        raise DataError(
            f"{path} is not {spec.title}: expected an array 'data' and a list {spec.label_key!r}, "
            f"found {', '.join(map(repr, entries)) or 'nothing'}"
        )
    if not all(type(label) is int for label in labels):
        raise DataError(f"{path} is not {spec.title}: {spec.label_key!r} must be whole numbers")
    if data.pixels.shape != (len(labels), _PIXELS) or not labels:
        raise DataError(
            f"{path} is damaged or not {spec.title}: 'data' has the shape {data.pixels.shape}, "
            f"expected one row of {_PIXELS} for each of its {len(labels)} labels"
        )
    return data.pixels, np.array(labels)


class _PickledDtype:
    """Stands for ``numpy.dtype`` in a pickle; knows no type but uint8."""

    def __init__(self, code: bytes | str, *flags: object) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"expected an array of uint8, found {code!r}")

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment, which uint8 doesn't have."""


class _PickledArray:
    """Stands for ``numpy.ndarray`` in a pickle, and for the function that makes an empty one."""

    pixels = np.empty(0, np.uint8)

    def __init__(self, *arguments: object) -> None:
        """Type, shape and type code of the empty array; the state replaces them."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, _dtype, fortran_order, content = state
        flat = np.frombuffer(content, np.uint8)
        self.pixels = flat.reshape(shape, order="F" if fortran_order else "C")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numbers, strings, containers and uint8 arrays; runs nothing that a pickle names.

    Pickles may call any function they can name. These name NumPy's, and get the stand-ins above.
    """

    def find_class(self, module: str, name: str) -> Any:
        stand_ins: dict[str, Any] = {
            "numpy.core.multiarray._reconstruct": _PickledArray,
            "numpy._core.multiarray._reconstruct": _PickledArray,
            "numpy.ndarray": _PickledArray,
            "numpy.dtype": _PickledDtype,
        }
        try:
            return stand_ins[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which image data doesn't need; nothing was run"
            ) from None


def _unpack_or_download(spec: _Cifar, data_dir: Path) -> None:
    existed = data_dir.exists()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        for layout in (spec.binary, spec.python):
            if (data_dir / layout.archive).exists():
                return _unpack(data_dir / layout.archive, spec, layout, data_dir)
        return _download(spec, data_dir)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"can't put {spec.title} into {data_dir}: {reason}") from None
    finally:
        if not existed:
            with contextlib.suppress(OSError):
                data_dir.rmdir()  # leaves a folder that holds something


def _unpack(archive: Path, spec: _Cifar, layout: _Layout, data_dir: Path) -> None:
    """Unpack the data files into ``data_dir / layout.folder``, all of them or none."""
    # Only files with the expected names are copied, each to its own place, so that no member of
    # the archive can reach outside the folder.
    wanted = {PurePosixPath(layout.folder, name): name for name in layout.digests}
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=data_dir) as temporary:
        folder = Path(temporary, layout.folder)
        folder.mkdir()
        try:
            with gzip.open(archive) as stream:
                with tarfile.open(fileobj=stream, mode="r|") as tar:
                    for member in tar:
                        name = wanted.get(PurePosixPath(member.name))
                        source = tar.extractfile(member) if name and member.isreg() else None
                        if name and source:
                            with open(folder / name, "wb") as destination:
                                shutil.copyfileobj(source, destination)
                while stream.read(1 << 20):  # to the end, where the checksum is
                    pass
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{archive} is cut off or not an archive ({error})") from None
        missing = [name for name in layout.digests if not (folder / name).exists()]
        if missing:
            raise DataError(
                f"{archive} is not {spec.title}: it lacks {', '.join(missing)} in {layout.folder}"
            )
        _read(spec, layout, folder, shown=archive)  # damaged files must not get into place
        try:
            folder.rename(data_dir / layout.folder)
        except OSError:
            if not (data_dir / layout.folder).is_dir():  # else another process was faster
                raise


def _download(spec: _Cifar, data_dir: Path) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as temporary:
            with _DownloadBar(f"Downloading {spec.title}") as bar:
                archive = pooch.retrieve(
                    spec.url,
                    known_hash=f"sha256:{spec.sha256}",
                    fname=spec.binary.archive,
                    path=temporary,
                    downloader=pooch.HTTPDownloader(
                        progressbar=bar,
                        chunk_size=1 << 16,
                        # Else a server that labels the archive as gzip-encoded has it unpacked
                        # on the way, and the checksum is then another.
                        headers={"Accept-Encoding": "identity"},
                    ),
                )
            _unpack(Path(archive), spec, spec.binary, data_dir)
    except requests.HTTPError as error:
        reason = f"the server answers {str(error).partition(' for url')[0]}"
    except requests.Timeout:
        reason = "the server takes too long to answer"
    except requests.RequestException as error:
        reason = f"no connection, or it broke off ({type(error).__name__})"
    except DataError:
        raise
    except ValueError:  # pooch's, of the hash
        reason = "what arrived has the wrong checksum"
    else:
        return
    raise DataError(
        f"can't download {spec.title} from {spec.url}: {reason}. Put {spec.binary.archive} or "
        f"{spec.python.archive}, or the folder either unpacks to, into {data_dir.resolve()}; "
        "or use --dataset digits, which works offline"
    )


class _DownloadBar:
    """A progress bar of rich's with the methods that pooch calls."""

    def __init__(self, description: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(description, total=None)

    def __enter__(self) -> "_DownloadBar":
        self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._progress.stop()

    @property
    def total(self) -> float | None:
        """Size in bytes; pooch assigns it, 0 where the server doesn't say."""
        return self._progress.tasks[0].total

    @total.setter
    def total(self, total: int) -> None:
        self._progress.update(self._task, total=total or None)

    def update(self, advance: int) -> None:
        """Count ``advance`` more bytes."""
        self._progress.update(self._task, advance=advance)

    def reset(self) -> None:
        """Start again from 0, as pooch does at the end to correct the count."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Called by pooch at the end; the context manager stops the bar."""
