import dataclasses
import hashlib
import http.server
import io
import os
import pickle
import re
import shutil
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from train import datasets
from train.datasets import DataError, load

BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


def read_records(folder: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The record layout, spelled out pixel by pixel."""
    content = b"".join((folder / f"{name}.bin").read_bytes() for name in names)
    records = [content[start : start + 3073] for start in range(0, len(content), 3073)]
    images = np.zeros((len(records), 32, 32, 3), np.uint8)
    for image, record in zip(images, records, strict=True):
        for channel in range(3):
            for row in range(32):
                start = 1 + 1024 * channel + 32 * row
                image[row, :, channel] = list(record[start : start + 32])
    return images, np.array([record[0] for record in records])


# Binary version


@pytest.mark.parametrize("inside", [False, True])
def test_binary_version(cifar10_dir: Path, inside: bool) -> None:
    folder = cifar10_dir / "cifar-10-batches-bin"
    dataset = load("cifar10", folder if inside else str(cifar10_dir))
    train_images, train_labels = read_records(folder, BATCHES)
    test_images, test_labels = read_records(folder, ["test_batch"])
    np.testing.assert_array_equal(dataset.train_images, train_images)
    np.testing.assert_array_equal(dataset.train_labels, train_labels)
    np.testing.assert_array_equal(dataset.test_images, test_images)
    np.testing.assert_array_equal(dataset.test_labels, test_labels)
    assert dataset.train_images.shape == (20, 32, 32, 3)
    assert dataset.train_images.dtype == np.uint8
    assert dataset.train_images.flags.c_contiguous
    assert dataset.train_labels.dtype == np.int32
    assert dataset.name == "cifar10"
    assert dataset.num_classes == 10
    assert dataset.class_names[0] == "airplane"
    assert dataset.class_names[9] == "truck"
    assert dataset.mean == (0.4914, 0.4822, 0.4465)
    assert dataset.std == (0.2470, 0.2435, 0.2616)
    assert dataset.flip
    assert dataset.crop_padding == 4


def test_data_folder_defaults_to_data(cifar10_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10_dir.rename(cifar10_dir.with_name("data"))
    monkeypatch.chdir(cifar10_dir.parent)
    assert len(load("cifar10").train_images) == 20


def test_unofficial_files_get_one_note(cifar10_dir: Path) -> None:
    (note,) = load("cifar10", cifar10_dir).notes
    assert "20 training and 4 test images" in note
    assert "not the official CIFAR-10" in note


def test_official_files_get_no_note(cifar10_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar10_dir / "cifar-10-batches-bin"
    monkeypatch.setattr(datasets, "_CIFAR10", as_official(datasets._CIFAR10, folder))
    assert load("cifar10", cifar10_dir).notes == ()
    content = bytearray((folder / "data_batch_1.bin").read_bytes())
    content[100] ^= 1
    (folder / "data_batch_1.bin").write_bytes(content)
    assert len(load("cifar10", cifar10_dir).notes) == 1


def as_official(spec: Any, folder: Path) -> Any:
    """The same data set, as if the files in the folder were the official ones."""

    def sums(names: list[str]) -> dict[str, str]:
        return {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}

    binary = spec.binary
    binary = dataclasses.replace(
        binary, train=sums(list(binary.train)), test=sums(list(binary.test))
    )
    return dataclasses.replace(spec, binary=binary)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def web_page(path: Path) -> None:
    path.write_bytes(b"\n<!DOCTYPE html><html><body>Not Found</body></html>".ljust(3073))


def wrong_label(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3073 * 2] = 10
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "data_batch_3.bin is cut off .* 12,291 bytes are not a multiple of 3,073"),
        (empty, "data_batch_3.bin is empty; get cifar-10-binary.tar.gz again"),
        (web_page, "data_batch_3.bin is a web page"),
        (wrong_label, "data_batch_3.bin .*: image 2 has the label 10, expected 0 to 9"),
        (Path.unlink, "cifar-10-batches-bin lacks data_batch_3.bin of CIFAR-10"),
    ],
)
def test_damaged_binary_file(
    cifar10_dir: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(cifar10_dir / "cifar-10-batches-bin" / "data_batch_3.bin")
    with pytest.raises(DataError, match=message):
        load("cifar10", cifar10_dir)


def test_label_9_before_a_pixel_that_reads_like_markup(cifar10_dir: Path) -> None:
    path = cifar10_dir / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(b"\t<" + bytes(3071))  # label 9 is a tab, pixel 60 a "<"
    dataset = load("cifar10", cifar10_dir)
    assert dataset.test_labels.tolist() == [9]
    assert dataset.test_images[0, 0, 0].tolist() == [60, 0, 0]


def test_folder_without_any_data_file(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-bin").mkdir()
    with pytest.raises(DataError, match=r"lacks data_batch_1\.bin, .*, test_batch\.bin"):
        load("cifar10", tmp_path)


def test_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        load("cifar10", tmp_path / "file")


def test_unknown_name() -> None:
    with pytest.raises(DataError, match="unknown data set 'cifar'; known are cifar10"):
        load("cifar")


def test_cifar100_binary_version_uses_the_fine_label(tmp_path: Path) -> None:
    (tmp_path / "cifar-100-binary").mkdir()
    for name, fine in (("train.bin", 99), ("test.bin", 42)):
        record = bytes([19, fine]) + bytes([1] * 1024 + [2] * 1024 + [3] * 1024)
        (tmp_path / "cifar-100-binary" / name).write_bytes(record * 2)
    dataset = load("cifar100", tmp_path)
    assert dataset.train_labels.tolist() == [99, 99]
    assert dataset.test_labels.tolist() == [42, 42]
    assert dataset.train_images.shape == (2, 32, 32, 3)
    assert (dataset.train_images == [1, 2, 3]).all()
    assert dataset.num_classes == 100
    assert len(set(dataset.class_names)) == 100
    assert list(dataset.class_names) == sorted(dataset.class_names)
    assert dataset.class_names[42] == "leopard"


# Python version


class Python2Pickler(pickle._Pickler):
    """Writes bytes the way Python 2 did its strings; the official files are such pickles."""

    def save_string(self, text: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)
        self.memoize(text)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, bytes: save_string}


def python2_pickle(value: object) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def python3_pickle(value: object) -> bytes:
    return pickle.dumps(value, protocol=4)


def write_python_version(
    binary: Path, folder: Path, dump: Callable[[object], bytes] = python2_pickle
) -> None:
    folder.mkdir()
    for name in [*BATCHES, "test_batch"]:
        records = np.frombuffer((binary / f"{name}.bin").read_bytes(), np.uint8).reshape(-1, 3073)
        batch = {b"data": records[:, 1:].copy(), b"labels": records[:, 0].tolist()}
        (folder / name).write_bytes(dump({**batch, b"filenames": [b"a.png"]}))


@pytest.fixture
def python_dir(cifar10_dir: Path, tmp_path: Path) -> Path:
    """The pictures of ``cifar10_dir`` in the Python version, alone in their folder."""
    folder = tmp_path / "python" / "cifar-10-batches-py"
    folder.parent.mkdir()
    write_python_version(cifar10_dir / "cifar-10-batches-bin", folder)
    return folder.parent


@pytest.mark.parametrize("dump", [python2_pickle, python3_pickle])
def test_python_version_equals_binary_version(
    cifar10_dir: Path, tmp_path: Path, dump: Callable[[object], bytes]
) -> None:
    binary = load("cifar10", cifar10_dir)
    write_python_version(cifar10_dir / "cifar-10-batches-bin", tmp_path / "py", dump)
    python = load("cifar10", tmp_path / "py")
    np.testing.assert_array_equal(python.train_images, binary.train_images)
    np.testing.assert_array_equal(python.train_labels, binary.train_labels)
    np.testing.assert_array_equal(python.test_images, binary.test_images)
    np.testing.assert_array_equal(python.test_labels, binary.test_labels)
    assert python.train_labels.dtype == np.int32
    assert len(python.notes) == 1


def test_python2_pickle_is_what_python_2_wrote(python_dir: Path) -> None:
    content = (python_dir / "cifar-10-batches-py" / "test_batch").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"_codecs" not in content


def test_python_version_of_cifar100(tmp_path: Path) -> None:
    batch = {b"data": np.full((2, 3072), 7, np.uint8), b"coarse_labels": [1, 2]}
    for name, labels in (("train", [98, 99]), ("test", [5, 6])):
        content = python2_pickle({**batch, b"fine_labels": labels})
        (tmp_path / name).write_bytes(content)
    dataset = load("cifar100", tmp_path)
    assert dataset.train_labels.tolist() == [98, 99]
    assert dataset.test_labels.tolist() == [5, 6]
    assert (dataset.test_images == 7).all()


def test_pickled_array_in_fortran_order(python_dir: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), np.uint8)
    content = python2_pickle({b"data": np.asfortranarray(pixels), b"labels": [1, 2]})
    (python_dir / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    planes = load("cifar10", python_dir).test_images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(planes.reshape(2, 3072), pixels)


class Malicious:
    """Runs a command when a pickle of it is loaded by ``pickle``."""

    def __init__(self, path: Path) -> None:
        self.command = f"touch {path}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_malicious_pickle_is_refused_by_name(python_dir: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    content = python2_pickle({b"data": Malicious(trace)})
    (python_dir / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_2 .* asks for posix\.system.*nothing was run"):
        load("cifar10", python_dir)
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists()  # else the pickle proves nothing


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval",
        "builtins.getattr",
        "numpy.load",
        "numpy.f2py.crackfortran.myeval",
    ],
)
def test_everything_but_arrays_is_refused(python_dir: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    content = f"c{module}\n{function}\n(I1\ntR.".encode()
    (python_dir / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"asks for {name}")):
        load("cifar10", python_dir)


PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1, 2], "holds no dictionary"),
        ({b"data": PIXELS}, "a list 'labels', found 'data'"),
        ({b"labels": [1, 2]}, "an array 'data'"),
        ({b"data": [1, 2], b"labels": [1, 2]}, "expected an array 'data'"),
        ({b"data": PIXELS, b"labels": [1, 2.5]}, "must be whole numbers"),
        ({b"data": PIXELS, b"labels": [1]}, r"shape \(2, 3072\)"),
        ({b"data": PIXELS[:, :-1], b"labels": [1, 2]}, r"shape \(2, 3071\)"),
        ({b"data": PIXELS[:0], b"labels": []}, r"shape \(0, 3072\)"),
        ({b"data": PIXELS, b"labels": [1, -1]}, "image 1 has the label -1, expected 0 to 9"),
        ({b"data": PIXELS.astype(np.float32), b"labels": [1, 2]}, "array of uint8, found b?'f4'"),
        ({b"data": PIXELS.astype(object), b"labels": [1, 2]}, "array of uint8, found b?'O8'"),
    ],
)
def test_pickle_of_another_structure(python_dir: Path, batch: object, message: str) -> None:
    (python_dir / "cifar-10-batches-py" / "data_batch_5").write_bytes(python2_pickle(batch))
    with pytest.raises(DataError, match=f"data_batch_5 is .*{message}"):
        load("cifar10", python_dir)


@pytest.mark.parametrize("keep", [1, 20, 200, -1])
def test_truncated_pickle(python_dir: Path, keep: int) -> None:
    path = python_dir / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="test_batch is damaged or not CIFAR-10"):
        load("cifar10", python_dir)


def test_missing_python_batch(python_dir: Path) -> None:
    (python_dir / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match="lacks data_batch_4 of CIFAR-10"):
        load("cifar10", python_dir)


# Archives


def make_archive(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


@pytest.fixture
def archive(cifar10_dir: Path) -> Path:
    """The binary version as an archive, alone in its folder."""
    folder = cifar10_dir / "cifar-10-batches-bin"
    make_archive(folder, cifar10_dir / "cifar-10-binary.tar.gz")
    shutil.rmtree(folder)
    return cifar10_dir / "cifar-10-binary.tar.gz"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_archive_is_unpacked_beside_itself(archive: Path) -> None:
    assert len(load("cifar10", archive.parent).train_images) == 20
    assert names_in(archive.parent) == ["cifar-10-batches-bin", "cifar-10-binary.tar.gz"]
    archive.unlink()
    assert len(load("cifar10", archive.parent).train_images) == 20


def test_archive_of_the_python_version(python_dir: Path) -> None:
    folder = python_dir / "cifar-10-batches-py"
    make_archive(folder, python_dir / "cifar-10-python.tar.gz")
    shutil.rmtree(folder)
    assert len(load("cifar10", python_dir).train_images) == 20
    assert folder.is_dir()


def test_truncated_archive_leaves_nothing(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is cut off"):
        load("cifar10", archive.parent)
    assert names_in(archive.parent) == [archive.name]


def test_web_page_in_place_of_an_archive(archive: Path) -> None:
    archive.write_text("<html>Not Found</html>")
    with pytest.raises(DataError, match="not an archive"):
        load("cifar10", archive.parent)
    assert names_in(archive.parent) == [archive.name]


def test_corrupt_archive_leaves_nothing(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[-8] ^= 1  # the checksum of the gzip stream
    archive.write_bytes(content)
    with pytest.raises(DataError, match="cut off or not an archive"):
        load("cifar10", archive.parent)
    assert names_in(archive.parent) == [archive.name]


def test_archive_with_a_damaged_file_leaves_nothing(cifar10_dir: Path) -> None:
    folder = cifar10_dir / "cifar-10-batches-bin"
    truncate(folder / "data_batch_1.bin")
    make_archive(folder, cifar10_dir / "cifar-10-binary.tar.gz")
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz/data_batch_1\.bin is cut off"):
        load("cifar10", cifar10_dir)
    assert names_in(cifar10_dir) == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize(
    "name", ["../escaped", "cifar-10-batches-bin/../../escaped", "/{tmp}/escaped"]
)
def test_archive_can_not_write_outside_its_folder(
    cifar10_dir: Path, tmp_path: Path, name: str
) -> None:
    folder = cifar10_dir / "cifar-10-batches-bin"
    path = cifar10_dir / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name.format(tmp=str(tmp_path).lstrip("/")))
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
        tar.add(folder, folder.name)
    shutil.rmtree(folder)
    assert len(load("cifar10", cifar10_dir).train_images) == 20
    assert not list(tmp_path.rglob("escaped"))
    assert names_in(folder) == sorted([*(f"{batch}.bin" for batch in BATCHES), "test_batch.bin"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_archive_with_links_is_refused(cifar10_dir: Path, tmp_path: Path, kind: bytes) -> None:
    folder = cifar10_dir / "cifar-10-batches-bin"
    secret = tmp_path / "secret"
    shutil.copy(folder / "test_batch.bin", secret)
    (folder / "test_batch.bin").unlink()
    with tarfile.open(cifar10_dir / "cifar-10-binary.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname = kind, str(secret)
        tar.addfile(link)
        tar.add(folder, folder.name)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"lacks test_batch\.bin in cifar-10-batches-bin"):
        load("cifar10", cifar10_dir)
    assert not folder.exists()


# Download


class Server(http.server.ThreadingHTTPServer):
    body = b""
    status = 200
    length: int | None = None


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        length = len(self.server.body) if self.server.length is None else self.server.length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        # A server may take the suffix .gz for an encoding, which the client would then undo.
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            self.send_header("Content-Encoding", "x-gzip")
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def remote(archive: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 is to be had from the server; returns a folder that doesn't exist yet."""
    server.body = archive.read_bytes()
    spec = dataclasses.replace(
        datasets._CIFAR10,
        url=f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz",
        sha256=hashlib.sha256(server.body).hexdigest(),
    )
    monkeypatch.setattr(datasets, "_CIFAR10", spec)
    return archive.parent / "new" / "data"


def test_download(remote: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = load("cifar10", remote)
    assert len(dataset.train_images) == 20
    assert names_in(remote) == ["cifar-10-batches-bin"]
    assert "Downloading CIFAR-10" in capfd.readouterr().err
    server.status = 500  # the second time, nothing is asked of the server
    np.testing.assert_array_equal(load("cifar10", remote).train_images, dataset.train_images)


def test_download_of_unknown_length(remote: Path, server: Server) -> None:
    server.length = -1
    assert len(load("cifar10", remote).train_images) == 20


def test_progress_bar_of_unknown_length() -> None:
    with datasets._DownloadBar("Downloading") as bar:
        bar.total = 0
        bar.update(100)
        assert bar.total is None


def other_content(server: Server) -> None:
    server.body = server.body[:-1] + b"\1"


def not_found(server: Server) -> None:
    server.status = 404


def broken_off(server: Server) -> None:
    server.length = len(server.body) + 100


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (other_content, "what arrived has the wrong checksum"),
        (not_found, "the server answers 404 Client Error: Not Found"),
        (broken_off, "no connection, or it broke off"),
    ],
)
def test_failed_download_leaves_nothing(
    remote: Path, server: Server, fault: Callable[[Server], None], reason: str
) -> None:
    fault(server)
    with pytest.raises(DataError) as caught:
        load("cifar10", remote)
    message = str(caught.value)
    assert f"can't download CIFAR-10 from http://127.0.0.1:{server.server_port}/" in message
    assert reason in message
    assert "Put cifar-10-binary.tar.gz or cifar-10-python.tar.gz" in message
    assert str(remote) in message
    assert "--dataset digits, which works offline" in message
    assert not remote.exists()


