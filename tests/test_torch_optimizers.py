"""PyTorch's optimizers and schedulers as targets: what fits, what is refused, and what `only=` leaves as it was."""

import copy
import threading
from typing import Any

import pytest

import tensorkeep as tk
from refusing import Refuses
from warned import warned

torch = pytest.importorskip("torch")
nn = torch.nn


def stepped(width: int = 3, kind: Any = None, dtype: Any = None, steps: int = 1, **options: Any) -> tuple[Any, Any]:
    """A layer and its optimizer, after so many steps."""
    model = nn.Linear(2, width, dtype=dtype)
    optimizer = (kind or torch.optim.Adam)(model.parameters(), **{"lr": 0.1, **options})
    train(model, optimizer, steps)
    return model, optimizer


def train(model: Any, optimizer: Any, steps: int, factor: float = 1.0) -> None:
    """Steps whose gradients are `factor`."""
    for _ in range(steps):
        optimizer.zero_grad()
        (factor * model(torch.ones(1, 2, dtype=model.weight.dtype)).sum()).backward()
        optimizer.step()


def assert_same(found: Any, wanted: Any) -> None:
    """Fail if two optimizers' states differ."""
    assert found["param_groups"] == wanted["param_groups"]
    assert list(found["state"]) == list(wanted["state"])
    for key, entry in wanted["state"].items():
        assert list(found["state"][key]) == list(entry)
        for name, value in entry.items():
            assert torch.equal(found["state"][key][name], value)
            assert found["state"][key][name].dtype == value.dtype


@pytest.mark.parametrize("steps", [0, 1], ids=["fresh", "stepped"])
def test_slots_of_another_shape_are_refused(steps: int) -> None:
    """An optimizer of another model is told by its slots, and what does not fit is left out when strict=False."""
    data = tk.dumps({"o": stepped(3)[1]})
    model, optimizer = stepped(9, steps=steps)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(tk.MismatchError) as caught:
        tk.loads(data, into={"o": optimizer})
    assert caught.value.report.of("shape") == [f"o.state.{number}.{name}" for number in (0, 1) for name in ("exp_avg", "exp_avg_sq")]
    assert_same(optimizer.state_dict(), before)
    with pytest.warns(tk.TensorkeepWarning, match="fits only in part"):
        tk.loads(data, into={"o": optimizer}, strict=False)
    train(model, optimizer, 1)


def test_slots_of_any_shape_fit_an_optimizer_by_others() -> None:
    """Only PyTorch's own optimizers are known to keep slots of the parameter's shape."""

    class Factored(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter]["exp_avg"] = torch.ones(7)

    data = tk.dumps(stepped(kind=Factored)[1])
    _, optimizer = stepped(kind=Factored, steps=0)
    tk.loads(data, into=optimizer)
    assert optimizer.state_dict()["state"][0]["exp_avg"].shape == (7,)


def test_slots_of_another_dtype_need_cast() -> None:
    """As for models: float64 goes into float32 only when asked for."""
    _, double = stepped(dtype=torch.float64)
    data = tk.dumps(double)
    _, optimizer = stepped()
    with pytest.raises(tk.MismatchError, match="cast=True"):
        tk.loads(data, into=optimizer)
    with pytest.warns(tk.TensorkeepWarning, match="converted"):
        tk.loads(data, into=optimizer, cast=True)
    found = optimizer.state_dict()["state"][0]["exp_avg"]
    assert torch.equal(found, double.state_dict()["state"][0]["exp_avg"].float())


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_slots_get_the_dtype_that_pytorch_gives_them(kept: Any) -> None:
    """float32 slots of bfloat16 parameters: whichever of the two the file has, the result is that of load_state_dict."""

    def wide(dtype: Any) -> tuple[Any, Any]:
        model, optimizer = stepped(dtype=torch.bfloat16)
        for entry in optimizer.state.values():
            entry.update({name: value.to(dtype) / 3 for name, value in entry.items() if name != "step"})
        return model, optimizer

    _, saved = wide(kept)
    _, optimizer = wide(torch.float32)
    _, other = wide(torch.float32)
    other.load_state_dict(saved.state_dict())
    tk.loads(tk.dumps(saved), into=optimizer)
    assert_same(optimizer.state_dict(), other.state_dict())


