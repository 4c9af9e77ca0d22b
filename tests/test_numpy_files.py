"""NumPy's files: whatever `np.save` and `np.savez` write comes back as `np.load` gives it, and a hostile header ends in an error."""

import io
import pickle
import shutil
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorkeep as tk
from craft import soon
from tensorkeep.errors import TensorkeepError

FINE = (TensorkeepError, OSError)

kinds = (
    hnp.boolean_dtypes() | hnp.integer_dtypes(endianness="?") | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)) | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
    | hnp.unicode_string_dtypes(endianness="?", max_len=5) | hnp.byte_string_dtypes(max_len=5)
    | hnp.datetime64_dtypes(endianness="?") | hnp.timedelta64_dtypes(endianness="?")
)  # fmt: skip
dtypes = kinds | hnp.array_dtypes(kinds | hnp.array_dtypes(kinds), allow_subarrays=True)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of any type that `np.save` writes without a pickle, in either order of axes; their bytes are random."""
    dtype = np.dtype(draw(dtypes))
    if dtype.names is not None and draw(st.booleans()):
        dtype = np.dtype([(name, dtype[name]) for name in dtype.names], align=True)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    array = draw(hnp.arrays(dtype, shape))
    return np.asfortranarray(array) if draw(st.booleans()) else array


def saved(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def crafted(header: bytes, data: bytes = b"", version: int = 1) -> bytes:
    """An `.npy` with any header."""
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + data


def opened(data: bytes) -> np.ndarray:
    with tk.open(io.BytesIO(data)) as file:
        (tensor,) = file.tensors.values()
        return tensor.numpy()


def assert_like_numpy(found: np.ndarray, wanted: np.ndarray) -> None:
    """Names, types, shape and every bit; titles of fields are not kept, and gaps between fields are nobody's."""
    assert found.shape == wanted.shape and found.dtype.names == wanted.dtype.names and found.dtype.itemsize == wanted.dtype.itemsize
    for name in wanted.dtype.names or ():
        assert_like_numpy(found[name], wanted[name])
    if wanted.dtype.names is None:
        assert found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes()


@settings(max_examples=200, deadline=None)
@given(arrays())
def test_an_array_comes_back_as_numpy_loads_it(array: np.ndarray) -> None:
    """Type, byte order, shape and every bit, whatever the order of axes."""
    data = saved(array)
    if array.dtype.itemsize:
        assert_like_numpy(opened(data), np.load(io.BytesIO(data)))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("abc./é_", min_size=1, max_size=6).filter(lambda name: name != "file"), arrays(), min_size=1), st.booleans())
def test_an_archive_comes_back_as_numpy_loads_it(wanted: dict[str, np.ndarray], deflated: bool) -> None:
    """Stored or deflated, names with folders and other alphabets too."""
    wanted = {name: array for name, array in wanted.items() if array.dtype.itemsize}
    file = io.BytesIO()
    (np.savez_compressed if deflated else np.savez)(file, **wanted)
    if not wanted:
        return
    with tk.open(io.BytesIO(file.getvalue())) as contents:
        assert contents.format == "NumPy archive" and not [note for note in contents.left_out if "V2" not in note]
        assert list(contents.tree) == list(wanted)
        for name, array in wanted.items():
            assert_like_numpy(contents.tree[name].numpy(), array)
    loaded = tk.load(io.BytesIO(file.getvalue()))
    for name, array in wanted.items():
        assert_like_numpy(loaded[name], array)


def test_rows_of_an_array_are_read_alone() -> None:
    """Slices of big-endian and Fortran-ordered arrays are those of the array, and reading some rows reads no others."""
    array = np.arange(60, dtype=">i4").reshape(5, 4, 3)
    for form in (array, np.asfortranarray(array), array.astype("<f8"), np.asfortranarray(array).astype("c16")):
        with tk.open(io.BytesIO(saved(form))) as file:
            (tensor,) = file.tensors.values()
            assert np.array_equal(tensor[1:3], form[1:3]) and np.array_equal(tensor[4, 1], form[4, 1])
            assert tensor.tobytes() == np.ascontiguousarray(form).astype(form.dtype.newbyteorder("<")).tobytes()


def test_several_arrays_in_one_file_are_a_list() -> None:
    """`np.save` may be called again and again on one file; what stands behind the last one is told."""
    first, second = np.arange(6).reshape(2, 3), np.float32(2.5)
    data = saved(first) + saved(second) + saved(first.astype(">f4"))
    with tk.open(io.BytesIO(data)) as file:
        assert [tensor.numpy().tolist() for tensor in file.tree] == [first.tolist(), 2.5, first.tolist()]
        assert list(file.tensors) == ["0", "1", "2"] and not file.left_out
    with tk.open(io.BytesIO(data + b"more")) as file:
        assert len(file.tree) == 3 and "4 bytes behind" in file.left_out[0]