def test_download_without_network(remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(datasets._CIFAR10, url="https://127.0.0.1:1/cifar.tar.gz")
    monkeypatch.setattr(datasets, "_CIFAR10", spec)
    with pytest.raises(DataError, match=r"no connection.*--dataset digits, which works offline"):
        load("cifar10", remote)
    assert not remote.exists()


def test_interrupted_download_leaves_nothing(remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets._DownloadBar, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("cifar10", remote)
    assert not remote.exists()


def test_folder_that_can_not_be_written(tmp_path: Path, remote: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"can't put CIFAR-10 into .*Not a directory"):
        load("cifar10", tmp_path / "file" / "data")


def test_official_addresses_use_https() -> None:
    for spec in (datasets._CIFAR10, datasets._CIFAR100):
        assert spec.url.startswith("https://www.cs.toronto.edu/~kriz/")
        assert spec.url.endswith(spec.binary.archive)
        assert re.fullmatch("[0-9a-f]{64}", spec.sha256)


def test_python_digests_are_torchvisions() -> None:
    torchvision = pytest.importorskip("torchvision.datasets")
    for spec, theirs in (
        (datasets._CIFAR10, torchvision.CIFAR10),
        (datasets._CIFAR100, torchvision.CIFAR100),
    ):
        assert spec.python.train == dict(theirs.train_list)
        assert spec.python.test == dict(theirs.test_list)
        assert spec.python.folder == theirs.base_folder
        assert spec.python.archive == theirs.filename


# Digits


@pytest.mark.parametrize("size", [16, 32])
def test_digits(size: int) -> None:
    dataset = load("digits", digits_size=size)
    assert dataset.train_images.shape == (1437, size, size, 3)
    assert dataset.test_images.shape == (360, size, size, 3)
    assert dataset.train_images.dtype == np.uint8
    assert dataset.train_labels.dtype == np.int32
    assert np.bincount(dataset.test_labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert dataset.num_classes == len(dataset.class_names) == 10
    assert not dataset.flip
    assert dataset.crop_padding == size // 8
    assert dataset.notes == ()
    np.testing.assert_allclose(dataset.train_images.mean((0, 1, 2)) / 255, dataset.mean, atol=5e-5)
    np.testing.assert_allclose(dataset.train_images.std((0, 1, 2)) / 255, dataset.std, atol=5e-5)


def test_digits_split_is_fixed_and_disjoint() -> None:
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    dataset = load("digits", digits_size=8)
    again = load("digits", digits_size=8)
    np.testing.assert_array_equal(dataset.train_images, again.train_images)
    np.testing.assert_array_equal(dataset.test_labels, again.test_labels)
    assert dataset.test_labels[:6].tolist() == [7, 6, 3, 7, 7, 3]
    ours = np.concatenate([dataset.train_images, dataset.test_images])[..., 0].reshape(-1, 64)
    theirs = np.rint(sklearn_datasets.load_digits().data * 15.9375)
    order = np.lexsort(ours.T), np.lexsort(theirs.T)
    np.testing.assert_array_equal(ours[order[0]], theirs[order[1]])


def test_digits_are_enlarged_by_repetition() -> None:
    small = load("digits", digits_size=8).test_images
    large = load("digits", digits_size=24).test_images
    for row in range(3):
        for column in range(3):
            np.testing.assert_array_equal(large[:, row::3, column::3], small)


@pytest.mark.parametrize("size", [0, 7, 28, -8])
def test_digits_of_impossible_size(size: int) -> None:
    with pytest.raises(DataError, match=f"multiple of 8, got {size}"):
        load("digits", digits_size=size)


def test_crop_padding_can_be_chosen(cifar10_dir: Path) -> None:
    assert load("digits", crop_padding=0).crop_padding == 0
    assert load("cifar10", cifar10_dir, crop_padding=2).crop_padding == 2
    with pytest.raises(DataError, match="must not be negative, got -1"):
        load("digits", crop_padding=-1)