def test_a_checkpoint_from_before_the_first_step_empties_the_state() -> None:
    """As in PyTorch, unless only= did not ask for the state."""
    data = tk.dumps({"o": stepped(steps=0)[1]})
    model, optimizer = stepped(steps=2)
    before = copy.deepcopy(optimizer.state_dict())
    tk.loads(data, into={"o": optimizer}, only="o.param_groups*")
    assert_same(optimizer.state_dict(), before)
    tk.loads(data, into={"o": optimizer})
    assert not optimizer.state
    train(model, optimizer, 1)


def test_a_slot_that_the_file_lacks_is_missing() -> None:
    """One that other parameters of the file have is missing, and kept when strict=False; one that its options do not need goes."""
    state = stepped()[1].state_dict()
    del state["state"][0]["exp_avg_sq"]
    data = tk.dumps(state)
    model, optimizer = stepped()
    with pytest.raises(tk.MismatchError) as caught:
        tk.loads(data, into=optimizer)
    assert caught.value.report.missing == ["state.0.exp_avg_sq"]
    with pytest.warns(tk.TensorkeepWarning):
        tk.loads(data, into=optimizer, strict=False)
    assert "exp_avg_sq" in optimizer.state[model.weight]
    model, optimizer = stepped(amsgrad=True)
    tk.loads(tk.dumps(stepped()[1]), into=optimizer)
    assert not optimizer.param_groups[0]["amsgrad"] and "max_exp_avg_sq" not in optimizer.state[model.weight]
    train(model, optimizer, 1)


def test_a_fresh_optimizer_converts_no_slot_in_silence() -> None:
    """As a stepped one: another dtype than the parameter's is a mismatch, or a cast that the report counts."""
    optimizer = stepped()[1]
    state = optimizer.state_dict()
    for slots in state["state"].values():
        slots["exp_avg"] = slots["exp_avg"].double() + 1e-12
    data = tk.dumps({"o": state})
    for steps in (0, 2):
        _, target = stepped(steps=steps)
        with pytest.raises(tk.MismatchError, match="another dtype"):
            tk.loads(data, into={"o": target})
        with pytest.warns(tk.TensorkeepWarning) as told:
            tk.loads(data, into={"o": target}, cast=True)
        assert len(warned(told)[0].message.report.casts) == 2


def test_an_optimizer_gets_back_what_it_would_not_make_itself() -> None:
    """Slots of other dtypes than the parameter's, and the very same objects, when something else of the load is refused."""

    data = tk.dumps({"o": stepped()[1], "z": Refuses()})
    model, optimizer = stepped()
    slots = optimizer.state[model.weight]
    slots["exp_avg"] = slots["exp_avg"].double()
    slots["levels"] = torch.arange(4, dtype=torch.uint8)
    before = copy.copy(slots)
    with pytest.raises(tk.MismatchError):
        tk.loads(data, into={"o": optimizer, "z": Refuses(True)}, strict=True)
    assert {name: id(value) for name, value in optimizer.state[model.weight].items()} == {name: id(value) for name, value in before.items()}


