"""Small files that ask for much, or that only some readers refuse, as a hostile tester made them; and reports that such files cause."""

import base64
import contextlib
import io
import json
import tracemalloc
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load

import tensorkeep as tk
from craft import entry, frame, model_file, safetensors, soon
from fuzz.trial import ends_well
from tensorkeep import dtypes
from tensorkeep.cli import run


class TestContainer:
    """What safetensors reads is read, and what it refuses is refused."""

    def test_an_empty_tensor_that_is_named_behind_the_full_one_at_its_place(self) -> None:
        """Tensors are sorted by where they begin and end before they are held against each other."""
        data = safetensors({"b": entry(0, 4), "a": entry(0, 0, 0), "c": entry(4, 4, 0)}, b"abcd")
        found = tk.loads(data)
        assert {name: value.tobytes() for name, value in found.items()} == {
            name: value.tobytes() for name, value in safetensors_load(data).items()
        }


class TestDtypes:
    """Dtypes that a file describes, and those that casts go between."""

    @pytest.mark.parametrize("dtype", [">U0", "<U0", "|S0", "|V0"])
    def test_elements_without_a_byte_take_none(self, dtype: str) -> None:
        """A file of 400 bytes names 2^22 texts of no characters: none is made longer. 2^40 pass the limit of values."""
        node = {"dict": [["w", {"tensor": "w", "dtype": dtype}]]}
        tracemalloc.start()
        found = tk.loads(model_file(node, {"w": ("U8", [1 << 22, 0], b"")}))["w"]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (found.dtype, found.shape) == (np.dtype(dtype), (1 << 22,))
        assert peak < 8 << 20  # 2^22 characters would take twice that
        with pytest.raises(tk.FormatError, match="more than 20,000,000 values"):
            tk.loads(model_file(node, {"w": ("U8", [1 << 40, 0], b"")}))

    def test_texts_of_no_characters_round_trip(self) -> None:
        """In both byte orders."""
        for dtype in (">U0", "<U0"):
            array = np.ndarray((3,), dtype, b"")
            found = tk.loads(tk.dumps({"w": array}))["w"]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)

    @pytest.mark.parametrize("inner", ["U8", "<U1"])
    def test_fields_on_top_of_each_other_are_refused(self, inner: str) -> None:
        """2,000 fields of 10,000 elements each, all at the same place: each would be walked over."""
        count = 10_000 // (1 if inner == "U8" else 4)
        fields = {"fields": [[f"f{number}", inner, 0, [count]] for number in range(2000)], "itemsize": 10_000}
        nested = {"fields": [[f"g{number}", {"fields": fields["fields"][:8], "itemsize": 10_000}, 0, []] for number in range(8)]}
        content = base64.b64encode(bytes(10_000)).decode()
        for described in (fields, {**nested, "itemsize": 10_000}):
            with soon(2), pytest.raises(tk.FormatError):
                tk.loads(model_file({"scalar": [described, content]}, {}))

    def test_a_scalar_of_many_texts_is_looked_through_at_once(self) -> None:
        """100,000 texts in one field, and the same in fields of fields; one with a character that does not exist is refused."""
        for dtype in ([("a", "<U1", (100_000,))], [("n", "<i4"), ("a", [("b", "<U2", (2,)), ("c", "u1")], (10_000,))]):
            scalar = np.zeros((), dtype)[()]
            with soon(2):
                assert tk.loads(tk.dumps([scalar]))[0] == scalar
            described, content = np.dtype(dtype), bytearray(scalar.tobytes())
            node = [{"scalar": [dtypes.describe_numpy(described), base64.b64encode(content).decode()]}]
            assert tk.loads(model_file(node, {}))[0] == scalar
            content[6:10] = b"\xff" * 4
            node = [{"scalar": [dtypes.describe_numpy(described), base64.b64encode(content).decode()]}]
            with pytest.raises(tk.FormatError):
                tk.loads(model_file(node, {}))

    def test_a_union_of_two_fields_is_kept(self) -> None:
        """NumPy's idiom for a number and its bytes, and padded structs."""
        union = np.dtype({"names": ["whole", "low"], "formats": ["<u4", "u1"], "offsets": [0, 0]})
        padded = np.dtype([("a", "u1"), ("b", "<f8")], align=True)
        for dtype in (union, padded):
            assert tk.loads(tk.dumps({"w": np.ones(3, dtype)}))["w"].dtype == dtype

    @pytest.mark.filterwarnings("ignore::tensorkeep.TensorkeepWarning")
    def test_every_cast_that_is_promised_is_made(self) -> None:
        """From each number to each that `castable` names: what both hold comes over as it is."""
        others = ["I4", "U4", "I2", "U2", "I1", "U1", "F6_E2M3", "F6_E3M2", "F8_E3M4", "F8_E4M3IEEE", "F8_E4M3B11FNUZ", "C128", "BC32"]
        numbers = [dtypes.parse(name) for name in (*dtypes.STANDARD, *others)]
        pairs = [(source, target) for source in numbers for target in numbers if source != target and dtypes.castable(source, target)]
        assert len(pairs) > 300
        for source, target in pairs:
            one = 0 if "I1" in (source.name, target.name) else 1
            array = np.full(4, one, np.int8).astype(source.numpy)
            found = np.zeros(4, target.numpy)
            tk.loads(tk.dumps({"w": array}), into={"w": found}, cast=True)
            wanted = np.full(4, one, np.int8).astype(target.numpy)
            assert found.tobytes() == wanted.tobytes(), (source, target)


