"""`torch.export` archives: `.pt2`, of a program as JSON and its weights, each a record of its own.

Two layouts: since 2.8 an archive with `archive_format`, `data/weights/<model>_weights_config.json` and a record a weight; before, an
archive with `serialized_exported_program.json` and its state as one `torch.save` inside of it. The program is neither read nor run.

Source: `torch/export/pt2_archive/` and `torch/_export/serde/schema.py`, PyTorch 2.13.
"""

from collections import OrderedDict
from typing import Any, Final

from tensorkeep.contents import Contents, Finding
from tensorkeep.errors import shown
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.archive import Archive, archive_of
from tensorkeep.formats.torch.dtypes import BY_NUMBER
from tensorkeep.formats.torch.storage import Storage, Views
from tensorkeep.formats.torch.zip import read_archive
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Tree
from tensorkeep.wire.json import read_json

_FORMAT: Final = "archive_format"
_PROGRAM: Final = "serialized_exported_program.json"
_WEIGHTS: Final = "data/weights/"
_CONSTANTS: Final = "data/constants/"
_WEIGHTS_CONFIG: Final = "_weights_config.json"
_CONSTANTS_CONFIG: Final = "_constants_config.json"
_STATE_OF_OLD: Final = ("serialized_state_dict.pt", "serialized_state_dict.json")
_CONFIG_BYTES: Final = 32 << 20  # some hundred for each weight
_LIBRARIES: Final = (".so", ".dll", ".dylib", ".cubin", ".o")


class TorchExportReader:
    """`.pt2`: told by its records, not by its name."""

    name = "torch export"

    def recognizes(self, peek: Peek) -> bool:
        return _prefix(peek) is not None

    def read(self, peek: Peek) -> Contents:
        prefix = _prefix(peek)
        assert prefix is not None, "recognized"
        archive = Archive(peek, prefix)
        reader = _Exported(archive)
        tree = reader.read() if archive.has(_FORMAT) else reader.read_old()
        return assemble.contents(
            peek,
            format="torch.export archive",
            tree=tree,
            metadata=archive.metadata(),
            of_file=archive.metadata(),
            findings=[*archive.findings(), *_compiled(archive)],
            left_out=["the program", *reader.left_out],
            version=archive.note("archive_version") or archive.version,
            checked=archive.checked(),
            views_unchecked=True,
        )


def _prefix(peek: Peek) -> str | None:
    prefix = archive_of(peek, _FORMAT)
    return archive_of(peek, _PROGRAM) if prefix is None else prefix


def _compiled(archive: Archive) -> list[Finding]:
    """Machine code in the archive, which loading it as a package would run."""
    found = [name for name in archive.names() if name.endswith(_LIBRARIES)]
    return [Finding("dangerous", name, "a compiled library, which loading the package runs") for name in found[:20]]


class _Exported:
    """The weights of one archive."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.left_out: list[str] = []
        self._views = Views(archive.peek.name, archive.peek.limits, swapped=archive.swapped)

    def read(self) -> Tree:
        """The state of each model; of a single one without its name."""
        configs = [name for name in self.archive.names(_WEIGHTS) if name.endswith(_WEIGHTS_CONFIG)]
        models = {name[len(_WEIGHTS) : -len(_WEIGHTS_CONFIG)]: self._state(name, _WEIGHTS) for name in configs}
        for name in self.archive.names(_CONSTANTS):
            if name.endswith(_CONSTANTS_CONFIG):
                constants = self._state(name, _CONSTANTS)
                kept = [f"{shown(path)} {tensor.spec}" for path, tensor in constants.items() if isinstance(tensor, LazyTensor)]
                if constants:
                    self.left_out.append(f"{len(constants):,} constants, which no state dict has: {', '.join(kept[:5])}")
        samples = list(self.archive.names("data/sample_inputs/"))
        self.left_out += [f"sample inputs, in {shown(samples[0])}"] if samples else []
        self._views.resolve()
        return next(iter(models.values())) if len(models) == 1 else models

    def _state(self, record: str, folder: str) -> "OrderedDict[str, Tree]":
        """What a config lists, by name."""
        entries = self._json(record).get("config")
        if not isinstance(entries, dict):
            raise self.archive.peek.error(f"{record!r:.100} has no config")
        state: OrderedDict[str, Tree] = OrderedDict()
        for name, entry in entries.items():
            path = entry.get("path_name") if isinstance(entry, dict) else None
            if not isinstance(path, str) or "/" in path:
                raise self.archive.peek.error(f"{record!r:.100}: {name!r:.100} lies at {path!r:.100}, which is no plain name")
            meta = entry.get("tensor_meta")
            if entry.get("use_pickle") or not isinstance(meta, dict):
                state[name] = self._pickled(f"{folder}{path}") if path.startswith(("weight_", "tensor_")) else None
                if state[name] is None:
                    self.left_out.append(f"{shown(name)}: an object of a class that is not PyTorch's own")
                    del state[name]
            else:
                state[name] = self._tensor(f"{folder}{path}", meta, name)
        return state

    def _tensor(self, record: str, meta: dict[str, Any], name: str) -> LazyTensor:
        number = meta.get("dtype")
        dtype = BY_NUMBER.get(number) if type(number) is int else None
        size, stride = _whole(meta.get("sizes")), _whole(meta.get("strides"))
        offset = _whole([meta.get("storage_offset")])
        if dtype is None or size is None or stride is None or offset is None:
            raise self.archive.peek.error(f"{name!r:.100}: dtype {number!r:.40}, or a size or stride that is no number")
        known = self._views.storages.get(record)
        storage = known if known is not None else self._storage(record)
        return self._views.tensor(storage, dtype, offset[0], size, stride)

    def _storage(self, record: str) -> Storage:
        extent = self.archive.open(record)
        return self._views.storage(record, "uint8", extent.nbytes, "", lambda _: extent)

    def _pickled(self, record: str) -> Tree:
        """A weight that is a `torch.save` of its own."""
        inner = self.archive.peek.within(self.archive.open(record))
        return read_archive(inner)[0].tree

    def read_old(self) -> Tree:
        """The state of an archive of before 2.8."""
        for name in _STATE_OF_OLD:
            if self.archive.has(name):
                inner = self.archive.peek.within(self.archive.open(name))
                return read_archive(inner)[0].tree
        raise self.archive.peek.error("it has no state: neither of the records that PyTorch writes")

    def _json(self, record: str) -> dict[str, Any]:
        limits = self.archive.peek.limits
        found = read_json(self.archive.open(record), object, f"{record!r:.100}", limits=limits, most_bytes=_CONFIG_BYTES)
        return found if isinstance(found, dict) else {}


def _whole(values: Any) -> tuple[int, ...] | None:
    """Numbers, each alone or as `{"as_int": 3}`; None where one is none."""
    if not isinstance(values, list):
        return None
    numbers = [value.get("as_int") if isinstance(value, dict) else value for value in values]
    found = tuple(number for number in numbers if type(number) is int)
    return found if len(found) == len(numbers) else None
