"""Foreign formats, known by their first bytes: so that a refusal says what the file is, and what to do.

Lives here: what a file that is no safetensors file looks like. Lives elsewhere: when it is none (container).
"""

import re
from typing import Final

from tensorkeep.errors import FormatError

_BRING_OVER: Final = (
    "If you trust where it comes from, load it with the tool that wrote it, and tk.save what comes back: docs/how-to/coming-from.md."
)

_LOOKS: Final = (
    (rb"PK\x03\x04", "a zip archive, as torch.save, np.savez and Keras write them", _BRING_OVER),
    (rb"\x80[\x02-\x05].{2,6}(?<!\0)", "a pickle, as pickle.dump, joblib and older torch.save write them", _BRING_OVER),
    (rb"\x93NUMPY", "an array of np.save", _BRING_OVER),
    (rb"\x89HDF", "an HDF5 file, as Keras writes them", _BRING_OVER),
    (rb"GGUF", "a GGUF file, as llama.cpp writes them", _BRING_OVER),
    (rb".{4}TFL3", "a TensorFlow Lite model", _BRING_OVER),
    (rb"\x08[\x01-\x1f][\x12\x3a\x42][^\0]", "an ONNX model", _BRING_OVER),
    (rb"\x1f\x8b\x08", "a file that gzip compressed", "Decompress it first: gunzip."),
    (rb"version ", "a pointer of Git LFS in place of the file", "Fetch the file itself: git lfs pull."),
    (rb"<!DOCTYP|<!doctyp|<html|<HTML", "a page of the web", "Fetch the file itself: the address gave a page instead."),
)
_KNOWN: Final = tuple((re.compile(pattern, re.DOTALL), looks, hint) for pattern, looks, hint in _LOOKS)


def look_alike(head: bytes, file: str) -> FormatError | None:
    """The error for a file whose first eight bytes begin no safetensors file, if they begin another format that is known.

    To be asked only where they are not the length of a header that is there. Of a file that was cut short they are a small number, with
    zeros behind its first three bytes: no pattern takes that, but gzip's, and its number is odd, which writers pad to even ones.
    """
    for pattern, looks, hint in _KNOWN:
        if pattern.match(head):
            return FormatError(file, f"no safetensors file, and this release reads no others: it looks like {looks}", hint=hint)
    return None
