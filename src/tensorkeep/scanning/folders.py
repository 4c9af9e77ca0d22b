"""Folders: every file in one is looked at; links are told, not followed."""

import os
from collections.abc import Callable, Iterator
from typing import Final

from tensorkeep.backends.files import File, Surroundings
from tensorkeep.backends.inside import Folder
from tensorkeep.errors import FormatError, MissingExtraError, TensorkeepError
from tensorkeep.formats import partial, table
from tensorkeep.formats.peek import NotThere, Peek
from tensorkeep.limits import Limits
from tensorkeep.scanning import safetensors
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.names import leads_out
from tensorkeep.scanning.walk import MODELS, READ, look_at
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.extent import Opened

ReadOwn = Callable[[File, Limits], object]
"""What reads a file of ours: it lives in a storey above."""

_HIDDEN: Final = (".git/", ".hg/", ".svn/", "__pycache__/", ".cache/")
_SOURCES: Final = (".py", ".pyi", ".ipynb")
_CONFIGS: Final = ("config.json", "model_index.json", "tokenizer_config.json", "preprocessor_config.json", "MANIFEST.json")


def scan_file(opened: Opened, *, limits: Limits, folder: Surroundings | None = None, own: ReadOwn) -> Look:
    """Look at one file, which may lie in a folder.

    Args:
        opened: the file.
        limits: bounds on what it may ask for.
        folder: where it lies.
        own: reads a model file, or another of safetensors, and raises if it breaks its format.
    """
    file = opened.file
    look = Look(file.name, limits=limits, budget=Budget(file.name, file.nbytes, limits), inside=look_at, folder=folder)
    thing = Thing(opened.whole(), "", file.name.replace("\\", "/").rpartition("/")[2])
    look.inside(thing)
    if look.clean and (why := _why_unread(opened, limits, folder, own if safetensors.recognizes(thing) else None)):
        look.stopped("", why)
    return look


def _why_unread(opened: Opened, limits: Limits, folder: Surroundings | None, own: ReadOwn | None) -> str:
    """Why a file cannot be read as what it is: cut short, damaged. What stands behind the place where a reader stops, nobody has seen."""
    peek = Peek(opened.file.name, opened.whole(), folder, limits=limits)
    suffix = os.path.splitext(opened.file.name)[1].lower()
    called = suffix in MODELS
    if called and not opened.file.nbytes:
        return "it is empty"
    try:
        if own is not None:
            own(opened.file, limits)
        elif (reader := table.find(peek)) is not None:
            reader.read(peek)
        elif called and (error := partial.explain(peek)) is not None:
            return error.problem
        elif suffix in READ:
            return f"called {suffix}, and no such file that can be read to its end"
    except (MissingExtraError, NotThere):  # the file itself is whole
        return ""
    except TensorkeepError as error:
        return str(getattr(error, "problem", error)).partition("\n")[0]
    finally:
        for other in peek.opened:
            if other is not opened:
                other.close()
    return ""


def scan_folder(folder: Folder, *, limits: Limits, own: ReadOwn) -> Iterator[tuple[int, int, Look]]:
    """Look at every file below a folder: the size of each, about that of all together, and what was seen."""
    names = _looked_at(folder.files())
    whole = sum(map(folder.nbytes_of, names))
    for name in names:
        nbytes, look = _in_folder(folder, name, limits, own)
        yield nbytes, whole, look


def _looked_at(names: list[str]) -> list[str]:
    configured = {name.rpartition("/")[0] for name in names if name.endswith(_CONFIGS)}
    shown = [name for name in names if not any(f"/{hidden}" in f"/{name}" for hidden in _HIDDEN)]
    # A program of the user's own is none of the model: only beside a model's configuration does a loader import one.
    return [name for name in shown if not name.endswith(_SOURCES) or _beside(name, configured)]


def _beside(name: str, configured: set[str]) -> bool:
    return not name.endswith(".ipynb") and any(name.startswith(f"{folder}/" if folder else "") for folder in configured)


def _in_folder(folder: Folder, name: str, limits: Limits, own: ReadOwn) -> tuple[int, Look]:
    look = Look(f"{folder.name.rstrip('/')}/{name}", limits=limits, budget=Budget(name, 0, limits), inside=look_at)
    try:
        opened = Opened(folder.open(name))
    except (FormatError, OSError) as error:
        link = _link(folder, name)
        if link:
            level = "dangerous" if leads_out(link) else "unknown"
            look.found(level, "", f"a link to {link!r}, which was not followed", "link")  # type: ignore[arg-type]  # one of two literals
        else:
            look.stopped("", str(getattr(error, "problem", error)))
        return 0, look
    try:
        look = scan_file(opened, limits=limits, folder=Folder(look.file.rpartition("/")[0]), own=own)
        return opened.file.nbytes, look
    finally:
        opened.close()


def _link(folder: Folder, name: str) -> str:
    try:
        return folder.link(name)
    except FormatError:
        return ""
