"""What a store refuses: each message names the store or the argument, what was found, what was wanted, and what to do next."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores `digits`, `other` with the same step and tag, `grown` whose model changed, and a file. `empty` and `misspelt` are none."""
    runs = tmp_path_factory.mktemp("runs")
    with tk.Store(runs / "digits") as digits:
        for step in (0, 100, 200):
            state = {"model": {"weight": np.full(3, step)}, "lr": 0.1}
            digits.save(state, step=step, metrics={"loss": 1 / (step + 1), "heat": 1.0})
        digits.tag("paper", "step-100")
    with tk.Store(runs / "other") as other:
        other.save({"w": np.ones(3)}, step=100, wait=True)
        other.save({"w": np.ones(3)}, step=300, wait=True)
        other.tag("paper", "step-300")
    with tk.Store(runs / "grown") as grown:
        for step, rows in ((0, 3), (1, 4), (2, 4)):
            grown.save({"w": np.zeros(rows), "v" if step else "u": np.zeros(2)}, step=step)
    (runs / "file").touch()
    return runs


Call = Callable[[tk.Store], Any]

REFUSED: list[tuple[str, type[Exception], Call, list[str]]] = [
    ("digits", KeyError, lambda run: list(run.history("model.wieght")), ["in any checkpoint", "did you mean 'model.weight'?"]),
    ("digits", KeyError, lambda run: list(run.history("nope")), ["'nope'", "it has 1, such as 'model.weight'"]),
    ("digits", KeyError, lambda run: list(run.history("model")), ["inside of that are 1, such as 'model.weight'"]),
    ("digits", KeyError, lambda run: list(run.history("lr")), ["what has this path is a float"]),
    ("empty", KeyError, lambda run: list(run.history("w")), ["'w'", "it has no checkpoint"]),
    ("digits", tk.NoCheckpoint, lambda run: run.load("100"), ["did you mean step-100?"]),
    ("digits", tk.NoCheckpoint, lambda run: run.delete("step_0"), ["did you mean step-0?"]),
    ("digits", tk.NoCheckpoint, lambda run: run.load("lastest"), ["did you mean latest?"]),
    ("digits", tk.NoCheckpoint, lambda run: run.delete("papr"), ["its tags are paper"]),
    ("digits", tk.NoCheckpoint, lambda run: run.rollback("step-7"), ["it has 3, from step 0 to 200; near are 0, 100, 200"]),
    ("misspelt", tk.NoCheckpoint, lambda run: run.load(), ["it has no checkpoint, as no store is there yet"]),
    ("misspelt", tk.NoCheckpoint, lambda run: run.copy(f"{run.name}-backup"), ["misspelt has no checkpoint: no store is there yet"]),
    ("misspelt", tk.NoCheckpoint, lambda run: run.verify(), ["misspelt has no checkpoint: no store is there yet"]),
    ("misspelt", tk.NoCheckpoint, lambda run: run.tag("good", "paper"), ["as no store is there yet"]),
    ("digits", ValueError, lambda run: run.load("best:heat"), ["more of 'heat'", "keep=Keep(best={'heat': 'min'})"]),
    ("digits", ValueError, lambda run: run.load("a b"), ["'a b' is no reference", "step-1200"]),
    ("digits", ValueError, lambda run: run.delete("step-0", "a b"), ["'a b' is no reference"]),
    ("digits", ValueError, lambda run: run.tag("a b"), ["'a b' is no name for a tag: letters"]),
    ("digits", ValueError, lambda run: run.tag("latest"), ["take another name"]),
    ("digits", ValueError, lambda run: run.prune(), ["keeps everything: prune(Keep(last=3))"]),
    (
        "digits",
        tk.NoCheckpoint,
        lambda run: run.prune(tk.Keep(best={"los": "min"})),
        ["no checkpoint has a number as 'los'; metrics are loss"],
    ),
    ("digits", ValueError, lambda run: run.export("latest", "x.safetensors", only="nope*"), ["only='nope*' takes nothing of"]),
    ("grown", tk.MismatchError, lambda run: run.average(), ["@step-2, F64[3] in", "v: F64[2] in", "missing in", "average(last=2)"]),
    ("other", tk.StepExists, lambda run: run.copy(_beside(run, "digits")), ["digits: step 100", "another checkpoint than that of"]),
    ("other", tk.TagExists, lambda run: run.copy(_cleared(run)), ["tag paper is on step 100. What comes before it was copied", "refs="]),
    ("file", NotADirectoryError, lambda run: run.steps(), ["a file: a folder is wanted"]),
]
ARGUMENTS: list[tuple[type[Exception], Call, str]] = [
    (ValueError, lambda run: run.export("latest", "x.safetensors", dtype="f16"), "dtype='f16': one of bf16, fp16, fp32 is wanted"),
    (ValueError, lambda run: run.average(True), "average(last=) is True; it takes a whole number above 0"),
    (TypeError, lambda run: run.average(path="x.safetensors", into={}), "average(path=) writes a file: into="),
    (TypeError, lambda run: run.copy("x", refs="latest"), "refs= takes a list of references, such as ['latest']"),
    (TypeError, lambda run: run.prune(3), "Keep(last=3), found 3"),
    (TypeError, lambda run: run.due(1, every=3), "Every(steps=1000), found 3"),
    (ValueError, lambda run: run.due(None), "step=None: a whole number from 0 is wanted"),
    (TypeError, lambda run: run.load(progress=3), "progress= takes a function that is given the bytes done and in all, found 3"),
    (TypeError, lambda run: run.export(0, "x.safetensors", progress=3), "progress= takes a function"),
    (TypeError, lambda run: tk.diff(f"{run.name}@step-0", f"{run.name}@step-100", progress=3), "progress= takes a function"),
    (FileNotFoundError, lambda run: tk.Store(""), "the path is empty"),
    (TypeError, lambda run: run.load(limits=3), "limits= takes a tensorkeep.Limits, such as Limits(depth=20), found 3"),
    (TypeError, lambda run: tk.load(f"{run.name}@latest", limits=3), "limits= takes a tensorkeep.Limits"),
    (TypeError, lambda run: run.verify(limits=3), "limits= takes a tensorkeep.Limits"),
    (TypeError, lambda run: run.history("w", limits=3), "limits= takes a tensorkeep.Limits"),
    (TypeError, lambda run: run.load(unknown=1), "load() got an unexpected keyword argument 'unknown'"),
    (TypeError, lambda run: tk.Store(_beside(run, "empty")).resume(unknown=1), "resume() got an unexpected keyword argument"),
    (TypeError, lambda run: run.average(unknown=1), "average() got an unexpected keyword argument"),
    (TypeError, lambda run: tk.loads(tk.dumps(1), unknown=1), "loads() got an unexpected keyword argument"),
    (TypeError, lambda run: _saved(run).wait("x"), "timeout_s= takes a number of seconds, such as 60, or None, found 'x'"),
    (TypeError, lambda run: _saved(run).wait(float("nan")), "or None, found nan"),
    (TypeError, lambda run: run.save({}, step=900, metrics=[1]), "metrics= takes names and numbers"),
]


