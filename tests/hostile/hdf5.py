"""HDF5 files that lie, and Keras's, in single words of what h5py has written: superblock, headers, trees, heaps, chunks, filters, links."""

import io
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

import attacks
from hostile.archives import zipped
from hostile.cases import EITHER, READ, REFUSED, Case, builders, honest, one
from hostile.changes import lengths

MARKS: Final = (
    b"TREE",
    b"SNOD",
    b"HEAP",
    b"GCOL",
    b"OHDR",
    b"OCHK",
    b"FRHP",
    b"FHDB",
    b"FHIB",
    b"BTHD",
    b"BTLF",
    b"BTIN",
    b"FADB",
    b"FAHD",
    b"EAHD",
    b"EAIB",
)


def _layouts(file: Any) -> None:
    file.create_dataset("gzip", data=np.arange(600.0).reshape(30, 20), chunks=(7, 6), compression="gzip", shuffle=True)
    file.create_dataset("sums", data=np.arange(64, dtype="i2"), chunks=(9,), fletcher32=True, maxshape=(None,))
    file.create_dataset("lzf", data=np.zeros(300), chunks=(50,), compression="lzf")
    file.create_dataset("compact", data=np.arange(3.0))
    file.create_dataset("filled", (1000,), "f4", chunks=(10,), fillvalue=2.5)
    file.create_dataset("scaled", data=np.arange(100), chunks=(10,), scaleoffset=0)


def _types(file: Any) -> None:
    import h5py

    file["texts"] = np.array(["a", "bcd"], object).astype(h5py.string_dtype())
    file["fixed"] = np.array([b"ab", b"c"])
    file["compound"] = np.zeros(3, [("a", "f4"), ("b", "?"), ("c", "i2", (2,)), ("d", "S3")])
    file["enum"] = np.zeros(2, h5py.enum_dtype({"x": 0, "y": 1}, "u1"))
    file["opaque"] = np.zeros(2, "V5")
    file.create_dataset("sequences", (2,), h5py.vlen_dtype("i4"))
    file["sequences"][0] = [1, 2, 3]
    file.create_dataset("references", (2,), h5py.ref_dtype)
    file["half"], file["big"], file["scalar"] = np.ones(2, "f2"), np.ones(2, ">f8"), 1.5
    for number in range(20):
        file.attrs[f"a{number}"] = np.arange(number)
    file.attrs["text"], file.attrs["long"] = "x" * 100, np.zeros(3000)


def _groups(file: Any) -> None:
    import h5py

    for number in range(60):
        file[f"many/{number:02}/w"] = np.float32(number)
    file["deep/" + "/".join("abcdefgh")] = 1
    file["hard"], file["soft"], file["lost"] = file["many"], h5py.SoftLink("/many/01"), h5py.SoftLink("/none")


FILLS: Final = {"layouts": _layouts, "types": _types, "groups": _groups}
OPTIONS: Final[dict[str, dict[str, Any]]] = {"old": {}, "new": {"libver": "latest"}, "with a block before": {"userblock_size": 512}}


def _written(h5py: Any, fill: Callable[[Any], None], **options: Any) -> bytes:
    into = io.BytesIO()
    with h5py.File(into, "w", **options) as file:
        fill(file)
    return into.getvalue()


