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
        CheckpointGone,
        ClaimLost,
        CorruptError,
        FormatError,
        MismatchError,
        MissingExtraError,
        NoCheckpoint,
        RestoreInterrupted,
        SaveError,
        StepExists,
        StoreBusy,
        TagExists,
        TensorkeepError,
        TensorkeepWarning,
        UnsupportedError,
    )
    from tensorkeep.limits import Limits
    from tensorkeep.report import Cast, Problem, Report
    from tensorkeep.store.copying import Copied
    from tensorkeep.store.export import Exported
    from tensorkeep.store.gc import Collected
    from tensorkeep.store.job import Job
    from tensorkeep.store.keep import Candidate, Every, Keep
    from tensorkeep.store.results import Checkpoint, Resumed
    from tensorkeep.store.retention import Removal
    from tensorkeep.store.stats import Stats
    from tensorkeep.store.store import Store
    from tensorkeep.tensors import LazyTensor, TensorSpec
    from tensorkeep.tree import Stub
    from tensorkeep.verbs.convert import Conversion, convert
    from tensorkeep.verbs.diff import Diff, diff
    from tensorkeep.verbs.fingerprint import Fingerprint, fingerprint, same
    from tensorkeep.verbs.load import load, loads
    from tensorkeep.verbs.open import open as open  # noqa: A004  # the word that everyone knows; not in __all__
    from tensorkeep.verbs.save import dumps, save
    from tensorkeep.verbs.scan import Scan, scan
    from tensorkeep.verbs.show import Summary, show
    from tensorkeep.verbs.verify import verify
    from tensorkeep.verdict import Damage, Verdict

_HOMES: Final = {
    "tensorkeep.contents": ("Contents", "Finding"),
    "tensorkeep.dtypes": ("DType",),
    "tensorkeep.errors": (
        "CheckpointGone",
        "ClaimLost",
        "CorruptError",
        "FormatError",
        "MismatchError",
        "MissingExtraError",
        "NoCheckpoint",
        "RestoreInterrupted",
        "SaveError",
        "Stats",
        "StepExists",
        "StoreBusy",
        "TagExists",
        "TensorkeepError",
        "TensorkeepWarning",
        "UnsupportedError",
    ),
    "tensorkeep.limits": ("Limits",),
    "tensorkeep.report": ("Cast", "Problem", "Report"),
    "tensorkeep.store.job": ("Job",),
    "tensorkeep.store.copying": ("Copied",),
    "tensorkeep.store.export": ("Exported",),
    "tensorkeep.store.gc": ("Collected",),
    "tensorkeep.store.keep": ("Candidate", "Every", "Keep"),
    "tensorkeep.store.results": ("Checkpoint", "Resumed"),
    "tensorkeep.store.retention": ("Removal",),
    "tensorkeep.store.stats": ("Stats",),
    "tensorkeep.store.store": ("Store",),
    "tensorkeep.tensors": ("LazyTensor", "TensorSpec"),
    "tensorkeep.tree": ("Stub",),
    "tensorkeep.verbs.convert": ("Conversion", "convert"),
    "tensorkeep.verbs.diff": ("Diff", "diff"),
    "tensorkeep.verbs.fingerprint": ("Fingerprint", "fingerprint", "same"),
    "tensorkeep.verbs.load": ("load", "loads"),
    "tensorkeep.verbs.open": ("open",),
    "tensorkeep.verbs.save": ("dumps", "save"),
    "tensorkeep.verbs.scan": ("Scan", "scan"),
    "tensorkeep.verbs.show": ("Summary", "show"),
    "tensorkeep.verbs.verify": ("verify",),
    "tensorkeep.verdict": ("Damage", "Verdict"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Candidate",
    "Cast",
    "Checkpoint",
    "CheckpointGone",
    "ClaimLost",
    "Collected",
    "Contents",
    "Conversion",
    "Copied",
    "CorruptError",
    "DType",
    "Damage",
    "Diff",
    "Every",
    "Exported",
    "Finding",
    "Fingerprint",
    "FormatError",
    "Job",
    "Keep",
    "LazyTensor",
    "Limits",
    "MismatchError",
    "MissingExtraError",
    "NoCheckpoint",
    "Problem",
    "Removal",
    "Report",
    "RestoreInterrupted",
    "Resumed",
    "SaveError",
    "Scan",
    "Stats",
    "StepExists",
    "Store",
    "StoreBusy",
    "Stub",
    "Summary",
    "TagExists",
    "TensorSpec",
    "TensorkeepError",
    "TensorkeepWarning",
    "UnsupportedError",
    "Verdict",
    "__version__",
    "convert",
    "diff",
    "dumps",
    "fingerprint",
    "load",
    "loads",
    "same",
    "save",
    "scan",
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
