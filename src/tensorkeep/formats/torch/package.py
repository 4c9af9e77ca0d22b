"""`torch.package` archives: pickles with the Python code of their classes. The code is neither read nor run.

Every pickle in it becomes a part of the tree, by its name; their storages lie in `.data/`.

Source: `torch/package/package_importer.py`, PyTorch 2.13.
"""

from typing import Any, Final

from tensorkeep.contents import Contents, Finding
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.archive import Archive, archive_of
from tensorkeep.formats.torch.pickle import run_pickle, settle
from tensorkeep.formats.torch.rebuild import Rebuilder
from tensorkeep.formats.torch.storage import Views
from tensorkeep.tree import Tree

_MARK: Final = ".data/extern_modules"
_PICKLE: Final = ".pkl"
_MOST_STORAGES: Final = 1 << 32


class _Numbered(Rebuilder):
    """Storages are named by numbers here."""

    def persistent(self, pid: Any) -> object:
        if type(pid) is tuple and len(pid) == 5 and type(pid[2]) is int and 0 <= pid[2] < _MOST_STORAGES:
            pid = (*pid[:2], str(pid[2]), *pid[3:])
        return super().persistent(pid)


class TorchPackageReader:
    """Told by its list of modules that it leaves to others."""

    name = "torch package"

    def recognizes(self, peek: Peek) -> bool:
        return archive_of(peek, _MARK) is not None

    def read(self, peek: Peek) -> Contents:
        prefix = archive_of(peek, _MARK)
        assert prefix is not None, "recognized"
        archive = Archive(peek, prefix)
        views = Views(peek.name, peek.limits, swapped=archive.swapped)
        tree: dict[str, Tree] = {}
        metadata: dict[str, Any] = {}
        left_out: list[str] = []
        for name in archive.names():
            if name.endswith(_PICKLE) and not name.startswith(".data/"):
                rebuilder = _Numbered(views, find=lambda key: archive.storage(f"{key}.storage", ".data/"))
                pickle = archive.open(name)
                if peek.verify:
                    pickle.check()
                settled = settle(peek, run_pickle(peek, pickle, rebuilder).value, rebuilder)
                tree[name.removesuffix(_PICKLE)] = settled.tree
                left_out += settled.left_out
                if "modules" in settled.metadata:
                    metadata[f"modules of {name}"] = settled.metadata["modules"]
        code = [name for name in archive.names() if name.endswith(".py")]
        others = [name for name in archive.names() if not name.endswith((_PICKLE, ".py", ".storage")) and not name.startswith(".data/")]
        left_out += [f"Python code, in {len(code):,} files such as {code[0]}"] if code else []
        left_out += [f"{len(others):,} other files such as {others[0]}"] if others else []
        return assemble.contents(
            peek,
            format="torch.package",
            tree=tree,
            metadata=archive.metadata() | metadata,
            of_file=archive.metadata(),
            findings=[
                *archive.findings(),
                *(Finding("dangerous", name, "Python code, which loading the package runs") for name in code[:20]),
            ],
            left_out=left_out,
            version=archive.version,
            checked=archive.checked(),
            views_unchecked=True,
        )