class TestPrinting:
    """What a command prints of a name."""

    def test_a_name_of_marks_is_cut_in_linear_time(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """30,000 marks that take no column, and few letters: shortened like any long name."""
        name = "\u0301" * 15_000 + "a" * 600 + "\u0301" * 15_000
        (tmp_path / "w.safetensors").write_bytes(safetensors({name: entry(0, 1)}, b"x"))
        with soon():
            run(["show", str(tmp_path / "w.safetensors")])
        assert len(capsys.readouterr().out) < 10_000


def probing(bits: int) -> list[int]:
    """Ints that a dict of 2**bits places looks for in one another's: half of them fill a walk, the others go along it."""
    size = 1 << bits
    mask, usable = size - 1, size * 2 // 3
    walk, at, place = [], np.full(size, -1), 0
    for step in range(usable // 2):
        walk.append(place)
        at[place] = step
        place = 5 * place + 1 & mask
    found: dict[int, None] = {}
    rng = np.random.default_rng(1)
    while len(found) < usable - len(walk) - 10:
        numbers = rng.choice(np.array(walk), 1 << 20) + size * rng.integers(1, 1 << 10, 1 << 20)
        rest, places = numbers.copy(), numbers & mask
        while rest.any():  # as CPython's dict goes from place to place
            taken = at[places] >= 0
            numbers, rest, places = numbers[taken], rest[taken] >> 5, places[taken]
            places = np.where(rest > 0, places * 5 + rest + 1 & mask, places)
        found.update(dict.fromkeys(numbers[(at[places] >= 0) & (at[places] < usable // 8)].tolist()))
    return walk + list(found)[: usable - len(walk) - 10]


@pytest.fixture(scope="module")
def colliding() -> list[int]:
    """43,000 of them."""
    return probing(16)


class TestKeys:
    """Keys that are no texts, in dicts and sets."""

    def test_numbers_that_collide_in_their_low_bits_are_refused(self, colliding: list[int]) -> None:
        """No two of them have one hash, and yet a dict walks past thousands for each."""
        with soon(), pytest.raises(tk.FormatError, match="made to collide"):
            tk.loads(model_file({"dict": [[key, 1] for key in colliding]}, {}))

    def test_numbers_in_names_of_tensors_are_grouped_without_a_dict(self, colliding: list[int]) -> None:
        """The same numbers in the names of a file of others, shown."""
        data = safetensors({f"x{key}": entry(0, 0, 0) for key in colliding})
        with soon(20.0):
            assert sum(row.count for row in tk.show(io.BytesIO(data)).rows) == len(colliding)

    @pytest.mark.parametrize("keys", ["in order", "by chance", "pairs", "floats", "multiples"])
    def test_many_keys_of_any_honest_kind_are_fast(self, keys: str) -> None:
        """100,000 keys as optimizers, vocabularies and counters have them."""
        count = 100_000
        made: dict[str, list[Any]] = {
            "in order": list(range(count)),
            "by chance": np.random.default_rng(1).permutation(2**40 >> 16)[:count].tolist(),
            "pairs": [(number % 317, number // 317) for number in range(count)],
            "floats": [number / 7 for number in range(count)],
            "multiples": [number << 32 for number in range(count)],
        }
        state = dict.fromkeys(made[keys], 1)
        data = tk.dumps(state)
        with soon():
            assert tk.loads(data) == state

    @pytest.mark.parametrize(
        "keys",
        [
            [{"scalar": [{"fields": [["a", "I32", 0, []]], "itemsize": 8}, "AQAAAAAAAAA="]},
             {"scalar": [{"fields": [["b", "I64", 0, []]], "itemsize": 8}, "AQAAAAAAAAA="]}],
            [{"scalar": ["BF16", "AAA="]}, {"scalar": ["<M8", "AAAAAAAAAAA="]}],
            [{"scalar": ["<M8[s]", "AAAAAAAAAAA="]}, {"scalar": ["<M8[as]", "AAAAAAAAAAA="]}],
            [{"scalar": ["<m8", "AAAAAAAAAAA="]}],
        ],
    )  # fmt: skip
    def test_scalars_that_are_no_keys(self, keys: list[object]) -> None:
        """NumPy's scalars that have no hash, or refuse to be compared, end as an error of the family or as keys."""
        for node in ({"dict": [[key, 1] for key in keys]}, {"set": keys}, {"dict": [[{"frozenset": keys}, 1]]}):
            with contextlib.suppress(tk.FormatError):
                tk.loads(model_file(node, {}))


class TestPaths:
    """Paths of a structure, which repeat the keys above them."""

    def test_wide_characters_count_as_many_bytes(self) -> None:
        """One astral character makes Python keep four bytes for each of a key that stands in 9,000 paths."""
        node = {"dict": [["\U0001f600" + "k" * 9990, {"dict": [[f"a{number}", 1] for number in range(9000)]}]]}
        with pytest.raises(tk.FormatError, match="bytes in its paths"):
            tk.loads(model_file(node, {}))
        assert len(tk.loads(model_file(node, {}), limits=tk.Limits(path_bytes=1 << 30))) == 1

    @pytest.mark.parametrize("letter", ["k", "\u5c42"])
    def test_long_names_of_a_large_model_are_no_attack(self, letter: str) -> None:
        """20,000 tensors with paths of 200 characters, and a value beside each."""
        layers = {letter * 150 + str(number): {letter * 40: np.zeros(1, np.int8), "n": number} for number in range(20_000)}
        assert len(tk.loads(tk.dumps(layers))) == 20_000

    @pytest.mark.parametrize("wanted", ["*.weight", "x.*.weight"])
    def test_a_deep_rename_takes_linear_time(self, wanted: str) -> None:
        """10,000 leaves below 90 dicts of one key: what moves as a whole is found from the leaves up."""
        node: object = {"dict": [*([f"{number}w.weight", 1] for number in range(10_000)), ["bias", 1]]}
        for _ in range(90):
            node = {"dict": [["a", node]]}
        with soon(8):
            tk.loads(model_file({"dict": [["module", node]]}, {}), rename={"module.*.weight": wanted})


class TestNumbers:
    """Numbers that programs read in two ways."""

    @pytest.mark.parametrize(
        "header",
        [
            b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[-0,4]}}',
            b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"more":1e999}}',
            b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"more":"\xed\xa0\x80"}}',
            b'{"w\xed\xa0\x80":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
            b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"more":' + b"[" * 130 + b"]" * 130 + b"}}",
            b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"more":' + b'{"a":' * 130 + b"1" + b"}" * 130 + b"}}",
            b'{"__metadata__":{"a":"\xed\xa0\x80"},"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
        ],
    )
    def test_a_header_that_safetensors_refuses_is_refused(self, header: bytes) -> None:
        """-0 as a whole number, numbers beyond all floats, surrogates, and nesting that its parser does not follow."""
        data = safetensors(None, b"abcd", text=header)
        with pytest.raises(SafetensorError):
            safetensors_load(data)
        with pytest.raises(tk.FormatError):
            tk.loads(data)

    def test_odd_spellings_that_safetensors_reads_are_read(self) -> None:
        """Spaces, escapes, and fields that nobody knows, nested as deep as its parser follows."""
        data = safetensors(
            None,
            b"abcd",
            text=b'{ "w\\u0041" : {"shape":[4], "dtype":"U8","more":' + b"[" * 100 + b"1e5, -1" + b"]" * 100 + b',"data_offsets":[0, 4]} }',
        )
        assert list(safetensors_load(data)) == list(tk.loads(data)) == ["wA"]

    @pytest.mark.parametrize(
        "text", ['9007199254740993', '-9007199254740993', '{"float":-0}', '{"set":[9007199254740993]}', '{"range":[0,9007199254740993,1]}',
                 '{"slice":[9007199254740993,null,null]}', '{"complex":[0.0,-0]}']
    )  # fmt: skip
    def test_a_structure_with_such_a_number_is_refused(self, text: str) -> None:
        """Whole numbers beyond 2^53 have a tag of their own, and the sign of zero stands on a fraction alone."""
        data = model_file({"dict": [["n", "NUMBER"]]}, {})
        header, document, _ = frame(data)
        raw = json.dumps(document | {"digests": "", "root": "0" * 64}, separators=(",", ":")).replace('"NUMBER"', text)
        header["__metadata__"]["tensorkeep"] = raw
        head = json.dumps(header, separators=(",", ":")).encode()
        head = len(head).to_bytes(8, "little") + head
        with pytest.raises(tk.FormatError):
            tk.loads(head.replace(b"0" * 64, blake3(head).hexdigest().encode()))


class TestTargets:
    """What a load does to what it is given."""

    def test_a_field_that_refuses_its_value_leaves_the_tensors_alone(self) -> None:
        """A setter gets its value before any bytes go over, and its former one back."""
        settings, other = Strict(np.zeros(2), 0.5), Strict(np.zeros(2), 0.25)
        both = {"first": settings, "second": other}
        node = {"dict": [["w", {"tensor": "w"}], ["lr", {"float": 0.75}]]}, {"dict": [["w", {"tensor": "w"}], ["lr", "x"]]}
        data = model_file({"dict": [["first", node[0]], ["second", node[1]]]}, {"w": ("F64", [2], np.ones(2).tobytes())})
        with pytest.raises(tk.MismatchError, match="a float"):
            tk.loads(data, into=both)
        assert (settings.lr, other.lr) == (0.5, 0.25)
        assert not settings.w.any() and not other.w.any()
        data = model_file(node[0], {"w": ("F64", [2], np.ones(2).tobytes())})
        weights = settings.w
        assert tk.loads(data, into=settings) is settings
        assert settings.lr == 0.75 and settings.w is weights and weights.all()

    def test_a_tuple_that_refuses_its_values_leaves_the_tensors_alone(self) -> None:
        """What cannot change is made anew before any bytes go over; what holds it gets the new one."""
        weights = np.zeros(2)
        target = {"deep": Frozen(Picky(weights, 1))}
        data = tk.dumps({"deep": {"inner": (np.ones(2), 7)}})
        assert tk.loads(data, into=target)["deep"] == Frozen(Picky(weights, 7)) and weights.all()
        weights[:] = 0
        with pytest.raises(tk.MismatchError, match="no 13"):
            tk.loads(tk.dumps({"deep": {"inner": (np.ones(2), 13)}}), into=target)
        assert not weights.any()

    def test_a_class_that_cannot_be_made_from_its_fields(self) -> None:
        """A dataclass that is an exception is passed in types=: a FormatError that says why."""
        data = model_file({"object": "records.dataclass", "class": "Broken", "state": {"dict": [["a", 1]]}}, {})
        with pytest.raises(tk.FormatError, match="cannot be made from its fields"):
            tk.loads(data, types=[Broken])

    def test_names_of_the_file_that_a_rename_makes_one(self) -> None:
        """The caller's patterns are fine and the file's names are not: an error of the family, and a ValueError."""
        for names in (["w", "module.w"], ["module."]):
            data = safetensors({name: entry(0, 0, 0) for name in names})
            with pytest.raises(tk.MismatchError, match="rename="):
                tk.loads(data, rename={"module.*": "*"})
        with pytest.raises(tk.MismatchError, match="no place"):
            tk.loads(model_file([1], {}), rename={"0": "q"})
        with pytest.raises(ValueError, match="same number"):
            tk.loads(data, rename={"*.*": "*"})


class TestReading:
    """Tensors that are read one by one."""

    @pytest.mark.parametrize("count", [43_690, 300])
    def test_small_tensors_without_a_mapping_share_what_was_hashed(self, tmp_path: Path, count: int) -> None:
        """Tensors of one chunk, in memory and in a file too small for a mapping: hashed once for neighbours, and each array its own."""
        arrays = {str(number): np.full(24, number % 256, np.uint8) for number in range(count)}
        tk.save(arrays, tmp_path / "w.safetensors")
        for file in (io.BytesIO((tmp_path / "w.safetensors").read_bytes()), tmp_path / "w.safetensors"):
            with soon(), tk.open(file) as contents:
                for name, tensor in contents.tensors.items():
                    if int(name) % 4 == 0:
                        assert tensor.tobytes() == arrays[name].tobytes()
                tensor = contents.tensors["7"]
                one, other = tensor.numpy(), tensor.numpy()
                if file != tmp_path / "w.safetensors" or count == 300:  # the arrays of a mapping are views of it
                    one[:] = 0
                assert other.tolist() == [7] * 24


@dataclass
class Broken(Exception):
    """An exception with fields."""

    a: int = 0


@dataclass(frozen=True, eq=True)
class Frozen:
    """Cannot change."""

    inner: Any


class Picky(namedtuple("Picky", "w n")):
    """A named tuple that takes not everything."""

    __slots__ = ()

    @classmethod
    def _make(cls, values: Any) -> Any:
        w, n = values
        if n == 13:
            raise RuntimeError("no 13")
        return cls(w, n)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picky) and self.w is other.w and self.n == other.n

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Strict:
    """Takes floats alone."""

    w: Any
    lr: float


def _set_lr(self: Strict, value: object) -> None:
    if not isinstance(value, float):
        raise TypeError("lr must be a float")
    _RATES[id(self)] = value


_RATES: dict[int, float] = {}
Strict.lr = property(lambda self: _RATES[id(self)], _set_lr)  # later, for the dataclass would take it for a default


ATTACKS: dict[str, bytes] = {
    "texts of no characters": model_file({"dict": [["w", {"tensor": "w", "dtype": ">U0"}]]}, {"w": ("U8", [1 << 40, 0], b"")}),
    "fewer of them": model_file({"dict": [["w", {"tensor": "w", "dtype": ">U0"}]]}, {"w": ("U8", [1 << 16, 0], b"")}),
    "fields on top of each other": model_file(
        {"scalar": [{"fields": [[f"f{number}", "<U1", 0, [250]] for number in range(300)], "itemsize": 1000}, "A" * 1332 + "AA=="]}, {}),
    "a wide key above many values": model_file({"dict": [["\U0001f600" + "k" * 10**5, {"dict": [["a", [0] * 10_000]]}]]}, {}),
    "a name of marks": safetensors({"\u0301" * 10_000 + "a" * 600 + "\u0301" * 10_000: entry(0, 1)}, b"x"),
    "keys of no hash": model_file({"dict": [[{"scalar": ["<m8", "AAAAAAAAAAA="]}, 1]]}, {}),
    "empty behind full": safetensors({"w": entry(0, 4), "a": entry(0, 0, 0)}, b"abcd"),
}  # fmt: skip


@pytest.mark.parametrize("what", ATTACKS)
def test_an_attack_ends_well_by_every_way_in(tmp_path: Path, what: str) -> None:
    """Loaded, opened, verified, shown and loaded into a target: soon, in bounded memory, with a value or an error of the family."""
    ends_well(ATTACKS[what], tmp_path, measured=True)
