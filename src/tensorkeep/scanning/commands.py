"""Commands in binaries: texts in files without a format of their own here that only somebody who wants something run writes there.

For models of CatBoost, LightGBM, CNTK, RKNN, TensorRT, Torch7, R and whatever else no other trap knows; and programs behind other bytes.
"""

import re
from collections.abc import Iterator
from typing import Final

from tensorkeep.scanning.look import Look, Thing

_COMMAND: Final = re.compile(
    rb"\bos\.(?:system|execute|popen)\s*\(|\bsubprocess\.(?:call|run|Popen|check_output)\s*\(|\b(?:curl|wget)\s+(?:-\w+\s+)*['\"]?https?://|"
    rb"\bpowershell(?:\.exe)?\s+-|\bcmd(?:\.exe)?\s+/c\b|\b(?:ba)?sh\s+-c\s+['\"]?[\x20-\x7e]{6}|\bpython[23]?\s+-c\b|base64\.b64decode\(|"
    rb"\b__import__\(|\bio\.popen\s*\(|\bbase::system\(|/bin/(?:ba)?sh\b"
)
_ANCHORS: Final = (
    *(b"os.system", b"os.execute", b"os.popen", b"subprocess.", b"curl", b"wget", b"powershell", b"cmd", b"sh -c", b" -c", b"b64decode("),
    *(b"__import__(", b"io.popen", b"base::system", b"/bin/"),
)
"""Texts of which each command has one: they are found twenty times faster than the pattern."""

_PROSE: Final = re.compile(
    r"(?i)(?:readme|licen[cs]e|notice|copying|authors|citation|changelog|contributing|model[_-]?card)\b|.*\.(?:md|rst)\Z"
)
"""What people read, and no loader does: how to fetch and start a model stands there as a command."""

_PROGRAM: Final = re.compile(rb"\x7fELF[\x01\x02][\x01\x02]\x01|This program cannot be run in DOS mode")
_FEW_BYTES: Final = 1 << 20
_WINDOW_BYTES: Final = 4 << 20
_OVERLAP_BYTES: Final = 256
_AROUND_BYTES: Final = 256  # that are searched at an anchor


def search(thing: Thing, look: Look, *, after: int = 0) -> None:
    """Look for them, and for compiled programs, behind a place."""
    few, program = _few(thing, after), False
    is_prose = bool(_PROSE.match(thing.name)) and b"\0" not in thing.head
    for begin, window, is_new in _windows(thing, after):
        if is_new and not is_prose and (found := _command(window, thing, look)) is not None:
            text = window[max(0, found.start() - 20) : found.end() + 40].decode("ascii", "replace")
            look.found(
                "unknown",
                thing.at(f"byte {begin + found.start():,}"),
                f"a command in the middle of other bytes: {text!r}",
                "code-in-binary",
            )
        program = program or (is_new and _program(window, begin, thing, look, few=few))


def search_programs(thing: Thing, look: Look, *, after: int) -> None:
    """Look for compiled programs alone behind a place."""
    few = _few(thing, after)
    for begin, window, is_new in _windows(thing, after):
        if is_new and _program(window, begin, thing, look, few=few):
            return


def _few(thing: Thing, after: int) -> bool:
    return thing.extent.nbytes - after <= _FEW_BYTES


def _windows(thing: Thing, after: int) -> Iterator[tuple[int, bytes, bool]]:
    """Where each window begins, its bytes, and whether they are others than those before, zeros at first: bombs repeat themselves."""
    extent, before = thing.extent, bytes(_WINDOW_BYTES + _OVERLAP_BYTES)
    for begin in range(after, extent.nbytes, _WINDOW_BYTES):
        window = bytes(extent.read(begin, min(begin + _WINDOW_BYTES + _OVERLAP_BYTES, extent.nbytes)))
        yield begin, window, not before.startswith(window)
        before = window


def _command(window: bytes, thing: Thing, look: Look) -> "re.Match[bytes] | None":
    for anchor in _ANCHORS:
        at = window.find(anchor)
        while at >= 0:
            look.text_bytes -= _AROUND_BYTES
            if look.text_bytes < 0:
                look.stopped(thing.place, "more places where a command may stand than a file of this size needs")
                return None
            if found := _COMMAND.search(window, max(0, at - 32), at + _AROUND_BYTES):
                return found
            at = window.find(anchor, at + _AROUND_BYTES)
    return None


def _program(window: bytes, begin: int, thing: Thing, look: Look, *, few: bool) -> bool:
    """Tell of a compiled program in a window. Whether there is one."""
    found = _PROGRAM.search(window)
    at = found.start() if found else window.find(b"\x7fELF") if few else -1
    if at < 0 or begin + at == 0:
        return False
    look.found("dangerous", thing.at(f"byte {begin + at:,}"), "a compiled program behind other bytes", "compiled-code")
    return True
