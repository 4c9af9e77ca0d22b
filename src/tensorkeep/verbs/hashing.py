"""Hashing: the digest by which a tensor's bytes are known, whatever file they stand in.

It is the BLAKE3 of the digests of its chunks of 1 MiB, counted from its own first byte: docs/format.md, section "Fingerprints". A model
file, and a checkpoint of a store, hold these digests for tensors of 64 KiB or more, so nothing of them is read.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from tensorkeep.chunks import CHUNK_BYTES, DIGEST_BYTES, SMALL_BYTES, digest
from tensorkeep.contents import Passing
from tensorkeep.formats.streams import in_order, is_streamed
from tensorkeep.progress import Progress, part_of
from tensorkeep.tensors import LazyTensor, read_at_once
from tensorkeep.workers import Job, run

_JOB_BYTES: Final = 4 * CHUNK_BYTES
_MOST_TOGETHER: Final = 1024


def from_file(tensor: LazyTensor) -> bytes | None:
    """The digest of a tensor from what its file says of its chunks; None where it says nothing."""
    source = tensor.source
    known = source.chunk_digests() if hasattr(source, "chunk_digests") else None
    return None if known is None else digest(known)


def tensor_digests(tensors: Iterable[LazyTensor], progress: Progress | None, passing: Sequence[Passing] = ()) -> dict[int, bytes]:
    """The digests of tensors, by the tensor's id; each that occurs twice is hashed once.

    Args:
        tensors: of any files.
        progress: told of all that is read.
        passing: the checksums of others that are compared on the way.

    Raises:
        CorruptError: bytes that had to be read are not those that were written.
    """
    found: dict[int, bytes] = {}
    unknown: dict[int, tuple[LazyTensor, bytearray]] = {}
    for tensor in tensors:
        if id(tensor) not in found and id(tensor) not in unknown:
            known = from_file(tensor)
            if known is not None:
                found[id(tensor)] = known
            else:
                unknown[id(tensor)] = tensor, bytearray(-(-tensor.nbytes // CHUNK_BYTES) * DIGEST_BYTES)
    work = list(unknown.values())
    nbytes = sum(tensor.nbytes for tensor, _ in work)
    whole = nbytes + sum(each.rest_nbytes for each in passing)
    run(_jobs(work), nbytes=nbytes, progress=part_of(progress, 0, whole))
    for each in passing:
        each.finish(part_of(progress, nbytes, whole))
        nbytes += each.rest_nbytes
    for tensor, digests in work:
        found[id(tensor)] = digest(digests)
    return found


def _jobs(work: Sequence[tuple[LazyTensor, bytearray]]) -> Iterator[Job]:
    """Small tensors by the hundred, large ones in pieces side by side, where a source gives them, streams in their order."""
    streamed: list[tuple[LazyTensor, Job]] = []
    small: list[tuple[LazyTensor, bytearray]] = []
    filled = 0
    for tensor, digests in work:
        if is_streamed(tensor):
            streamed.append((tensor, (tensor.nbytes, partial(_hash_all, tensor, digests))))
        elif tensor.nbytes < SMALL_BYTES:
            small.append((tensor, digests))
            filled += tensor.nbytes
            if filled >= _JOB_BYTES or len(small) == _MOST_TOGETHER:
                yield filled, partial(_hash_each, small)
                small, filled = [], 0
        elif getattr(tensor.source, "piecewise", False):
            for start in range(0, tensor.nbytes, _JOB_BYTES):
                stop = min(start + _JOB_BYTES, tensor.nbytes)
                yield stop - start, partial(_hash, tensor, digests, start, stop)
        else:
            yield tensor.nbytes, partial(_hash_all, tensor, digests)
    if small:
        yield filled, partial(_hash_each, small)
    yield from in_order(streamed)


def _hash(tensor: LazyTensor, digests: bytearray, start: int, stop: int) -> None:
    data = tensor.source.read(start, stop)
    for begin in range(0, stop - start, CHUNK_BYTES):
        at = (start + begin) // CHUNK_BYTES * DIGEST_BYTES
        digests[at : at + DIGEST_BYTES] = digest(data[begin : begin + CHUNK_BYTES])


def _hash_all(tensor: LazyTensor, digests: bytearray) -> None:
    most = read_at_once(tensor)
    for start in range(0, tensor.nbytes, most):
        _hash(tensor, digests, start, min(start + most, tensor.nbytes))


def _hash_each(tensors: list[tuple[LazyTensor, bytearray]]) -> None:
    for tensor, digests in tensors:
        _hash(tensor, digests, 0, tensor.nbytes)
