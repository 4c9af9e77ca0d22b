"""HDF5: what h5py writes reads bit for bit; what is broken or leads out of the file is refused or told. No file is given back to h5py."""

import gzip
import io
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import tensorkeep as tk
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import tensors

h5py = pytest.importorskip("h5py")

OURS: Final = (tk.FormatError, tk.CorruptError, tk.UnsupportedError)
VERSIONS: Final = ({}, {"libver": "latest"}, {"libver": ("earliest", "v108")}, {"userblock_size": 1024}, {"track_order": True})
FILTERS: Final = (
    {},
    {"compression": "gzip", "shuffle": True},
    {"fletcher32": True},
    {"compression": "lzf", "shuffle": True, "fletcher32": True},
)

Fill = Callable[[Any], None]


def written(fill: Fill, **options: Any) -> bytes:
    """The bytes of a file that h5py has written."""
    into = io.BytesIO()
    with h5py.File(into, "w", **options) as file:
        fill(file)
    return into.getvalue()


def opened(data: bytes) -> tk.Contents:
    return tk.open(io.BytesIO(data))


def compare(data: bytes) -> int:
    """See that every data set that h5py knows reads with the same bytes; how many there are."""
    count = 0
    loaded = tk.load(io.BytesIO(data))
    with opened(data) as contents, h5py.File(io.BytesIO(data)) as file:

        def look(path: str, thing: Any) -> None:
            nonlocal count
            if not isinstance(thing, h5py.Dataset):
                return
            found: Any = contents.tree
            whole = loaded
            for name in path.split("/"):
                found, whole = found[name], whole[name]
            assert isinstance(found, LazyTensor), path
            wanted = np.asarray(thing[()])
            if wanted.dtype.byteorder == ">":
                wanted = wanted.astype(wanted.dtype.newbyteorder("<"))
            assert found.shape == wanted.shape, path
            assert found.tobytes() == wanted.tobytes() == whole.tobytes(), path
            assert found.numpy().dtype == wanted.dtype or wanted.dtype.kind == "V", path
            if wanted.ndim and len(wanted) > 2:
                assert found[1:-1].tobytes() == wanted[1:-1].tobytes(), path
            count += 1

        file.visititems(look)
    return count


def types(file: Any) -> None:
    for name in ("f2", "f4", "f8", ">f4", ">f8", "i1", "i2", ">i4", "i8", "u1", ">u2", "u8", "c8", "c16", ">c8", "?", "S3"):
        file[name.replace(">", "big ")] = np.arange(12).reshape(3, 4).astype(name)
    file["bfloat16"] = np.ones(3, ml_dtypes.bfloat16)
    file["compound"] = np.ones(3, [("a", "f4"), ("b", ">i2", (2,)), ("c", "S5"), ("d", [("x", "u1"), ("y", "?")])])
    file["scalar"], file["no rows"] = 3.5, np.zeros((0, 3), "f4")
    file.create_dataset("enumeration", data=[1, 2], dtype=h5py.enum_dtype({"A": 1, "B": 2}, basetype="i2"))
    file.create_dataset("arrays", (2,), dtype=np.dtype(("f4", (3,))))
    file["a type"] = np.dtype("f8")
    file.create_dataset("of the type", data=np.arange(3.0), dtype=file["a type"])
    file.create_dataset("filled", (5,), "f4", fillvalue=7)
    file.create_dataset("never written", (5, 3), "i4")
    file.create_dataset("in part", (10, 10), "i2", chunks=(3, 3), fillvalue=9)[2:5, 1:7] = 1


def groups(file: Any) -> None:
    for number in range(40):
        file[f"a/b/{number}"] = number
    for number in range(300):
        file[f"many/of them {number:03} {'x' * (number % 30)}"] = np.float32(number)


