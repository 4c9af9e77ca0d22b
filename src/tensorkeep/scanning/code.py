"""Code in texts that should have none: Python, shell and script tags in metadata and configurations, in base64 too."""

import re
from itertools import islice
from typing import Final

from tensorkeep.scanning.embedded import from_base64

_PATTERNS: Final = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (r"__import__\s*\(|\bimportlib\.import_module|\b(?:eval|exec|compile|execfile)\s*\(\s*\S", "Python code that runs a text"),
        (
            r"\b(?:import|from)\s+(?:os|sys|subprocess|socket|shutil|ctypes|pickle|marshal|importlib|urllib|requests|base64|pty)\b",
            "Python code that imports what runs or fetches things",
        ),
        (
            r"\b(?:os\.(?:system|popen|exec\w*|spawn\w*|remove|unlink)|subprocess\.\w+|pty\.spawn|shutil\.rmtree)\b",
            "Python code that runs commands",
        ),
        (r"\brm\s+-[a-zA-Z]*[rf]|\b(?:wget|curl)\s+(?:-\S+\s+)*['\"]?(?:https?|ftp):|\bchmod\s+(?:[0-7]{3}|\+x)\b", "a command of a shell"),
        (r"/bin/(?:ba|z|da)?sh\b|\bpowershell(?:\.exe)?\s+-|\bcmd(?:\.exe)?\s+/c|\bnc\s+-\w*e|\|\s*(?:ba)?sh\b", "a command of a shell"),
        (r"(?i)<script\b|\bjavascript:|\bonerror\s*=", "a script of a web page"),
        (r"__globals__|__subclasses__|__builtins__|__mro__|\.__class__\b", "names that reach into Python itself"),
    )
)
_CALLBACK: Final = re.compile(r"(?i)callback|webhook|exfil|download_url|remote_url|payload")
_URL: Final = re.compile(r"(?i)^\s*(?:https?|ftp)://")
_LONGEST: Final = 1 << 20
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{20,8192}={0,2}")
_MOST_TOKENS: Final = 1_000


def code_in(text: str) -> tuple[str, str] | None:
    """The first code in a text: what kind, and the place itself."""
    text = text[:_LONGEST]
    if (found := _spelled_out(text)) is not None:
        return found
    for token in islice(_BASE64.finditer(text), _MOST_TOKENS):
        data = from_base64(token[0]) or b""
        if data.isascii() and (found := _spelled_out(data.decode("ascii"))) is not None:
            return f"{found[0]}, in base64", found[1]
    return None


def _spelled_out(text: str) -> tuple[str, str] | None:
    for pattern, what in _PATTERNS:
        if found := pattern.search(text):
            return what, text[max(0, found.start() - 10) : found.end() + 30].strip()
    return None


def calls_home(key: str, text: str) -> bool:
    """Whether an entry is an address that something is to be fetched from, or sent to."""
    return bool(_CALLBACK.search(key) and _URL.match(text))
