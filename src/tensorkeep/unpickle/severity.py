"""Severity: how dangerous a name is that a pickle would import when it is loaded the usual way.

Three answers. *Harmless*: the exact name stands in a table of what ordinary models hold. *Dangerous*: it stands in the standard library
without being listed there, in a package that loads or runs things, or it is a name that reaches other names. *Unknown*: nobody here has
heard of it, and importing it runs its module. No name is harmless for its package's sake: packages hold everything.
"""

import sys
from functools import cache
from typing import Final, Literal

from tensorkeep.unpickle.known import dangerous, others, python, sklearn, torch

Severity = Literal["dangerous", "unknown", "harmless"]

WORSE: Final[dict[str, int]] = {"harmless": 0, "unknown": 1, "dangerous": 2}

RESOLVERS: Final = frozenset({("builtins", "getattr"), ("numpy.core", "_ufunc_reconstruct")})
"""Functions that find a name by a text, and that honest pickles call too: what they would find counts."""

ONLY_NAMED: Final = frozenset({("numpy", "memmap"), ("numpy.core.memmap", "memmap")})
"""Classes that honest pickles name as the kind of an array, and that open a file when they are called."""

_ATTRIBUTES: Final = (
    "_infer_parameters _lazy_load_hook _triangular_scale_fn _triangular2_scale_fn _exp_range_scale_fn _entropy _pdf _pmf _cdf _ppf _stats "
    "__call__ __init__ __new__ forward fromkeys classify predict transform encode decode tokenize preprocess compute_loss "
    "analyzer step apply update _unpickle __reduce_ex__ __reduce__ _call_impl train eval_step gelu relu silu tanh sigmoid "
    "softmax matmul linear cat concat stack add sub mul div neg sqrt pow mean sum max min exp log abs conv1d conv2d "
    "max_pool2d avg_pool2d flatten reshape lower upper strip split join"
)
"""What honest pickles look up on known objects: bound methods, operators of PyTorch. So are members of enumerations, `A_NAME`."""

_OLD: Final = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "UserDict": "collections",
    "UserList": "collections",
    "exceptions": "builtins",
}
_MOVED: Final = frozenset({"sklearn", "scipy", "pandas", "imblearn", "hdbscan", "umap", "category_encoders", "optax", "jax", "tokenizers"})
"""Packages whose modules gained and lost underscores over the releases."""

_STANDARD: Final = frozenset(sys.stdlib_module_names) | frozenset(dangerous.GONE.split())
_PACKAGES: Final = frozenset(dangerous.PACKAGES.split())
_REACHING: Final = frozenset(dangerous.REACHING.split())
_LOADING: Final = frozenset(dangerous.LOADING.split())
_BOUND: Final = frozenset(_ATTRIBUTES.split())


def normal(module: str) -> str:
    """A module as the tables have it: Python 2 by Python 3's name, and libraries without the underscores that came and went."""
    module = _OLD.get(module, module)
    if module.partition(".")[0] in _MOVED:
        return ".".join(part.lstrip("_") or part for part in module.split("."))
    if module == "numpy._core" or module.startswith("numpy._core."):
        return "numpy.core" + module.removeprefix("numpy._core")
    return module


@cache
def _known() -> dict[str, frozenset[str]]:
    tables = (python.NAMES, sklearn.NAMES, torch.NAMES, others.NAMES)
    return {module: frozenset(names.split()) for table in tables for module, names in table.items()}


def severity(module: str, name: str) -> Severity:
    """How dangerous a global is.

    Args:
        module, name: as the pickle names it.

    Example:
        >>> severity("collections", "OrderedDict"), severity("posix", "system"), severity("mylab.nets", "Net")
        ('harmless', 'dangerous', 'unknown')
    """
    module = normal(module)
    top = module.partition(".")[0]
    if name in _known().get(module, ()) or (module, name) in ONLY_NAMED or top == "__torch__":
        return "harmless"  # `__torch__` holds TorchScript's own classes, and is no module that Python could import
    first, *below = name.split(".")
    if below and first in _known().get(module, ()) and _BOUND.issuperset(below):
        return "harmless"  # a method of a known class, which protocol 4 names so
    if top in _STANDARD or top in _PACKAGES or _runs(module, name):
        return "dangerous"
    *through, last = name.split(".")
    if last in _REACHING or any(part in _REACHING or part in _STANDARD for part in through) or (through and last in _LOADING):
        return "dangerous"
    return "unknown"


def _runs(module: str, name: str) -> bool:
    at = module
    while at:
        names = dangerous.NAMES.get(at)
        if names == "*" or (names is not None and at == module and name.partition(".")[0] in names.split()):
            return True
        at = at.rpartition(".")[0]
    return False


def attribute(owner: Severity, name: str) -> Severity:
    """How dangerous it is to look a name up on something of that severity."""
    if name in _BOUND or (name.isidentifier() and name.isupper()):
        return owner
    if name.startswith("__") or name in _REACHING or name in _LOADING or owner == "dangerous":
        return "dangerous"
    return "unknown"