def layouts(file: Any) -> None:
    for kind in ("compact", "implicit"):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if kind == "compact":
            plist.set_layout(h5py.h5d.COMPACT)
        else:
            plist.set_chunk((3,))
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        space = h5py.h5s.create_simple((10,))
        made = h5py.h5d.create(file.id, kind.encode(), h5py.h5t.IEEE_F32LE, space, plist)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(10, dtype="f4"))
    for name, shape, chunks, most in (
        ("pages of a fixed array", (3000,), (1,), None),
        ("blocks in blocks", (2500,), (1,), (None,)),
        ("axis behind", (30, 50), (7, 3), (30, None)),
        ("tree", (60, 60), (2, 2), (None, None)),
    ):
        made = file.create_dataset(name, shape, "i4", chunks=chunks, maxshape=most)
        made[:40] = np.arange(made[:40].size).reshape(made[:40].shape)
        made[-5:] = 5


@pytest.mark.parametrize("options", VERSIONS, ids=str)
@pytest.mark.parametrize("fill", [types, groups, layouts], ids=lambda fill: fill.__name__)
def test_what_h5py_writes_reads_bit_for_bit(fill: Fill, options: dict[str, Any]) -> None:
    """Every type, kind of group and kind of layout, in every version of the format that h5py writes."""
    assert compare(written(fill, **options)) >= 6


