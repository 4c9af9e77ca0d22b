"""The chooser: which codec a chunk gets, by what earlier chunks of the same tensor gained, and by a sample where nothing is known yet.

Lives here: this memory, and the time that encoding may take. Lives elsewhere: when a save is a keyframe, and whether a delta is worth
having (`store/keyframes.py`).
"""

import time
from dataclasses import dataclass
from typing import Final, Literal

from tensorkeep.store.codecs import Codec, Kind, encode

Compress = Literal["auto", "none", "max"]
"""What a store is told: as fast as the disk lets it, not at all, or whatever time it takes."""

LEAST_GAIN: Final = 0.06  # of a chunk: what gains less is stored, and read back at the speed of memory
_DELTA_BELOW: Final = 0.97  # of what planes take: a delta needs a second chunk to be read

_PIECE_BYTES: Final = 16 << 10  # a multiple of every item
_PIECES: Final = 2
_AGAIN_AFTER: Final = 16  # chunks of a tensor, that a sample is believed
_AGAIN_AFTER_SLOW: Final = 256  # chunks in all that do without a codec that is slower than the disk, before it is tried again
_BUSY: Final = 0.5  # of a save's time that all threads encode: then it is not the disk that takes it
_PLAIN_BELOW: Final = 0.1  # of a save's bytes that were encoded: then its time is that of storing
_SURE_FOR: Final = 32  # saves
_BESIDE: Final = 0.5e-9  # seconds a byte that a thread needs for digest and write


@dataclass(slots=True)
class _Known:
    """What chunks of one tensor took, over their own bytes; None where nobody tried."""

    planes: float | None = None
    delta: float | None = None
    believed: int = 0  # chunks that this is believed for


