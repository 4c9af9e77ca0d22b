"""PyTorch's files that lie: every count, key, size and place in them, and archives that two tools read in two ways."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tensorkeep as tk

torch = pytest.importorskip("torch")

REFUSALS = (tk.FormatError, tk.CorruptError, tk.UnsupportedError)
REBUILD = torch._utils._rebuild_tensor_v2
FLOATS = struct.pack("<6f", *range(6))


class Stored:
    """Stands in a pickle for a storage, as its persistent id says."""

    def __init__(self, key: Any = "0", count: Any = 6, cls: Any = torch.FloatStorage, pid: Any = None) -> None:
        self.pid = ("storage", cls, key, "cpu", count) if pid is None else pid


class Called:
    """Stands in a pickle for a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Stored) else None


def pickled(obj: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(obj)
    return buffer.getvalue()


def tensor(storage: Any = None, offset: Any = 0, size: Any = (2, 3), stride: Any = (3, 1)) -> Called:
    return Called(REBUILD, storage or Stored(), offset, size, stride, False, {})


def archive(obj: Any, *, method: int = zipfile.ZIP_STORED, **records: bytes) -> bytes:
    members = {"data.pkl": obj if isinstance(obj, bytes) else pickled(obj), "byteorder": b"little", "data/0": FLOATS, "version": b"3\n"}
    members |= {name.replace("__", "/"): content for name, content in records.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(f"x/{name}", content)
    return buffer.getvalue()


def stream(obj: Any, keys: Any = ("0",), storages: bytes = struct.pack("<q", 6) + FLOATS) -> bytes:
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    if isinstance(obj, Called):
        obj.args[0].pid = (*obj.args[0].pid, None)
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, facts))
    return head + pickled(obj) + pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2) + storages


def read(data: bytes) -> dict[str, bytes]:
    with tk.open(io.BytesIO(data)) as f:
        return {path: found.tobytes() for path, found in f.tensors.items()}


def test_the_crafted_files_are_read_where_they_tell_the_truth() -> None:
    """The tools of this file make honest files, which PyTorch reads too."""
    assert torch.load(io.BytesIO(archive(tensor()))).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.load(io.BytesIO(stream(tensor()))).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert list(read(archive({"w": tensor()})).values()) == [FLOATS]
    assert list(read(stream(tensor())).values()) == [FLOATS]


