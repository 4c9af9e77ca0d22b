"""The public face: which names there are, and what importing them costs."""

import importlib.util
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk

NAMES = [
    *(
        "Candidate",
        "Cast",
        "Checkpoint",
        "CheckpointGone",
        "ClaimLost",
        "Collected",
        "Contents",
        "Conversion",
        "Copied",
        "CorruptError",
        "DType",
        "Damage",
        "Diff",
        "Every",
        "Exported",
        "Finding",
        "Fingerprint",
        "FormatError",
        "Job",
        "Keep",
        "LazyTensor",
        "Limits",
    ),
    *(
        "MismatchError",
        "MissingExtraError",
        "NoCheckpoint",
        "Problem",
        "Removal",
        "Report",
        "RestoreInterrupted",
        "Resumed",
        "SaveError",
        "Scan",
        "Stats",
        "StepExists",
        "Store",
        "StoreBusy",
        "Stub",
        "Summary",
        "TagExists",
        "TensorSpec",
        "TensorkeepError",
        "TensorkeepWarning",
        "UnsupportedError",
    ),
    *(
        "Verdict",
        "__version__",
        "convert",
        "diff",
        "dumps",
        "fingerprint",
        "load",
        "loads",
        "same",
        "save",
        "scan",
        "show",
        "verify",
    ),
]


def test_the_public_names_are_these() -> None:
    """Adding or taking away a public name is a decision: it changes this list."""
    assert sorted(tk.__all__) == sorted(NAMES)
    assert {name for name in dir(tk) if not name.startswith("_")} >= set(NAMES) - {"__version__"} | {"open"}


def test_every_public_thing_says_that_it_lives_here() -> None:
    """People see tensorkeep.load, not where its file is; and each has a docstring."""
    for name in {*NAMES, "open"} - {"__version__"}:
        assert getattr(tk, name).__module__ == "tensorkeep", name
        assert getattr(tk, name).__doc__, name


def test_importing_loads_neither_numpy_nor_a_framework() -> None:
    """The import is light; so is the help of the command line."""
    code = (
        "import sys, tensorkeep, tensorkeep.cli as cli\ncli.run(['--help'])\nprint({'numpy', 'torch', 'jax', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")


def test_saving_arrays_imports_no_framework(tmp_path: Path) -> None:
    """Nothing is imported that the user has not imported."""
    code = (
        "import sys, numpy as np, tensorkeep as tk\n"
        f"tk.save({{'a': np.ones(3)}}, {str(tmp_path / 'a.safetensors')!r}); tk.load({str(tmp_path / 'a.safetensors')!r})\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_a_missing_name_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match="sav"):
        tk.sav  # noqa: B018


def test_open_files_have_a_short_repr_and_refuse_pickling(tmp_path: Path) -> None:
    """Handles say what they are without reading, and what to pass instead of themselves."""
    tk.save({"w": np.arange(6.0).reshape(2, 3)}, tmp_path / "w.safetensors")
    with tk.open(tmp_path / "w.safetensors") as contents:
        assert repr(contents).startswith("<tensorkeep model file ")
        assert repr(contents.tensors["w"]) == "LazyTensor('w', F64[2,3])"
        for handle in (contents, contents.tensors["w"]):
            with pytest.raises(TypeError, match="pass"):
                pickle.dumps(handle)


def test_the_types_are_what_people_expect(tmp_path: Path) -> None:
    """`load(into=x)` has the type of x; the package is typed."""
    mypy = pytest.importorskip("mypy.api")
    (tmp_path / "use.py").write_text(
        "import tensorkeep as tk\nx: list[int] = tk.load('a', into=[1])\nreveal_type(tk.load('a', into='s'))\n"
        "with tk.open('a') as f:\n    reveal_type(f.tensors['w'].shape)\ntk.save(1, 'a', metadata={'n': 1})\ny: int = tk.verify('a')\n"
    )
    out = mypy.run([str(tmp_path / "use.py"), "--strict", "--cache-dir", str(tmp_path / "cache")])[0]
    assert 'Revealed type is "str"' in out or 'Revealed type is "builtins.str"' in out
    assert "tuple[int, ...]" in out or "tuple[builtins.int, ...]" in out
    assert out.count("error:") == 1, out  # the last line, and nothing else


@pytest.mark.parametrize("url", ["ftp://host/key.safetensors", "hdfs://b/k"])
@pytest.mark.parametrize("verb", ["load", "open", "show", "verify", "save"])
def test_a_url_that_is_not_read_is_told_to_be_one(verb: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a file that is missing; and nothing of that name is made."""
    monkeypatch.chdir(tmp_path)
    act = partial(tk.save, {"a": 1}) if verb == "save" else getattr(tk, verb)
    with pytest.raises(OSError, match="URL, which is not supported yet") as caught:
        act(url)
    assert caught.value.filename == url
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no name has a colon there")
@pytest.mark.parametrize("name", ["a:b", "s3:", "C://m", "2024-01-01T10:00:00.safetensors", "./s3://m"])
def test_a_name_with_a_colon_is_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is not a scheme of two letters or more before `://` is a path."""
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    tk.save({"a": 1}, name)
    assert tk.load(name) == {"a": 1}


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="Keras is not installed")
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="Keras has all that it lacks here")
def test_a_package_that_lacks_something_itself_says_what_to_do(tmp_path: Path) -> None:
    """Keras wants TensorFlow unless told otherwise: that is told, and not raised from its depths."""
    tk.save({"w": np.ones(3)}, tmp_path / "a.safetensors")
    code = "import sys, tensorkeep as tk\ntry: tk.load(sys.argv[1], build='keras')\nexcept tk.MissingExtraError as error: print(error)"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(Path(tk.__file__).parent.parent)}
    command = [sys.executable, "-c", code, str(tmp_path / "a.safetensors")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "it lacks tensorflow" in done.stdout and "Set KERAS_BACKEND" in done.stdout, done.stderr
