"""Errors: one family, and the sentence of each.

    TensorkeepError
    ├── FormatError          (ValueError)   the file breaks its format, or a limit
    ├── CorruptError         (ValueError)   the bytes are not the bytes that were written
    ├── MismatchError        (ValueError)   file and target disagree; nothing was changed
    ├── UnsupportedError     (TypeError)    a value that cannot be kept; nothing was written
    ├── RestoreInterrupted   (OSError)      the file failed or changed during the last copy; names what was written
    ├── MissingExtraError    (ImportError)  an optional package is not installed
    ├── NoCheckpoint         (FileNotFoundError, LookupError)  a store has nothing of that name
    ├── CheckpointGone       (FileNotFoundError)  a checkpoint was deleted or replaced while it was in use
    ├── StepExists           (FileExistsError)    the step was saved before; nothing was changed
    ├── TagExists            (FileExistsError)    the tag is on another checkpoint; nothing was changed
    ├── ClaimLost            (OSError)      a save that stood still for a day was given up; nothing was committed
    ├── SaveError            (OSError)      a save in the background failed; nothing was committed
    └── StoreBusy            (RuntimeError) another save is under way, and this one was not to wait

    TensorkeepWarning        (UserWarning)  worth knowing, and nothing is wrong

Missing files, full disks and lost permissions stay what Python calls them: `FileNotFoundError`, `OSError` with its errno.
Facts are attributes; the class makes the sentence, so every room says it alike.
"""

import codecs
import errno
import sys
import time as clock
import warnings
from collections.abc import Sequence
from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_FINDING: Final = 3


CUT_SHORT: Final = "It may have been cut short on its way."
"""The hint of a refusal for want of bytes."""
_LONGEST: Final = 300  # characters of a name in a message
_BETWEEN: Final = (f"{__package__}.", "contextlib.")  # modules between a warning and whoever called


def escaped(text: object) -> str:
    """Text of a file or a caller, with everything that a terminal might obey or hide spelled out."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else codecs.unicode_escape_encode(char, "surrogatepass")[0].decode("ascii") for char in line)


def shown(name: str) -> str:
    """A name of a file for a message: escaped, and without its middle where it is long."""
    cut = name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}...{name[3 - _LONGEST // 2 :]}"
    return escaped(cut)


def sized(nbytes: int, of: int | None = None) -> str:
    """Bytes in a unit that suits them: `4.3 GB`; with `of`, `1.2 of 4.3 GB`."""
    whole = nbytes if of is None else of
    power = min(4, max(0, (len(str(whole)) - 1) // 3))
    unit = ("bytes", "kB", "MB", "GB", "TB")[power]
    amounts = [f"{amount / 1000**power:.1f}" if power else f"{amount:,}" for amount in ([nbytes] if of is None else [nbytes, of])]
    return f"{' of '.join(amounts)} {unit}"


def _when(seconds: float) -> str:
    """A moment for people: `2026-11-26 08:40:00 UTC`."""
    try:
        return clock.strftime("%Y-%m-%d %H:%M:%S UTC", clock.gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return "a time that no calendar has"


def _short(digest: str) -> str:
    return digest if len(digest) <= 16 else f"{digest[:8]}...{digest[-4:]}"


def _anew(kind: type["TensorkeepError"], said: tuple[object, ...]) -> "TensorkeepError":
    error = kind.__new__(kind)
    error.args = said
    return error


class TensorkeepError(Exception):
    """Whatever tensorkeep itself refuses. `exit_code` is what the command line ends with."""

    exit_code: int = EXIT_FAILED

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by facts: Python's own way calls `__init__` with the sentence, and a pool of processes hangs where that fails."""
        beside = {name: getattr(self, name) for name in ("errno", "name", "msg") if hasattr(self, name)}  # which no `__dict__` has
        return _anew, (type(self), self.args), beside | self.__dict__


class FormatError(TensorkeepError, ValueError):
    """The file breaks its format or asks for more than a limit allows.

    Attributes:
        file: the file as it was named.
        problem: what was found and what was wanted.
        hint: what to do next, or "".
    """

    def __init__(self, file: str, problem: str, *, hint: str = "") -> None:
        self.file, self.problem, self.hint = file, problem, hint
        super().__init__(f"{escaped(file)}: {escaped(problem)}" + (f"\n  {escaped(hint)}" if hint else ""))


