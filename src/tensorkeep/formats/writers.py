"""The table of writers: which formats `convert` writes, beside our own.

A new one is one file and one line here: its name for `--to`, the suffixes that mean it, the module below `formats`, its class.
"""

import importlib
from dataclasses import dataclass
from typing import Final

from tensorkeep.formats.protocols import Writer


@dataclass(frozen=True, slots=True)
class Row:
    """One format that is written."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    cls: str


ROWS: Final = (
    Row("safetensors", (), "safetensors_write", "SafetensorsWriter"),  # the suffix is that of our own file, which is one too
    Row("npz", (".npz",), "npz_write", "NpzWriter"),
    Row("pt", (".pt", ".pth", ".ckpt", ".bin"), "torch.write", "TorchWriter"),
    Row("gguf", (".gguf",), "gguf_write", "GgufWriter"),
    Row("h5", (".h5", ".hdf5"), "hdf5_write", "Hdf5Writer"),
)


def named(name: str) -> Writer | None:
    """The writer of a format by its name."""
    return next((_made(row) for row in ROWS if row.name == name), None)


def name_of(file: str) -> str:
    """The name of the format that a file's own name asks for, or ""."""
    lower = file.lower()
    return next((row.name for row in ROWS if lower.endswith(row.suffixes)), "")


def _made(row: Row) -> Writer:
    made: Writer = getattr(importlib.import_module(f"tensorkeep.formats.{row.module}"), row.cls)()
    return made
