"""Manifests: the small files that commit one checkpoint each, and what `store.json` says.

Lives here: their fields and what must hold between them. Lives elsewhere: which of them there are (catalog), what a save does (saving).
"""

import math
from typing import Final, Literal

import msgspec

from tensorkeep.chunks import CHUNK_BYTES, DIGEST_BYTES
from tensorkeep.errors import FormatError
from tensorkeep.store import names
from tensorkeep.store.sealed import VERSION, seal, unseal

MOST_BYTES: Final = 64 << 20  # of a manifest: 800,000 packs
_MOST_PARTS: Final = 100_000  # indexes of one checkpoint: one a rank
_MOST_COUNTED: Final = 2**63 - 1  # bytes or tensors: what no storage holds is no count
_NUMBERS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}  # JSON has no such numbers

Direction = Literal["min", "max"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `store.json` says.

    Attributes:
        chunk_bytes: the most bytes of a chunk; this release writes and reads one size.
    """

    version: str = VERSION
    format: str = "tensorkeep store"
    chunk_bytes: int = CHUNK_BYTES


class Needed(msgspec.Struct, frozen=True, array_like=True):
    """A pack, as a manifest names it: name without folder and suffix, and its size in bytes."""

    name: str
    nbytes: int


class Part(msgspec.Struct, frozen=True, array_like=True):
    """An index, as a manifest names it: whose it is, its size in bytes, and its digest in hex."""

    save: str
    nbytes: int
    digest: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint.

    Attributes:
        step: which one.
        save: the save that created this manifest, `<writer>-<n>`.
        by: machine and process that made it, for people.
        time: when, in seconds since 1970, by that machine's clock. Nothing depends on it.
        metrics: numbers that were given with it; those that JSON lacks as texts.
        best: the metrics by which the run's best checkpoint is judged, and whether less is better.
        nbytes: bytes of all its tensors.
        new_bytes: bytes that were written for it.
        tensors: how many there are.
        weights_only: whether the rest of the state was given up.
        keyframe: the checkpoint whose chunks its deltas refer to, as step and save; None where it is one itself.
        packs: every pack that it needs, those of bases included.
        indexes: its indexes; the first has the structure.
    """

    version: str = VERSION
    step: int
    save: str
    by: str
    time: float
    metrics: dict[str, float | str] = {}
    best: dict[str, Direction] = {}
    nbytes: int
    new_bytes: int
    tensors: int
    weights_only: bool = False
    keyframe: tuple[int, str] | None = None
    packs: list[Needed]
    indexes: list[Part]

    def numbers(self) -> dict[str, float]:
        """The metrics as numbers."""
        return {name: _NUMBERS[value] if isinstance(value, str) else value for name, value in self.metrics.items()}


def as_metric(value: float) -> float | str:
    """A number as a manifest writes it."""
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def is_needed(pack: Needed) -> bool:
    """Whether it is the name of a pack, and a size that one can have."""
    return names.is_pack(pack.name) and 0 < pack.nbytes <= _MOST_COUNTED


def encode(manifest: Manifest) -> bytes:
    return seal(manifest)


def decode(data: bytes, file: str, *, step: int | None = None) -> Manifest:
    """A manifest that nobody vouches for.

    Args:
        data: the whole object.
        file: for messages.
        step: the one in its name; None for a tag's.

    Raises:
        CorruptError, FormatError: it is damaged, or breaks the format in any way.
    """
    manifest = unseal(data, Manifest, file)

    def wrong(problem: str) -> FormatError:
        return FormatError(file, f"damaged: {problem}", hint="It counts as not there.")

    if step is not None and manifest.step != step:
        raise wrong(f"step {manifest.step!r:.40} stands in it, and {step} in its name")
    if not 0 <= manifest.step <= names.LAST_STEP:
        raise wrong(f"its step {manifest.step!r:.40} is out of range")
    if not names.is_save(manifest.save) or (manifest.keyframe is not None and not names.is_save(manifest.keyframe[1])):
        raise wrong(f"{manifest.save!r:.80} or its keyframe is no name of a save")
    if not math.isfinite(manifest.time):
        raise wrong("its time is no number")
    if any(isinstance(value, str) and value not in _NUMBERS for value in manifest.metrics.values()):
        raise wrong("a metric that is no number")
    if not all(0 <= count <= _MOST_COUNTED for count in (manifest.nbytes, manifest.new_bytes, manifest.tensors)):
        raise wrong("a count that is negative, or beyond any storage")
    if not 1 <= len(manifest.indexes) <= _MOST_PARTS:
        raise wrong(f"it names {len(manifest.indexes):,} indexes")
    for part in manifest.indexes:
        digits = part.digest
        if not names.is_save(part.save) or not 0 < part.nbytes <= _MOST_COUNTED:
            raise wrong(f"{part.save!r:.80} of {part.nbytes!r:.40} bytes is no index")
        if len(digits) != 2 * DIGEST_BYTES or not all(digit in "0123456789abcdef" for digit in digits):
            raise wrong("an index without its digest")
    for pack in manifest.packs:
        if not is_needed(pack):
            raise wrong(f"{pack.name!r:.80} of {pack.nbytes!r:.40} bytes is no pack")
    for kind, found in (("index", [part.save for part in manifest.indexes]), ("pack", [pack.name for pack in manifest.packs])):
        if len(set(found)) != len(found):
            raise wrong(f"it names one {kind} twice")
    return manifest


def encode_settings() -> bytes:
    return seal(Settings())


def check_settings(data: bytes, file: str) -> None:
    """See that this release can read and write a store.

    Raises:
        CorruptError, FormatError: `store.json` is damaged, or of another format.
    """
    settings = unseal(data, Settings, file)
    if settings.format != Settings().format or settings.chunk_bytes != CHUNK_BYTES:
        raise FormatError(file, f"no store that this release reads: {settings.format!r:.80}, chunks of {settings.chunk_bytes} bytes")