class CorruptError(TensorkeepError, ValueError):
    """The bytes of a tensor, or of the header, are not the bytes that were written.

    Attributes:
        file: the file as it was named.
        path: the tensor's path, or "(header)".
        span: first damaged byte of the file, and the byte after the last.
        found, wanted: the digests, or the file's own checksums, in hex.
        also: the other tensors that have bytes in the same damaged chunk.
        kind: `digest`, or which checksum it is, such as `CRC-32`.
        part: the file of a store that `span` is in, such as a pack; "" where that is `file` itself.
    """

    exit_code = EXIT_FINDING

    def __init__(
        self,
        *,
        file: str,
        path: str,
        span: tuple[int, int],
        found: str,
        wanted: str,
        also: Sequence[str] = (),
        consequence: str = "Nothing was loaded.",
        kind: str = "digest",
        part: str = "",
    ) -> None:
        self.file, self.path, self.span, self.found, self.wanted, self.also = file, path, span, found, wanted, tuple(also)
        self.kind, self.part = kind, part
        more = f" (and {len(self.also)} more tensors in the same chunk)" if self.also else ""
        lines = [
            f"{shown(path)}{more} in {escaped(file)} is damaged: bytes {span[0]:,} to {span[1]:,}{f' of {escaped(part)}' if part else ''}",
            f"  {kind} found {_short(found)}, wanted {_short(escaped(wanted))}. {consequence}",
            f"  `tensorkeep verify {escaped(file)}` lists all damage; take another copy of the file, or leave the tensor out with only=.",
        ]
        super().__init__("\n".join(lines))


class UnsupportedError(TensorkeepError, TypeError):
    """A value that a file cannot keep, or NumPy cannot show. Raised before anything is written.

    Attributes:
        path: where it stands in the state.
        reason: what it is and why it cannot be kept.
        hint: what to do instead, or "".
    """

    def __init__(self, path: str, reason: str, *, hint: str = "") -> None:
        self.path, self.reason, self.hint = path, reason, hint
        super().__init__(f"{shown(path) or '(the state itself)'}: {reason}" + (f"\n  {hint}" if hint else ""))


class MismatchError(TensorkeepError, ValueError):
    """File and target disagree. Nothing of the target was changed.

    Attributes:
        file: the file as it was named.
        report: every problem at once (`tensorkeep.Report`).
    """

    def __init__(self, file: str, report: object, *, problem: str = "does not fit its target") -> None:
        self.file, self.report = file, report
        super().__init__(f"{escaped(file)} {problem}. Nothing was changed.\n{report}")


class RestoreInterrupted(TensorkeepError, OSError):
    """The file failed, or changed, while its bytes were being copied into the target: a mixture may be left.

    Attributes:
        file: the file as it was named.
        problem: what happened.
        written: paths of the target that were, or may have been, written to.
        intact: how many paths were not touched.
    """

    def __init__(self, file: str, problem: str, *, written: Sequence[str], intact: int) -> None:
        self.file, self.problem, self.written, self.intact = file, problem, tuple(written), intact
        names = ", ".join(map(shown, self.written[:5])) + (f" and {len(self.written) - 5} more" if len(self.written) > 5 else "")
        super().__init__(
            f"{escaped(file)}: {escaped(problem)} during the copy into the target.\n"
            f"  Written, perhaps in part: {names or 'nothing'}; untouched: {intact}.\n"
            f"  Load once more from an intact file before you use the target."
        )


class MissingExtraError(TensorkeepError, ImportError):
    """An optional package is not installed, or one that it cannot do without.

    Attributes:
        package: what was asked for.
        extra: the extra of tensorkeep that brings it.
        lacking: what the package, which is installed, lacks itself; "" where it is the package.
    """

    def __init__(self, *, package: str, extra: str, lacking: str = "", hint: str = "") -> None:
        self.package, self.extra, self.lacking = package, extra, lacking
        said = f"this needs {package}, which is not installed: pip install 'tensorkeep[{extra}]'"
        if lacking:
            said = f"{package} is installed, and cannot be imported: it lacks {lacking}" + (f"\n  {hint}" if hint else "")
        super().__init__(said, name=lacking or package)


class NoCheckpoint(TensorkeepError, FileNotFoundError, LookupError):
    """A store has no checkpoint of that name.

    Attributes:
        store: as it was named.
        ref: what was asked for.
        problem: what there is instead.
    """

    def __init__(self, store: str, ref: object, problem: str) -> None:
        self.store, self.ref, self.problem = store, str(ref), problem
        super().__init__(f"{escaped(store)} has no {shown(self.ref)}: {escaped(problem)}")
        self.errno = errno.ENOENT