def test_options_that_the_file_lacks_stay_as_they_are() -> None:
    """A newer PyTorch adds options to groups: a file by an older one must not take them away."""
    state = stepped()[1].state_dict()
    del state["param_groups"][0]["lr"]
    model, optimizer = stepped(lr=0.3)
    tk.loads(tk.dumps(state), into=optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.3
    train(model, optimizer, 1)


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("left_out", ["o.param_groups.0.lr", "o.param_groups.0.betas.1", "o.param_groups"])
def test_options_that_only_leaves_out_stay_as_they_are(left_out: str, tensor: bool) -> None:
    """One option, a part of one, or all of them, numbers and tensors."""
    rate = torch.tensor if tensor else float
    _, saved = stepped(lr=rate(0.25), betas=(0.5, 0.5))
    model, optimizer = stepped(lr=rate(0.75), betas=(0.25, 0.25))
    tk.loads(tk.dumps({"o": saved}), into={"o": optimizer}, only=lambda path: not path.startswith(left_out))
    found = optimizer.param_groups[0]
    wanted = {"o.param_groups.0.lr": (0.75, (0.5, 0.5)), "o.param_groups.0.betas.1": (0.25, (0.5, 0.25))}.get(
        left_out, (0.75, (0.25, 0.25))
    )
    assert (float(found["lr"]), found["betas"]) == wanted
    train(model, optimizer, 1)


def test_parameters_in_another_order_are_told_by_their_names() -> None:
    """PyTorch matches by place alone; where both have names, the file's order must be the target's."""

    def named(order: int) -> Any:
        parameters = dict(list(nn.Linear(2, 2).named_parameters())[::order])
        optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
        optimizer.param_groups[0]["param_names"] = list(parameters)  # as PyTorch does, since 2.6
        return optimizer

    data = tk.dumps(named(1))
    with pytest.raises(tk.MismatchError, match=r"param_names.0 +file: weight +target: bias +\(the same parameters in another order\)"):
        tk.loads(data, into=named(-1))
    tk.loads(data, into=named(1))


def test_parameters_are_matched_by_place_whatever_their_keys() -> None:
    """States that are keyed by names, and those with so many parameters that their numbers are packed."""
    _, saved = stepped()
    state = saved.state_dict()
    state["state"] = {"weight": state["state"][0], "bias": state["state"][1]}
    state["param_groups"][0]["params"] = ["weight", "bias"]
    _, optimizer = stepped(steps=2)
    tk.loads(tk.dumps(state), into=optimizer)
    assert_same(optimizer.state_dict(), saved.state_dict())
    many = [nn.Parameter(torch.zeros(1)) for _ in range(3000)]
    data = tk.dumps(torch.optim.SGD(many, lr=0.5))
    optimizer = torch.optim.SGD(many, lr=0.1)
    tk.loads(data, into=optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_state_that_belongs_to_no_parameter_is_kept() -> None:
    """Optimizers may keep what they like beside the parameters' slots."""
    _, saved = stepped()
    saved.state["global"] = {"k": 5, "t": torch.ones(2)}
    saved.state["count"] = 7
    for steps in (0, 1):
        _, optimizer = stepped(steps=steps)
        optimizer.state["old"] = {"gone": 1}
        tk.loads(tk.dumps(saved), into=optimizer)
        assert (optimizer.state["global"]["k"], optimizer.state["count"]) == (5, 7)
        assert torch.equal(optimizer.state["global"]["t"], torch.ones(2))
        assert "old" not in optimizer.state


def test_optimizers_with_a_state_of_their_own_take_it_themselves() -> None:
    """A class that wraps the state, and a hook that does."""

    class Wrapped(torch.optim.SGD):
        def state_dict(self) -> Any:
            return {"inner": super().state_dict()}

        def load_state_dict(self, state: Any) -> None:
            super().load_state_dict(state["inner"])

    optimizer = stepped(kind=Wrapped, lr=0.2)[1]
    tk.loads(tk.dumps(stepped(kind=Wrapped, lr=0.1)[1]), into=optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.1

    def hooked(rate: float) -> Any:
        optimizer = stepped(kind=torch.optim.SGD, lr=rate)[1]
        optimizer.register_state_dict_post_hook(lambda own, state: {"inner": state})
        optimizer.register_load_state_dict_pre_hook(lambda own, state: state["inner"])
        return optimizer

    optimizer = hooked(0.2)
    tk.loads(tk.dumps(hooked(0.1)), into=optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("kind", ["optimizer", "object"])
def test_a_state_dict_that_raises_names_its_path(kind: str) -> None:
    """The object's own error says neither where it stands nor what it is."""

    class Refusing(torch.optim.SGD if kind == "optimizer" else object):
        def state_dict(self) -> Any:
            raise RuntimeError("consolidate first")

        def load_state_dict(self, state: Any) -> None: ...

    value = stepped(kind=Refusing)[1] if kind == "optimizer" else Refusing()
    for action in (lambda: tk.dumps({"a": {"o": value}}), lambda: tk.loads(tk.dumps({"a": {"o": 1}}), into={"a": {"o": value}})):
        with pytest.raises(tk.UnsupportedError, match=r"a\.o: .*Refusing.* RuntimeError: consolidate first"):
            action()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_hooks_find_the_files_values_and_what_they_edit_stays(moment: str) -> None:
    """Nothing is filled in place where a hook looks at the state before the bytes would be there."""
    model, optimizer = stepped(kind=torch.optim.SGD, momentum=0.9)
    data = tk.dumps(optimizer)
    train(model, optimizer, 1, factor=100.0)
    seen: list[float] = []

    def edit(entry: Any) -> None:
        seen.append(entry["momentum_buffer"][0, 0].item())
        entry["momentum_buffer"] += 1

    if moment == "before":
        optimizer.register_load_state_dict_pre_hook(lambda own, state: edit(state["state"][0]))
    else:
        optimizer.register_load_state_dict_post_hook(lambda own: edit(own.state[model.weight]))
    tk.loads(data, into=optimizer)
    assert seen == [1.0]
    assert torch.equal(optimizer.state[model.weight]["momentum_buffer"], torch.full((3, 2), 2.0))


@pytest.mark.parametrize("steps", [0, 1], ids=["fresh", "stepped"])
def test_the_state_of_another_class_is_refused(steps: int) -> None:
    """A scheduler or an optimizer of another kind is named instead of being left a mixture of both."""
    schedulers = torch.optim.lr_scheduler
    _, optimizer = stepped(kind=torch.optim.SGD, momentum=0.9)
    data = tk.dumps({"o": optimizer, "s": schedulers.StepLR(optimizer, 3)})
    _, other = stepped(steps=steps)
    scheduler = schedulers.CosineAnnealingLR(other, 10)
    before = copy.deepcopy(scheduler.state_dict())
    with pytest.raises(tk.MismatchError) as caught:
        tk.loads(data, into={"o": other, "s": scheduler})
    assert caught.value.report.of("object") == ["o", "s"]
    for sentence in ("a SGD", "a Adam", "a StepLR", "a CosineAnnealingLR"):
        assert sentence in str(caught.value)
    with pytest.warns(tk.TensorkeepWarning, match="fits only in part"):
        tk.loads(data, into={"o": other, "s": scheduler}, strict=False)
    assert scheduler.state_dict() == before
    assert "betas" in other.param_groups[0]


def test_a_class_of_another_name_and_the_same_state_fits() -> None:
    """A subclass or a renamed class is no other kind, nor is an optimizer that a scheduler has or has not met yet."""

    class Renamed(torch.optim.Adam): ...

    _, saved = stepped()
    torch.optim.lr_scheduler.StepLR(saved, 3)
    _, optimizer = stepped(kind=Renamed, steps=2)
    tk.loads(tk.dumps(saved), into=optimizer)
    assert optimizer.param_groups[0]["initial_lr"] == 0.1


class Averaging:
    """Keeps a loss with its graph, and a lock."""

    def __init__(self, value: float) -> None:
        self.loss, self.lock = torch.full((2,), value, requires_grad=True) * 2, threading.Lock()

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["loss"][0] == 14:
            self.loss = None
            raise RuntimeError("not this one")
        self.loss = state["loss"]


def test_a_state_with_tensors_of_a_graph_is_put_back() -> None:
    """Such tensors refuse copy.deepcopy; the former state is kept all the same."""
    target = Averaging(1.0)
    tk.loads(tk.dumps(Averaging(3.0)), into=target)
    assert target.loss.tolist() == [6.0, 6.0]
    with pytest.raises(tk.MismatchError, match="not this one"):
        tk.loads(tk.dumps(Averaging(7.0)), into=target)
    assert target.loss.tolist() == [6.0, 6.0]


def test_what_only_leaves_out_of_an_objects_state_stays_as_it_is() -> None:
    """An object's own loader gets a whole state."""

    class Pair:
        def __init__(self, one: int, two: int) -> None:
            self.one, self.two = one, two

        def state_dict(self) -> dict[str, int]:
            return {"one": self.one, "two": self.two}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.one, self.two = state["one"], state["two"]

    target = Pair(1, 2)
    tk.loads(tk.dumps({"p": Pair(3, 4)}), into={"p": target}, only="p.two")
    assert (target.one, target.two) == (1, 4)


OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True},
    "LBFGS": {"lr": 0.01},
}
KINDS = sorted(
    name for name, kind in vars(torch.optim).items() if isinstance(kind, type) and name not in ("Optimizer", "SparseAdam", "Muon")
)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("steps", [0, 1], ids=["fresh", "stepped"])
def test_every_optimizer_of_pytorch_is_restored_as_by_itself(name: str, steps: int) -> None:
    """And trains on with the same bits; none has slots of a shape that would be refused."""

    def run(steps: int) -> tuple[Any, Any]:
        torch.manual_seed(0)
        model = nn.Linear(2, 3)
        optimizer = getattr(torch.optim, name)(model.parameters(), **OPTIONS.get(name, {}))
        go_on(model, optimizer, steps)
        return model, optimizer

    def go_on(model: Any, optimizer: Any, steps: int) -> None:
        def loss() -> Any:
            optimizer.zero_grad()
            value = model(torch.ones(1, 2)).square().sum()
            value.backward()
            return value

        for _ in range(steps):
            optimizer.step(loss)

    model, saved = run(3)
    data = tk.dumps({"m": model, "o": saved})
    target, optimizer = run(steps)
    tk.loads(data, into={"m": target, "o": optimizer})
    for one, other in zip(model.parameters(), target.parameters(), strict=True):
        assert torch.equal(one, other)
    go_on(model, saved, 2)
    go_on(target, optimizer, 2)
    for one, other in zip(model.parameters(), target.parameters(), strict=True):
        assert torch.equal(one, other)


class Quantized(torch.Tensor):
    """Codes and a scale, as optimizers of 8 bits keep their slots."""

    @staticmethod
    def __new__(cls, codes: Any, scale: Any) -> Any:
        made = torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.float32)
        made.codes, made.scale = codes, scale
        return made

    def __tensor_flatten__(self) -> Any:
        return ["codes", "scale"], None

    @staticmethod
    def __tensor_unflatten__(tensors: Any, context: Any, size: Any, stride: Any) -> Any:
        return Quantized(tensors["codes"], tensors["scale"])

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(function)


def test_slots_of_a_tensor_subclass_are_filled_in_place() -> None:
    """They stay what they are, their inner tensors get the bytes, and what does not fit is told."""

    def quantized(value: int, width: int = 3) -> tuple[Any, Any]:
        model, optimizer = stepped(kind=torch.optim.SGD)
        slot = Quantized(torch.full((width, 2), value, dtype=torch.int8), torch.tensor(0.5 * value))
        optimizer.state[model.weight]["slot"] = slot
        return optimizer, slot

    saved, _ = quantized(4)
    optimizer, slot = quantized(1)
    tk.loads(tk.dumps(saved), into=optimizer)
    assert optimizer.state_dict()["state"][0]["slot"] is slot
    assert (slot.codes.tolist(), slot.scale.item()) == ([[4, 4]] * 3, 2.0)
    with pytest.raises(tk.MismatchError, match=r"slot\.codes +file: \[3, 2\] +target: \[9, 2\]"):
        tk.loads(tk.dumps(saved), into=quantized(1, width=9)[0])


def test_what_is_made_anew_lies_as_pytorchs_own_and_goes_on_bit_for_bit() -> None:
    """Products of vectors add in another order where these begin elsewhere: a resumed L-BFGS would differ in the last bits."""

    def made(device: str) -> tuple[Any, Any]:
        with torch.device(device):
            model = nn.Sequential(nn.Linear(3, 7), nn.Linear(7, 5), nn.Linear(5, 1))
        return model, torch.optim.LBFGS(model.parameters(), lr=0.01)

    def train(model: Any, optimizer: Any) -> None:
        def loss() -> Any:
            optimizer.zero_grad()
            lost = (model(inputs).sin() - 1).pow(2).mean()
            lost.backward()
            return lost

        for _ in range(2):
            optimizer.step(loss)

    inputs = torch.linspace(-2, 2, 48).reshape(16, 3)
    run = made("cpu")
    train(*run)
    data = tk.dumps(run)
    train(*run)
    for device in ("cpu", "meta"):
        again = made(device)
        tk.loads(data, into=again)
        state = again[1].state_dict()["state"][0]
        new = [state["d"], *state["old_dirs"], *state["old_stps"]] + (list(again[0].parameters()) if device == "meta" else [])
        assert not any(tensor.data_ptr() % 64 for tensor in new)
        train(*again)
        assert all(map(torch.equal, again[0].parameters(), run[0].parameters()))
        assert torch.equal(again[1].state_dict()["state"][0]["d"], run[1].state_dict()["state"][0]["d"])