LIES: dict[str, Callable[[], Any]] = {
    "count of 2^50": lambda: tensor(Stored(count=2**50)),
    "count below zero": lambda: tensor(Stored(count=-6)),
    "count as a text": lambda: tensor(Stored(count="6")),
    "count as a float": lambda: tensor(Stored(count=6.0)),
    "count as a bool": lambda: tensor(Stored(count=True), size=(1,), stride=(1,)),
    "count of 2^80": lambda: tensor(Stored(count=2**80)),
    "count of one less": lambda: tensor(Stored(count=5), size=(5,), stride=(1,)),
    "count of one more": lambda: tensor(Stored(count=7)),
    "dtype of eight bytes": lambda: tensor(Stored(cls=torch.DoubleStorage)),
    "two dtypes of one record": lambda: [tensor(), tensor(Stored(count=3, cls=torch.LongStorage), size=(3,), stride=(1,))],
    "two counts of one record": lambda: [tensor(), tensor(Stored(count=24, cls=torch.ByteStorage), size=(3,), stride=(1,))],
    "key that is not there": lambda: tensor(Stored("7")),
    "key that leads out": lambda: tensor(Stored("../data.pkl")),
    "key with a folder": lambda: tensor(Stored("0/0")),
    "empty key": lambda: tensor(Stored("")),
    "key as a number": lambda: tensor(Stored(0)),
    "key as a list": lambda: tensor(Stored(["0"])),
    "class as a text": lambda: tensor(Stored(cls="FloatStorage")),
    "class of no storage": lambda: tensor(Stored(cls=dict)),
    "persistent id as a text": lambda: tensor(Stored(pid="storage")),
    "persistent id of another kind": lambda: tensor(Stored(pid=("blob", 1, 2, 3, 4))),
    "persistent id too short": lambda: tensor(Stored(pid=("storage", torch.FloatStorage, "0"))),
    "offset below zero": lambda: tensor(offset=-1),
    "offset beyond the end": lambda: tensor(offset=1),
    "offset of 2^70": lambda: tensor(offset=2**70),
    "offset as a float": lambda: tensor(offset=0.0),
    "length below zero": lambda: tensor(size=(-2, 3)),
    "length too large": lambda: tensor(size=(3, 3)),
    "length of 2^62": lambda: tensor(size=(2**62, 3)),
    "length as a text": lambda: tensor(size=("2", 3)),
    "lengths and a text to be multiplied": lambda: tensor(size=(2**40, "a")),
    "size as a number": lambda: tensor(size=6),
    "stride below zero": lambda: tensor(stride=(-3, 1)),
    "stride beyond the end": lambda: tensor(stride=(4, 1)),
    "stride of 2^62": lambda: tensor(stride=(2**62, 1)),
    "fewer strides than lengths": lambda: tensor(stride=(3,)),
    "65 dimensions": lambda: tensor(size=(1,) * 65, stride=(1,) * 65),
    "an expansion to 2^60 bytes": lambda: tensor(size=(2**58,), stride=(0,)),
    "an expansion to 2^120 bytes": lambda: tensor(size=(2**59, 2**59), stride=(0, 0)),
    "no storage": lambda: Called(REBUILD, 1, 0, (1,), (1,), False, {}),
    "too few arguments": lambda: Called(REBUILD, Stored()),
    "a quantized tensor of floats": lambda: Called(torch._utils._rebuild_qtensor, Stored(), 0, (6,), (1,), (0, 1.0, 0), False, {}),
    "a sparse tensor of no layout": lambda: Called(torch._utils._rebuild_sparse_tensor, "torch.strange", (1, 2, 3)),
    "a sparse tensor of few parts": lambda: Called(torch._utils._rebuild_sparse_tensor, "torch.sparse_coo", (1,)),
    "a device of numbers": lambda: Called(torch.device, 1, 2),
    "a size that is none": lambda: Called(torch.Size, 3),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_a_tensor_is_refused(lie: str) -> None:
    """In an archive and in a stream, with an error of ours."""
    with pytest.raises(REFUSALS):
        read(archive(LIES[lie]()))
    made = LIES[lie]()
    if isinstance(made, Called) and made.args and isinstance(made.args[0], Stored) and "persistent" not in lie:
        with pytest.raises(REFUSALS):
            read(stream(made))


def test_views_of_one_storage_are_counted_each() -> None:
    """2,000 views of 4 MiB are more than a file of 4 MiB may ask for; the same view 2,000 times is one tensor."""
    count = 1 << 20
    data = bytes(4 * count)
    views = [tensor(Stored(count=count), size=(count - number,), stride=(1,)) for number in range(2000)]
    with pytest.raises(tk.FormatError, match="limit"):
        read(archive(views, data__0=data))
    same = [tensor(Stored(count=count), size=(count,), stride=(1,)) for _ in range(2000)]
    assert len(read(archive(same, data__0=data))) == 1


def test_nothing_that_a_checkpoint_names_is_called(tmp_path: Path) -> None:
    """A call of `os.system` stands in the tree as a stub; the tensors beside it are read."""
    import os

    target = tmp_path / "run"
    with tk.open(io.BytesIO(archive({"w": tensor(), "x": Called(os.system, f"touch {target}")}))) as f:
        assert isinstance(f.tree["x"], tk.Stub) if hasattr(tk, "Stub") else f.tree["x"].name == "system"
        assert list(f.tensors) == ["w"]
    assert not target.exists()


STREAMS: dict[str, bytes] = {
    "another count": stream(tensor(), storages=struct.pack("<q", 5) + FLOATS),
    "a count below zero": stream(tensor(), storages=struct.pack("<q", -1) + FLOATS),
    "a count of 2^62": stream(tensor(), storages=struct.pack("<q", 2**62) + FLOATS),
    "a key twice": stream(tensor(), keys=("0", "0"), storages=2 * (struct.pack("<q", 6) + FLOATS)),
    "a key that is unknown": stream(tensor(), keys=("1",)),
    "no key": stream(tensor(), keys=()),
    "keys as a text": stream(tensor(), keys="0"),
    "keys as numbers": stream(tensor(), keys=(0,)),
    "keys as lists": stream(tensor(), keys=(["0"],)),
    "storages cut short": stream(tensor())[:-1],
    "another version": stream(tensor()).replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2), 1),
}


@pytest.mark.parametrize("lie", STREAMS)
def test_a_lie_about_a_stream_is_refused(lie: str) -> None:
    """Counts, keys and their order."""
    with pytest.raises(REFUSALS):
        read(STREAMS[lie])


def test_small_records_that_are_large_are_refused_before_they_are_inflated() -> None:
    """A byte order of 16 MiB, deflated to 16 KiB."""
    bomb = archive(tensor(), method=zipfile.ZIP_DEFLATED, byteorder=b"little" + bytes(1 << 24))
    assert len(bomb) < 1 << 15
    with pytest.raises(tk.FormatError, match="at most"):
        read(bomb)
    with pytest.raises(tk.FormatError, match="byte order"):
        read(archive(tensor(), byteorder=b"middle"))


def test_a_storage_that_inflates_beyond_the_limit_is_refused() -> None:
    """A deflated record of 8 MiB of zeros in a file of 8 KiB, where 4 MiB are allowed."""
    data = archive(tensor(Stored(count=2 << 20), size=(1,), stride=(1,)), method=zipfile.ZIP_DEFLATED, data__0=bytes(8 << 20))
    with pytest.raises(tk.FormatError, match="may take"):
        tk.load(io.BytesIO(data), limits=tk.Limits(expanded_bytes=4 << 20))
    assert tk.load(io.BytesIO(data)).tolist() == [0]


def twice(data: bytes, member: str, field: str, value: bytes) -> bytes:
    """The same change in both headers."""
    return patched(patched(data, member, field, value, local=False), member, field, value, local=True)