class CheckpointGone(TensorkeepError, FileNotFoundError):
    """A checkpoint was deleted or replaced while it was being read or built upon.

    Attributes:
        store: as it was named.
        key: of its manifest.
        fate: `deleted` or `replaced`.
    """

    def __init__(self, store: str, key: str, fate: str) -> None:
        self.store, self.key, self.fate = store, key, fate
        super().__init__(f"{escaped(store)}: {escaped(key)} was {fate} while it was in use\n  Nothing is damaged: take what is there now.")
        self.errno = errno.ENOENT


class StepExists(TensorkeepError, FileExistsError):
    """The step was saved before. Nothing was changed.

    Attributes:
        store: as it was named.
        step: that was to be saved.
        by: machine and process that saved it; "" where its manifest is damaged.
        time: when, in seconds since 1970 by that machine's clock; None where its manifest is damaged.
    """

    def __init__(self, store: str, step: int, *, by: str, time: float | None, consequence: str = "", hint: str = "") -> None:
        self.store, self.step, self.by, self.time = store, step, by, time
        said = (
            f"was saved by {shown(by)}" + (f" at {_when(time)}" if time is not None else "")
            if by
            else "is there already, with a damaged manifest"
        )
        super().__init__(
            f"{escaped(store)}: step {step} {said}. {consequence or 'Nothing was changed.'}\n  "
            + (hint or "Save it with overwrite=True, or go back for good with rollback() before the steps are run again.")
        )
        self.errno = errno.EEXIST


class TagExists(TensorkeepError, FileExistsError):
    """The tag is on another checkpoint. Nothing was changed.

    Attributes:
        store: as it was named.
        tag: its name.
        step: of the checkpoint that has it; None where the tag is damaged.
    """

    def __init__(self, store: str, tag: str, *, step: int | None, consequence: str = "", hint: str = "") -> None:
        self.store, self.tag, self.step = store, tag, step
        where = "is there and damaged" if step is None else f"is on step {step}"
        super().__init__(
            f"{escaped(store)}: the tag {shown(tag)} {where}. {consequence or 'Nothing was changed.'}\n  "
            + (hint or "Move it with move=True, or take another name.")
        )
        self.errno = errno.EEXIST


class ClaimLost(TensorkeepError, OSError):
    """A save stood still for more than a day, and was given up by whoever cleans the store. Nothing was committed.

    Attributes:
        store: as it was named.
        save: that was given up.
    """

    def __init__(self, store: str, save: str) -> None:
        self.store, self.save = store, save
        super().__init__(
            f"{escaped(store)}: save {escaped(save)} stood still for more than a day and was given up meanwhile.\n"
            f"  Nothing was committed, and no checkpoint was harmed: save again."
        )
        self.errno = errno.ETIMEDOUT


class SaveError(TensorkeepError, OSError):
    """A save in the background failed. Its own error is the cause; what was committed before is as it was.

    Attributes:
        store: as it was named.
        step: that was not saved.
    """

    def __init__(self, store: str, step: int, error: BaseException) -> None:
        self.store, self.step = store, step
        super().__init__(f"{escaped(store)}: step {step} was not saved: {type(error).__name__}: {escaped(error)}")
        self.errno = getattr(error, "errno", None)


class StoreBusy(TensorkeepError, RuntimeError):
    """Another save is under way, and the store was made with `busy="error"`; or it was called from inside of a save. Nothing was copied.

    Attributes:
        store: as it was named.
        step: that was to be saved.
        running: the step that is being saved.
    """

    def __init__(self, store: str, step: int, running: int) -> None:
        self.store, self.step, self.running = store, step, running
        super().__init__(
            f"{escaped(store)}: step {running} is still being saved, so step {step} is not.\n  A store with busy='wait' would wait for it."
        )


class TensorkeepWarning(UserWarning):
    """Worth knowing. `report` holds the same as data where there is any, else None."""

    def __init__(self, message: str, *, report: object = None) -> None:
        self.report = report
        super().__init__(message)


def warn(warning: Warning) -> None:
    """Give a warning, at the line that called tensorkeep: it is the one that can be changed, and Python tells each once.

    Args:
        warning: what to say; `warnings.simplefilter("error")` raises it.
    """
    frame, level = sys._getframe(1), 2  # as `warnings` counts
    while frame.f_back is not None and f"{frame.f_globals.get('__name__')}.".startswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    warnings.warn(warning, stacklevel=level)
