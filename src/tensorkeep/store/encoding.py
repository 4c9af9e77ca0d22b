"""Encoding: how the chunks of one save are encoded, and against which keyframe.

A star, not a chain: deltas refer to a keyframe, a checkpoint whose own chunks need no base.

Lives here: the base of each chunk, and what a save is to be. Lives elsewhere: the codecs, and the choice between them (codecs), when
deltas pay and when a new keyframe is due (keyframes).
"""

import math
import threading
import time
from bisect import bisect_right
from typing import Final

import numpy as np

from tensorkeep.backends.keys import Backend
from tensorkeep.chunks import SMALL_BYTES, digest
from tensorkeep.store import names
from tensorkeep.store.codecs import Codec, Kind, decode
from tensorkeep.store.codecs.chooser import Chooser, Compress
from tensorkeep.store.codecs.scratch import scratch
from tensorkeep.store.index import Shard
from tensorkeep.store.keep import Keep
from tensorkeep.store.keyframes import Star, pays
from tensorkeep.store.manifest import Manifest
from tensorkeep.store.saving import Place, Source, place_of
from tensorkeep.store.snapshot import Snapshot
from tensorkeep.store.table import DELTA
from tensorkeep.workers import thread_count

_TELLING_BYTES: Final = 64 << 20  # less is in the page cache before the disk has said anything
_STAR: Final = 8  # saves from keyframe to keyframe, for a forecast of how many of them will be retained


class Bases:
    """The chunks of a keyframe.

    Args:
        backend: of the store.
        source: the keyframe.
    """

    def __init__(self, backend: Backend, source: Source) -> None:
        self._backend, self.source = backend, source
        self._packs = {pack.name for pack in source.manifest.packs}
        self._rows: dict[str, tuple[Shard, int]] = {}  # of large tensors, by path: the row of the first chunk
        for group in source.index.groups:
            position = 0
            for shard, spec in zip(group.shards, group.specs, strict=True):
                if spec.nbytes >= SMALL_BYTES:
                    self._rows[shard.path] = shard, group.first_row + bisect_right(group.grid.starts, position) - 1
                position += spec.nbytes

    def find(self, shard: Shard, part: int) -> tuple[Place, int] | None:
        """Where the same chunk of the same tensor is, and its bytes; None where it is a delta itself, or not there.

        Args:
            shard: the tensor.
            part: which of its chunks.
        """
        found = self._rows.get(shard.path)
        if found is None or found[0] != shard:
            return None
        row = found[1] + part
        if self.source.index.table.codec[row] == DELTA or (place := place_of(self.source, row, self._packs)) is None:
            return None
        return place, int(self.source.index.sizes[row])

    def read(self, place: Place, nbytes: int) -> memoryview | None:
        """The bytes of a chunk, in memory of this thread; None where they cannot be had: then nothing shall rest on them."""
        payload = scratch("payload of a base", np.uint8, place.length).data
        try:
            self._backend.read(names.pack_key(place.pack.name), place.offset, place.offset + place.length, payload)
            if place.codec == Codec.STORED:
                chunk = payload
            else:
                chunk = scratch("base of a delta", np.uint8, nbytes).data
                decode(place.codec, payload, chunk)
        except (OSError, ValueError):
            return None
        return chunk if len(chunk) == nbytes and digest(chunk) == place.digest else None


class Encoding:
    """One save's encoding.

    Args:
        chooser: picks codecs.
        snapshot: what is saved.
        bases: the keyframe's chunks; None where the save is to be a keyframe itself.
        dependants: how many checkpoints that are kept will refer to one keyframe, as far as one can tell.
    """

    def __init__(self, chooser: Chooser, snapshot: Snapshot, bases: Bases | None, dependants: float) -> None:
        self._chooser, self._snapshot, self._bases, self._dependants = chooser, snapshot, bases, dependants
        self._lock = threading.Lock()
        self._deltas = 0

    @property
    def keyframe(self) -> Manifest | None:
        """The checkpoint that deltas of this one refer to; None where there are none, so that it can be one itself."""
        return self._bases.source.manifest if self._bases is not None and self._deltas else None

    def encode(self, group: str, number: int, chunk: memoryview) -> tuple[int, bytes | memoryview, Place | None]:
        """Codec, payload and base of a chunk."""
        taken = self._snapshot.groups[group]
        cut = taken.cuts[number]
        path = taken.shards[cut.tensor].path if cut.tensor >= 0 else f"({group})"
        found = None
        if self._bases is not None and cut.tensor >= 0 and self._chooser.wants_base(path):
            found = self._bases.find(taken.shards[cut.tensor], cut.part)
        base = None if found is None or self._bases is None else self._bases.read(*found)
        if base is not None and not self._pays(path, chunk, cut.kind, base):
            base = None
        codec, payload = self._chooser.encode(path, chunk, cut.kind, base)
        if codec is not Codec.DELTA or found is None:
            return codec, payload, None
        with self._lock:
            self._deltas += 1
        return codec, payload, found[0]

    def _pays(self, path: str, chunk: memoryview, kind: Kind, base: memoryview) -> bool:
        """Whether deltas of a tensor save more than keeping the keyframe's bytes for them costs."""
        return self._dependants == math.inf or pays(self._dependants, *self._chooser.sampled(path, chunk, kind, base))


class Encoder:
    """What encodes a recorder's saves, one after the other.

    Args:
        backend: where the keyframe's packs are.
        compress: `auto`, `none` or `max`.
        keep: which checkpoints will stay.
    """

    def __init__(self, backend: Backend, compress: Compress, keep: Keep | None) -> None:
        self._backend, self._compress, self._keep = backend, compress, keep
        self._chooser = Chooser(compress, threads=thread_count())
        self._bases: Bases | None = None
        self._star: Star | None = None
        self._last: tuple[int, float] | None = None  # step and moment of the last save
        self._gap: tuple[int, float] = 1, math.inf  # steps and seconds from save to save

    def begin(self, snapshot: Snapshot, keyframe: Source | None, step: int) -> Encoding:
        """How a save is encoded.

        Args:
            keyframe: that it may refer to.
            step: of the save.
        """
        now = time.monotonic()
        if self._last is not None and step > self._last[0]:
            self._gap = step - self._last[0], now - self._last[1]
        self._last = step, now
        dependants = math.inf if self._keep is None else self._keep.dependants(_STAR, steps=self._gap[0], seconds=self._gap[1])
        if self._compress == "none" or keyframe is None or (self._star is not None and self._star.due()):
            self._chooser.rebased()
            return Encoding(self._chooser, snapshot, None, dependants)
        if self._bases is None or self._bases.source is not keyframe:
            self._bases = Bases(self._backend, keyframe)
        return Encoding(self._chooser, snapshot, self._bases, dependants)

    def ended(self, encoding: Encoding, new_bytes: int, seconds: float) -> None:
        """A save was committed.

        Args:
            new_bytes: that it took.
            seconds: until they were durable.
        """
        if new_bytes >= _TELLING_BYTES:
            self._chooser.wrote(new_bytes, seconds)
        keyframe = encoding.keyframe
        if keyframe is None:
            self._bases, self._star = None, Star(new_bytes)
            return
        if self._star is None:  # the keyframe is of a former run
            self._star = Star(keyframe.new_bytes)
        self._star.add(new_bytes)
