"""Code in texts that should have none: Python, shell and script tags in metadata and configurations."""

import re
from typing import Final

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


def code_in(text: str) -> tuple[str, str] | None:
    """The first code in a text: what kind, and the place itself."""
    for pattern, what in _PATTERNS:
        if found := pattern.search(text[:_LONGEST]):
            return what, text[max(0, found.start() - 10) : found.end() + 30].strip()
    return None


def calls_home(key: str, text: str) -> bool:
    """Whether an entry is an address that something is to be fetched from, or sent to."""
    return bool(_CALLBACK.search(key) and _URL.match(text))