def words() -> Iterator[Case]:
    """Words behind each mark, and of the superblock, set to extremes, to their own place, and to that of another thing."""
    h5py = builders("h5py")
    if h5py is None:
        return
    for option, options in OPTIONS.items():
        for name, fill in FILLS.items():
            data = _written(h5py, fill, **options)
            yield (
                honest(f"{name} {option}, honest", data, file="m.h5")
                if name != "types"
                else one(f"{name} {option}, honest", data, READ, file="m.h5")
            )
            for mark in (b"\x89HDF", *MARKS):
                places = [at for at in range(len(data)) if data.startswith(mark, at)]
                for nth, begin in enumerate(places[:: max(1, len(places) // 2)][:2]):
                    for number, at in enumerate(range(begin + 4, min(begin + 68, len(data) - 8), 4)):
                        value = (begin, (1 << 64) - 1, 0, len(data) + 1, 1 << 62, len(data) - 8)[(number + nth) % 6]
                        changed = data[:at] + struct.pack("<Q", value) + data[at + 8 :]
                        yield one(f"{name} {option}, {mark!r} {nth} {number}", changed, EITHER, file="m.h5")
            for number, changed in enumerate(lengths(data, 60)):
                yield one(f"{name} {option}, length {number}", changed, EITHER, file="m.h5")


def leading_out() -> Iterator[Case]:
    """Links, raw data and virtual data sets of other files: told, and not followed."""
    h5py = builders("h5py")
    if h5py is None:
        return
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "v", (3,))
    own = h5py.VirtualLayout((3,), "f4")
    own[:] = h5py.VirtualSource(".", "v", (3,))
    fills: dict[str, Callable[[Any], object]] = {
        "an external link": lambda file: file.__setitem__("w", h5py.ExternalLink("/etc/passwd", "/w")),
        "an external link by ..": lambda file: file.__setitem__("w", h5py.ExternalLink("../../secret.h5", "/w")),
        "an external link to itself": lambda file: file.__setitem__("w", h5py.ExternalLink("m.h5", "/w")),
        "external raw data": lambda file: file.create_dataset("w", (3,), "f4", external=[("/etc/passwd", 0, 12)]),
        "external raw data of a neighbour": lambda file: file.create_dataset("w", (3,), "f4", external=[("x.bin", 0, 12)]),
        "external raw data without end": lambda file: file.create_dataset("w", (3,), "f4", external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)]),
        "a virtual data set": lambda file: file.create_virtual_dataset("v", layout),
        "a virtual data set over itself": lambda file: file.create_virtual_dataset("v", own),
    }
    for name, fill in fills.items():
        for option, options in {"old": {}, "new": {"libver": "latest"}}.items():
            data = _written(h5py, fill, **options)
            yield Case(f"{name}, {option}", {"m.h5": data, "x.bin": bytes(99)} if False else {"m.h5": data}, EITHER, scan="told")
    loops: dict[str, Callable[[Any], object]] = {
        "a soft link to itself": lambda file: file.__setitem__("w", h5py.SoftLink("/w")),
        "a group in itself": lambda file: file.create_group("g").__setitem__("up", file["/"]),
        "400 groups deep": lambda file: file.create_group("/".join("g" * 400)),
        "a name of escapes": lambda file: file.__setitem__("\x1b[2J", 1),
        "a name of dots": lambda file: file.__setitem__("a/.../b", 1),
        "a huge empty shape": lambda file: file.create_dataset("w", (2**60,), "f4", chunks=(2**20,)),
        "a huge filled shape": lambda file: file.create_dataset("w", (2**40,), "f4", chunks=(2**10,), fillvalue=1),
        "tiny chunks": lambda file: file.create_dataset("w", (2**24,), "u1", chunks=(1,), maxshape=(None,)),
        "a null space": lambda file: file.__setitem__("w", h5py.Empty("f4")),
        "2,000 attributes": lambda file: [file.attrs.__setitem__(f"a{number}", number) for number in range(2000)],
        "a text of a megabyte": lambda file: file.__setitem__("t", "x" * 1_000_000),
    }
    for name, fill in loops.items():
        yield one(name, _written(h5py, fill, libver="latest"), EITHER, file="m.h5")