GAP = np.dtype({"names": ["x"], "formats": ["<u2"], "itemsize": 4})


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", np.dtype("<f4")),
        (b"{'shape': (2L,), 'fortran_order': False, 'descr': '<f4'}   \n", np.dtype("<f4")),
        (b'{"descr": "<f4", "shape": (2,), "fortran_order": False}', np.dtype("<f4")),
        (b"{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2,)}", np.dtype([("x", "<f4")])),
        (b"{'descr': [(('a title', 'x'), '<f4')], 'fortran_order': True, 'shape': (2,)}", np.dtype([("x", "<f4")])),
        (b"{'descr': [('x', '<u2'), ('', '|V2')], 'fortran_order': True, 'shape': (2,)}", GAP),
        (b"{'descr': [('\\xe9\\'', '|u1', (2, 2))], 'fortran_order': True, 'shape': (2,)}", np.dtype([("é'", "u1", (2, 2))])),
        (b"{'descr': ('<u2', (2,)), 'fortran_order': False, 'shape': (2,)}", np.dtype("<u2")),
    ],
)  # fmt: skip
def test_headers_of_other_writers_are_read(header: bytes, wanted: np.dtype) -> None:
    """Python 2's numbers, other quotes, other orders of keys, titles, gaps and escapes."""
    found = opened(crafted(header, bytes(range(8))))
    assert found.dtype == wanted and found.tobytes() == bytes(range(8))


def test_names_in_any_alphabet_and_huge_headers_are_read() -> None:
    """Versions 2 and 3 of the format: thousands of fields, and names that are no latin-1."""
    many = np.zeros(2, [(f"field number {number} of a wide table", "<f8") for number in range(2000)])
    for array in (many, np.zeros(3, [("größe", "<i4"), ("尺寸", "<f4")])):
        with pytest.warns(UserWarning):
            data = saved(array)
        assert opened(data).dtype == array.dtype


HOSTILE = {
    "no dict": b"[1, 2]",
    "a call": b"{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}",
    "a word": b"{'descr': '<f4', 'fortran_order': None, 'shape': ()}",
    "a sum": b"{'descr': '<f4', 'fortran_order': False, 'shape': (1+1,)}",
    "a key twice": b"{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': ()}",
    "a key too few": b"{'descr': '<f4', 'shape': ()}",
    "a key too many": b"{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}",
    "something behind": b"{'descr': '<f4', 'fortran_order': False, 'shape': ()} 1",
    "a shape that is no tuple": b"{'descr': '<f4', 'fortran_order': False, 'shape': 3}",
    "a shape of lists": b"{'descr': '<f4', 'fortran_order': False, 'shape': ([],)}",
    "a shape of truth values": b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
    "a length below zero": b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
    "a length beyond all": b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999999,)}",
    "a petabyte": b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,)}",
    "a petabyte of nothing": b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807, 9223372036854775807)}",
    "65 lengths": b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1," * 65 + b")}",
    "deep brackets": b"{'descr': " + b"(" * 5000 + b")" * 5000 + b", 'fortran_order': False, 'shape': ()}",
    "deep lists": b"{'descr': " + b"[('x'," * 500 + b"'<f4'" + b")]" * 500 + b", 'fortran_order': False, 'shape': ()}",
    "deep dicts": b"{" * 9000,
    "no type": b"{'descr': 'float', 'fortran_order': False, 'shape': ()}",
    "several types": b"{'descr': 'f4,f4', 'fortran_order': False, 'shape': ()}",
    "a type of many": b"{'descr': '(9,9)f4', 'fortran_order': False, 'shape': ()}",
    "a type of terabytes": b"{'descr': ('|V2147483647', (2147483647,)), 'fortran_order': False, 'shape': ()}",
    "a text without end": b"{'descr': '|V99999999999', 'fortran_order': False, 'shape': ()}",
    "types inside types": b"{'descr': " + b"(" * 18 + b"'<f4'" + b", (2000000000,))" * 18 + b", 'fortran_order': False, 'shape': ()}",
    "two fields of one name": b"{'descr': [('x', '<f4'), ('x', '<f4')], 'fortran_order': False, 'shape': ()}",
    "a number as name": b"{'descr': [(1, '<f4')], 'fortran_order': False, 'shape': ()}",
    "many fields": b"{'descr': [" + b"('x','<f4')," * 15000 + b"], 'fortran_order': False, 'shape': ()}",
    "an escape beyond Unicode": b"{'descr': [('\\Uffffffff', '<f4')], 'fortran_order': False, 'shape': ()}",
    "zeros": bytes(1000),
    "spaces": b" " * 900_000,
    "a dict and spaces": b"{" + b" " * 900_000,
    "quotes": b"'" * 60000,
    "backslashes": b"{'" + b"\\" * 60000,
    "digits": b"{" + b"9" * 60000,
    "no UTF-8": b"\xff\xfe",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_ends_in_an_error(header: bytes) -> None:
    """Nothing is evaluated, nothing is reserved, and nobody waits: of an `.npy`, and of one in an archive."""
    data = crafted(header, bytes(100), 3 if len(header) > 65000 or not header.isascii() else 1)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("w.npy", data)
    for source in (data, archive.getvalue()):
        with soon(1.0), pytest.raises(TensorkeepError):
            tk.load(io.BytesIO(source))