def patched(data: bytes, member: str, field: str, value: bytes, *, local: bool) -> bytes:
    """An archive with one field of one header changed, in the directory or before the data."""
    name = f"x/{member}".encode()
    signature, name_at = (b"PK\3\4", 30) if local else (b"PK\1\2", 46)
    places = {
        "flags": 6 if local else 8,
        "method": 8 if local else 10,
        "crc": 14 if local else 16,
        "size": 22 if local else 24,
        "name": name_at,
    }
    at = -1
    while (at := data.index(signature, at + 1)) >= 0:
        if data[at + name_at : at + name_at + len(name)] == name:
            break
    begin = at + places[field]
    return data[:begin] + value + data[begin + len(value) :]


HEADERS: dict[str, Callable[[bytes], bytes]] = {
    "another name before the data": lambda data: patched(data, "data/0", "name", b"x/data/9", local=True),
    "another method before the data": lambda data: patched(data, "data/0", "method", b"\x08\0", local=True),
    "another size before the data": lambda data: patched(data, "data/0", "size", struct.pack("<I", 23), local=True),
    "another size in the directory": lambda data: patched(data, "data/0", "size", struct.pack("<I", 23), local=False),
    "a wrong CRC-32 of the pickle": lambda data: twice(data, "data.pkl", "crc", bytes(4)),
    "a method that is unknown": lambda data: twice(data, "data/0", "method", b"\x63\0"),
    "a name with a zero": lambda data: patched(data, "data/0", "name", b"x/data\x000", local=False),
}


@pytest.mark.parametrize("lie", HEADERS)
def test_an_archive_that_two_tools_read_in_two_ways_is_refused(lie: str) -> None:
    """Headers that differ, sums that are wrong, names that end early."""
    with pytest.raises(REFUSALS):
        read(HEADERS[lie](archive({"w": tensor()})))


def test_a_name_that_occurs_twice_is_refused() -> None:
    """Tools differ in which of the two they read."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        for content in (pickled(1), pickled(2)):
            file.writestr("x/data.pkl", content)
    with pytest.raises(tk.FormatError, match="twice"):
        read(buffer.getvalue())


def test_what_only_some_tools_see_is_a_finding() -> None:
    """A flag of encryption that is not true, a second pickle elsewhere, names that differ in case, bytes behind the pickle."""
    honest = archive({"w": tensor()})
    with tk.open(io.BytesIO(honest)) as f:
        assert f.findings == ()
    flagged = patched(honest, "data/0", "flags", b"\x01\0", local=False)
    elsewhere = io.BytesIO(honest)
    with zipfile.ZipFile(elsewhere, "a") as file:
        file.writestr("y/data.pkl", pickled(1))
    for data in (flagged, elsewhere.getvalue(), archive(tensor(), **{"DATA.PKL": b"."}), archive(pickled(tensor()) + b"more")):
        with tk.open(io.BytesIO(data)) as f:
            assert f.findings, data
            assert [found.tobytes() for found in f.tensors.values()] == [FLOATS]


def test_a_pickle_of_ten_thousand_levels_is_refused() -> None:
    """No recursion of Python's is ever exhausted."""
    with pytest.raises(tk.FormatError):
        read(archive(b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b"."))


def test_sharing_that_multiplies_is_refused() -> None:
    """Modules that hold each other twice, 40 levels deep: 2^40 paths in a few hundred bytes."""
    inner = b"ctorch.nn.modules.module\nModule\n)\x81}(X\x0b\0\0\0_parameters}X\x08\0\0\0_buffers}X\x08\0\0\0_modules}"
    text = b"\x80\x02" + inner + b"ubq\x00"
    for level in range(40):
        one, two = bytes([level]), bytes([level + 1])
        text += b"0" + inner + b"(X\x01\0\0\0ah" + one + b"X\x01\0\0\0bh" + one + b"uubq" + two
    with pytest.raises(tk.FormatError):
        read(archive(text + b"."))


def test_a_module_whose_own_parts_are_of_other_kinds_is_read() -> None:
    """An object where a set of names is wanted, and names that are no texts."""
    head = b"\x80\x02ctorch.nn.modules.module\nModule\n)\x81}(X\x0b\0\0\0_parametersX\x08\0\0\0_buffersX\x08\0\0\0_modules"
    text = head.replace(b"X\x08\0\0\0_buffers", b"}(K\x01K\x02uX\x08\0\0\0_buffers}(X\x01\0\0\0bK\x03u") + b"}"
    text += b"X\x1b\0\0\0_non_persistent_buffers_setcos\nsystem\n)\x81ub."
    with tk.open(io.BytesIO(archive(text))) as f:
        assert list(f.tree.state) == ["1", "b"]


def test_a_crc_that_is_wrong_in_a_storage_is_damage() -> None:
    """PyTorch does not look; here it is an error that names the tensor."""
    data = archive({"w": tensor()})
    wrong = struct.pack("<I", zlib.crc32(FLOATS) ^ 1)
    data = twice(data, "data/0", "crc", wrong)
    with pytest.raises(tk.CorruptError, match=r"^w in .* is damaged"):
        tk.load(io.BytesIO(data))
    assert not tk.verify(io.BytesIO(data)).intact
