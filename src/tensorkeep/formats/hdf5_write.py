"""Writing HDF5: a group for each container of the tree, a data set for each tensor, so that a Keras `.weights.h5` becomes one again.

Lives here: which names HDF5 can hold. Lives elsewhere: the bytes of the file (wire.hdf5.out).
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from tensorkeep.backends.files import Sink
from tensorkeep.errors import UnsupportedError
from tensorkeep.formats.carried import Carried
from tensorkeep.formats.writing import OutFile, Plan, copies
from tensorkeep.limits import Limits
from tensorkeep.plain import is_utf8
from tensorkeep.progress import Progress
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Tree, children, join, name_of
from tensorkeep.wire.hdf5.out import TYPES, OutGroup, lay_out
from tensorkeep.workers import run

_LONGEST_NAME: Final = 1 << 16
_GROUP_BYTES: Final = 2048  # about what one takes
_MOST_DIMENSIONS: Final = 32


class Hdf5Writer:
    """Groups and data sets. Tied tensors are one data set with several names."""

    def plan(self, carried: Carried, *, limits: Limits) -> Plan:
        carried.require("HDF5, as Keras reads it,", lambda dtype: str(dtype) in TYPES)
        carried.leave_values_out("HDF5")
        carried.leave_metadata_out("HDF5, as it is written here,")
        root = OutGroup()
        groups = 1
        for path, keys, tensor in _leaves(carried.tree, "", ()):
            groups += _put(root, path, keys or ("data",), tensor, limits)
            if groups * _GROUP_BYTES > limits.header_bytes:
                raise UnsupportedError(path, f"more than {groups - 1:,} groups, which take too much room in HDF5", hint="Flatten it.")
        slashes = sum("/" in path for path in carried.tensors)
        if slashes:
            names = "name has" if slashes == 1 else "names have"
            carried.notes.append(f"{slashes:,} {names} a slash, which leads into a group of HDF5: whoever reads it gets other names")
        file = lay_out(root)

        def write(sink: Sink, progress: Progress | None) -> None:
            run(copies(file.places, sink), nbytes=sum(tensor.nbytes for _, tensor in file.places), progress=progress)
            sink.write(0, [memoryview(file.head)])

        return Plan("HDF5", [OutFile(file.nbytes, write)])


def _leaves(node: Tree, path: str, keys: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], LazyTensor]]:
    """Path, keys and tensor of every tensor."""
    while isinstance(node, Captured):
        node = node.state
    if isinstance(node, LazyTensor):
        yield path, keys, node
    elif isinstance(node, (dict, list, tuple, deque)):
        for key, child in children(node) or ():
            yield from _leaves(child, join(path, key), (*keys, name_of(key)))


def _put(root: OutGroup, path: str, keys: tuple[str, ...], tensor: LazyTensor, limits: Limits) -> int:
    """Make a tensor a member of its group; a slash in a key leads into a further group, as in HDF5 itself. Returns how many are new."""
    if len(tensor.shape) > _MOST_DIMENSIONS:
        reason = f"{len(tensor.shape)} dimensions; HDF5 has at most {_MOST_DIMENSIONS}"
        raise UnsupportedError(path, reason, hint="Leave it out with --only.")
    names = [name for key in keys for name in key.split("/")]
    if len(names) > limits.depth:
        raise UnsupportedError(path, f"nested more than {limits.depth} groups deep")
    for name in names:
        if name in ("", ".") or "\0" in name or not is_utf8(name) or len(name.encode()) > _LONGEST_NAME:
            raise UnsupportedError(path, f"{name!r:.80} is no name in HDF5", hint="Give it another with --rename.")
    group, made = root, 0
    for name in names[:-1]:
        made += name not in group.members
        inner = group.members.setdefault(name, OutGroup())
        if not isinstance(inner, OutGroup):
            raise UnsupportedError(
                path, f"{name!r:.80} is a tensor, and would have to be a group too", hint="Give it another with --rename."
            )
        group = inner
    if names[-1] in group.members:
        raise UnsupportedError(path, f"two members of one group would be called {names[-1]!r:.80}", hint="Give it another with --rename.")
    group.members[names[-1]] = tensor
    return made
