"""Compiled code: programs and libraries, which a loader runs and a model needs not hold."""

from typing import Final

from tensorkeep.scanning.look import Look, Thing

_MAGICS: Final = (
    (b"\x7fELF", "a compiled program or library of Linux (ELF)"),
    (b"\xcf\xfa\xed\xfe", "a compiled program or library of macOS (Mach-O)"),
    (b"\xce\xfa\xed\xfe", "a compiled program or library of macOS (Mach-O)"),
    (b"\xfe\xed\xfa\xcf", "a compiled program or library of macOS (Mach-O)"),
    (b"\xfe\xed\xfa\xce", "a compiled program or library of macOS (Mach-O)"),
    (b"\xca\xfe\xba\xbe", "compiled code of macOS or Java"),
    (b"#!", "a script that names its interpreter"),
    (b"MZqFpD='", "a program for many systems (Actually Portable Executable), such as a llamafile"),
    (b"\0asm", "compiled code of WebAssembly"),
    (b"dex\n", "compiled code of Android"),
    (b"\x1bLua", "compiled code of Lua"),
    (b"\x1bLJ", "compiled code of Lua"),
)
_COMPILED: Final = frozenset({".so", ".dll", ".dylib", ".exe", ".pyd", ".sys", ".com", ".scr", ".msi", ".jar", ".pyc"})
_SCRIPTS: Final = frozenset({".sh", ".bat", ".cmd", ".ps1", ".vbs", ".psm1"})


def _kind(thing: Thing) -> str:
    head = thing.head
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if head[:2] == b"MZ" and len(head) > 0x40:
        at = int.from_bytes(head[0x3C:0x40], "little")
        if head[at : at + 4] == b"PE\0\0" or thing.suffix in _COMPILED:
            return "a compiled program or library of Windows (PE)"
    if thing.suffix in _COMPILED or thing.suffix in _SCRIPTS:
        return f"a file that is called {thing.suffix}, as programs are"
    return ""


def recognizes(thing: Thing) -> bool:
    """Whether it is a program by its first bytes, or by its name."""
    return not thing.tensor and bool(_kind(thing))


def scan(thing: Thing, look: Look) -> None:
    """Tell so."""
    kind = _kind(thing)
    look.found("unknown" if kind.startswith(("a script", "a file that is called")) else "dangerous", thing.place, kind, "compiled-code")
