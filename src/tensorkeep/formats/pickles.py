"""Pickles: one file, one pickle or several behind each other, run by the pickle machine, which imports nothing.

Lives here: which files are pickles, and what is alike for all of them. Lives elsewhere: the machine and its tables (`unpickle`), and the
conventions of those who write pickles: joblib, gensim and Paddle each have a file here.
"""

from typing import Any, Final

from tensorkeep.contents import Contents
from tensorkeep.formats import gensim, paddle_pickles
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.joblib import Joblib
from tensorkeep.formats.peek import HEAD_BYTES, Peek
from tensorkeep.formats.torch.embedded import Embedded
from tensorkeep.formats.unpickled import Left, unpickle
from tensorkeep.tree import Tree
from tensorkeep.unpickle.look import looks_like_pickle

_PADDLE: Final = "Paddle parameters (pickle)"
_MOST_PICKLES: Final = 100_000  # behind each other in one file


class PickleReader:
    """Pickles of protocol 0 to 5: plain containers and arrays as they are, objects as stubs. Arrays are lazy."""

    name = "pickle"

    def recognizes(self, peek: Peek) -> bool:
        return looks_like_pickle(peek.head, whole=peek.nbytes <= len(peek.head))

    def read(self, peek: Peek) -> Contents:
        left: Left = []
        joblib = Joblib(peek, left)
        torch = Embedded(peek)
        paddle = paddle_pickles.Tensors()
        table = {**joblib.table, **torch.table, **paddle.table}
        trees: list[Tree] = []
        at = 0
        while not trees or self._goes_on(peek, at):
            if len(trees) == _MOST_PICKLES:
                raise peek.error(f"more than {_MOST_PICKLES:,} pickles behind each other")
            tree, at = unpickle(peek, peek.data, left, at=at, table=table)
            trees.append(tree)
        if at < peek.nbytes:
            left.append(f"{peek.nbytes - at:,} bytes behind the pickle")
        tree, format, metadata = self._known(peek, trees, left, "joblib pickle" if joblib.met else _PADDLE if paddle.met else "pickle")
        tree, told = torch.settle(tree, left)
        return contents(peek, format=format, tree=tree, metadata={**metadata, **told}, left_out=left)

    def _goes_on(self, peek: Peek, at: int) -> bool:
        """Whether another pickle begins there."""
        head = bytes(peek.data.read(at, min(at + HEAD_BYTES, peek.nbytes)))
        return looks_like_pickle(head, whole=at + len(head) == peek.nbytes, follows=True)

    def _known(self, peek: Peek, trees: list[Tree], left: Left, format: str) -> tuple[Tree, str, dict[str, Any]]:
        """What the writer's own conventions make of it, what it is called, and what it says about itself."""
        if len(trees) > 1:
            return trees, "pickles", {}
        (tree,) = trees
        if paddle_pickles.recognizes(tree):
            tree, metadata = paddle_pickles.joined(peek, tree)
            return tree, _PADDLE, metadata
        if gensim.place_siblings(peek, tree, left):
            return tree, "gensim model (pickle)", {}
        return tree, format, {}
