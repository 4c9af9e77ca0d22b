"""Attacks by name: small files that ask for much, and files and folders that change while they are read."""

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from craft import model_file, safetensors
from fuzz import hostile
from fuzz.hostile import torch
from fuzz.trial import ends_well
from tensorkeep.selection import renamer

NAN = "nan:7ff8000000000001"
NO_TEXT = base64.b64encode(b"\xff" * 4).decode()
W = {"w": ("U8", [4], b"abcd")}
HUGE = {"int": "0x" + "f" * 10_000}


def nested(depth: int, wrap: object, node: object = 1) -> object:
    for _ in range(depth):
        node = wrap(node)
    return node


def entry(shape: list[int], nbytes: int = 0, dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, nbytes]}


def colliding(count: int) -> dict[str, object]:
    """Tensors without a byte, whose shapes have one hash."""
    return {str(n): entry([0, *(hostile.M61 if n >> bit & 1 else 0 for bit in range(14))]) for n in range(count)}


REFUSED: dict[str, bytes] = {
    "a long key above many values": model_file({"dict": [["k" * 500_000, [0] * 100_000]]}, {}),
    "a long key above many empty dicts": model_file({"dict": [["k" * 500_000, [{"dict": []}] * 20_000]]}, {}),
    "a text that occurs 20,000 times": model_file([{"packed": "str", "tensor": "w"}] * 20_000, {"w": ("U8", [10**5], b"a" * 10**5)}),
    "a list that occurs twice": model_file([{"packed": "list", "tensor": "w"}] * 2, {"w": ("I64", [9], bytes(72))}),
    "a message too deep for repr": model_file(nested(150, lambda x: [x], {"float": nested(250, lambda x: [x])}), {}),
    "a shape that NumPy cannot hold": safetensors({"w": entry([0, 2**62, 2**62])}),
    "a packed shape that NumPy cannot hold": safetensors({"w": entry([0, 2**62, 2**62], dtype="F4")}),
    "shapes of one hash": safetensors(colliding(3_000)),
    "ints of one hash": model_file({"set": [{"int": hex(hostile.M61 * n)} for n in range(8192, 14_000)]}, {}),
    "floats and complex numbers of one hash": model_file(
        {"set": [{"complex": [2.0 ** (61 * n), 2.0 ** (61 * m)]} for n in range(16) for m in range(16)]}, {}),
    "a text of no characters in a scalar": model_file({"scalar": ["<U1", NO_TEXT]}, {}),
    "such a text in a field": model_file({"scalar": [{"fields": [["a", "<U1", 0, [1]]], "itemsize": 4}, NO_TEXT]}, {}),
    "metadata that are no dict": model_file(1, {}, metadata=5),
    "metadata that are a list": model_file(1, {}, metadata=[1, 2]),
    "metadata with a number as key": model_file(1, {}, metadata={"dict": [[1, 2]]}),
    "a generator that stands beyond its block": model_file(
        {"object": "rng.bits", "class": "MT19937", "state": {"dict": [
            ["bit_generator", "MT19937"], ["state", {"dict": ["key", ["pos", 10**6]]}]]}},
        {"state.key": ("U32", [624], bytes(2496))},
    ),
    "one that stands before its block": model_file(
        {"object": "rng.legacy", "class": "RandomState", "state": {"dict": [
            ["bit_generator", "MT19937"], ["state", {"dict": ["key", ["pos", -5]]}], ["has_gauss", 0], ["gauss", {"float": 0.0}]]}},
        {"state.key": ("U32", [624], bytes(2496))},
    ),
    "Philox beyond its buffer": model_file(
        {"object": "rng.bits", "class": "Philox", "state": {"dict": [
            ["bit_generator", "Philox"], ["state", {"dict": ["counter", "key"]}], "buffer", ["buffer_pos", -7], ["has_uint32", 0],
            ["uinteger", 0]]}},
        {"buffer": ("U64", [4], bytes(32)), "state.counter": ("U64", [4], bytes(32)), "state.key": ("U64", [2], bytes(16))},
    ),
    "digests for other sizes": model_file({"dict": ["w"]}, {"w": ("U8", [3 << 20], bytes(3 << 20))}, digests=""),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_an_attack_is_refused(tmp_path: Path, what: str) -> None:
    """Small files that would take much time, much memory or NumPy's own errors are a FormatError when loaded."""
    errors = ends_well(REFUSED[what], tmp_path, measured=True)
    assert isinstance(errors["loads"], tk.FormatError)


READ: dict[str, object] = {
    "a key of 40,000 bits": {"dict": [[HUGE, [1]], [{"tuple": [HUGE]}, {"dict": [["a", 1]]}]]},
    "a value of 40,000 bits": [HUGE, {"set": [HUGE]}],
    "nested as deep as the limit": nested(90, lambda x: {"dict": [["a", x]]}),
    "keys of nan": {"dict": [[{"float": NAN}, 1], [{"float": NAN}, 2], [{"complex": [NAN, 0.0]}, 3]]},
    "moments at the ends of time": {"dict": [
        [{"datetime": ["0001-01-01T00:00:00+23:59", 0]}, 1], [{"datetime": ["9999-12-31T23:59:59.999999-23:59", 1]}, 2]]},
    "units of years": {"dict": [[{"scalar": ["<M8[Y]", "AAAAAAAAAEA="]}, 1], [{"scalar": ["<m8[as]", "AAAAAAAAAEA="]}, 2]]},
    "paths of another system": {"dict": [[{"windows_path": "C:\\con\\..\\nul"}, 1], [{"posix_path": "/../../etc"}, 2]]},
    "a lone surrogate as key": {"dict": [[{"surrogates": "7aCA"}, 1]]},
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_what_is_odd_but_right_is_read(tmp_path: Path, what: str) -> None:
    """Values at the ends of their range come through every way in."""
    data = model_file({"dict": [["w", {"tensor": "w"}], ["odd", READ[what]]]}, {"w": ("U8", [4], b"abcd")})
    errors = ends_well(data, tmp_path)
    assert set(errors) <= {"into", "into, not strict"}, errors  # nothing of the target is in it
    assert tk.loads(data, only="w") is not None


def test_huge_ints_as_keys_round_trip() -> None:
    """An int that Python refuses to spell is a key like any other; so is a tuple of such."""
    state = {10**5000: {"w": 1}, (10**5000,): 2}
    assert tk.loads(tk.dumps(state)) == state
    assert tk.loads(tk.dumps(state), into=state) == state


def test_names_of_attributes_are_names_and_no_more() -> None:
    """A bag may have any attribute, `self` and `__class__` too; its class stays what it is."""
    for name in ("self", "__class__", "__dict__", "__init__", "a b"):
        for cls in ("Namespace", "SimpleNamespace"):
            loaded = tk.loads(model_file({"object": "records.bag", "class": cls, "state": {"dict": [[name, 1]]}}, {}))
            assert type(loaded).__name__ == cls
            assert dict(object.__getattribute__(loaded, "__dict__")) == {name: 1}


@dataclass
class Settings:
    """A dataclass that a caller passes."""

    lr: float = 0.1


Point = namedtuple("Point", "x y", defaults=(0, 0))


@pytest.mark.parametrize("kind", ["records.dataclass", "records.namedtuple", "records.bag", "torch.subclass", "torch.module", "rng.python"])
@pytest.mark.parametrize("cls", [Settings, Point, type("Odd", (), {}), dict, *([torch.nn.Linear] if torch else [])])
@pytest.mark.parametrize("state", [{"dict": []}, {"dict": [["x", 1]]}, {"dict": [["__class__", 1]]}, {"dict": [["tensors", 1]]}, 5])
def test_classes_that_are_passed_are_hit_by_the_right_kind_alone(kind: str, cls: type, state: object) -> None:
    """A file that names a passed class as another kind of thing gives a value or a FormatError."""
    data = model_file({"object": kind, "class": cls.__qualname__, "state": state}, {})
    try:
        loaded = tk.loads(data, types=[cls])
    except tk.FormatError:
        return
    if isinstance(loaded, cls) and cls is not dict:
        assert kind == ("records.dataclass" if cls is Settings else "records.namedtuple")


def test_a_file_with_damage_everywhere_is_verified_in_linear_time() -> None:
    """To name the tensors of every damaged chunk takes no longer than to read them."""
    count = 4000
    entries = {str(n): ("U8", [65_536], bytes(65_536)) for n in range(count)}
    data = bytearray(model_file({"dict": list(entries)}, entries))
    start = len(data) - count * 65_536
    data[start::65_536] = b"x" * count
    begin = time.process_time()
    verdict = tk.verify(__import__("io").BytesIO(data))
    assert [damage.path for damage in verdict.damaged] == [str(n) for n in range(count)]
    assert time.process_time() - begin < 10  # a bound against quadratic time, not a speed


def test_patterns_take_linear_time() -> None:
    """Globs of the caller over a path of 200,000 characters: no backtracking."""
    path = "model" + ".attn." * 35_000 + "x"
    data = safetensors({path: entry([0])})
    begin = time.process_time()
    tk.loads(data, rename={"model.*.attn.*.attn.*.weight": "*.*.*"})
    tk.loads(data, only="*a*t*n*.*a*t*t*z")
    assert time.process_time() - begin < 10  # a bound against quadratic time, not a speed


@pytest.mark.parametrize("pattern", ["*", "a*", "*a", "a*b", "*a*", "*a*b*", "**", "a", "", "*.*.c", "x*x"])
@pytest.mark.parametrize("path", ["", "a", "ab", "aab", "abab", "x", "xx", "a.b.c", "a.a.b.b.c", "*", "a\nb"])
def test_a_pattern_takes_what_a_regular_expression_would(pattern: str, path: str) -> None:
    """Each star takes as much as it can, the first one first, as `(.*)` does."""
    import re

    new = "|".join(["*"] * pattern.count("*")) or "z"
    match = re.fullmatch("(.*)".join(map(re.escape, pattern.split("*"))), path, re.DOTALL)
    wanted = path if match is None else "|".join(match.groups()) if match.groups() else "z"
    assert renamer({pattern: new})(path) == wanted


EVIL = "\x1b[2J\x1b]0;gone\x07\u202egnp.exe\nerror: all is well\x00"


def test_no_text_of_a_file_speaks_to_the_terminal(tmp_path: Path) -> None:
    """Names, classes, metadata, versions and roots are spelled out, in what commands print and in what errors say."""
    files = [
        safetensors({"__metadata__": {EVIL: EVIL, "format": EVIL}, EVIL: entry([1], 1)}, b"x"),
        safetensors({EVIL: entry([2], 1)}, b"x"),
        safetensors({"w": entry([2], 1, dtype=EVIL)}, b"x"),
        model_file({"dict": [[EVIL, {"tensor": "w"}], ["b", EVIL], [{"tuple": [EVIL]}, EVIL]]}, W, metadata={"dict": [[EVIL, [EVIL]]]}),
        model_file({"object": "records.dataclass", "class": EVIL, "state": 5}, {}),
        model_file({"object": "rng.python", "class": EVIL, "state": 5}, {}),
        model_file({EVIL: 1}, {}),
        model_file({"tensor": EVIL}, W),
        model_file({"tensor": "w", "as": EVIL}, W),
        model_file({"tensor": "w", "dtype": {"fields": [[EVIL, "U8", 0, []]], "itemsize": 4}}, {"w": ("U8", [2, 4], b"abcdefgh")}),
        model_file(1, {}, root=EVIL),
        model_file(1, {}, root=(EVIL * 9)[:64]),
        model_file(1, {}, version=f"2{EVIL}", writer=f"tensorkeep {EVIL}"),
        model_file(1, {}, writer=EVIL),
        model_file({"packed": "str", "tensor": EVIL}, {EVIL: ("U8", [1], b"\xff")}),
    ]
    for data in files:
        ends_well(data, tmp_path)
    damaged = bytearray(model_file({"dict": [EVIL]}, {EVIL: ("U8", [4], b"abcd")}))
    damaged[-1] ^= 1
    for error in ends_well(bytes(damaged), tmp_path).values():
        assert "\nerror: all is well" not in str(error)
    with pytest.raises(tk.MismatchError) as caught:
        tk.loads(files[0], into=torch.nn.Linear(1, 1) if torch else {"missing": np.zeros(1)})
    assert all(char.isprintable() or char == "\n" for char in str(caught.value))
    assert "\nerror: all is well" not in str(caught.value)


def test_a_broken_generator_changes_no_generator_of_the_target() -> None:
    """What is no state of a generator is refused before any is touched, with its file's name."""
    good = {"python": __import__("random").Random(1), "numpy": np.random.default_rng(1)}
    if torch:
        good["torch"] = torch.Generator().manual_seed(1)
    for name, target in good.items():
        for node in ({"dict": []}, 5, {"tensor": "w"}, [1, 2]):
            used = W if isinstance(node, dict) and "tensor" in node else {}
            first = np.random.default_rng(7)
            before = first.bit_generator.state
            data = model_file({"dict": [["first", {"dict": [["bit_generator", "PCG64"]]}], [name, node]]}, used)
            with pytest.raises(tk.TensorkeepError):
                tk.loads(data, into={"first": first, name: target})
            assert first.bit_generator.state == before


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
def test_generators_of_numpy_come_back_whatever_the_framework() -> None:
    """`framework="torch"` makes tensors of PyTorch of tensors, not of the insides of NumPy's generators."""
    state = {"w": np.ones(2), "old": np.random.RandomState(1), "philox": np.random.Philox(1)}
    loaded = tk.loads(tk.dumps(state), framework="torch")
    assert isinstance(loaded["w"], torch.Tensor)
    assert loaded["old"].get_state()[1].tobytes() == state["old"].get_state()[1].tobytes()


# Files and folders of others.

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="devices and signals of Linux")


@linux
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/urandom"])
def test_a_device_without_an_end_is_refused_at_once(device: str) -> None:
    """Only as much is read as tells that it is no file of ours."""
    for act in (tk.load, tk.open, tk.verify, tk.show):
        with pytest.raises(tk.FormatError):
            act(device)


@linux
def test_a_socket_is_refused_at_once(tmp_path: Path) -> None:
    """Nothing waits for a socket to speak."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        for act in (tk.load, tk.open, tk.verify, tk.show):
            with pytest.raises(OSError, match="socket"):
                act(tmp_path / "s")


@linux
def test_a_pipe_that_never_ends_is_refused_at_its_first_bytes(tmp_path: Path) -> None:
    """A writer that would go on for ever is cut off as soon as it is clear that it sends no file."""
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with __import__("contextlib").suppress(BrokenPipeError), open(tmp_path / "pipe", "wb", buffering=0) as pipe:
            while True:
                pipe.write(b"y\n" * 4096)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with pytest.raises(tk.FormatError):
        tk.load(tmp_path / "pipe")
    writer.join(100)
    assert not writer.is_alive()


@linux
def test_a_huge_hole_takes_no_memory(tmp_path: Path) -> None:
    """A file of many TiB that is all hole, with a tensor of that size and few digests, is refused before a grid of it is made."""
    nbytes = 15 << 40
    path = tmp_path / "hole.safetensors"
    with open(path, "wb") as file:
        text = model_file({"dict": ["w"]}, {"w": ("U8", [4], b"abcd")})[:-4]
        head = text.replace(b'"shape":[4],"data_offsets":[0,4]', f'"shape":[{nbytes}],"data_offsets":[0,{nbytes}]'.encode()).rstrip()
        file.write((len(head) - 8).to_bytes(8, "little") + _rooted(head)[8:])
        try:
            file.truncate(len(head) + nbytes)
        except OSError:
            pytest.skip("this file system has no files so large")
    begin = time.process_time()
    for act in (tk.load, tk.verify, tk.show):
        with pytest.raises(tk.FormatError, match="too few"):
            act(path)
    assert time.process_time() - begin < 10  # a bound against quadratic time, not a speed


def _rooted(head: bytes) -> bytes:
    """A header whose root is right again."""
    import re

    from blake3 import blake3

    root = re.search(rb'root\\":\\"([0-9a-f]{64})', head)[1]
    head = (len(head) - 8).to_bytes(8, "little") + head[8:]
    blank = head.replace(root, b"0" * 64)
    return blank.replace(b"0" * 64, blake3(blank).hexdigest().encode(), 1)


CUT = """
import os, sys
import numpy as np
import tensorkeep as tk
path = sys.argv[1]
with tk.open(path) as contents:
    array = contents.tensors["w"][:1]
    os.truncate(path, os.path.getsize(path) // 2)
    try:
        contents.tensors["w"][-1:]
    except tk.TensorkeepError as error:
        print(type(error).__name__)
"""


@linux
def test_a_file_that_is_cut_short_while_it_is_mapped_ends_as_the_docs_say(tmp_path: Path) -> None:
    """The lost part of a mapping is SIGBUS, as docs/explanation/mapped-arrays.md says; with `mmap=False` it is an OSError."""
    path = tmp_path / "w.safetensors"
    tk.save({"w": np.ones((64, 1 << 15))}, path, durable=False)
    child = subprocess.run([sys.executable, "-c", CUT, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == -signal.SIGBUS, child
    tk.save({"w": np.ones((64, 1 << 15))}, path, durable=False)

    def cut(done: int, _: int) -> None:
        os.truncate(path, 4096)

    target = {"w": np.zeros((64, 1 << 15))}
    with pytest.raises((OSError, ValueError)):
        tk.load(path, mmap=False, into=target, progress=cut)
    with pytest.raises(tk.FormatError, match="cut short"):
        tk.load(path, mmap=False)


def test_a_file_that_changes_after_its_check_leaves_the_target_alone(tmp_path: Path) -> None:
    """Bytes that are replaced between the digests and the copy are seen: nothing of the target is changed."""
    path = tmp_path / "w.safetensors"
    tk.save({"w": np.ones(1 << 18)}, path, durable=False)
    target = {"w": np.zeros(1 << 18)}
    seen: list[int] = []

    def change(done: int, whole: int) -> None:
        if done == whole and not seen:
            seen.append(done)
            before = path.stat().st_mtime_ns
            while path.stat().st_mtime_ns == before:  # the clock of a file system may stand still for a while
                with open(path, "r+b") as file:
                    file.seek(-8, os.SEEK_END)
                    file.write(b"changed!")

    with pytest.raises(tk.MismatchError, match="changed"):
        tk.load(path, into=target, progress=change)
    assert not target["w"].any()


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a right there")
def test_a_link_that_is_swapped_all_the_time_gives_one_file_or_the_other(tmp_path: Path) -> None:
    """A path is opened once: what was checked is what is read, whoever turns the link meanwhile."""
    for name in "ab":
        tk.save({"name": name, "w": np.full(50_000, ord(name), np.uint8)}, tmp_path / name, durable=False)
    link = tmp_path / "link"
    link.symlink_to("a")
    stop = threading.Event()

    def swap() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (tmp_path / "next").symlink_to("ab"[number % 2])
            (tmp_path / "next").replace(link)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(200):
            loaded = tk.load(link)
            assert set(loaded["w"].tolist()) == {ord(loaded["name"])}
    finally:
        stop.set()
        swapper.join()
