"""Compressed files: a wrapper around any format is peeled once, within bounds."""

import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from craft import soon
from tensorkeep.errors import TensorkeepError
from tensorkeep.wire import lz4


def zstd(data: bytes) -> bytes:
    try:
        from compression import zstd as module  # type: ignore[import-not-found]  # Python 3.14
    except ModuleNotFoundError:
        from backports import zstd as module
    return module.compress(data)


def lz4_stored(data: bytes) -> bytes:
    """A frame whose blocks are stored, made by hand."""
    head = b"\x60\x70"
    frame = b"\x04\x22\x4d\x18" + head + bytes([lz4.xxh32(head) >> 8 & 0xFF])
    for at in range(0, len(data), 4 << 20):
        piece = data[at : at + (4 << 20)]
        frame += (len(piece) | 1 << 31).to_bytes(4, "little") + piece
    return frame + bytes(4)


WRAPPERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstd,
    "lz4": lz4_stored,
    "zlib": zlib.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
}
SEVERAL = ("gzip", "xz", "bzip2", "zstd", "lz4")  # of which several streams may stand behind each other


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("name", WRAPPERS)
class TestEveryWrapper:
    def test_is_peeled_once(self, name: str) -> None:
        """What is inside is read as if it were not compressed, and the format says both."""
        array = np.arange(100_000, dtype=">f4").reshape(100, 1000)
        data = npy(array)
        with tk.open(io.BytesIO(WRAPPERS[name](data))) as file:
            assert file.format == f"NumPy array ({name})" and not file.left_out
            (tensor,) = file.tensors.values()
            assert np.array_equal(tensor[3:5], array[3:5]) and np.array_equal(tensor.numpy(), array)
        assert np.array_equal(tk.load(io.BytesIO(WRAPPERS[name](data))), array)
        with pytest.raises(tk.FormatError, match="compressed twice"):
            tk.open(io.BytesIO(WRAPPERS[name](gzip.compress(data))))

    def test_around_an_archive_is_peeled(self, name: str) -> None:
        """An archive inside, deflated too."""
        file = io.BytesIO()
        np.savez_compressed(file, w=np.arange(1000), f=np.asfortranarray(np.eye(50)))
        loaded = tk.load(io.BytesIO(WRAPPERS[name](file.getvalue())))
        assert np.array_equal(loaded["w"], np.arange(1000)) and np.array_equal(loaded["f"], np.eye(50))

    def test_around_a_model_file_is_peeled(self, name: str) -> None:
        """tensorkeep's own files too, digests and all."""
        data = bytearray(tk.dumps({"w": np.arange(5), "epoch": 3}))
        assert tk.load(io.BytesIO(WRAPPERS[name](bytes(data))))["epoch"] == 3
        data[-1] ^= 1
        with pytest.raises(tk.CorruptError):
            tk.load(io.BytesIO(WRAPPERS[name](bytes(data))))

    def test_whose_bomb_is_refused_early(self, name: str) -> None:
        """No more is made of it than the limits say."""
        bomb = WRAPPERS[name](npy(np.zeros(30 << 20, np.uint8)))
        with soon(5.0), pytest.raises(tk.FormatError, match="may take"):
            tk.open(io.BytesIO(bomb), limits=tk.Limits(expanded_bytes=5 << 20, expansion=0))

    def test_cut_short_or_changed_is_read_or_refused(self, name: str) -> None:
        """No other error, whatever was cut off or changed."""
        data = WRAPPERS[name](npy(np.arange(50, dtype=np.uint8)))
        for stop in range(1, len(data)):
            with pytest.raises(TensorkeepError):
                tk.open(io.BytesIO(data[:stop]))
        for at in range(len(data)):
            with contextlib.suppress(TensorkeepError, OSError):
                tk.load(io.BytesIO(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]))

    def test_tells_of_bytes_behind_it(self, name: str) -> None:
        """Zeros are padding; anything else is named."""
        data = WRAPPERS[name](npy(np.arange(5)))
        with tk.open(io.BytesIO(data + bytes(100_000))) as file:
            assert not file.left_out
        with tk.open(io.BytesIO(data + bytes(100) + b"more")) as file:
            assert "4 bytes behind the end" in file.left_out[0]

    def test_may_be_several_behind_each_other(self, name: str) -> None:
        """As the programs that write them say; wherever the border falls."""
        if name not in SEVERAL:
            return
        data = npy(np.frombuffer(np.random.default_rng(0).bytes(200_000), np.uint8))
        for cut in (0, 1, 65_500, 65_536, len(data)):
            with tk.open(io.BytesIO(WRAPPERS[name](data[:cut]) + bytes(4) + WRAPPERS[name](data[cut:]))) as file:
                (tensor,) = file.tensors.values()
                assert tensor.tobytes() == data[-200_000:]


