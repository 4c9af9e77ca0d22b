"""Compressed files: one wrapper of gzip, xz, bzip2, Zstandard, LZ4, zlib or lzma around a file of any other format.

joblib and many downloads are so. The wrapper is peeled once: what is compressed twice hides something, or is a bomb.
"""

import re
from dataclasses import dataclass
from typing import Final

from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError
from tensorkeep.formats.peek import Peek
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.inflate import BEGINS, InflatedFile

_WEAK: Final = ("zlib", "lzma")
_ZFILE_BEGINS: Final = re.compile(rb"ZF0x[0-9a-f]{1,12}L? +\x78")
_ZFILE: Final = re.compile(rb"ZF0x([0-9a-f]{1,12})L? *")
_ZFILE_HEAD_BYTES: Final = 21


@dataclass(frozen=True, slots=True)
class Peeled:
    """What a wrapper is around.

    Attributes:
        codec: who compressed it.
        peek: a look at what is inside, with the budget of the whole.
        file: the inflated bytes.
    """

    codec: str
    peek: Peek
    file: InflatedFile

    @property
    def weak(self) -> bool:
        """Whether what it begins with may as well be a file of another kind."""
        return self.codec in _WEAK

    def tell(self, contents: Contents) -> Contents:
        """The contents of what is inside, which say that there is a wrapper around it."""
        contents.format = f"{contents.format} ({self.codec})"
        contents.nbytes = self.peek.opened[0].file.nbytes + sum(self.peek.beside.values())
        if self.file.behind:
            contents.left_out = (*contents.left_out, f"{self.file.behind:,} bytes behind the end of its {self.codec} stream")
        return contents


def codec_of(head: bytes) -> str | None:
    """Who compressed a file that begins so; None for what is not compressed."""
    return "zfile" if _ZFILE_BEGINS.match(head) else next((codec for codec, begins in BEGINS.items() if begins.match(head)), None)


def peel(peek: Peek, *, weak: bool) -> Peeled | None:
    """Look into the wrapper of a file; None where there is none.

    Args:
        peek: the file.
        weak: whether to look for those that next to nothing tells apart from other formats: to be asked for when no reader knows it.

    Raises:
        FormatError: it is damaged, inflates to more than the budget allows, or there is another wrapper inside.
    """
    codec = codec_of(peek.head)
    if codec is None or (codec in _WEAK) is not weak:
        return None
    inside = zfile(peek.data, peek.budget) if codec == "zfile" else inflated(peek.data, codec, peek.budget)
    inner = peek.within(inside)
    if (again := codec_of(inner.head)) is not None and again not in _WEAK:
        raise peek.error(f"compressed twice, by {codec} and {again} inside; one wrapper is peeled", hint="Decompress it first.")
    file = inside.opened.file
    assert isinstance(file, InflatedFile)
    return Peeled("zlib" if codec == "zfile" else codec, inner, file)


def inflated(packed: Extent, codec: str, budget: Budget, nbytes: int | None = None) -> Extent:
    """What a compressed extent holds."""
    file = InflatedFile(packed, codec, nbytes, budget=budget, name=packed.name)
    return Extent(Opened(file, mmap=False), 0, file.nbytes, packed.name)


def zfile(packed: Extent, budget: Budget) -> Extent:
    """What a file holds that joblib compressed before 0.10: behind its length in hexadecimal, in a field of 19 characters, follows zlib.

    Raises:
        FormatError: it is none, or holds another number of bytes.
    """
    head = bytes(packed.read(0, min(_ZFILE_HEAD_BYTES + 1, packed.nbytes)))
    found = _ZFILE.match(head)
    if found is None:
        raise FormatError(packed.name, "no file that joblib compressed")
    start = _ZFILE_HEAD_BYTES + (head[_ZFILE_HEAD_BYTES:] == b" ")  # Python 2 wrote one character more
    return inflated(packed.part(start, packed.nbytes), "zlib", budget, int(found[1], 16))
