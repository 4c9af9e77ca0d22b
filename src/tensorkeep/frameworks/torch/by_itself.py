"""By itself: a module takes its state by its own code, for real, and gets everything back if anything fails."""

import inspect
from collections import OrderedDict
from typing import Any, Protocol

from tensorkeep.frameworks.torch.snapshot import Snapshot
from tensorkeep.frameworks.torch.tensors import as_tensors
from tensorkeep.matching import Matcher, Step
from tensorkeep.report import Problem
from tensorkeep.tree import Tree, join


class Load(Protocol):
    """What is known of the load that a module is a part of."""

    matcher: Matcher
    left_out: set[str]

    def version(self, prefix: str) -> dict[str, Any]: ...


def plan(module: Any, state: Tree, path: str, prefix: str, load: Load) -> None:
    """Plan the call of `load_state_dict`. What it finds missing or unexpected is known only then, and reported then.

    Args:
        module: it.
        state: what is handed to it.
        path, prefix: where it stands in the target, and in the module that is loaded.
        load: of that module.
    """
    matcher = load.matcher
    loaded = matcher.value(state)
    versions = {name: load.version(f"{prefix}{name}." if name else prefix) for name, _ in module.named_modules(remove_duplicate=False)}
    snapshots: list[Snapshot] = []

    def apply() -> None:
        snapshots.append(Snapshot(module))
        values = as_tensors(loaded())
        if isinstance(values, dict):
            values = OrderedDict(values)
            values._metadata = OrderedDict(versions)  # type: ignore[attr-defined]  # where PyTorch keeps module versions
        try:
            keys = module.load_state_dict(values, **_options(module))
        except RuntimeError as error:  # what PyTorch says of shapes that differ, even if it is not strict
            snapshots[-1].restore()
            matcher.problem("object", path, "", "", str(error))
            return
        own = module.state_dict()
        for name in getattr(keys, "missing_keys", ()):
            if prefix + name not in load.left_out and matcher.selected(join(path, name)):
                wanted = f"{list(own[name].shape)}" if hasattr(own.get(name), "shape") else ""
                matcher.problems.append(Problem("missing", join(path, name), "", wanted))
        for name in getattr(keys, "unexpected_keys", ()):
            matcher.problems.append(Problem("unexpected", join(path, name), "", ""))

    def undo() -> None:
        for snapshot in snapshots:
            snapshot.restore()

    matcher.steps.append(Step(path, apply, undo))


def _options(module: Any) -> dict[str, bool]:
    """What this `load_state_dict` can be told: not to raise for names, and not to copy into tensors without memory."""
    try:
        known = inspect.signature(module.load_state_dict).parameters
    except (TypeError, ValueError):
        return {}
    options = {"strict": False}
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        options["assign"] = True
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return {name: value for name, value in options.items() if takes_all or name in known}