def test_a_header_of_20_megabytes_is_refused_unread() -> None:
    """As long as it says to be, or not: neither is parsed."""
    with soon(1.0), pytest.raises(tk.FormatError, match="at most"):
        tk.open(io.BytesIO(crafted(b"{'descr': " + b"(" * 20_000_000, version=2)))
    with pytest.raises(tk.FormatError, match="at most"):
        tk.open(io.BytesIO(b"\x93NUMPY\2\0\xff\xff\xff\xff"))


def samples() -> list[bytes]:
    archive, deflated = io.BytesIO(), io.BytesIO()
    np.savez(archive, w=np.arange(3), b=np.eye(2))
    np.savez_compressed(deflated, w=np.arange(3), b=np.asfortranarray(np.eye(3)))
    table = np.zeros((2, 2), [("a", ">f4"), ("b", "<U2", (2,))])
    return [saved(np.arange(4, dtype=">f4")), saved(np.asfortranarray(table)), archive.getvalue(), deflated.getvalue()]


@pytest.mark.parametrize("data", samples(), ids=["npy", "npy of fields", "npz", "deflated npz"])
def test_every_truncation_and_every_changed_byte_is_read_or_refused(data: bytes) -> None:
    """No other error, whatever was cut off or changed."""
    broken = [data[:stop] for stop in range(1, len(data))]
    broken += [data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :] for at in range(len(data)) for flip in (0x01, 0x80, 0xFF)]
    for source in broken:
        try:
            with tk.open(io.BytesIO(source)) as file:
                for tensor in file.tensors.values():
                    if tensor.dtype.numpy is not None:
                        tensor.numpy()
            tk.verify(io.BytesIO(source))
            tk.show(io.BytesIO(source))
        except FINE:
            pass


def test_a_changed_byte_of_an_archive_is_found() -> None:
    """The archive's own checksums: `load` compares them for every array, however it lies, and a survey says where."""
    file = io.BytesIO()
    np.savez(file, w=np.arange(30, dtype=">i4"), f=np.asfortranarray(np.arange(30.0).reshape(5, 6)), p=np.ones(4))
    data = file.getvalue()
    for name, array in (("w", np.arange(30, dtype=">i4")), ("f", np.arange(30.0).reshape(6, 5).T), ("p", np.ones(4))):
        raw = np.asfortranarray(np.arange(30.0).reshape(5, 6)).tobytes(order="A") if name == "f" else array.tobytes()
        at = data.index(raw)
        broken = data[: at + 9] + bytes([data[at + 9] ^ 1]) + data[at + 10 :]
        with pytest.raises(tk.CorruptError, match=name):
            tk.load(io.BytesIO(broken))
        with tk.open(io.BytesIO(broken)) as contents:
            assert [path for path, _, _ in contents.storage.survey(None)] == [f"{name}.npy"]


def test_a_wrong_checksum_of_a_deflated_array_is_found() -> None:
    """Whatever the array is: `load` compares on the way, and `load(verify=False)` does not."""
    file = io.BytesIO()
    arrays = {"w": np.arange(30), "b": np.array([True, False]), "e": np.arange(5, dtype=">f4"), "f": np.asfortranarray(np.eye(3))}
    np.savez_compressed(file, **arrays)
    data = file.getvalue()
    for info in zipfile.ZipFile(io.BytesIO(data)).infolist():
        broken = data.replace(struct.pack("<I", info.CRC), struct.pack("<I", info.CRC ^ 1))
        with pytest.raises(tk.CorruptError, match=info.filename.removesuffix(".npy")):
            tk.load(io.BytesIO(broken))
        for name, array in tk.load(io.BytesIO(broken), verify=False).items():
            assert np.array_equal(array, arrays[name])