@pytest.mark.parametrize("options", VERSIONS[:2], ids=str)
@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("most", ["as it is", "first", "all", "bounded"])
def test_chunks_read_bit_for_bit(most: str, filters: dict[str, Any], options: dict[str, Any]) -> None:
    """In every kind of index, filtered or not, with pieces that reach over the edges."""

    def fill(file: Any) -> None:
        for shape, chunks in (((100,), (7,)), ((30, 40), (7, 9)), ((5, 6, 7), (2, 6, 3)), ((400,), (1,)), ((10, 10), (10, 10))):
            bounds = {"first": (None, *shape[1:]), "all": (None,) * len(shape), "bounded": tuple(2 * n + 3 for n in shape)}.get(most)
            for dtype in ("f4", ">i8", "u1"):
                data = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
                file.create_dataset(f"{dtype}{shape}", data=data, chunks=chunks, maxshape=bounds, **filters)

    assert compare(written(fill, **options)) == 15


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> dict[str, Any]:
    """Nested groups of arrays."""
    names = st.text(st.characters(codec="utf-8", exclude_characters="/\0."), min_size=1, max_size=8)
    arrays = npst.arrays(
        npst.integer_dtypes(endianness="?") | npst.floating_dtypes(endianness="?", sizes=(16, 32, 64)) | st.just(np.dtype(bool)),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
    inner = arrays | trees(depth - 1) if depth else arrays
    return draw(st.dictionaries(names, inner, max_size=4))


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(trees(), st.sampled_from(VERSIONS), st.sampled_from(FILTERS), st.booleans())
def test_any_tree_reads_bit_for_bit(tree: dict[str, Any], options: dict[str, Any], filters: dict[str, Any], chunked: bool) -> None:
    """Names, shapes, dtypes, chunks and filters of any kind."""

    def fill(group: Any, inner: dict[str, Any] = tree) -> None:
        for name, child in inner.items():
            if isinstance(child, dict):
                fill(group.create_group(name), child)
            elif chunked and child.ndim and child.size:
                group.create_dataset(name, data=child, chunks=tuple(max(1, length // 2) for length in child.shape), **filters)
            else:
                group[name] = child

    def count(inner: dict[str, Any]) -> int:
        return sum(count(child) if isinstance(child, dict) else 1 for child in inner.values())

    assert compare(written(fill, **options)) == count(tree)


def test_a_compressed_file_reads_as_what_is_in_it() -> None:
    """HDF5 is read back and forth: what is inflated on the way is inflated once."""
    data = gzip.compress(written(groups))
    with opened(data) as contents:
        assert contents.tensors["a.b.39"].numpy() == 39 and contents.format == "HDF5 (gzip)"


def test_long_arrays_of_chunks_read_bit_for_bit() -> None:
    """Blocks of an extensible array that are kept in pages, some of which were never written."""

    def fill(file: Any) -> None:
        made = file.create_dataset("long", (40_000,), "u1", chunks=(1,), maxshape=(None,))
        made[:20_000] = np.arange(20_000) % 251
        made[39_990:] = 7

    assert compare(written(fill, libver="latest")) == 1


def test_a_data_set_that_is_not_compressed_is_a_view_of_the_mapping(tmp_path: Path) -> None:
    """Contiguous data sets are neither copied nor read before they are touched."""
    (tmp_path / "a.h5").write_bytes(written(lambda file: file.__setitem__("w", np.arange(100_000, dtype="f4"))))
    with tk.open(tmp_path / "a.h5") as contents:
        assert not contents.tensors["w"].numpy().flags.owndata
        assert tk.load(tmp_path / "a.h5")["w"][7] == 7


@pytest.mark.parametrize("options", VERSIONS[:2], ids=str)
def test_attributes_are_plain_values(options: dict[str, Any]) -> None:
    """Numbers, texts, lists and booleans, of the root and of all else; what refers to objects is counted as left out."""

    def fill(file: Any) -> None:
        for number in range(30):  # more than fit into a header
            file.attrs[f"n{number:02}"] = number
        file.attrs["text"], file.attrs["bytes"], file.attrs["list"] = "äöü", np.bytes_(b"raw"), ["a", "bc"]
        file.attrs["bool"], file.attrs["none"], file.attrs["grid"] = True, h5py.Empty("f4"), np.arange(6).reshape(2, 3)
        file.attrs["long"] = np.arange(7000.0)
        file.attrs["reference"] = file.ref
        file["group/w"] = 1
        file["group"].attrs["name"] = "inner"
        file["group/w"].attrs["unit"] = b"m"

    with opened(written(fill, **options)) as contents:
        found = dict(contents.metadata)
        assert [found[f"n{number:02}"] for number in range(30)] == list(range(30))
        assert (found["text"], found["bytes"], found["list"], found["bool"], found["none"]) == ("äöü", "raw", ["a", "bc"], True, None)
        assert found["grid"] == [[0, 1, 2], [3, 4, 5]] and found["long"] == list(map(float, range(7000)))
        assert found["attributes"] == {"group": {"name": "inner"}, "group/w": {"unit": "m"}}
        assert "1 attributes: references" in contents.left_out[0]


def test_texts_are_plain_values() -> None:
    """A text, texts in a row and in a grid, of fixed and variable length; what has no elements is None."""

    def fill(file: Any) -> None:
        file["one"], file["fixed"] = "hällo", np.bytes_(b"raw")
        file["row"] = np.array(["a", "", "bcd"], object).astype(h5py.string_dtype())
        file.create_dataset("grid", data=np.array([["a", "b"], ["c", "d"]], object), dtype=h5py.string_dtype(), chunks=(1, 2))
        file["nothing"] = h5py.Empty("f4")

    assert tk.load(io.BytesIO(written(fill))) == {
        "one": "hällo",
        "fixed": "raw",
        "row": ["a", "", "bcd"],
        "grid": [["a", "b"], ["c", "d"]],
        "nothing": None,
    }


def elsewhere(file: Any) -> None:
    file["inner/w"] = np.arange(3.0)
    file["external"], file["soft"] = h5py.ExternalLink("/etc/passwd", "/w"), h5py.SoftLink("/inner/w")
    file["again"] = file["inner/w"]
    file["inner/up"], file["inner/again"] = file["/"], file["inner"]
    file.create_dataset("raw", (3,), "f4", external=[("/etc/passwd", 0, 12)])
    virtual = h5py.VirtualLayout((3,), "f4")
    virtual[:] = h5py.VirtualSource(".", "virtual", (3,))
    file.create_virtual_dataset("virtual", virtual)
    file.create_dataset("sequences", (2,), dtype=h5py.vlen_dtype("i4"))
    file.create_dataset("references", (2,), dtype=h5py.ref_dtype)


@pytest.mark.parametrize("options", VERSIONS[:2], ids=str)
def test_what_leads_out_of_the_file_is_told_and_not_followed(options: dict[str, Any]) -> None:
    """External links, external raw data and virtual data sets are findings; names that lead back are told; one data set is one tensor."""
    with opened(written(elsewhere, **options)) as contents:
        assert {finding.place for finding in contents.findings} == {"external", "raw", "virtual"}
        assert all(finding.severity == "dangerous" for finding in contents.findings)
        assert contents.tree["again"] is contents.tree["inner"]["w"]
        told = {line.partition(":")[0] for line in contents.left_out}
        assert told == {"external", "raw", "virtual", "soft", "inner/up", "inner/again", "sequences", "references"}
        assert [path for path, _ in tensors(contents.tree)] == ["again", "inner.w"]


def small(file: Any) -> None:
    file.attrs["text"], file.attrs["numbers"] = "abc", [1, 2]
    file["group/w"] = np.arange(6.0).reshape(2, 3)
    file.create_dataset("zipped", data=np.arange(20), chunks=(6,), compression="gzip", shuffle=True, fletcher32=True, maxshape=(None,))
    file.create_dataset("lzf", data=np.zeros(50), chunks=(30,), compression="lzf")
    file["texts"] = np.array(["a", "bcd"], object).astype(h5py.string_dtype())
    file["compound"] = np.zeros(2, [("a", "f4"), ("b", "?")])
    for number in range(10):
        file["group"].attrs[f"n{number}"] = number
        file[f"dense/{number}x"] = number


def variants(data: bytes) -> Iterator[bytes]:
    """Truncations, single bytes changed, and words that point somewhere else, spread over a file."""
    step = max(1, len(data) // 700)
    for at in range(0, len(data), step):
        yield data[:at]
        yield data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
    for at in range(0, len(data) - 8, 8):
        if any(data[at : at + 8]):
            for word in (0, at, len(data) - 1, 1 << 40, (1 << 64) - 2)[at // 8 % 5 :: 5]:
                yield data[:at] + struct.pack("<Q", word) + data[at + 8 :]


@pytest.mark.parametrize("fill", [small, elsewhere], ids=lambda fill: fill.__name__)
@pytest.mark.parametrize("options", VERSIONS[:2], ids=str)
def test_a_damaged_file_is_refused_or_read_never_crashed_on(fill: Fill, options: dict[str, Any]) -> None:
    """Only errors of tensorkeep, in a bounded time (a loaded machine is ten times slower), whatever is changed."""
    for data in variants(written(fill, **options)):
        started = time.process_time()
        try:
            with opened(data) as contents:
                for _, tensor in tensors(contents.tree):
                    tensor.tobytes()
        except OURS:
            pass
        assert time.process_time() - started < 10


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """The file with one thing in it changed, everywhere."""
    assert old in data and len(old) == len(new)
    return data.replace(old, new)


def test_declared_petabytes_are_refused_before_memory_is_taken() -> None:
    """A shape is held against the file and the limits when the file is opened."""
    length = struct.pack("<Q", 1234567)

    def fill(file: Any) -> None:
        file.create_dataset("w", (1234567,), "f4", chunks=(1000,), compression="gzip")

    for options in VERSIONS[:2]:
        data = replaced(written(fill, **options), length, struct.pack("<Q", 1 << 50))
        with pytest.raises(tk.FormatError, match=r"would take|has the shape|no array"):
            opened(data)


def test_a_chunk_that_inflates_to_more_than_it_may_is_refused() -> None:
    """Zeros that deflate to a thousandth are not inflated beyond the size of a chunk."""
    data = written(lambda file: file.create_dataset("w", data=np.zeros(1 << 20, "u1"), chunks=(1 << 20,), compression="gzip"))
    lengths = struct.pack("<II", 1 << 20, 1)  # of a chunk, and of an element, in the layout
    with (
        opened(replaced(data, lengths, struct.pack("<II", 1 << 10, 1))) as contents,
        pytest.raises(tk.FormatError, match="inflates to more"),
    ):
        contents.tensors["w"].numpy()


def test_trees_that_lead_back_to_themselves_are_refused() -> None:
    """A child of a B-tree that is the tree itself, a symbol table that is, a header that goes on in itself."""

    def fill(file: Any) -> None:
        for number in range(200):
            file[f"{number:03}"] = number

    data = written(fill)
    trees = [at for at in range(len(data)) if data.startswith(b"TREE", at)]
    assert trees
    for at in trees:
        for child in range(at + 32, at + 24 + 16 * struct.unpack_from("<H", data, at + 6)[0], 16):
            with pytest.raises(tk.FormatError):
                opened(data[:child] + struct.pack("<Q", at) + data[child + 8 :])


def test_deep_groups_are_refused_by_the_limit() -> None:
    """A chain of groups deeper than the limit is told, not recursed into."""
    data = written(lambda file: file.create_group("/".join("g" * 300)))
    with pytest.raises(tk.FormatError, match="deeper than"):
        opened(data)


def test_metadata_that_are_read_again_and_again_are_refused() -> None:
    """Thousands of links to headers that overlap cost no more than the file's size allows."""
    block = struct.pack("<BxHIIxxxx", 1, 65535, 1, 60_000) + bytes(60_000)  # one header of empty messages, begun at each of its bytes
    base = written(lambda file: file.create_group("g"), libver="latest")
    header = base.rindex(b"OHDR")
    messages = b""
    for number in range(3000):
        name = f"{number:04}".encode()
        link = b"\x01\x00" + bytes([len(name)]) + name + struct.pack("<Q", len(base) + 100_000 + 16 * number)
        messages += struct.pack("<BHB", 6, len(link), 0) + link
    group = b"OHDR\x02\x02" + struct.pack("<I", len(messages)) + messages + bytes(4)
    data = base + group
    data += bytes(len(base) + 100_000 - len(data)) + block[:16] * 3000 + block
    data = data.replace(struct.pack("<Q", header), struct.pack("<Q", len(base)))
    started = time.process_time()
    with pytest.raises(tk.FormatError):
        opened(data)
    assert time.process_time() - started < 10


def test_a_long_name_that_many_links_share_is_refused() -> None:
    """Ten thousand entries of a symbol table that all name the same 60 KB, and long names above many others: linear in the file's size."""

    def fill(file: Any) -> None:
        for number in range(8):
            file["n" * 50_000 + f"{number}"] = number
        inner = file.create_group("/".join(["m" * 5_000] * 90))
        for number in range(3000):
            inner[f"{number}"] = h5py.SoftLink("/")

    data = bytearray(written(fill))
    heap = data.index(b"HEAP")
    segment = struct.unpack_from("<Q", data, heap + 24)[0]
    nbytes = struct.unpack_from("<Q", data, heap + 8)[0]
    started = time.process_time()
    with pytest.raises(tk.FormatError, match=r"paths take|again and again"):
        opened(bytes(data))
    data[segment : segment + nbytes] = b"n" * nbytes  # no name has an end
    with pytest.raises(tk.FormatError, match="no end"):
        opened(bytes(data))
    assert time.process_time() - started < 10


def test_shared_headers_of_attributes_do_not_multiply() -> None:
    """Attributes count as made from the file, each time they are met."""

    def fill(file: Any) -> None:
        file.attrs["long"] = np.arange(8000, dtype="u8")

    with pytest.raises(tk.FormatError, match="attributes"):
        tk.open(io.BytesIO(written(fill)), limits=tk.Limits(expanded_bytes=1000, expansion=1))


def test_many_data_sets_open_at_once(tmp_path: Path) -> None:
    """Thousands of data sets cost a fraction of a second, whatever their sizes."""

    def fill(file: Any) -> None:
        for number in range(2000):
            file[f"layers/{number // 4}/vars/{number % 4}"] = np.float32(number)

    (tmp_path / "many.h5").write_bytes(written(fill))
    started = time.process_time()
    assert tk.show(tmp_path / "many.h5").tensors == 2000
    assert time.process_time() - started < 10
