"""tensorkeep: save and load neural networks in one line. NumPy, PyTorch and plain Python; no code run, every byte checked.

    import tensorkeep as tk

    tk.save(model, "model.safetensors")
    tk.load("model.safetensors", into=model)

Everything loads on first use: importing tensorkeep imports neither NumPy nor any framework.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from tensorkeep._version import __version__

if TYPE_CHECKING:
    from tensorkeep.contents import Contents, Finding
    from tensorkeep.dtypes import DType
    from tensorkeep.errors import (
        CorruptError,
        FormatError,
        MismatchError,
        MissingExtraError,
        RestoreInterrupted,
        TensorkeepError,
        TensorkeepWarning,
        UnsupportedError,
    )
    from tensorkeep.limits import Limits
    from tensorkeep.report import Cast, Problem, Report
    from tensorkeep.tensors import LazyTensor, TensorSpec
    from tensorkeep.verbs.load import load, loads
    from tensorkeep.verbs.open import open as open  # noqa: A004  # the word that everyone knows; not in __all__
    from tensorkeep.verbs.save import dumps, save
    from tensorkeep.verbs.show import Summary, show
    from tensorkeep.verbs.verify import Damage, Verdict, verify

_HOMES: Final = {
    "tensorkeep.contents": ("Contents", "Finding"),
    "tensorkeep.dtypes": ("DType",),
    "tensorkeep.errors": (
        "CorruptError",
        "FormatError",
        "MismatchError",
        "MissingExtraError",
        "RestoreInterrupted",
        "TensorkeepError",
        "TensorkeepWarning",
        "UnsupportedError",
    ),
    "tensorkeep.limits": ("Limits",),
    "tensorkeep.report": ("Cast", "Problem", "Report"),
    "tensorkeep.tensors": ("LazyTensor", "TensorSpec"),
    "tensorkeep.verbs.load": ("load", "loads"),
    "tensorkeep.verbs.open": ("open",),
    "tensorkeep.verbs.save": ("dumps", "save"),
    "tensorkeep.verbs.show": ("Summary", "show"),
    "tensorkeep.verbs.verify": ("Damage", "Verdict", "verify"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Cast",
    "Contents",
    "CorruptError",
    "DType",
    "Damage",
    "Finding",
    "FormatError",
    "LazyTensor",
    "Limits",
    "MismatchError",
    "MissingExtraError",
    "Problem",
    "Report",
    "RestoreInterrupted",
    "Summary",
    "TensorSpec",
    "TensorkeepError",
    "TensorkeepWarning",
    "UnsupportedError",
    "Verdict",
    "__version__",
    "dumps",
    "load",
    "loads",
    "save",
    "show",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'tensorkeep' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    if hasattr(value, "__module__"):
        value.__module__ = "tensorkeep"  # where people find it
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
