"""YAML: tags that make Python objects, however they are spelled; targets that Hydra calls; aliases that multiply.

It is searched, not parsed: what a parser refuses, another reads.

Source: https://yaml.org/spec/1.1/ (directives, tags, escapes, aliases); PyYAML's constructors; Hydra's `instantiate`
"""

import re
from itertools import islice
from typing import Final
from urllib.parse import unquote

from tensorkeep.scanning.look import Look, Thing
from tensorkeep.unpickle.severity import severity

_CORE: Final = "tag:yaml.org,2002:"
_DIRECTIVE: Final = re.compile(r"(?m)^%TAG[ \t]+(!(?:[\w-]{0,100}!)?)[ \t]+(\S{1,300})")
_TAG: Final = re.compile(r"!(?:<([^>\s]{1,300})>|((?:[\w-]{0,100}!)?)(\S{1,300}))")
_PYTHON: Final = re.compile(rf"{_CORE}python/([\w/]+)(?::[\w.]*)?")
_PLAIN: Final = frozenset({"tuple", "none", "bool", "str", "unicode", "int", "long", "float", "complex", "list", "dict", "bytes"})
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U000([0-9a-fA-F]{5}))")
_TARGET: Final = re.compile(r"(?<!\w)_target_[\"']?\s*:\s*(?:[>|][-+\d]*\s+)?(?:&\S+\s+)?(?:[\"']?([\w.]+)|([*$]\S{1,200}))")
_ANCHORED: Final = re.compile(r"(?:^|[\s\[{,:])&([\w-]{1,100})\s+[\"']?([\w.]+)")
_MARK: Final = re.compile(r"(?m)(?:^|(?<=[\s\[{,:]))([&*])([^\s,\[\]{}&*]{1,100})")
_TARGETS: Final = frozenset(
    {
        *("nemo", "torch", "torchvision", "torchaudio", "torchmetrics", "pytorch_lightning", "lightning", "omegaconf", "transformers"),
        *("diffusers", "timm", "megatron", "apex", "monai", "sentence_transformers"),
    }
)
"""Packages of models whose classes their configurations name."""
_WAYS_OUT: Final = frozenset(
    {
        *("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "ctypes", "pty"),
        *("pickle", "marshal", "importlib", "builtins", "runpy"),
    }
)
"""Modules that those of any package import, and by which a dotted name leads out of it."""
_MOST: Final = 100_000  # tags, targets, and anchors with aliases, that are looked at
_MOST_VALUES: Final = 1_000_000  # that aliases may stand for
_DEEPEST: Final = 1_000  # characters of indentation
_MOST_OPEN: Final = 50  # anchors that an alias is counted for


def judge(text: str, thing: Thing, look: Look) -> None:
    """Tell what a text would do if it were read as YAML."""
    _tags(text, thing, look)
    _aliases(text, thing, look)
    if "\\" in text:  # in quotes, which nobody looks for here
        text = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), text, count=_MOST)
    if "_target_" not in text:
        return
    anchored = dict(_ANCHORED.findall(text))
    for number, found in enumerate(_TARGET.finditer(text)):
        if number >= _MOST:
            look.stopped(thing.place, f"more than {_MOST:,} targets")
            return
        name = found[1] or anchored.get(found[2][1:].rstrip(",}]"), "")
        if name:
            target(name, thing.place, look)
        else:
            look.found("unknown", thing.place, f"would call what {found[2]!r} stands for", "config-target")


def target(name: str, place: str, look: Look) -> None:
    """Judge the dotted name of what a configuration has called."""
    module, _, attribute = name.rpartition(".")
    led_out = any(part in _WAYS_OUT or part.startswith("__") for part in name.split(".")[1:])
    if module and (led_out or severity(module, attribute) == "dangerous"):
        look.found("dangerous", place, f"would call {name}", "config-target")
    elif module and name.partition(".")[0] not in _TARGETS and severity(module, attribute) != "harmless":
        look.found("unknown", place, f"would call {name}", "config-target")


def _tags(text: str, thing: Thing, look: Look) -> None:
    handles = {"!": "!", "!!": _CORE, **dict(islice(_DIRECTIVE.findall(text), 100))}
    for number, found in enumerate(_TAG.finditer(text)):
        if number >= _MOST:
            look.stopped(thing.place, f"more than {_MOST:,} tags")
            return
        whole = unquote(found[1] or handles.get("!" + found[2], "") + found[3])
        python = _PYTHON.match(whole)
        if python and python[1] not in _PLAIN:
            what = python[0].replace(_CORE, "!!")
            look.found("dangerous", thing.place, f"a tag that makes Python objects of {what!r}", "yaml-python")


def _aliases(text: str, thing: Thing, look: Look) -> None:
    """Count what aliases stand for: each adds to the anchors that it stands below, by its line's indentation."""
    sizes: dict[str, int] = {}
    open_: list[tuple[int, int, str]] = []  # anchors: the begin of their line, its indentation, their name
    begin = indentation = at = 0
    for number, found in enumerate(_MARK.finditer(text)):
        if number >= _MOST:
            look.stopped(thing.place, f"more than {_MOST:,} anchors and aliases")
            return
        kind, name = found[1], found[2]
        if (newline := text.rfind("\n", at, found.start())) >= 0 or not at:
            begin = newline + 1
            line = text[begin : min(begin + _DEEPEST, found.start())]
            indentation = len(line) - len(line.lstrip(" -"))
        at = found.start()
        while open_ and open_[-1][0] != begin and open_[-1][1] >= indentation:
            open_.pop()
        if kind == "&":
            sizes[name] = 1
            open_ = [*open_[-_MOST_OPEN:], (begin, indentation, name)]
        elif name in sizes:
            for anchor in {anchor for _, _, anchor in open_ if anchor != name}:
                sizes[anchor] += sizes[name]
                if sizes[anchor] > _MOST_VALUES:
                    what = f"aliases that multiply: {anchor!r} stands for more than {_MOST_VALUES:,} values"
                    look.found("unknown", thing.place, what, "yaml-laughs")
                    return
