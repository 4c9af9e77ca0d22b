"""Errors: each one reaches the process that asked, whole."""

import errno
import pickle

import pytest

import tensorkeep as tk

ERRORS = [
    tk.TensorkeepError("said"),
    tk.FormatError("run.bin", "too short", hint="Take another."),
    tk.CorruptError(file="run", path="w", span=(0, 8), found="ab", wanted="cd", also=["b"], part="packs/x"),
    tk.MismatchError("run", tk.Report(problems=[tk.Problem("missing", "w", "", "F32[3]")])),
    tk.UnsupportedError("w", "a socket", hint="Leave it out."),
    tk.RestoreInterrupted("run", "it changed", written=["w"], intact=3),
    tk.MissingExtraError(package="h5py", extra="keras"),
    tk.NoCheckpoint("runs", "best", "it has no checkpoint"),
    tk.CheckpointGone("runs", "checkpoints/0000000001.json", "deleted"),
    tk.StepExists("runs", 1, by="a machine", time=3.0),
    tk.TagExists("runs", "paper", step=None),
    tk.ClaimLost("runs", "0123456789abcdef-0"),
    tk.SaveError("runs", 1, OSError(errno.ENOSPC, "full")),
    tk.StoreBusy("runs", 2, 1),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_another_process_arrives_with_its_sentence_and_facts(error: tk.TensorkeepError) -> None:
    """A pool of processes waits for ever for an answer that cannot be unpickled."""
    assert_arrives(error)


def test_the_error_that_is_also_one_of_pytorch_arrives() -> None:
    """It belongs to a module that needs PyTorch."""
    pytest.importorskip("torch")
    from tensorkeep.compat.torch import RefusedError

    assert_arrives(RefusedError("run.pt", "a call"))


def assert_arrives(error: tk.TensorkeepError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__
    assert [getattr(again, name, None) for name in ("errno", "name", "msg")] == [
        getattr(error, name, None) for name in ("errno", "name", "msg")
    ]


def test_all_of_the_family_are_looked_at() -> None:
    """A new kind of error is tested from the moment that it is public."""
    family = {thing for name in tk.__all__ if isinstance(thing := getattr(tk, name), type) and issubclass(thing, tk.TensorkeepError)}
    assert family <= {type(error) for error in ERRORS}