def test_a_wrapper_around_nothing_known_says_so() -> None:
    """The error names the wrapper."""
    with pytest.raises(tk.FormatError, match="compressed by gzip"):
        tk.open(io.BytesIO(gzip.compress(b"plain text, nothing more")))


def test_a_large_stream_is_read_on_the_way() -> None:
    """Beyond what is kept in memory it is inflated again, in order, and gives the same bytes."""
    arrays = [np.full(3 << 20, number, np.uint32) for number in range(6)]
    data = gzip.compress(b"".join(map(npy, arrays)), 1)
    with soon(10.0):
        loaded = tk.load(io.BytesIO(data))
    assert all(np.array_equal(found, array) for found, array in zip(loaded, arrays, strict=True))


def test_very_many_empty_streams_take_little_time() -> None:
    """Each is 20 bytes: the work follows the size of the file."""
    with soon(5.0), pytest.raises(tk.FormatError):
        tk.open(io.BytesIO(gzip.compress(b"") * 100_000))


def test_lz4_frames_of_all_kinds_are_read_as_their_own_library_reads_them() -> None:
    """Linked and independent blocks, checksums, sizes, stored blocks, several frames; hypothesis is not needed: the options are few."""
    frame = pytest.importorskip("lz4.frame")
    random = np.random.default_rng(0)
    parts = [b"", b"abc" * 5000, random.bytes(70_000) + random.integers(0, 4, 3000).astype("i2").tobytes() + bytes(70_000)]
    for data in parts:
        for linked, content, block, size in itertools.product((False, True), (False, True), (False, True), (4, 7)):
            packed = frame.compress(
                npy(np.frombuffer(data, np.uint8)),
                block_linked=linked, content_checksum=content, block_checksum=block, block_size=size, store_size=linked,
            )  # fmt: skip
            with tk.open(io.BytesIO(packed)) as file:
                (tensor,) = file.tensors.values()
                assert tensor.tobytes() == data


def test_lz4_checksums_are_compared() -> None:
    """A changed byte of literals is found by the frame's own checksums."""
    frame = pytest.importorskip("lz4.frame")
    array = np.frombuffer(np.random.default_rng(0).bytes(1000), np.uint8)
    for options in ({"content_checksum": True}, {"block_checksum": True}):
        packed = frame.compress(npy(array), **options)
        at = packed.index(array.tobytes()[500:600])
        with pytest.raises(tk.FormatError, match="checksum"):
            tk.open(io.BytesIO(packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]))


def test_xxh32_is_that_of_its_specification() -> None:
    """Its value for no input, and for a text that its users like to hash; alike in one piece and in several."""
    assert lz4.xxh32(b"") == 0x02CC5D05
    assert lz4.xxh32(b"Nobody inspects the spammish repetition") == 0xE2293B2F
    for size in range(70):
        data = bytes(range(size))
        hashed = lz4.Xxh32()
        hashed.update(data[: size // 3])
        hashed.update(data[size // 3 :])
        assert hashed.digest() == lz4.xxh32(data)


@pytest.mark.parametrize(
    "block",
    [b"\x10", b"\x1fa\0\0", b"\x1fa\x02\0", b"\xf0" + b"\xff" * 100_000, b"\x1fa\x01\0" + b"\xff" * 9000 + b"\0", b"\x10a\x01"],
)  # fmt: skip
def test_a_hostile_lz4_block_is_refused(block: bytes) -> None:
    """Matches before the beginning, lengths beyond the block, and blocks that end too early."""
    with pytest.raises(ValueError):
        lz4.decode(block, b"", 1 << 20)


def test_a_tensor_of_a_closed_file_says_so(tmp_path: Path) -> None:
    """What is inflated on the way is not called damaged when its file was closed."""
    np.savez_compressed(tmp_path / "a.npz", a=np.arange(100_000.0))
    with tk.open(tmp_path / "a.npz") as contents:
        tensor = contents.tensors["a"]
    with pytest.raises(OSError, match="was closed"):
        tensor.numpy()


def test_messages_that_inflate_are_followed_as_far_as_their_file_is_worth() -> None:
    """Fifteen million fields, which make no model of Caffe, took ten seconds out of 60 KB."""
    with soon(8.0), pytest.raises(tk.FormatError, match="compressed by gzip"):
        tk.open(io.BytesIO(gzip.compress(b"\x0a\x02\x08\x01" * (15 << 20))))


def test_thousands_of_members_keep_no_memory(tmp_path: Path) -> None:
    """Each kept what inflates it, and what it made last: half a gigabyte for an archive of 4 MB."""
    arrays = {f"a{number}": np.full(1000, number, np.float32) for number in range(3_000)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    tracemalloc.start()
    try:
        loaded = tk.load(tmp_path / "a.npz")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all((loaded[name] == array).all() for name, array in arrays.items())
    assert most < 40 << 20, "thrice what the arrays take"