def keras() -> Iterator[Case]:
    """`.keras` archives and configurations: what they would build, read or call; members twice; a config that is no config."""
    weights = _some_weights()

    def archive(config: "bytes | Any", **more: bytes) -> bytes:
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        return zipped({"metadata.json": b'{"keras_version": "3.10.0"}', "config.json": text, "model.weights.h5": weights} | more)

    def layer(module: Any, cls: Any, /, **config: Any) -> dict[str, Any]:
        inner = {"module": module, "class_name": cls, "config": config, "registered_name": None}
        return {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [inner]}, "registered_name": None}

    told: dict[str, Any] = {
        "Lambda": layer("keras.layers", "Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEAAAAA"}}),
        "Lambda by old names": {
            "class_name": "Sequential",
            "config": [{"class_name": "Lambda", "config": {"function": ["4wAAAAA", None, None]}}],
        },
        "a class of os": layer("os", "system", command="true"),
        "a class of builtins": layer("builtins", "eval", source="1"),
        "a class of subprocess": layer("subprocess", "Popen", args="true"),
        "get_file": layer("keras.utils", "get_file", fname="x", origin="http://127.0.0.1"),
        "load_model": layer("keras.saving", "load_model", filepath="x.keras"),
        "TFSMLayer": layer("keras.layers", "TFSMLayer", filepath="/tmp/x"),
        "TorchModuleWrapper": layer("keras.layers", "TorchModuleWrapper", module="x"),
        "a class of its author": layer("mylab", "Net"),
        "a registered class of os": {"module": None, "class_name": "x", "config": {}, "registered_name": "os>system"},
        "a function of os": layer("keras.layers", "Dense", activation={"module": "os", "class_name": "function", "config": "system"}),
        "no safe mode": layer("keras.layers", "Dense", x="enable_unsafe_deserialization"),
        "a function by fn_module": layer("keras.layers", "Dense", fn_module="subprocess", fn_name="run"),
        "a vocabulary of elsewhere": layer("keras.layers", "StringLookup", vocabulary="/etc/passwd"),
    }
    for name, config in told.items():
        yield one(f"Keras: {name}", archive(config), EITHER, scan="told", file="m.keras")
        yield one(f"Keras config: {name}", json.dumps(config).encode(), EITHER, scan="told", file="config.json")
    good = layer("keras.layers", "Dense", units=2, activation="relu")
    cases: dict[str, tuple[bytes, str]] = {
        "an honest one": (archive(good), READ),
        "a config that is a list": (archive([]), EITHER),
        "a config that is no JSON": (archive(b"{"), EITHER),
        "a config of zeros": (archive(bytes(100)), EITHER),
        "a config 50,000 deep": (archive(b'{"config":' * 50_000), EITHER),
        "a config of 3 MB": (archive(layer("keras.layers", "Dense", x="y" * 3_000_000)), EITHER),
        "a key of the config twice": (archive(b'{"module":"keras","module":"os","class_name":"Sequential"}'), EITHER),
        "weights that are no HDF5": (archive(good) [:-2000], REFUSED),
        "weights of text": (zipped({"metadata.json": b"{}", "config.json": json.dumps(good).encode(), "model.weights.h5": b"x" * 100}), REFUSED),
        "no weights": (zipped({"metadata.json": b"{}", "config.json": json.dumps(good).encode()}), EITHER),
        "assets that lead out": (archive(good, **{"assets/../../x": b"x"}), EITHER),
    }  # fmt: skip
    for name, (data, end) in cases.items():
        yield one(f"Keras: {name}", data, end, scan="clean" if end == READ else "", file="m.keras")
    yield one("Keras: an attack in assets", archive(good, **{"assets/x.pkl": attacks.CALL4}), EITHER, scan="told", file="m.keras")


def _some_weights() -> bytes:
    """Weights as `convert` writes them, which needs no package."""
    import tempfile
    from pathlib import Path

    import tensorkeep as tk

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "s.safetensors"), Path(folder, "m.weights.h5")
        tk.save({"layers": {"dense": {"vars": {"0": np.ones((2, 2), np.float32)}}}}, source)
        tk.convert(source, target)
        return target.read_bytes()


def without_h5py() -> Iterator[Case]:
    """Single words of a file that this package has written: these are had without h5py."""
    data = _some_weights()
    yield honest("weights by convert", data, file="m.weights.h5")
    for at in range(0, len(data) - 8, 8):
        if any(data[at : at + 8]):
            for number, value in enumerate((0, at, (1 << 64) - 1, 1 << 40, len(data))):
                if (at // 8 + number) % 3 == 0:
                    yield one(
                        f"weights, word {at} {value:#x}", data[:at] + struct.pack("<Q", value) + data[at + 8 :], EITHER, file="m.weights.h5"
                    )
