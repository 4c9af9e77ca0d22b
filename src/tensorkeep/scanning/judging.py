"""Judging: what a traced pickle would have imported and called becomes findings."""

from typing import Any, Final

from tensorkeep.scanning.laughs import multiplies
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.unpickle.severity import ONLY_NAMED, RESOLVERS, WORSE, Severity, attribute, normal, severity
from tensorkeep.unpickle.trace import UNKNOWN, Blob, Made, Named, Trace, Use

_DEEPEST: Final = 4
_CODE: Final = frozenset({("torch.fx.graph_module", "reduce_graph_module")})
_LOADS_BYTES: Final = frozenset({("torch.storage", "_load_from_bytes")})


def judge(trace: Trace, thing: Thing, look: Look, *, torch: bool) -> Severity:
    """Tell a look what a pickle would do.

    Args:
        trace: what was seen of it.
        torch: whether PyTorch's loader answers for what stands outside of the pickle.

    Returns:
        The worst that was found.
    """
    worst: Severity = "harmless"
    called = {id(use.target) for use in trace.uses if use.how == "called"}
    for use in trace.uses:
        level, what = _judged(use, called)
        if not what:
            continue
        if WORSE[level] > WORSE[worst]:
            worst = level
        look.found(level, thing.at(f"byte {use.at:,}"), what, f"pickle-{use.how}")
    for at, sentence in trace.oddities:
        worst = "dangerous"
        look.found("dangerous", thing.at(f"byte {at:,}"), sentence, "pickle-hidden-name")
    for at, value in trace.persistent:
        if not _is_torchs(value, torch=torch):
            worst = worst if worst == "dangerous" else "unknown"
            look.found("unknown", thing.at(f"byte {at:,}"), f"asks its loader for {told(value)}", "pickle-persistent")
    if number := multiplies(trace.result, trace.steps):
        worst = worst if worst == "dangerous" else "unknown"
        look.found(
            "unknown", thing.place, f"values that are shared so often that a walk meets {number:,} and more of them", "pickle-laughs"
        )
    return worst


def dangerous_call(trace: Trace) -> bool:
    """Whether a stream that may be no pickle at all calls something dangerous, where an unpickler comes: chance does not spell that."""
    return any(
        use.how == "called"
        and isinstance(use.target, Named)
        and (trace.underflow is None or use.at < trace.underflow)
        and known_to_be_dangerous(use.target)
        for use in trace.uses
    )


def known_to_be_dangerous(target: Named) -> bool:
    parts = f"{target.module}.{target.name}".split(".")
    return all(part.isidentifier() for part in parts) and severity(target.module, target.name) == "dangerous"


def _judged(use: Use, called: set[int]) -> tuple[Severity, str]:
    target = use.target
    if isinstance(target, Named):
        return _judged_name(use, target, called)
    if use.how != "called":
        return "harmless", ""
    if isinstance(target, Made):
        level = _level(target)
        if level == "harmless" and not _found_by_text(target) and target.called != "persistent":
            level = "unknown"
        return level, f"would call what {told(target)} gives, with {told(use.args)}"
    return "dangerous", f"would call something that is only known when it is loaded, with {told(use.args)}"


def _judged_name(use: Use, target: Named, called: set[int]) -> tuple[Severity, str]:
    key = (normal(target.module), target.name)
    full = f"{target.module}.{target.name}"
    if key in RESOLVERS:
        if use.how == "named":
            if id(target) in called:
                return "harmless", ""
            return "dangerous", f"would hand {full} on, which finds any name by a text"
        level = _resolved(use.args, key)
        return level, f"would call {full}{told(use.args)}"
    level = severity(target.module, target.name)
    if use.how == "changed":
        return "dangerous", f"would change {full} itself: {told(use.args)}"
    if use.how == "called" and key in ONLY_NAMED:
        return "dangerous", f"would call {full}{told(use.args)}, which opens a file"
    if use.how == "named" and id(target) in called:
        return "harmless", ""  # told where it is called
    if key in _LOADS_BYTES and use.how == "called":
        known = bool(use.args) and (isinstance(use.args[0], Blob) or _is_encoded(use.args[0]))  # then they were looked at
        return ("harmless" if known else "dangerous"), f"would call {full}{told(use.args)}"
    if level == "harmless":
        return level, f"{'calls' if use.how == 'called' else 'imports'} {full}"
    if use.how == "called":
        return level, f"would call {full}{told(use.args)}"
    return level, f"would import {full}"


def _resolved(args: Any, key: tuple[str, str]) -> Severity:
    """How dangerous that is what a resolver finds."""
    if not isinstance(args, tuple) or len(args) < 2 or not isinstance(args[1], str):
        return "dangerous"
    if key[1] == "_ufunc_reconstruct":
        return severity(args[0], args[1]) if isinstance(args[0], str) else "dangerous"
    owner = args[0]
    if isinstance(owner, Named):
        dotted = severity(owner.module, f"{owner.name}.{args[1]}")
        return attribute(severity(owner.module, owner.name), args[1]) if dotted == "unknown" else dotted
    if isinstance(owner, Made):
        return attribute(_level(owner), args[1])
    return "dangerous" if owner is UNKNOWN else attribute("harmless", args[1])


def _level(made: Made, depth: int = 0) -> Severity:
    """How dangerous the root of a call's answer is."""
    called = made.called
    if depth > _DEEPEST:
        return "dangerous"
    if isinstance(called, Made):
        return _level(called, depth + 1)
    if isinstance(called, Named):
        key = (normal(called.module), called.name)
        return _resolved(made.args, key) if key in RESOLVERS else severity(called.module, called.name)
    if called == "persistent":  # PyTorch's old writer keeps classes there, with their source
        value = made.args[0] if isinstance(made.args, tuple) and made.args else None
        cls = value[1] if isinstance(value, tuple) and len(value) > 1 and value[0] == "module" else None
        return severity(cls.module, cls.name) if isinstance(cls, Named) else "unknown"
    return "dangerous"


def _is_encoded(value: Any) -> bool:
    """Whether it is bytes as protocols 0 to 2 write them: a text, and how to encode it."""
    called = value.called if isinstance(value, Made) else None
    return isinstance(called, Named) and (called.module, called.name) == ("_codecs", "encode") and isinstance(value.args[:1], tuple)


def _found_by_text(made: Made) -> bool:
    return isinstance(made.called, Named) and (normal(made.called.module), made.called.name) in RESOLVERS


def _is_torchs(value: Any, *, torch: bool) -> bool:
    """Whether what stands outside of a pickle is a storage or a class as PyTorch keeps them."""
    if isinstance(value, tuple) and len(value) > 1:
        return value[0] in ("storage", "module")
    return torch and isinstance(value, str)


def told(value: Any, depth: int = 0) -> str:
    """A value of a trace, for people."""
    if isinstance(value, Named):
        return f"{value.module}.{value.name}"
    if isinstance(value, Made):
        if value.called == "persistent":
            return "what stands outside of the pickle"
        if depth > _DEEPEST:
            return "..."
        return f"{told(value.called, depth + 1)}(...)" if depth >= 2 else f"{told(value.called, depth + 1)}{told(value.args, depth + 1)}"
    if isinstance(value, Blob):
        return f"<{value.stop - value.start:,} bytes>"
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else f"{value[:77]}...")
    if isinstance(value, (tuple, list)):
        if depth >= 2:
            return "(...)" if isinstance(value, tuple) else "[...]"
        inner = ", ".join(told(item, depth + 1) for item in value[:4]) + (", ..." if len(value) > 4 else "")
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    return repr(value) if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and value < 10**30) else "..."
