"""Write docs/reference/api.md from the docstrings: `python docs/make_api_reference.py`."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import tensorkeep as tk

PAGE = Path(__file__).parent / "reference" / "api.md"
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example|Source): ?(.*)$")

GROUPS = (
    ("Verbs", ("save", "load", "open", "convert", "diff", "fingerprint", "same", "scan", "verify", "show", "dumps", "loads"), ""),
    (
        "What verbs give back",
        (
            "Conversion",
            "Diff",
            "Fingerprint",
            "Verdict",
            "Damage",
            "Scan",
            "Summary",
            "Contents",
            "LazyTensor",
            "Stub",
            "TensorSpec",
            "DType",
            "Finding",
        ),
        "",
    ),
    (
        "The store",
        ("Store", "Keep", "Every", "Candidate", "Job", "Resumed", "Checkpoint", "Removal", "Collected", "Exported", "Copied", "Stats"),
        "",
    ),
    ("What does not fit", ("Report", "Problem", "Cast"), "Carried by `MismatchError` and `TensorkeepWarning` as `report`."),
    (
        "Errors and warnings",
        (
            "TensorkeepError",
            "FormatError",
            "CorruptError",
            "MismatchError",
            "UnsupportedError",
            "RestoreInterrupted",
            "MissingExtraError",
            "NoCheckpoint",
            "CheckpointGone",
            "StepExists",
            "TagExists",
            "SaveError",
            "StoreBusy",
            "ClaimLost",
            "TensorkeepWarning",
        ),
        "When each is raised, and with which exit code the command line ends: [Errors and exit codes](errors.md).",
    ),
    ("Limits", ("Limits",), "The numbers and their reasons: [Limits](limits.md)."),
)

WHOLE = (tk.Store,)  # classes whose methods are verbs themselves


def public() -> list[str]:
    return sorted({*tk.__all__, "open"} - {"__version__"})


def signature(thing: Any) -> str:
    """The call, one argument a line where it is long; types as they stand in the source."""
    name = thing.__name__
    if isinstance(thing, type) and (issubclass(thing, BaseException) or not (dataclasses.is_dataclass(thing) or thing in WHOLE)):
        return f"class {name}"
    prefix = "class " if isinstance(thing, type) else ""
    found = inspect.signature(thing)
    parts = []
    keyword_only = False
    for parameter in found.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            parts.append("*")
        # Each Python spells the type of `**options` in another way, and it is private: the text below says what they are.
        text = str(parameter) if parameter.kind is not parameter.VAR_KEYWORD else f"**{parameter.name}"
        parts.append(plain(text))
    returns = (
        ""
        if found.return_annotation is inspect.Signature.empty or prefix
        else f" -> {plain(inspect.formatannotation(found.return_annotation))}"
    )
    line = f"{prefix}{name}({', '.join(parts)}){returns}"
    return line if len(line) <= 100 else f"{prefix}{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def plain(text: str) -> str:
    """Types without the modules that they live in."""
    text = re.sub(r"\b(?:tensorkeep|typing|collections\.abc|os|pathlib)(?:\.\w+)*\.(?=\w)", "", text)
    text = text.replace("<factory>", "...")
    return (
        re.sub(r"'([^']*)'", r"\1", text)
        if "'" in text and "=" not in text
        else text.replace("'str | PathLike[str] | BinaryIO'", "str | PathLike[str] | BinaryIO")
    )


def docstring(thing: Any) -> list[str]:
    """A docstring as Markdown: sections as bold words, arguments as a list, examples as Python."""
    lines: list[str] = []
    section = ""
    for line in (inspect.getdoc(thing) or "").splitlines():
        if (match := SECTION.match(line)) is not None:
            section = match[1]
            if section == "Source":
                lines += [f"**Source** {match[2]}"]
            else:
                lines += [f"**{section}**", ""]
                lines += ["```pycon"] if section == "Example" else [match[2]] if match[2] else []
        elif section == "Example" and line and not line.startswith("    "):
            section = ""
            lines += [line]
        elif section == "Example":
            if not line:
                lines += ["```", ""]
                section = ""
            else:
                lines.append(line[4:])
        elif section in ("Args", "Attributes", "Raises") and line.startswith("    "):
            inner = line[4:]
            lines.append(re.sub(r"^([\w, ]+?): ", r"- `\1`: ", inner) if not inner.startswith(" ") else "  " + inner.strip())
        else:
            lines.append(line.removeprefix("    ") if section else line)
    if section == "Example":
        lines.append("```")
    return lines


def methods(cls: type) -> list[str]:
    """The public methods and properties of a class, with the first paragraph of each."""
    lines = []
    for name, value in vars(cls).items():
        if name.startswith("_") or not (inspect.isfunction(value) or isinstance(value, property)):
            continue
        text = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")
        call = name if isinstance(value, property) else f"{name}({', '.join(list(inspect.signature(value).parameters)[1:])})"
        lines.append(f"- `{call}`" + (f": {text}" if text else ""))
    return ["**Methods**", "", *lines, ""] if lines else []


def whole(cls: type) -> list[str]:
    """Every public method of a class, its bases' too, with all that is said of it."""
    lines = []
    for name, value in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_"):
            lines += [f"#### `{cls.__name__}.{name}`", "", "```text", signature(value), "```", "", *docstring(value), ""]
    return lines


def page() -> str:
    """The whole page."""
    lines = [
        "# API",
        "",
        "Written by `python docs/make_api_reference.py` from the docstrings. `import tensorkeep as tk` stands before every example.",
        "A path may be a `str`, a `PathLike` or a binary file object. `limits` and `progress` mean the same in every verb.",
        "",
    ]
    for title, names, said in GROUPS:
        lines += [f"## {title}", ""] + ([said, ""] if said else [])
        for name in names:
            thing = getattr(tk, name)
            lines += [f"### `{name}`", "", "```text", signature(thing), "```", "", *docstring(thing), ""]
            if isinstance(thing, type):
                lines += whole(thing) if thing in WHOLE else methods(thing)
    listed = {name for _, names, _ in GROUPS for name in names}
    assert listed == set(public()), f"not in a group: {set(public()) ^ listed}"
    lines += ["## `__version__`", "", "The version of this package, a text.", ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
