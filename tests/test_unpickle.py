"""The pickle machine: what pickle writes comes back, objects as stubs, and nothing is imported or called."""

import argparse
import collections
import datetime
import enum
import functools
import pathlib
import pickle
import pickletools
import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pickled import TABLE, extent, named, notes, number, raw, text, tree
from same import assert_same_bits
from strategies import states
from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Stub
from tensorkeep.unpickle.inert import Followed, Lump
from tensorkeep.unpickle.machine import run
from tensorkeep.wire.budget import Budget

BAGS = {("types", "SimpleNamespace"): types.SimpleNamespace, ("argparse", "Namespace"): argparse.Namespace}


def live(node: Any, made: dict[int, Any]) -> Any:
    """A tree as the objects that were pickled: tensors as arrays, bags of attributes as themselves; ties kept.

    Arrays in the byte order of the machine, which NumPy gives those that it unpickles, and tensors keep.
    """
    if isinstance(node, (LazyTensor, np.ndarray)):
        array = np.asarray(node)
        native = array if array.dtype.names else array.astype(array.dtype.newbyteorder("="))
        return made.setdefault(id(node), (native, node))[0]  # the node too, for another may get its id
    if type(node) in BAGS.values():
        return type(node)(**{name: live(value, made) for name, value in vars(node).items()})
    if isinstance(node, Stub):
        return BAGS[node.module, node.name](**{name: live(value, made) for name, value in node.fields.items()})
    if isinstance(node, (dict, collections.deque)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            node[key] = live(value, made)
        return node
    if type(node) in (list, tuple):
        return type(node)(live(item, made) for item in node)
    return node


@given(states(), st.integers(0, pickle.HIGHEST_PROTOCOL))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_state_comes_back_bit_for_bit_at_every_protocol(state: object, protocol: int) -> None:
    """Whatever plain state is pickled, the machine gives back what pickle itself gives: types, bits, order, ties."""
    data = pickle.dumps(state, protocol)
    assert_same_bits(live(tree(data), {}), live(pickle.loads(data), {}))


@given(st.lists(st.integers() | st.floats() | st.text() | st.binary(max_size=300), max_size=30), st.integers(0, 5))
def test_pickles_that_were_optimized_read_alike(values: list[object], protocol: int) -> None:
    """`pickletools.optimize` leaves out memo numbers, so that they come with gaps."""
    data = pickletools.optimize(pickle.dumps([values, values], protocol))
    assert_same_bits(tree(data), pickle.loads(data))


def test_a_text_longer_than_a_window_and_one_across_its_end_are_read() -> None:
    """Texts and numbers are whole, wherever in the file they lie."""
    for size in (255, 256, 70_000, 262_140, 262_144, 300_000, 1_000_000):
        value = ["x" * size, "é\ud800" * (size // 3), list(range(200_000, 200_000 + size // 50)), b"y" * size]
        for protocol in range(6):
            assert tree(pickle.dumps(value, protocol)) == value


def test_a_pickle_may_begin_anywhere_and_others_may_follow() -> None:
    """The end of one pickle is where the next one begins."""
    parts = [pickle.dumps(value, protocol) for protocol, value in enumerate([1, "two", [3.0], {"four": 4}, None, (6,)])]
    data, at = b"junk" + b"".join(parts), 4
    found = []
    while at < len(data):
        value, at = raw(data, at=at)
        found.append(value)
    assert found == [1, "two", [3.0], {"four": 4}, None, (6,)]


class Colour(enum.Enum):
    RED = 1


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a, self.b = 1, np.ones(3)


class Listed(list):  # type: ignore[type-arg]
    pass


class Mapped(dict):  # type: ignore[type-arg]
    pass


class Stated:
    def __getstate__(self) -> object:
        return ("kind", np.arange(4))

    def __setstate__(self, state: object) -> None: ...


class Keyworded:
    def __getnewargs_ex__(self) -> tuple[tuple[int, ...], dict[str, int]]:
        return (1,), {"more": 2}


Point = collections.namedtuple("Point", ["x", "y"])


@pytest.mark.parametrize("protocol", range(6))
def test_objects_become_stubs_with_their_attributes_by_name(protocol: int) -> None:
    """An attribute is found under its name, and what is none under the name of what pickle calls it."""
    plain = tree(pickle.dumps(argparse.Namespace(lr=0.5, layers=[1, 2]), protocol))
    assert (plain.module, plain.name, plain.fields) == ("argparse", "Namespace", {"lr": 0.5, "layers": [1, 2]})
    stated = tree(pickle.dumps(Stated(), protocol))
    assert stated["__state__"][0] == "kind" and stated["__state__"][1].numpy().tolist() == [0, 1, 2, 3]
    listed, mapped = Listed([1, [2]]), Mapped(a=1)
    listed.extra = "e"
    found = tree(pickle.dumps([listed, mapped, Point(1, 2)], protocol))
    assert found[0].fields == {"extra": "e", "__items__": [1, [2]]}
    assert found[1].fields == {"__items__": {"a": 1}}
    if protocol >= 2:
        slotted = tree(pickle.dumps(Slotted(), protocol))
        assert slotted["a"] == 1 and slotted["b"].numpy().tolist() == [1, 1, 1]
    if protocol >= 4:
        assert tree(pickle.dumps(Keyworded(), protocol)).fields == {"__args__": (1,), "__kwargs__": {"more": 2}}
    assert found[2].name == "Point" and found[2]["__args__"] == ((1, 2) if protocol >= 2 else ((1, 2),))
    assert tree(pickle.dumps({Colour.RED: 1}, protocol)).popitem()[1] == 1


@pytest.mark.parametrize("protocol", range(6))
def test_classes_and_functions_become_stubs_that_were_not_made(protocol: int) -> None:
    """What the file only names is told from what it would have made."""
    bare = tree(pickle.dumps([collections.OrderedDict, len, np.float32], protocol))
    assert [(stub.name, stub.made) for stub in bare] == [("OrderedDict", False), ("len", False), ("float32", False)]


OUTSIDE = [
    *(("builtins", name) for name in ("eval", "exec", "getattr", "__import__", "open", "type", "object")),
    *(("os", "system"), ("operator", "attrgetter"), ("numpy", "load"), ("functools", "partial"), ("numpy.testing", "_reconstruct")),
    *(("collections", "OrderedDict.fromkeys"), ("numpy.core.multiarray", "x._reconstruct"), ("builtins.list", "append")),
]


@pytest.mark.parametrize("module, name", OUTSIDE)
def test_what_is_not_in_the_table_is_never_made(module: str, name: str) -> None:
    """No prefix, no namespace, no dotted name: only exact pairs of the table are made, all else stays inert."""
    for data in (
        named(module, name) + text("1") + b"\x85R.",
        text(module) + text(name) + b"\x93" + text("1") + b"\x85R.",
        named(module, name) + text("1") + b"\x85\x81.",
        b"(" + text("1") + b"i" + f"{module}\n{name}\n".encode() + b".",
        b"(" + named(module, name) + text("1") + b"o.",
    ):
        found = tree(data)
        assert (type(found), found.module, found.name, found["__args__"]) == (Stub, module, name, ("1",))


def test_what_a_call_gives_may_be_called_and_stays_inert() -> None:
    """`getattr(os, "system")("id")` is three stubs inside each other."""
    found = tree(named("builtins", "getattr") + named("os", "path") + text("join") + b"\x86R" + text("id") + b"\x85R.")
    assert found.name == "getattr(...)" and found["__args__"] == ("id",)
    assert found["__callee__"]["__args__"][1] == "join"


@pytest.mark.parametrize("number_of_bytes, opcode", [(1, b"\x82"), (2, b"\x83"), (4, b"\x84")])
def test_extension_codes_are_inert(number_of_bytes: int, opcode: bytes) -> None:
    """What a number of `copyreg` stands for is not in the file."""
    found = tree(opcode + (7).to_bytes(number_of_bytes, "little") + b")R.")
    assert (found.module, found.name) == ("copyreg", "extension 7")
    with pytest.raises(FormatError):
        tree(opcode + bytes(number_of_bytes) + b".")


def test_texts_of_python_2_are_latin_1_and_its_names_are_known() -> None:
    """Bytes of a `str` of Python 2 become the characters of the same number; `__builtin__` is where builtins were."""
    assert tree(b"U\x03a\xe9\x00.") == "aé\0"
    assert tree(b"T\x02\x00\x00\x00\xff\xfe.") == "ÿþ"
    assert tree(b"S'a\\xe9\\n\\'\\101\\\\'\n.") == "aé\n'A\\"
    assert tree(named("__builtin__", "set") + b"(lK\x01a\x85R.") == {1}
    assert tree(named("__builtin__", "xrange") + b"K\x00K\x03K\x01\x87R.") == range(3)
    assert tree(named("copy_reg", "_reconstructor") + named("a", "B") + named("__builtin__", "object") + b"N\x87R.").name == "B"


# What Python 2.7.18 wrote of [1, 2L**70, 1.5, '\\xe9\\xff', u'\\u20ac', True, {'a': [1]}, set([1]), xrange(3), OrderedDict([('a', 1)]),
# bytearray('ab'), Old()], where Old is a class of the old kind and its object has x = 1.
OF_PYTHON_2 = {
    "pickle, protocol 0": (
        b"(lp0\nI1\naL1180591620717411303424L\naF1.5\naS'\\xe9\\xff'\np1\naV\\u20ac\np2\naI"
        b"01\na(dp3\nS'a'\np4\n(lp5\nI1\nasac__builtin__\nset\np6\n((lp7\nI1\natp8\nRp9\nac__"
        b"builtin__\nxrange\np10\n(I0\nI3\nI1\ntp11\nRp12\naccollections\nOrderedDict\np13"
        b"\n((lp14\n(lp15\ng4\naI1\naatp16\nRp17\nac__builtin__\nbytearray\np18\n(Vab\np19\n"
        b"S'latin-1'\np20\ntp21\nRp22\na(i__main__\nOld\np23\n(dp24\nS'x'\np25\nI1\nsba."
    ),
    "cPickle, protocol 0": (
        b"(lp1\nI1\naL1180591620717411303424L\naF1.5\naS'\\xe9\\xff'\np2\naV\\u20ac\naI01\n"
        b"a(dp3\nS'a'\n(lp4\nI1\nasac__builtin__\nset\np5\n((lp6\nI1\natRp7\nac__builtin__"
        b"\nxrange\np8\n(I0\nI3\nI1\ntRp9\naccollections\nOrderedDict\np10\n((lp11\n(lp12\nS"
        b"'a'\naI1\naatRp13\nac__builtin__\nbytearray\np14\n(Vab\nS'latin-1'\ntRp15\na(i_"
        b"_main__\nOld\np16\n(dp17\nS'x'\nI1\nsba."
    ),
    "cPickle, protocol 1": (
        b"]q\x01(K\x01L1180591620717411303424L\nG?\xf8\x00\x00\x00\x00\x00\x00U\x02\xe9\xffq\x02X\x03\x00\x00\x00\xe2\x82\xacI01\n}q\x03U\x01a]q\x04K\x01a"
        b"sc__builtin__\nset\nq\x05(]q\x06K\x01atRq\x07c__builtin__\nxrange\nq\x08(K\x00K\x03K\x01tRq\tccolle"
        b"ctions\nOrderedDict\nq\n(]q\x0b]q\x0c(U\x01aK\x01eatRq\rc__builtin__\nbytearray\nq\x0e(X\x02\x00\x00"
        b"\x00abU\x07latin-1tRq\x0f(c__main__\nOld\nq\x10oq\x11}q\x12U\x01xK\x01sbe."
    ),
    "cPickle, protocol 2": (
        b"\x80\x02]q\x01(K\x01\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@G?\xf8\x00\x00\x00\x00\x00\x00U\x02\xe9\xffq\x02X\x03\x00\x00\x00\xe2\x82\xac\x88}q\x03U\x01a]q\x04K\x01asc__builtin__\ns"
        b"et\nq\x05]q\x06K\x01a\x85Rq\x07c__builtin__\nxrange\nq\x08K\x00K\x03K\x01\x87Rq\tccollections\nOrderedDic"
        b"t\nq\n]q\x0b]q\x0c(U\x01aK\x01ea\x85Rq\rc__builtin__\nbytearray\nq\x0eX\x02\x00\x00\x00abU\x07latin-1\x86Rq\x0f(c_"
        b"_main__\nOld\nq\x10oq\x11}q\x12U\x01xK\x01sbe."
    ),
}


@pytest.mark.parametrize("writer", OF_PYTHON_2)
def test_what_python_2_wrote_is_read(writer: str) -> None:
    """Both of its picklers, whose memos count from 0 and from 1, at each of their protocols."""
    *values, old = tree(OF_PYTHON_2[writer])
    wanted = [1, 2**70, 1.5, "éÿ", "€", True, {"a": [1]}, {1}, range(3), collections.OrderedDict(a=1), bytearray(b"ab")]
    assert_same_bits(values, wanted)
    assert (old.module, old.name, old.fields) == ("__main__", "Old", {"x": 1})


def test_numbers_of_protocol_0_read_as_c_reads_them() -> None:
    """`I01` is True, `I010` is eight."""
    found = [tree(b"I" + digits + b"\n.") for digits in (b"00", b"01", b"010", b"-5", b"0x10", b" 7 ", b"1" * 30)]
    assert found == [False, True, 8, -5, 16, 7, int("1" * 30)] and [type(value) for value in found[:2]] == [bool, bool]
    assert tree(b"L123L\n.") == tree(b"L123\n.") == 123
    assert tree(b"F1e3\n.") == 1000.0 and np.isnan(tree(b"Fnan\n."))


def test_a_persistent_id_is_asked_for_or_inert() -> None:
    """A reader says what stands for it; without one it can be looked at."""
    assert raw(b"Pabc\n.", persistent=lambda pid: [pid]).value == ["abc"]
    assert raw(text("abc") + b"Q.", persistent=lambda pid: [pid]).value == ["abc"]
    assert tree(text("abc") + b"Q.")["__args__"] == ("abc",)


def test_long_byte_strings_stay_in_the_file_until_they_are_wanted() -> None:
    """From 64 KiB on, bytes know where they lie; in a tree they are bytes."""
    data = pickle.dumps({"a": b"x" * 100_000, "b": bytearray(100_000), "c": b"y" * 60_000}, 5)
    value = raw(data).value
    assert type(value["a"]) is Lump and type(value["b"]) is Lump and value["c"] == b"y" * 60_000
    assert value["a"].extent.start == data.index(b"xxxx") and value["a"].extent.nbytes == 100_000
    assert tree(data) == {"a": b"x" * 100_000, "b": bytearray(100_000), "c": b"y" * 60_000}


class Wrapper(Followed):
    """As joblib has it: an object whose bytes follow its BUILD, outside of the pickle."""

    def build_before(self, state: Any, cursor: Any) -> object:
        return bytes(cursor.raw("bytes", state["nbytes"]))


@pytest.mark.parametrize("nbytes", [3, 1000, 300_000])
def test_a_pending_object_may_read_what_follows_its_state(nbytes: int) -> None:
    """The machine goes on where the cursor was left, and what `build_before` gives takes the object's place."""
    data = b"](" + (named("a", "Wrapper") + b")\x81}" + text("nbytes") + number(nbytes) + b"sb" + b"." * nbytes) * 3 + b"e."
    assert raw(data, table={("a", "Wrapper"): lambda args: Wrapper()}).value == [b"." * nbytes] * 3


def test_what_is_shared_stays_shared_and_tensors_tied() -> None:
    """The same array twice is the same tensor twice, in objects too."""
    array = np.ones(3)
    found = tree(pickle.dumps([array, {"again": array}, argparse.Namespace(third=array)], 4))
    assert found[0] is found[1]["again"] is found[2]["third"]


def test_a_cycle_through_an_object_is_cut_and_reported() -> None:
    """A child that knows its parent does not make the tree endless."""
    parent, child = argparse.Namespace(name="p"), argparse.Namespace(name="c")
    parent.children, child.parent = [child], parent
    data = pickle.dumps(parent, 4)
    found = tree(data)
    assert found["children"][0]["parent"].fields == {} and found["children"][0]["name"] == "c"
    assert notes(data) == ["children.0.parent: leads back to what holds it, and was cut there"]
    child.parent = parent.children
    assert notes(pickle.dumps(parent, 4)) == ["children.0.parent: leads back to what holds it, and was cut there"]


def test_a_cycle_of_plain_containers_is_refused() -> None:
    """A list that holds itself is no tree; the refusal names its path."""
    endless: list[object] = [1]
    endless.append({"me": endless})
    with pytest.raises(FormatError, match=r"1\.me leads back to itself"):
        tree(pickle.dumps(endless))


def test_pytorchs_versions_are_kept_and_no_other_attribute_of_an_ordered_dict() -> None:
    """`_metadata` is what PyTorch remembers there; an attribute might hide a method."""
    state = collections.OrderedDict(a=1)
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    state.values = state.clear = "hidden"  # type: ignore[assignment, method-assign]
    found = tree(pickle.dumps(state, 2))
    assert found._metadata == {"": {"version": 1}} and list(found.values()) == [1]


def test_a_default_factory_is_kept_only_if_it_is_a_known_one() -> None:
    """A defaultdict keeps `list`, and forgets what a file could not keep."""
    assert tree(pickle.dumps(collections.defaultdict(list, a=[1]))).default_factory is list
    forgotten = tree(pickle.dumps(collections.defaultdict(functools.partial(int, 3), a=[1])))
    assert forgotten.default_factory is None and forgotten == {"a": [1]}


def test_plain_values_of_the_library_are_made_and_checked() -> None:
    """Moments, paths, ranges, sets come back; wrong arguments for them are refused by name."""
    moment = datetime.datetime(2026, 3, 1, 12, fold=1, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "X"))
    values = [
        *(
            moment,
            datetime.date(2020, 1, 2),
            datetime.time(1, 2, 3),
            datetime.timedelta(1, 2, 3),
            pathlib.PurePosixPath("/a/b"),
            range(1, 9, 2),
        ),
        *(1 - 2j, bytearray(b"ab"), frozenset({1, "a"}), collections.deque([1], 4), collections.Counter("aab"), slice(1, None, 2)),
    ]
    for protocol in range(6):
        assert tree(pickle.dumps(values, protocol)) == values
    for broken in (
        named("datetime", "datetime") + text("1") + b"\x85R.",
        named("collections", "OrderedDict") + b"K\x01\x85R.",
        named("builtins", "bytearray") + b"J\xff\xff\xff\x7f\x85R.",
        named("_codecs", "encode") + text("a") + text("zip") + b"\x86R.",
    ):
        with pytest.raises(FormatError, match="with arguments that are none of its own"):
            tree(broken)


def test_limits_of_steps_and_depth_are_told_with_what_to_do() -> None:
    """Who trusts a file may raise the limit that stopped it."""
    with pytest.raises(FormatError, match=r"more than 50 opcodes[\s\S]*tk\.Limits\(opcodes"):
        tree(pickle.dumps(list(range(100))), limits=Limits(opcodes=50))
    nested: list[object] = []
    for _ in range(60):
        nested = [nested]
    assert tree(pickle.dumps(nested)) == nested
    with pytest.raises(FormatError, match=r"nested deeper than 20[\s\S]*tk\.Limits\(depth"):
        tree(pickle.dumps(nested), limits=Limits(depth=20))


def test_nothing_is_imported_or_run(tmp_path: pathlib.Path) -> None:
    """With an audit hook that ends the process on any import, start, file or connection: pickles that would do all of it read as stubs."""
    attacks = [
        named("os", "system") + text("touch owned") + b"\x85R.",
        b"cbuiltins\neval\n" + text("open('owned','w')") + b"\x85R.",
        named("subprocess", "Popen") + b"(" + text("id") + b"l\x85R.",
        named("socket", "create_connection") + text("localhost") + number(1) + b"\x86\x85R.",
        named("this_is_not_there", "x") + b")R.",
        named("numpy.testing", "x") + b"N\x85R.",
        b"(" + text("a") + b"ios\nsystem\n.",
        named("importlib", "import_module") + text("antigravity") + b"\x85R.",
        named("builtins", "__import__") + text("antigravity") + b"\x85R.",
    ]
    program = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
from pickled import tree
tree(b"(cnumpy\\ndtype\\nX\\x02\\x00\\x00\\x00f4K\\x00K\\x01\\x87R0N.")
def hook(event, args):
    if event.split(".")[0] in ("import", "exec", "compile", "open", "os", "subprocess", "socket", "pickle", "marshal", "ctypes", "code"):
        print(event, args)
        import os
        os._exit(9)
sys.addaudithook(hook)
for attack in {attacks!r}:
    tree(attack)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "owned").exists()


def test_the_machine_reads_a_mapped_file_as_it_reads_memory() -> None:
    """Extents inside a file work like whole ones."""
    data = b"??" + pickle.dumps([1, b"z" * 70_000], 4) + b"??"
    part = extent(data).part(2, len(data) - 2)
    value, end = run(part, TABLE, budget=Budget("x", len(data), Limits()))
    assert value[0] == 1 and value[1].value() == b"z" * 70_000 and end == part.nbytes


def test_out_of_band_bytes_that_are_missing_are_told() -> None:
    """A pickle whose arrays were written beside it says so."""
    with pytest.raises(FormatError, match="beside the pickle"):
        tree(pickle.dumps(np.ones(3), 5, buffer_callback=[].append))