class Chooser:
    """Chooses codecs for one store, from save to save. May be used by many threads: what they lose to each other is a sample.

    Args:
        compress: what the store was told.
        threads: how many encode side by side.

    Attributes:
        compress: as given.
    """

    def __init__(self, compress: Compress = "auto", *, threads: int = 1) -> None:
        self.compress, self._threads = compress, threads
        self._known: dict[str, _Known] = {}
        self._disk: float | None = None  # bytes a second, durable
        self._seconds_a_byte: dict[Codec, float] = {}  # of the processor, in one thread
        self._spent, self._encoded = 0.0, 0  # since the last save: seconds on encoding, of all threads, and bytes that were
        self._plain = False  # whether this save is stored, to learn the disk's own speed
        self._unsure = 0  # saves since that was last known
        self._passed_over = dict.fromkeys(Codec, 0)  # chunks that did without a codec because it is slower than the disk

    def encode(self, path: str, chunk: memoryview, kind: Kind, base: memoryview | None = None) -> tuple[Codec, bytes | memoryview]:
        """A chunk as a pack is to keep it: a codec and its payload, which for `STORED` is `chunk` itself.

        Args:
            path: of the tensor, or whatever else its chunks have in common from save to save.
            chunk: its bytes; they are not changed.
            kind: how to look at them.
            base: the bytes of the same chunk of the keyframe, where a delta may be written.
        """
        if self.compress == "none":
            return Codec.STORED, chunk
        if (payload := encode(Codec.CONSTANT, chunk, kind)) is not None:
            return Codec.CONSTANT, payload
        if self.compress == "max":
            return _smallest(chunk, kind, base)
        if self._plain or (base is None and self._slower_than_the_disk(Codec.PLANES)):
            return Codec.STORED, chunk
        known = self._known.setdefault(path, _Known())
        if known.believed <= 0 or (base is not None and known.delta is None):
            _sample(known, chunk, kind, base)
        known.believed -= 1
        codec = self._best(known, base is not None)
        if codec is Codec.STORED:
            return codec, chunk
        began = time.thread_time()  # others that want the processor too would slow a plain write as well
        payload = encode(codec, chunk, kind, base)
        self._took(codec, time.thread_time() - began, len(chunk))
        share = 1.0 if payload is None else len(payload) / len(chunk)
        if codec is Codec.DELTA:
            known.delta = share
        else:
            known.planes = share
        return (Codec.STORED, chunk) if payload is None else (codec, payload)

    def sampled(self, path: str, chunk: memoryview, kind: Kind, base: memoryview) -> tuple[float, float]:
        """The same as `shares`, from a sample of this chunk where nobody tried."""
        known = self._known.setdefault(path, _Known())
        if known.planes is None or known.delta is None:
            _sample(known, chunk, kind, base)
        return 1.0 if known.planes is None else known.planes, 1.0 if known.delta is None else known.delta

    def shares(self, path: str) -> tuple[float | None, float | None]:
        """What chunks of a tensor took at last without a base, and with one, over their own bytes; None where nobody tried."""
        known = self._known.get(path, _Known())
        return known.planes, known.delta

    def wants_base(self, path: str) -> bool:
        """Whether a delta may be smaller, and made before the disk has taken the whole: false for a tensor whose deltas were not smaller,
        such as a moving average of gradients.
        """
        if self.compress != "auto":
            return self.compress != "none"
        planes, delta = self.shares(path)
        if self._plain or (planes is not None and delta is not None and delta >= _DELTA_BELOW * min(planes, 1.0)):
            return False
        return not self._slower_than_the_disk(Codec.DELTA)

    def rebased(self) -> None:
        """There is a new keyframe: what is known of deltas was of the one before."""
        for known in list(self._known.values()):
            known.delta, known.believed = None, 0

    def wrote(self, nbytes: int, seconds: float) -> None:
        """Learn how fast the disk is, after each save: `auto` stores where encoding is slower.

        A save that spent its time on encoding tells only that the disk is no slower. Then the next one is stored, once in a while, to know.

        Args:
            nbytes: that were made durable; few of them tell nothing, and need not be told.
            seconds: how long that took.
        """
        spent, encoded = self._spent, self._encoded
        self._spent, self._encoded = 0.0, 0
        if nbytes <= 0 or seconds <= 0:
            return
        self._plain = False
        if encoded < _PLAIN_BELOW * nbytes:
            self._disk, self._unsure = nbytes / seconds, 0
            return
        if spent / self._threads < _BUSY * seconds:
            self._disk = nbytes / seconds
            return
        self._disk = max(self._disk or 0.0, nbytes / seconds)
        self._plain = self._unsure % _SURE_FOR == 0
        self._unsure += 1

    def _took(self, codec: Codec, seconds: float, nbytes: int) -> None:
        self._spent += seconds
        self._encoded += nbytes
        now, before = seconds / nbytes, self._seconds_a_byte.get(codec)
        self._seconds_a_byte[codec] = now if before is None else before + 0.2 * (now - before)

    @staticmethod
    def _best(known: _Known, has_base: bool) -> Codec:
        planes = 1.0 if known.planes is None else known.planes
        if has_base and known.delta is not None and known.delta < min(_DELTA_BELOW * planes, 1 - LEAST_GAIN):
            return Codec.DELTA
        return Codec.PLANES if planes < 1 - LEAST_GAIN else Codec.STORED

    def _slower_than_the_disk(self, codec: Codec) -> bool:
        """Whether a chunk does without this codec. Asked first: to read its base, or even to sample it, would take what it is to spare."""
        seconds = self._seconds_a_byte.get(codec) or self._seconds_a_byte.get(Codec.PLANES, 0.0)  # a delta takes no less than planes
        if self._disk is None or (seconds + _BESIDE) * self._disk <= self._threads:
            return False
        self._passed_over[codec] += 1
        return self._passed_over[codec] % _AGAIN_AFTER_SLOW != 0


def _sample(known: _Known, chunk: memoryview, kind: Kind, base: memoryview | None) -> None:
    """Encode a few pieces, to know what the whole will take."""
    if base is not None and len(base) != len(chunk):
        base = None
    if len(chunk) > 2 * _PIECES * _PIECE_BYTES:
        starts = [number * (len(chunk) // _PIECES) // 16 * 16 for number in range(_PIECES)]
        chunk = _pieces(chunk, starts)
        base = None if base is None else _pieces(base, starts)
    planes = encode(Codec.PLANES, chunk, kind)
    known.planes = 1.0 if planes is None else len(planes) / len(chunk)
    if base is not None:
        delta = encode(Codec.DELTA, chunk, kind, base)
        known.delta = 1.0 if delta is None else len(delta) / len(chunk)
    known.believed = _AGAIN_AFTER


def _pieces(chunk: memoryview, starts: list[int]) -> memoryview:
    return memoryview(b"".join(chunk[start : start + _PIECE_BYTES] for start in starts))


def _smallest(chunk: memoryview, kind: Kind, base: memoryview | None) -> tuple[Codec, bytes | memoryview]:
    """Whatever takes least, bytes looked at as bytes included."""
    best: tuple[Codec, bytes | memoryview] = Codec.STORED, chunk
    for codec, seen_as in dict.fromkeys(((Codec.PLANES, kind), (Codec.PLANES, Kind.BYTES), (Codec.DELTA, kind))):
        payload = encode(codec, chunk, seen_as, base, thorough=True)
        if payload is not None and len(payload) < len(best[1]):
            best = codec, payload
    return best
