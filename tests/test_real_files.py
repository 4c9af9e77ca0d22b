"""Files made by others: each reads as its genuine tool reads it.

The files are not part of this project, for they have many licences. The environment variable TENSORKEEP_REAL_FILES names the folder; its
manifest has the truth about each: a digest over names, dtypes, shapes and bytes of all tensors.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest

import tensorkeep as tk

REAL: Final = Path(os.environ["TENSORKEEP_REAL_FILES"]) if os.environ.get("TENSORKEEP_REAL_FILES") else None

# Where the manifest's digest is not of all that stands in the file, or the naming is ours to choose: which one holds, and why.
# A digest's name is a key of the entry, of its `meta`, or of a dict in its `meta`.
HELD_BY: Final[dict[str, str]] = {
    # Its entry counts initializers alone, of which it has none: all its tensors are constants, nearly all inside of If branches.
    "silero_vad-6.2.3/silero_vad/data/silero_vad.onnx": "meta.with_subgraphs_and_constants",
}

ADDED: Final[dict[str, int]] = {
    "bulk/onnx/backend/test/data/pytorch-operator/test_operator_mm/model.onnx": 1,
    "bulk/onnx/backend/test/data/pytorch-operator/test_operator_repeat/model.onnx": 1,
    "bulk/onnx/backend/test/data/pytorch-operator/test_operator_repeat_dim_overflow/model.onnx": 2,
}
"""Files without a tensor that the manifest counts, and how many they have: it counts initializers alone, these have constants."""

NOT_READ: Final[dict[str, str]] = {
    "bulk/joblib/test/data/joblib_0.9.4.dev0_compressed_cache_size_pickle_py35_np19.gz": "its arrays lie in files that this copy lacks",
    "bulk/h5py/tests/data_files/vlen_string_dset_utc.h5": "texts, which are plain values here; its digest is over addresses",
}
"""Files that are not read, with the reason, which stands in the docs' table of formats too."""

_GENSIM: Final = "gensim-4.4.0/gensim/test/test_data/"
BESIDE: Final[dict[str, tuple[str, ...]]] = {
    f"{_GENSIM}word2vec_pre_kv_sep_py3": ("neg_labels", "syn0", "syn0_lockf", "syn1neg"),
    f"{_GENSIM}lda_3_0_1_model": ("expElogbeta", "state.", "id2word."),
    f"{_GENSIM}ldamodel_python_2_7": ("expElogbeta", "state.", "id2word."),
    f"{_GENSIM}ldamodel_python_3_5": ("expElogbeta", "state.", "id2word."),
}
"""Tensors that lie in files beside the one that is opened, by the beginnings of their paths: the manifest's digest is without them."""

UNWRITTEN: Final[dict[str, str]] = {
    "BaconErie+stratus-ai@2a2d88aedfbf/model.skops": "gaps between the fields of a table, which nobody wrote: NumPy gives others each time",
}
"""Files whose digest is over bytes that are not in them: their names, dtypes and shapes are compared."""


def _entries() -> Iterator[Any]:
    if REAL is None:
        yield pytest.param(None, marks=pytest.mark.skip(reason="192 real files: TENSORKEEP_REAL_FILES is not set"))
        return
    manifest = json.loads((REAL / "manifest.json").read_text(encoding="utf-8"))
    for entry in manifest["entries"] + manifest["bulk"]:
        marks = [] if entry.get("present", True) else [pytest.mark.skip(reason="not in this copy of the folder")]
        yield pytest.param(entry, id=entry["file"], marks=marks)


ENTRIES: Final = list(_entries())


@cache
def truthlib() -> Any:
    assert REAL is not None
    module = ModuleType("truthlib")
    exec(compile((REAL / "truthlib.py").read_bytes(), "truthlib.py", "exec"), vars(module))  # an import would leave its bytecode there
    return module