def _beside(run: tk.Store, name: str) -> Path:
    return Path(run.name).parent / name


def _saved(run: tk.Store) -> tk.Job:
    with tk.Store(_beside(run, "waited")) as store:
        return store.save({}, step=0, overwrite=True)


def _cleared(run: tk.Store) -> Path:
    """A copy of `digits` in which the steps of `run` are free, and the tag is not."""
    place = _beside(run, "cleared")
    tk.Store(_beside(run, "digits")).copy(place)
    tk.Store(place).delete("step-100", "step-200")
    return place


@pytest.mark.parametrize(("name", "kind", "call", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_there_is_told_with_the_store_and_what_there_is(
    runs: Path, name: str, kind: type[Exception], call: Call, said: list[str]
) -> None:
    """A misspelt path, step, tag, metric or folder; what does not fit together."""
    with pytest.raises(kind) as caught:
        call(tk.Store(runs / name))
    message = str(caught.value)
    for part in (str(runs), *said):
        assert part in message, message


@pytest.mark.parametrize(("kind", "call", "said"), ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_wrong_arguments_are_told_with_what_is_wanted(runs: Path, kind: type[Exception], call: Call, said: str) -> None:
    """At the door: nothing was changed, and no file is there."""
    store = tk.Store(runs / "digits")
    with pytest.raises(kind) as caught:
        call(store)
    assert said in str(caught.value)
    assert store.steps() == [0, 100, 200] and not Path("x.safetensors").exists() and not Path("x").exists()


def test_a_files_tensors_are_missed_with_the_files_name(tmp_path: Path) -> None:
    """The same words for a model file."""
    tk.save({"model": {"weight": np.ones(3)}}, tmp_path / "m.safetensors")
    with (
        tk.open(tmp_path / "m.safetensors") as contents,
        pytest.raises(KeyError, match=r"m\.safetensors has no tensor 'w'; it has 1, such as"),
    ):
        contents.tensors["w"]
