"""gensim's models: a pickled object, its large arrays in files beside it.

`save` empties the attributes that hold large arrays, and lists their names: those in `__numpys` lie in `<file>.<attribute>.npy`, sparse
matrices of `__scipys` in four files, and attributes in `__recursive_saveloads` are objects of which the same is true again. Those in
`__ignoreds` are not kept, but some models keep them as models of their own, in `<file>.<attribute>`.

Source: `SaveLoad` of https://github.com/piskvorky/gensim/blob/develop/gensim/utils.py
"""

from typing import Any, Final

from tensorkeep.formats.npy import arrays_in
from tensorkeep.formats.npz import arrays_of
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.unpickled import Left, unpickle
from tensorkeep.tree import Stub, Tree
from tensorkeep.unpickle.look import looks_like_pickle
from tensorkeep.wire.zip import ZipArchive

_LISTS: Final = ("__numpys", "__scipys", "__recursive_saveloads", "__ignoreds")
_PARTS: Final = ("data", "indptr", "indices")  # of a sparse matrix
_DEEPEST: Final = 20
_MOST_FILES: Final = 1000


def place_siblings(peek: Peek, tree: Tree, left: Left) -> bool:
    """Put the arrays that lie beside a model at their attributes; whether it was a model of gensim.

    Raises:
        FormatError: a file beside it is broken, or its name leads out of the folder.
    """
    if not isinstance(tree, Stub) or not any(name in tree.fields for name in _LISTS):
        return False
    _Placing(peek, left).place(tree, peek.base, 0)
    return True


class _Placing:
    """One walk over the objects of a model."""

    def __init__(self, peek: Peek, left: Left) -> None:
        self.peek, self.left = peek, left
        self._compressed = peek.base.endswith((".gz", ".bz2"))  # gensim goes by the name
        self._files = 0
        self._met: set[int] = set()

    def place(self, stub: Stub, prefix: str, depth: int) -> None:
        if id(stub) in self._met or depth > _DEEPEST:
            return
        self._met.add(id(stub))
        for name in self._names(stub, "__recursive_saveloads"):
            if isinstance(inner := stub.fields.get(name), Stub):
                self.place(inner, f"{prefix}.{name}", depth + 1)
        for name in self._names(stub, "__numpys"):
            found = self._array(f"{prefix}.{name}", "val")
            if found is not None:
                stub.fields[name] = found
        for name in self._names(stub, "__scipys"):
            found = self._sparse(f"{prefix}.{name}")
            if found is not None:
                stub.fields[name] = found

        for name in self._names(stub, "__ignoreds"):
            self._model(stub, name, prefix, depth)

    def _model(self, stub: Stub, name: str, prefix: str, depth: int) -> None:
        """An attribute that is a model of its own, if it lies beside this one."""
        found = self.peek.sibling_if_there(f"{prefix}.{name}")
        if found is not None and looks_like_pickle(bytes(found.read(0, min(4096, found.nbytes))), whole=found.nbytes <= 4096):
            tree, _ = unpickle(self.peek, found, self.left)
            if isinstance(tree, Stub):
                self.place(tree, f"{prefix}.{name}", depth + 1)
            stub.fields[name] = tree

    def _names(self, stub: Stub, key: str) -> list[str]:
        names = stub.fields.get(key)
        self._files += len(names) if isinstance(names, list) else 0
        if self._files > _MOST_FILES:
            raise self.peek.error(f"it names more than {_MOST_FILES:,} files beside it")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def _array(self, stem: str, key: str) -> Tree:
        """The array of `<stem>.npy`, or the one of that key in `<stem>.npz` where the model is compressed; None where it is not there."""
        name = f"{stem}.{'npz' if self._compressed else 'npy'}"
        found = self.peek.sibling_if_there(name)
        if found is None:
            self.left.append(f"{name}: an array of the model that is not there")
            return None
        if not self._compressed:
            return next(arrays_in(found, self.peek, name, self.left))
        return arrays_of(ZipArchive(found, budget=self.peek.budget, limits=self.peek.limits), self.peek, self.left).get(key)

    def _sparse(self, stem: str) -> Tree:
        """A sparse matrix: its object in a pickle, its arrays apart."""
        name = f"{stem}.{'npz' if self._compressed else 'npy'}"
        found = self.peek.sibling_if_there(name)
        if found is None:
            self.left.append(f"{name}: a sparse matrix of the model that is not there")
            return None
        tree, _ = unpickle(self.peek, found, self.left)
        if not isinstance(tree, Stub):
            return tree
        fields: dict[Any, Tree] = {}
        if self._compressed:
            packed = self.peek.sibling_if_there(f"{stem}.sparse.npz")
            if packed is not None:
                fields = dict(arrays_of(ZipArchive(packed, budget=self.peek.budget, limits=self.peek.limits), self.peek, self.left))
        else:
            fields = {part: self._array(f"{stem}.{part}", part) for part in _PARTS}
        tree.fields.update({part: value for part, value in fields.items() if value is not None})
        return tree
