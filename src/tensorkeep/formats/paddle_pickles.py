"""Paddle's `.pdparams` and `.pdopt`: a pickled dict of arrays, with two entries that are not the model's own.

`StructuredToParameterName@@` says what each parameter is called inside of Paddle. Protocols 2 and 3 cannot hold arrays of 4 GiB: those
are cut, and `UnpackBigParamInfor@@` says of what parts each is made.

A tensor anywhere else, as in `{"model": layer.state_dict(), "epoch": 3}`, is pickled as a call of `tuple` with a pair of its name and its
array; a tuple itself is never pickled so. `paddle.load` makes a tensor of it, and here it is the array.

Source: `reduce_varbase` in `_pickle_save` of https://github.com/PaddlePaddle/Paddle/blob/develop/python/paddle/framework/io.py,
`_unpack_saved_dict` and `_pack_loaded_dict` of https://github.com/PaddlePaddle/Paddle/blob/develop/python/paddle/framework/io_utils.py
"""

from typing import Any, Final

from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Tree
from tensorkeep.unpickle.arrays import PendingArray
from tensorkeep.unpickle.inert import Keyed
from tensorkeep.unpickle.plain import PLAIN
from tensorkeep.wire import sources

_NAMES: Final = "StructuredToParameterName@@"
_CUT: Final = "UnpackBigParamInfor@@"


class Tensors:
    """The constructor of Paddle's tensors.

    Attributes:
        table: it, for the pickle machine.
        met: whether there was one.
    """

    def __init__(self) -> None:
        self.met = False
        self.table: dict[tuple[str, str], Keyed] = {(module, "tuple"): Keyed(self._tuple) for module in ("builtins", "__builtin__")}

    def _tuple(self, args: tuple[Any, ...], keys: Any) -> object:
        if len(args) == 1 and type(args[0]) is tuple and len(args[0]) == 2:
            name, found = args[0]
            if type(name) is str and isinstance(found, (PendingArray, LazyTensor)):
                self.met = True
                return found
        plain = PLAIN["builtins", "tuple"]
        assert isinstance(plain, Keyed)
        return plain.make(args, keys)


def recognizes(tree: Tree) -> bool:
    """Whether a pickle is one of Paddle's."""
    return isinstance(tree, dict) and (_NAMES in tree or _CUT in tree)


def joined(peek: Peek, tree: dict[Any, Tree]) -> tuple[Tree, dict[str, Any]]:
    """The parameters alone, those that were cut put together, and what Paddle calls them.

    Raises:
        FormatError: the parts of a parameter do not fit together.
    """
    cut = tree.pop(_CUT, {})
    names = tree.pop(_NAMES, {})
    if not isinstance(cut, dict):
        raise peek.error(f"{_CUT} is no dict")
    for name, said in cut.items():
        parts = said.get("slices") if isinstance(said, dict) else None
        if not isinstance(parts, list) or not parts or not all(isinstance(tree.get(part), LazyTensor) for part in parts):
            raise peek.error(f"{name!s:.200} is said to be cut into parts that are not there")
        tree[name] = _join(peek, str(name), said.get("OriginShape"), [tree.pop(part) for part in parts])
    return tree, {"names": names} if isinstance(names, dict) and names else {}


def _join(peek: Peek, name: str, shape: Any, parts: list[LazyTensor]) -> LazyTensor:
    """One tensor of parts that follow each other."""
    if not isinstance(shape, (tuple, list)) or not all(type(length) is int and length >= 0 for length in shape):
        raise peek.error(f"{name:.200} is said to have the shape {shape!r:.200}")
    return sources.joined(parts, tuple(shape), file=peek.name, what=name)
