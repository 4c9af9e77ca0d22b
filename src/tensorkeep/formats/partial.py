"""Partial copies: what stands in a file's place when it did not come through, and what a stream may be.

Lives here: pointers of Git LFS, pages of the web, answers of a server, unfinished downloads, folders without their weights; and by which
first bytes a stream is worth reading to its end. Lives elsewhere: a file that is cut short, which its own reader tells.
"""

import re
from typing import Final

from tensorkeep.errors import FormatError, sized
from tensorkeep.formats.peek import Peek

_LFS: Final = re.compile(rb"version https://git-lfs\.github\.com/spec/v\d+\n(?:.{0,200}\n)*?size (\d{1,18})\n")
_PAGE: Final = re.compile(
    rb"\s*(?:\xef\xbb\xbf)?\s*(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_ANSWER: Final = re.compile(
    rb"\s*(?:<\?xml[^>]{0,100}\?>\s*<Error>|\{\s*\"(?:error|message|detail)\"\s*:|(?:Access Denied|Not Found|Entry not found|Invalid "
    rb"username or password|Repository not found|404: Not Found|401 Unauthorized|Forbidden)\b)",
    re.DOTALL,
)
_ANSWER_BYTES: Final = 64 << 10  # no server explains itself at greater length
_UNFINISHED: Final = (".part", ".crdownload", ".incomplete", ".download", ".partial", ".aria2", ".tmp", ".!qB")
_CONFIGS: Final = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "params.json")

# What begins with these may be read to its end; a device that gives bytes for ever would have to hit on one of them.
_STREAMS: Final = re.compile(
    rb"PK\x03\x04|\x80[\x02-\x05][\x00-\xff]|\x93NUMPY|\x89HDF\r\n\x1a\n|GGUF|\x1f\x8b\x08|BZh[1-9]|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|"
    rb".{4}TFL3|\x08[\x01-\x1f][\x12\x3a\x42][^\x00]",
    re.DOTALL,
)


def explain(peek: Peek) -> FormatError | None:
    """The error for a file or folder that no reader knows, if it stands for something that did not come through."""
    if peek.is_folder:
        return _folder(peek)
    if (pointer := _LFS.match(peek.head)) is not None:
        what = f"a pointer of Git LFS, in place of the file itself ({sized(int(pointer[1]))})"
        return peek.error(what, hint="Fetch the file: git lfs pull.")
    if _PAGE.match(peek.head):
        return peek.error("a page of the web, in place of a file", hint="The address gave a page: take the one of the file itself.")
    if peek.nbytes <= _ANSWER_BYTES and _ANSWER.match(peek.head):
        said = " ".join(peek.head[:200].decode("utf-8", "replace").split())
        return peek.error(f"what a server answered, in place of a file: {said}", hint="Fetch it again, with the rights that it takes.")
    if peek.base.endswith(_UNFINISHED):
        return peek.error("a download that is not finished, by its name", hint="Let it finish, or fetch it again.")
    if peek.head and not any(peek.head):
        return peek.error(
            f"it begins with {len(peek.head):,} zeros, as a file does whose bytes did not come yet", hint="Fetch it again, or wait."
        )
    return None


def _folder(peek: Peek) -> FormatError | None:
    names = [name for name in peek.files if "/" not in name]
    unfinished = [name for name in names if name.endswith(_UNFINISHED)]
    if unfinished:
        return peek.error(f"a folder with a download that is not finished: {unfinished[0]:.200}", hint="Let it finish, or fetch it again.")
    found = [name for name in _CONFIGS if name in names]
    if found:
        hint = "Fetch the files with the weights too, such as model.safetensors."
        return peek.error(f"a folder with {found[0]}, and without weights in a layout that is known", hint=hint)
    return None


def may_begin(head: bytes) -> bool:
    """Whether the first eight bytes of a stream begin a format that is read, of those that have a mark of their own."""
    return _STREAMS.match(head) is not None
