"""Every parser of a model file, with bytes that nobody vouches for: a value or an error of the family, soon, in little memory."""

import random
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from craft import model_file, safetensors
from fuzz import hostile
from fuzz.trial import ends_well

fuzzed = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
SEED = 20261124
SEEDS = hostile.seeds()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where trials lie."""
    return tmp_path_factory.mktemp("fuzz")


@given(hostile.nodes)
@settings(fuzzed, max_examples=300)
def test_any_structure_ends_well(folder: Path, node: object) -> None:
    """Every tag around every wrong document, with digests and root that are right."""
    ends_well(model_file(hostile.with_all_tensors(node), hostile.ENTRIES), folder)


@given(hostile.dtype_documents, st.sampled_from(([8], [2, 4], [1, 8], [8, 0], [2**62, 0], [2**20, 0], [4, 2, 1])))
@settings(fuzzed, max_examples=200)
def test_any_dtype_ends_well(folder: Path, dtype: object, shape: list[int]) -> None:
    """A tensor that is said to be anything: fields, texts, moments, of no bytes, of huge shapes."""
    data = b"" if 0 in shape else b"\xff\xff\xff\xff\x00\x01\x02\x03"
    ends_well(model_file({"dict": [["w", {"tensor": "w", "dtype": dtype}]]}, {"w": ("U8", shape, data)}), folder)


@given(hostile.nodes)
@settings(fuzzed, max_examples=60)
def test_any_metadata_end_well(folder: Path, node: object) -> None:
    """The user's own metadata are a structure too, and no tensor may stand in it."""
    ends_well(model_file(1, {}, metadata=node), folder)
    ends_well(model_file(1, {}, metadata={"dict": [["note", node]]}), folder)


_ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(("U8", "F32", "F4", "F6_E2M3", "BOOL", "X")) | hostile.atoms,
        "shape": st.lists(st.sampled_from((0, 1, 2, 3, 4, 2**31, 2**62, hostile.M61, -1)), max_size=5) | hostile.atoms,
        "data_offsets": st.lists(st.sampled_from((0, 4, 8, 16, 2**62, 10**5000, -1)), min_size=1, max_size=3) | hostile.atoms,
        "more": hostile.atoms,
    },
)


@given(st.dictionaries(st.sampled_from(hostile.NASTY_TEXTS), _ENTRY, max_size=4), st.dictionaries(hostile.atoms.map(str), hostile.atoms))
@settings(fuzzed, max_examples=200)
def test_any_header_of_others_ends_well(folder: Path, entries: dict[str, object], metadata: dict[str, object]) -> None:
    """A plain safetensors file with any entries and any metadata."""
    ends_well(_file(entries), folder)
    ends_well(_file({"__metadata__": metadata, **entries}), folder)


def _file(header: object) -> bytes:
    sys.set_int_max_str_digits(0)
    try:
        return safetensors(header, bytes(16))
    finally:
        sys.set_int_max_str_digits(4300)


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_damage_inside_ends_well(folder: Path, number: int) -> None:
    """80 changes of each good file, digests and root made right again, so that they reach the parsers behind the checks."""
    rng = random.Random(SEED + number)
    for _ in range(80):
        ends_well(hostile.damaged_inside(SEEDS[number], rng, SEEDS), folder)


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_damage_outside_ends_well(folder: Path, number: int) -> None:
    """40 files that were cut, bent or spliced."""
    rng = random.Random(SEED + number)
    for _ in range(40):
        ends_well(hostile.damaged_outside(SEEDS[number], rng, SEEDS), folder)
