"""Errors: one family, and the sentence of each.

    TensorkeepError
    ├── FormatError          (ValueError)   the file breaks its format, or a limit
    ├── CorruptError         (ValueError)   the bytes are not the bytes that were written
    ├── MismatchError        (ValueError)   file and target disagree; nothing was changed
    ├── UnsupportedError     (TypeError)    a value that cannot be kept; nothing was written
    ├── RestoreInterrupted   (OSError)      the file failed or changed during the last copy; names what was written
    └── MissingExtraError    (ImportError)  an optional package is not installed

    TensorkeepWarning        (UserWarning)  worth knowing, and nothing is wrong

Missing files, full disks and lost permissions stay what Python calls them: `FileNotFoundError`, `OSError` with its errno.
Facts are attributes; the class makes the sentence, so every room says it alike.
"""

from collections.abc import Sequence
from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_FINDING: Final = 3


_LONGEST: Final = 300  # characters of a name in a message


def escaped(text: object) -> str:
    """Text of a file or a caller, with everything that a terminal might obey or hide spelled out."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in line)


def shown(name: str) -> str:
    """A name of a file for a message: escaped, and without its middle where it is long."""
    cut = name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}...{name[3 - _LONGEST // 2 :]}"
    return escaped(cut)


class TensorkeepError(Exception):
    """Whatever tensorkeep itself refuses. `exit_code` is what the command line ends with."""

    exit_code: int = EXIT_FAILED


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
        found, wanted: the digests, in hex.
        also: the other tensors that have bytes in the same damaged chunk.
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
    ) -> None:
        self.file, self.path, self.span, self.found, self.wanted, self.also = file, path, span, found, wanted, tuple(also)
        more = f" (and {len(self.also)} more tensors in the same chunk)" if self.also else ""
        lines = [
            f"{shown(path)}{more} in {escaped(file)} is damaged: bytes {span[0]:,} to {span[1]:,}",
            f"  digest found {found[:8]}...{found[-4:]}, wanted {escaped(wanted[:8])}...{escaped(wanted[-4:])}. {consequence}",
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

    def __init__(self, file: str, report: object) -> None:
        self.file, self.report = file, report
        super().__init__(f"{escaped(file)} does not fit its target. Nothing was changed.\n{report}")


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
    """An optional package is not installed.

    Attributes:
        package: what was asked for.
        extra: the extra of tensorkeep that brings it.
    """

    def __init__(self, *, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"this needs {package}, which is not installed: pip install 'tensorkeep[{extra}]'", name=package)


class TensorkeepWarning(UserWarning):
    """Worth knowing. `report` holds the same as data where there is any, else None."""

    def __init__(self, message: str, *, report: object = None) -> None:
        self.report = report
        super().__init__(message)
