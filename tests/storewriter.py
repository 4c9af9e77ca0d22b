"""An honest writer of checkpoints, apart from the store's own: for tests of what reads them.

It writes with the functions of the format alone, chooses codecs and shards as it is told, and can be told to lie.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from tensorkeep import structure
from tensorkeep.backends.keys import Backend
from tensorkeep.chunks import digest, grid_of
from tensorkeep.container import file_order
from tensorkeep.dtypes import STORABLE
from tensorkeep.frameworks.capture import capture
from tensorkeep.limits import DEFAULT_LIMITS
from tensorkeep.store import codecs, names
from tensorkeep.store import index as indexes
from tensorkeep.store import manifest as manifests
from tensorkeep.store import table as tables
from tensorkeep.store.groups import cuts_of, split
from tensorkeep.store.index import Shard
from tensorkeep.store.known import Known
from tensorkeep.store.known import read as read_manifest
from tensorkeep.store.manifest import Manifest, Needed, Part
from tensorkeep.tensors import TensorSpec

Shards = Callable[[str, tuple[int, ...]], list[tuple[int, tuple[int, ...], tuple[int, ...]]]]
"""Of a tensor: (rank, offset, extent) of each of its shards."""


def whole(path: str, shape: tuple[int, ...]) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """One rank, one shard a tensor."""
    return [(0, (), ())]


def grid(ranks: int, *cuts: int) -> Shards:
    """Shards cut along the first axes, each into so many pieces, dealt out to the ranks in turn."""

    def shards(path: str, shape: tuple[int, ...]) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
        if not shape or math.prod(shape) == 0 or min(len(shape), len(cuts)) == 0:
            return [(0, (), ())]
        axes = []
        for axis, length in enumerate(shape):
            pieces = min(length, cuts[axis] if axis < len(cuts) else 1)
            edges = [length * number // pieces for number in range(pieces + 1)]
            axes.append(list(itertools.pairwise(edges)))
        found = []
        for number, ranges in enumerate(itertools.product(*axes)):
            offset, extent = tuple(a for a, _ in ranges), tuple(b - a for a, b in ranges)
            found.append((number % ranks, offset, extent))
        return found

    return shards


class Writer:
    """Writes checkpoints into a backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.writer = names.new_writer()
        self.number = 0

    def write(
        self,
        state: object,
        step: int,
        *,
        codec: Sequence[int] = (0,),
        shards: Shards = whole,
        keyframe: "Written | None" = None,
        metrics: dict[str, float] | None = None,
        change: Callable[[int, dict[str, Any]], None] | None = None,
        weights_only: bool = False,
        key: str = "",
        pack_bytes: int = 1 << 30,
    ) -> "Written":
        """One checkpoint.

        Args:
            codec: how chunks are kept, tried in turn by their number: `(PLANES, STORED)` tries planes for every other chunk.
            shards: who writes which part of a tensor.
            keyframe: whose chunks deltas refer to.
            change: gets the number of an index and what it will be made of, to lie.
            key: of the manifest, where it is no step's.
            pack_bytes: when another pack is begun.
        """
        tree = capture(state, DEFAULT_LIMITS)
        encoded = structure.encode(tree, DEFAULT_LIMITS)
        groups = split(tree, encoded.tensors)
        listed: dict[int, dict[str, list[tuple[Shard, bytes, str]]]] = {}
        for name, tensors in groups.items():
            for path, tensor in tensors.items():
                stored, spec = tensor.dtype.stored, tensor.spec
                shape, data = spec.stored_shape, tensor.tobytes()
                for rank, offset, extent in shards(path, shape) if STORABLE[stored].bits >= 8 else [(0, (), ())]:
                    shard = Shard(path, stored, shape, offset, extent)
                    listed.setdefault(rank, {}).setdefault(name, []).append((shard, _part(data, shard), stored))
        document = msgspec.json.encode(encoded.document)
        parts, packs, chunks, saves = [], {}, {}, []
        for rank in sorted(listed) or [0]:
            self.number += 1
            save = names.save_name(self.writer, self.number)
            saves.append(save)
            made = self._index(save, listed.get(rank, {}), codec, keyframe, pack_bytes)
            chunks |= made.chunks
            fields = made.fields | {"save": save, "framework": encoded.framework, "structure": document if rank == 0 else b"null"}
            if change is not None:
                change(rank, fields)
            data = indexes.encode(**fields)
            self.backend.create(names.index_key(save), [memoryview(data)])
            parts.append(Part(save, len(data), digest(data).hex()))
            packs |= {pack.name: pack for pack in fields["packs"]}
        own = [pack for name, pack in packs.items() if names.save_of_pack(name) in saves]
        manifest = Manifest(
            step=step,
            save=saves[0],
            by="a test",
            time=1e9 + step,
            metrics={name: manifests.as_metric(value) for name, value in (metrics or {}).items()},
            nbytes=sum(tensor.nbytes for tensor in encoded.tensors.values()),
            new_bytes=sum(pack.nbytes for pack in own),
            tensors=len(encoded.tensors),
            keyframe=None if keyframe is None else (keyframe.known.manifest.step, keyframe.known.manifest.save),
            packs=list(packs.values()),
            indexes=parts,
            weights_only=weights_only,
        )
        key = key or names.checkpoint_key(step)
        self.backend.create(key, [memoryview(manifests.encode(manifest))])
        return Written(read_manifest(self.backend, key), chunks)

    def _index(
        self,
        save: str,
        groups: dict[str, list[tuple[Shard, bytes, str]]],
        codec: Sequence[int],
        keyframe: "Written | None",
        pack_bytes: int,
    ) -> "_Made":
        rows: list[tuple[bytes, str, int, int, int]] = []
        bases: dict[int, tuple[bytes, tuple[str, int, int, int]]] = {}
        sizes: dict[str, int] = {}
        chunks: dict[tuple[str, int, str], tuple[bytes, tuple[str, int, int, int]]] = {}
        number = -1
        with self.backend.creating() as new:
            for name, shards in groups.items():
                number += 1
                pack = names.pack_name(save, number)
                order = file_order({f"{at}": _spec(shard) for at, (shard, _, _) in enumerate(shards)})
                shards[:] = [shards[int(at)] for at in order]
                data = b"".join(part for _, part, _ in shards)
                run = grid_of([len(part) for _, part, _ in shards])
                cuts = cuts_of([_spec(shard) for shard, _, _ in shards], run)
                for chunk in range(len(run)):
                    start, stop = run.span(chunk)
                    plain, kind = data[start:stop], cuts[chunk].kind
                    own = (name, chunk, "".join(shard.path for shard, _, _ in shards))
                    wanted = codec[chunk % len(codec)]
                    base = keyframe.chunks.get(own) if keyframe is not None and wanted == codecs.Codec.DELTA else None
                    payload = codecs.encode(codecs.Codec(wanted), memoryview(plain), kind, None if base is None else memoryview(base[0]))
                    how = wanted if payload is not None else 0
                    body = plain if payload is None else payload
                    if sizes.get(pack, 0) + len(body) > pack_bytes:
                        number += 1
                        pack = names.pack_name(save, number)
                    offset = new.write(names.pack_key(pack), [memoryview(body)])
                    sizes[pack] = offset + len(body)
                    chunks[own] = plain, (pack, offset, len(body), how)
                    if how == codecs.Codec.DELTA and base is not None:
                        bases[len(rows)] = base
                    rows.append((digest(plain), pack, offset, len(body), how))
        listed = [Needed(name, nbytes) for name, nbytes in sizes.items()]
        for _plain, (pack, _, _, _) in bases.values():
            assert keyframe is not None
            size = next(needed.nbytes for needed in keyframe.known.manifest.packs if needed.name == pack)
            if pack not in {needed.name for needed in listed}:
                listed.append(Needed(pack, size))
        position = {needed.name: number for number, needed in enumerate(listed)}
        table = tables.empty(len(rows) + len(bases))
        everything = rows + [(digest(plain), *where) for plain, where in bases.values()]
        for row, (own, pack, offset, length, how) in enumerate(everything):
            table.digest[row] = np.frombuffer(own, np.uint8)
            table.pack[row], table.offset[row], table.length[row], table.codec[row] = position[pack], offset, length, how
        for behind, row in enumerate(bases):
            table.base[row] = len(rows) + behind
        fields = {"groups": {name: [shard for shard, _, _ in shards] for name, shards in groups.items()}, "packs": listed, "table": table}
        return _Made(fields, chunks)


class _Made:
    def __init__(self, fields: dict[str, Any], chunks: dict[Any, Any]) -> None:
        self.fields, self.chunks = fields, chunks


class Written:
    """A checkpoint that was written.

    Attributes:
        known: its manifest.
        chunks: the bytes of each chunk, and pack, offset, length and codec.
    """

    def __init__(self, known: Known, chunks: dict[Any, Any]) -> None:
        self.known, self.chunks = known, chunks


def _part(data: bytes, shard: Shard) -> bytes:
    """The bytes of a shard, of those of its tensor."""
    if not shard.offset:
        return data
    array = np.frombuffer(data, np.dtype(f"V{STORABLE[shard.dtype].bits // 8}")).reshape(shard.shape)
    return array[tuple(slice(a, a + n) for a, n in zip(shard.offset, shard.extent, strict=True))].tobytes()


def _spec(shard: Shard) -> TensorSpec:
    return TensorSpec(STORABLE[shard.dtype], shard.own_shape)