def records(contents: tk.Contents) -> list[tuple[str, str, list[int], bytes]]:
    """The tensors as the manifest's rule wants them, ties at each of their paths."""
    from tensorkeep.tree import tensors

    found = []
    for path, tensor in tensors(contents.tree):
        dtype = tensor.dtype.numpy
        name = truthlib().np_dtype(dtype) if dtype is not None and dtype.names is not None else str(tensor.dtype)
        found.append((path, name, list(tensor.shape), tensor.tobytes()))
    return found


def _is_over_addresses(entry: Any) -> bool:
    """Whether the digest is of arrays of Python objects, whose bytes are addresses: structs of MATLAB, texts of HDF5."""
    return any("|O" in dtype for dtype in entry["dtypes"])


def _opens_or_is_refused(path: Path) -> None:
    with contextlib.suppress(tk.FormatError), tk.open(path) as contents:
        records(contents)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_real_file_reads_as_its_genuine_tool_reads_it(entry: Any) -> None:
    """Every tensor, by name, dtype, shape and bytes; by content alone where the naming is ours."""
    assert REAL is not None
    if (reason := NOT_READ.get(entry["file"])) is not None:
        pytest.skip(reason)
    if entry.get("digest") is None or _is_over_addresses(entry):
        _opens_or_is_refused(REAL / entry["file"])  # its genuine tool fails on it, or shows no tensors
        return
    with tk.open(REAL / entry["file"]) as contents:
        beside = BESIDE.get(entry["file"], ())
        found, _ = truthlib().digests([row for row in records(contents) if not (beside and row[0].startswith(beside))])
    wanted = entry
    for key in HELD_BY.get(entry["file"], "").split(".") if entry["file"] in HELD_BY else ():
        wanted = wanted[key]
    if (added := ADDED.get(entry["file"])) is not None:
        assert (wanted["tensors"], found["tensors"]) == (0, added)
        return
    assert found["tensors"] == wanted["tensors"]
    if entry["file"] in UNWRITTEN:
        assert found["dtypes"] == wanted["dtypes"] and found["bytes"] == wanted["bytes"]
        return
    assert found["digest"] == wanted["digest"] or found["digest_unnamed"] == wanted["digest_unnamed"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_show_prints_something_of_a_real_file(entry: Any) -> None:
    """`show` gives a summary of every file that is read."""
    assert REAL is not None
    if (reason := NOT_READ.get(entry["file"])) is not None:
        pytest.skip(reason)
    if entry.get("digest") is None:
        _opens_or_is_refused(REAL / entry["file"])
        return
    summary = tk.show(REAL / entry["file"])
    assert summary.tensors or summary.values or summary.metadata


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_real_file_becomes_a_model_file(entry: Any, tmp_path: Path) -> None:
    """`convert` carries every tensor over: the model file has the same fingerprint, and `diff` sees no tensor of another kind."""
    assert REAL is not None
    if (reason := NOT_READ.get(entry["file"])) is not None:
        pytest.skip(reason)
    try:
        tk.convert(REAL / entry["file"], tmp_path / "model.safetensors")
    except tk.FormatError:
        if entry.get("digest") is None:
            return  # damaged on purpose: its genuine tool fails on it too
        raise
    assert tk.fingerprint(tmp_path / "model.safetensors").names == tk.fingerprint(REAL / entry["file"]).names
    found = tk.diff(REAL / entry["file"], tmp_path / "model.safetensors")
    assert not (found.changed or found.retyped or found.reshaped or found.renamed or found.added or found.removed)


def test_the_helpers_of_this_file_know_a_digest() -> None:
    """The rule of the manifest, on a tensor that is known."""
    if REAL is None:
        pytest.skip("TENSORKEEP_REAL_FILES is not set")
    found, rows = truthlib().digests([("w", "F32", [2], np.ones(2, np.float32).tobytes())])
    assert found["tensors"] == 1 and rows[0][3] == hashlib.sha256(np.ones(2, np.float32).tobytes()).hexdigest()
