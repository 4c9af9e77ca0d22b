"""PyTorch's tensors and modules in pickles that `torch.save` did not write: `pickle.dump(model)`, joblib.

There each storage is a byte string, which is a stream of `torch.save` of its own.
"""

from typing import Any, Final

from tensorkeep.backends.files import MemoryFile
from tensorkeep.errors import FormatError
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.legacy import read_raw
from tensorkeep.formats.torch.modules import Modules
from tensorkeep.formats.torch.rebuild import Rebuilder
from tensorkeep.formats.torch.storage import Storage, Views, told
from tensorkeep.tree import Tree
from tensorkeep.unpickle.inert import Constructor, Lump
from tensorkeep.wire.extent import Extent, Opened

_MOST_STREAMS: Final = 1_000_000


class Embedded:
    """PyTorch's part of one pickle.

    Attributes:
        table: its constructors, for the pickle machine.
    """

    def __init__(self, peek: Peek) -> None:
        self._peek = peek
        self._views = [Views(peek.name, peek.limits)]
        self._rebuilder = Rebuilder(self._views[0], stream=self._stream)
        self.table: dict[tuple[str, str], Constructor] = self._rebuilder.table

    def _stream(self, data: object) -> Storage:
        """The storage in a byte string."""
        if len(self._views) > _MOST_STREAMS:
            raise FormatError(self._peek.name, f"more than {_MOST_STREAMS:,} storages")
        if isinstance(data, Lump):
            extent: Extent = data.extent
        elif isinstance(data, (bytes, bytearray)):
            extent = Opened(MemoryFile(memoryview(data), self._peek.name), mmap=False).whole()
        else:
            raise TypeError(f"bytes are wanted, found {told(data)}")
        views = Views(self._peek.name, self._peek.limits)
        self._views.append(views)
        value, _ = read_raw(self._peek, extent, Rebuilder(views))
        if not isinstance(value, Storage):
            raise TypeError(f"a stream that holds {told(value)}; a storage is wanted")
        return value

    def settle(self, tree: Tree, left_out: list[str]) -> tuple[Tree, dict[str, Any]]:
        """The finished tree with its tensors told where they are, and its modules as their states; and what to tell of these."""
        if len(self._views) == 1 and not self._rebuilder.left_out:
            return tree, {}
        modules = Modules(self._peek.name)
        settled = modules.settle(tree)
        for views in self._views:
            views.resolve()
        left_out += [*modules.left_out, *self._rebuilder.left_out]
        return settled, {"modules": modules.described} if modules.described else {}
