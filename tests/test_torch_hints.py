"""What a report proposes for PyTorch's wrapped models."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from craft import entry, safetensors, soon

torch = pytest.importorskip("torch")


class Net(torch.nn.Module):
    """A model of two parts, each of which may be wrapped."""

    def __init__(self, wrap: Any = lambda part: part) -> None:
        super().__init__()
        self.enc, self.dec = wrap(torch.nn.Linear(2, 2)), wrap(torch.nn.Linear(2, 2))


class Wrapped(torch.nn.Module):
    """As torch.compile leaves it, without its cost."""

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        self._orig_mod = part


Parallel = torch.nn.DataParallel


class TestHints:
    """What a report proposes mends the load, when it is followed to the letter."""

    @pytest.mark.parametrize(
        ("saved", "target", "hint"),
        [
            ({"model": Parallel(Net())}, {"model": Net()}, "rename={'model.module.*': 'model.*'}"),
            ({"model": Wrapped(Net())}, {"model": Net()}, "rename={'model._orig_mod.*': 'model.*'}"),
            ({"model": Net()}, {"model": Parallel(Net())}, "rename={'model.*': 'model.module.*'}"),
            ({"model": Net(), "epoch": 3}, Net(), "rename={'model.*': '*'}, only='model.*'"),
            ({"model": Parallel(Net()), "epoch": 3}, Net(), "rename={'model.module.*': '*'}, only='model.module.*'"),
            ({"a": {"model": Net()}}, Net(), "rename={'a.model.*': '*'}"),
            (Net(), {"model": Net()}, "rename={'*': 'model.*'}"),
            (Net(Wrapped), Net(), "rename={'enc._orig_mod.*': 'enc.*', 'dec._orig_mod.*': 'dec.*'}"),
            (Net(), Net(Wrapped), "rename={'enc.*': 'enc._orig_mod.*', 'dec.*': 'dec._orig_mod.*'}"),
            (torch.nn.ModuleList(Net(Wrapped) for _ in range(9)), torch.nn.ModuleList(Net() for _ in range(9)), "'*._orig_mod.*': '*.*'"),
            ({"model": Net()}, torch.nn.ModuleDict({"model": Net()}), ""),
        ],
    )
    def test_a_wrapper_is_named_with_what_mends_it(self, saved: Any, target: Any, hint: str) -> None:
        """Wrapped wholes and parts, below a key and not, on either side, and with more in the file than the target takes."""
        data = tk.dumps(saved)
        if not hint:
            tk.loads(data, into=target)
            return
        with pytest.raises(tk.MismatchError) as caught:
            tk.loads(data, into=target)
        (told,) = caught.value.report.hints
        assert hint in told and told in str(caught.value)
        options = eval(f"dict({re.search(r'rename=.* fits', told)[0].removesuffix(' fits')})")
        tk.loads(data, into=target, **options)
        wanted = [value for _, value in sorted(_flat(saved))]
        assert all(torch.equal(a, b) for a, b in zip(wanted, (value for _, value in sorted(_flat(target))), strict=True))

    def test_names_of_the_file_stay_names(self) -> None:
        """A prefix of control characters is spelled out in the message, and mends the load all the same."""
        evil = "\x1b[2J\u202e\nerror: all is well"
        net = torch.nn.Linear(1, 1)
        data = safetensors({f"{evil}.weight": entry(0, 4, 1, 1, dtype="F32"), f"{evil}.bias": entry(4, 8, 1, dtype="F32")}, bytes(8))
        with pytest.raises(tk.MismatchError) as caught:
            tk.loads(data, into=net)
        assert all(char.isprintable() or char == "\n" for char in str(caught.value))
        assert "\nerror: all is well" not in str(caught.value)
        assert not caught.value.report.hints  # a [ in it would be a pattern
        evil = evil.replace("[", "")
        data = safetensors({f"{evil}.weight": entry(0, 4, 1, 1, dtype="F32"), f"{evil}.bias": entry(4, 8, 1, dtype="F32")}, bytes(8))
        with pytest.raises(tk.MismatchError) as caught:
            tk.loads(data, into=net)
        assert repr(f"{evil}.*") in caught.value.report.hints[0]
        assert all(char.isprintable() or char == "\n" for char in str(caught.value))

    def test_many_names_that_are_close_take_no_time(self) -> None:
        """400 missing names, each with 200 of the file that are nearly it: only those that are shown are compared."""
        names = [f"transformer_encoder_blocks_{number:04d}_self_attention_query_key_value_projection_weight" for number in range(400)]
        found = {name[:60] + name[59:][::-1]: np.zeros(1, np.float32) for name in names[:200]}
        with soon(), pytest.raises(tk.MismatchError):
            tk.loads(tk.dumps(found), into={name: np.zeros(1, np.float32) for name in names})

    def test_a_path_of_many_dots_takes_no_time(self) -> None:
        """Paths of 100,000 components are no candidates."""
        found = {"a." * 100_000 + f"{number}.weight": np.zeros(1, np.float32) for number in range(40)}
        with soon(), pytest.raises(tk.MismatchError):
            tk.loads(tk.dumps(found), into={f"{number}.weight": np.zeros(1, np.float32) for number in range(400)})


def _flat(state: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Names without what wraps them, and tensors."""
    if isinstance(state, dict):
        for value in state.values():
            yield from _flat(value)
    elif isinstance(state, torch.nn.Module):
        yield from ((name.replace("_orig_mod.", "").replace("module.", ""), value) for name, value in state.state_dict().items())