def test_what_is_no_array_in_an_archive_is_left_out() -> None:
    """Files beside the arrays are named, and not read."""
    archive = io.BytesIO()
    np.savez(archive, w=np.arange(3))
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("README.txt", "about")
        file.writestr("broken.npy", "no array")
    with tk.open(io.BytesIO(archive.getvalue())) as contents:
        assert list(contents.tree) == ["w"] and len(contents.left_out) == 2


def test_an_array_is_told_by_its_content() -> None:
    """As NumPy tells it: without the suffix too, and beside one of that name with it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, number in (("w", 1), ("w.npy", 2), ("v", 3), ("u.npy", 4)):
            file.writestr(name, saved(np.full(2, number)))
    tree = tk.load(io.BytesIO(archive.getvalue()))
    assert {name: array[0] for name, array in tree.items()} == {"w": 1, "w.npy": 2, "v": 3, "u": 4}


def test_bytes_without_a_type_stay_what_the_file_says() -> None:
    """bfloat16 of MLX and JAX stands as V2 in NumPy's files; it stays V2, and the note says why."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.arange(4).astype(ml_dtypes.bfloat16)
    with tk.open(io.BytesIO(saved(array))) as file:
        (tensor,) = file.tensors.values()
        assert str(tensor.dtype) == "|V2" and tensor.tobytes() == array.tobytes() and "bfloat16" in file.left_out[0]


def test_arrays_of_objects_are_lists_of_what_they_hold() -> None:
    """Of any shape and order; of one element without a shape, that element; texts of any length among them."""
    objects = np.array([[1, "a"], [{"x": np.ones(2)}, None]], dtype=object)
    for array in (objects, np.asfortranarray(objects)):
        found = tk.load(io.BytesIO(saved(array)))
        assert found[0] == [1, "a"] and found[1][0]["x"].tolist() == [1, 1] and found[1][1] is None
    with tk.open(io.BytesIO(saved(np.array({"onet": [np.ones(2), np.zeros(3)]}, dtype=object)))) as file:
        assert list(file.tensors) == ["onet.0", "onet.1"]
    assert tk.load(io.BytesIO(saved(np.array([(1, 2.0)], dtype=[("a", "O"), ("b", "f8")])))) == [(1, 2.0)]
    if hasattr(np.dtypes, "StringDType"):  # NumPy 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert tk.load(io.BytesIO(saved(np.array(["a", "bcd"], dtype=np.dtypes.StringDType())))) == ["a", "bcd"]
    archive = io.BytesIO()
    np.savez(archive, w=np.ones(2), o=objects)
    assert tk.load(io.BytesIO(archive.getvalue()))["o"][0] == [1, "a"]


@pytest.mark.parametrize("pickled", [b"", b"N", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x02c", b".", pickle.dumps([1]) * 2])
def test_the_pickle_of_an_array_of_objects_is_never_run(pickled: bytes) -> None:
    """What it would call stays inert; what is no pickle is refused."""
    data = crafted(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickled)
    try:
        with tk.open(io.BytesIO(data)) as file:
            assert not file.tensors
    except TensorkeepError:
        pass


def test_many_deflated_members_take_little_memory() -> None:
    """Opening looks at the first bytes of each, and keeps none of them inflated."""
    import tracemalloc

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        member = saved(np.zeros(1 << 17))
        for number in range(100):
            archive.writestr(f"{number}.npy", member)
    data = file.getvalue()
    tracemalloc.start()
    with tk.open(io.BytesIO(data)) as contents:
        assert len(contents.tensors) == 100
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("mmap", [None, False])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_progress_goes_up_to_the_whole(save: Any, mmap: bool | None, tmp_path: Path) -> None:
    """Of a file by others too, whatever the verb: it only rises, and ends where all is done."""
    save(tmp_path / "a.npz", a=np.arange(300_000.0), b=np.arange(9))
    (tmp_path / "folder").mkdir()
    for name in ("a.npz", "b.npz"):
        shutil.copy(tmp_path / "a.npz", tmp_path / "folder" / name)
    for verb in (
        lambda progress: tk.load(tmp_path / "a.npz", mmap=mmap, progress=progress),
        lambda progress: tk.verify(tmp_path / "a.npz", progress=progress),
        lambda progress: tk.scan(tmp_path / "folder", progress=progress),
        lambda progress: tk.convert(tmp_path / "a.npz", tmp_path / "out.npz", progress=progress),
        lambda progress: tk.fingerprint(tmp_path / "a.npz", progress=progress),
    ):
        told: list[tuple[int, int]] = []
        verb(lambda done, whole, told=told: told.append((done, whole)))  # type: ignore[misc]  # mypy cannot tell what a lambda is
        assert told
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1]
        assert len({whole for _, whole in told}) == 1
