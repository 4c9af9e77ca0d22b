"""Names: how the objects of a store are called, and what a reference such as `best:loss` means.

A name that a file says becomes a key here alone, and only if it follows its one fixed pattern.
"""

import operator
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from tensorkeep.backends.keys import is_key

STORE: Final = "store.json"
CHECKPOINTS: Final = "checkpoints/"
INDEXES: Final = "indexes/"
PACKS: Final = "packs/"
CLAIMS: Final = "claims/"
TAGS: Final = "tags/"

_STEP_DIGITS: Final = 10
LAST_STEP: Final = 10**18 - 1
_SAVE: Final = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,8})")
_PACK: Final = re.compile(rf"({_SAVE.pattern})-(0|[1-9][0-9]{{0,5}})")
_CHECKPOINT: Final = re.compile(rf"{CHECKPOINTS}([0-9]{{{_STEP_DIGITS},18}})\.json")
_TAG: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_STEP: Final = re.compile(r"step-([0-9]{1,18})")
_TAKEN: Final = re.compile(r"latest|best|step-[0-9]+", re.IGNORECASE)


def new_writer() -> str:
    """A random id: of two writers, in whatever process or on whatever machine, no two have one."""
    return secrets.token_hex(8)


def save_name(writer: str, number: int) -> str:
    return f"{writer}-{number}"


def is_save(name: str) -> bool:
    return _SAVE.fullmatch(name) is not None


def is_pack(name: str) -> bool:
    return _PACK.fullmatch(name) is not None


def save_of_pack(name: str) -> str:
    """The save that wrote a pack."""
    return name.rpartition("-")[0]


def pack_name(save: str, number: int) -> str:
    return f"{save}-{number}"


def checkpoint_key(step: int) -> str:
    return f"{CHECKPOINTS}{step:0{_STEP_DIGITS}d}.json"


def index_key(save: str) -> str:
    return f"{INDEXES}{save}.idx"


def pack_key(pack: str) -> str:
    return f"{PACKS}{pack}.pack"


def claim_key(save: str) -> str:
    return f"{CLAIMS}{save}.json"


def tag_key(tag: str) -> str:
    return f"{TAGS}{tag}"


def step_of(key: str) -> int | None:
    """The step of a manifest's key; None for a key that is no manifest's, such as one with zeros too many."""
    match = _CHECKPOINT.fullmatch(key)
    return int(match[1]) if match is not None and checkpoint_key(int(match[1])) == key else None


def save_of(key: str, prefix: str, suffix: str) -> str | None:
    """The save that an index or a claim is of; None for any other key."""
    if not (key.startswith(prefix) and key.endswith(suffix)):
        return None
    name = key[len(prefix) : len(key) - len(suffix)]
    return name if is_save(name) else None


def pack_of(key: str) -> str | None:
    """The pack that a key is of; None for any other key."""
    if not (key.startswith(PACKS) and key.endswith(".pack")):
        return None
    name = key[len(PACKS) : -len(".pack")]
    return name if is_pack(name) else None


def tag_of(key: str) -> str | None:
    """The tag that a key is of; None for any other key."""
    name = key.removeprefix(TAGS)
    return name if key.startswith(TAGS) and _is_tag(name) else None


def _is_tag(name: str) -> bool:
    return _TAG.fullmatch(name) is not None and is_key(tag_key(name))  # which names of Windows' devices are not


def check_tag(tag: str) -> str:
    """A tag's name, if it is one.

    Raises:
        ValueError: it is none, or means something else.
    """
    if not isinstance(tag, str) or _TAG.fullmatch(tag) is None:
        raise ValueError(f"{tag!r:.120} is no name for a tag: letters, digits, '.', '_' and '-' are, up to 100 of them")
    if _TAKEN.fullmatch(tag) or not _is_tag(tag):
        raise ValueError(f"{tag!r} means something else already: take another name for the tag")
    return tag


@dataclass(frozen=True, slots=True)
class Ref:
    """What a reference asks for.

    Attributes:
        kind: `latest`, `best`, `step` or `tag`.
        name: of the metric (may be "") or the tag.
        step: of a step.
    """

    kind: Literal["latest", "best", "step", "tag"]
    name: str = ""
    step: int = -1

    def __str__(self) -> str:
        if self.kind == "step":
            return f"step-{self.step}"
        return self.name if self.kind == "tag" else f"best:{self.name}" if self.name else self.kind


def parse_ref(ref: "str | int | Ref") -> Ref:
    """`latest`, `best`, `best:metric`, `step-1200`, a tag, or a step as an int.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(ref, Ref):
        return ref
    if not isinstance(ref, (str, bool)):
        with suppress(TypeError):
            step = operator.index(ref)  # of NumPy's integers too
            if 0 <= step <= LAST_STEP:
                return Ref("step", step=step)
    if isinstance(ref, str):
        if ref == "latest":
            return Ref("latest")
        head, colon, metric = ref.partition(":")
        if head == "best" and (metric or not colon):
            return Ref("best", metric)
        if (match := _STEP.fullmatch(ref)) is not None:
            return Ref("step", step=int(match[1]))
        if _is_tag(ref):
            return Ref("tag", ref)
    raise ValueError(f"{ref!r:.120} is no reference: latest, best, best:METRIC, step-1200 or a tag is wanted")
