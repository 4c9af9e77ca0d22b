"""Chat templates: programs in Jinja that the next tool runs.

An ordinary one loops over messages; an attack reaches for Python's own names.
"""

import re
from typing import Final

from tensorkeep.scanning.look import Look, Thing

SUFFIXES: Final = frozenset({".jinja", ".j2", ".jinja2", ".template"})
_LONGEST: Final = 1 << 20
# A text that nobody ends goes on to the end of the block: were that no match, each quote would be tried up to there.
_QUOTED: Final = r"'(?:[^'\\]|\\.)*(?:'|\Z)|\"(?:[^\"\\]|\\.)*(?:\"|\Z)"
_TEXT: Final = re.compile(_QUOTED, re.DOTALL)
_BLOCKS: Final = (
    re.compile(r"\{\{.*?(?:\}\}|\Z)|\{%.*?(?:%\}|\Z)", re.DOTALL),
    # As Jinja reads it, which looks for the end of a block outside of texts and passes over comments.
    re.compile(rf"\{{#.*?(?:#\}}|\Z)|\{{\{{(?:{_QUOTED}|(?!\}}\}})[^'\"])*|\{{%(?:{_QUOTED}|(?!%\}})[^'\"])*", re.DOTALL),
)
_RAW_END: Final = re.compile(r"\{%-?\s*endraw\b")
_JOINED: Final = re.compile(r"['\"]\s*(?:[~+]\s*)?['\"]")
_ESCAPE: Final = re.compile(r"(?<!\\)\\+(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|([0-7]{3}))")
_NAMES: Final = (
    "class|mro|base|bases|subclasses|globals|builtins|builtin|init|import|dict|code|func|self|getattribute|getattr|reduce|reduce_ex|module|"
    "loader|spec|closure|call|new|init_subclass|enter|exit|file|path|name|doc|del"
)
_DUNDER: Final = re.compile(rf"__(?:{_NAMES})__")
_REACH: Final = re.compile(
    r"\|\s*attr\s*\(|\bos\s*\.\s*(?:system|popen|environ|listdir|getenv)|\bsubprocess\b|\b(?:popen|getattr|eval|exec|compile|globals|vars|"
    r"__import__)\s*\(|\.\s*(?:mro|gi_frame|gi_code|cr_frame|f_globals|f_builtins|func_globals|func_code|im_func|_module|_load_form_data)\b|"
    r"\b(?:lipsum|cycler|joiner|get_flashed_messages|url_for)\s*[.\[|]|\brequest\s*[.\[|]|\bconfig\s*(?:\.\s*(?:from_\w+|__|items\s*\()|\[|\|)|"
    r"\bself\s*(?:\.\s*_|\[)|\.\s*environment\s*\.|\bundefined\s*\.|\bopen\s*\(|\.\s*(?:read|write|system|check_output|urlopen)\s*\(|"
    r"\bimport\s+(?:os|sys|subprocess|socket|base64)\b|\|\s*(?:pprint|format)\s*\([^\n]{0,200}__|\.\s*__[a-z_]+__"
)
_INCLUDES: Final = re.compile(r"\{%-?\s*(?:include|import|extends|from)\b")
_MADE: Final = re.compile(r"(['\"])_+\1\s*(?:\*|%(?!\}))|(?:\*|%-?\s*set\s+\w+\s*=)\s*(['\"])_+\2|__['\"]\s*\|\s*\w")
_PIECE: Final = re.compile(r"__[a-zA-Z]+|[a-zA-Z]+__|__(?:%\w|\{\w*\})_*|(?:%\w|\{\w*\}){2,}[a-zA-Z]+(?:%\w|\{\w*\}){2,}|.*%c%c.*")
_WORDS: Final = frozenset({"os", "subprocess", "popen", "eval", "exec", "builtins"})


def judge(text: str, thing: Thing, place: str, look: Look) -> None:
    """Tell what a template reaches for."""
    if len(text) > _LONGEST:
        look.stopped(thing.at(place), f"a template of {len(text):,} characters")
        text = text[:_LONGEST]
    for block in _blocks(text):
        plain = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2] or "0", 16) if not found[3] else int(found[3], 8)), block)
        joined = _JOINED.sub("", plain)  # '__cl' ~ 'ass__' is one name
        why = _reaches(plain) or _reaches(joined) or _pieced(plain)
        if why:
            look.found("dangerous", thing.at(place), f"a template that reaches into Python when it is filled in: {why!r}", "template")
            return
    if _INCLUDES.search(text):
        look.found("unknown", thing.at(place), "a template that takes in other files", "template")


def _blocks(text: str) -> list[str]:
    """What stands between braces, as it is written and as Jinja reads it; what `{% raw %}` begins ends with it."""
    parts = _RAW_END.split(text)
    return sorted({found[0] for part in parts for blocks in _BLOCKS for found in blocks.finditer(part)})


def _reaches(block: str) -> str:
    if found := _DUNDER.search(block):
        return found[0]
    code = _TEXT.sub("''", block)
    if found := _REACH.search(code):
        return found[0]
    for text in {text for text in _TEXT.findall(block) if text[1:-1] in _WORDS}:
        if re.search(rf"\[\s*{re.escape(text)}\s*\]", block):
            return str(text)
    return ""


def _pieced(block: str) -> str:
    """The text of which a name with double underscores is put together where no such name is written: `'_' * 2`, `['__cl', 'ass__']`."""
    if found := _MADE.search(block):
        return found[0]
    return next((text for text in _TEXT.findall(block) if _PIECE.fullmatch(text[1:-1])), "")
