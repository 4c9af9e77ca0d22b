"""NumPy's `.npz`: a zip archive with an `.npy` for each array, stored or deflated. MLX writes the same."""

from tensorkeep.contents import Contents, Finding
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.npy import arrays_in
from tensorkeep.formats.peek import Peek
from tensorkeep.tree import Tree
from tensorkeep.wire.inflate import InflatedFile
from tensorkeep.wire.npy import MAGIC
from tensorkeep.wire.zip import ZipArchive

_SUFFIX = ".npy"


class NpzReader:
    """`.npz`: each array under the name of its member, lazily."""

    name = "npz"

    def recognizes(self, peek: Peek) -> bool:
        return peek.zip is not None and any(name.endswith(_SUFFIX) for name in peek.zip)

    def read(self, peek: Peek) -> Contents:
        archive = peek.zip
        assert archive is not None, "recognizes() was asked"
        left_out: list[str] = []
        tree = arrays_of(archive, peek, left_out)
        checked = [archive.open(name) for name in archive]
        findings = [Finding("unknown", "the zip archive", oddity) for oddity in archive.oddities]
        return contents(peek, format="NumPy archive", tree=tree, left_out=left_out, findings=findings, checked=checked)


def arrays_of(archive: ZipArchive, peek: Peek, left_out: list[str], *, prefix: str = "") -> dict[str, Tree]:
    """The arrays of an archive, by the names of its members.

    Args:
        archive: of the file itself, or of a member of it.
        peek: the file.
        left_out: gets a sentence for each member that is no array.
        prefix: stands before the names in messages.

    Raises:
        FormatError: an array is broken.
    """
    found: dict[str, Tree] = {}
    for name in archive:
        member = archive.open(name)
        if member.nbytes < len(MAGIC) or bytes(member.read(0, len(MAGIC))) != MAGIC:  # NumPy goes by that, and not by the name
            if not name.endswith("/"):
                left_out.append(f"{prefix}{name}: {member.nbytes:,} bytes, which are no array")
            continue
        key = name.removesuffix(_SUFFIX)
        if key != name and key in archive:
            key = name
        found[key] = next(arrays_in(member, peek, f"{prefix}{key}", left_out))
        if isinstance(member.opened.file, InflatedFile):
            member.opened.file.let_go()
    return found
