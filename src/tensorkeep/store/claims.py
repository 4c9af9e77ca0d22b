"""Claims: a writer's notes of what nobody may remove yet.

Lives here: what a claim says, and what is read from one that nobody vouches for. Lives elsewhere: when one is made (commit), when one is
dropped (gc).
Source: docs/store-format.md, "Protocol".
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from tensorkeep.backends.keys import Backend
from tensorkeep.backends.processes import Process
from tensorkeep.errors import FormatError
from tensorkeep.store import exclusive, names
from tensorkeep.store.manifest import Manifest
from tensorkeep.store.sealed import VERSION, seal, unseal

MOST_BYTES: Final = 64 << 20
_NAMES: Final = re.compile(rb"[0-9a-f]{16}-[0-9]{1,9}(?:-[0-9]{1,6})?")


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a save needs until it is committed or given up: this, and whatever bears its own name.

    Attributes:
        save: whose it is, `<writer>-<n>`.
        by: machine and process, for people.
        process: that saves.
        packs: that it may borrow.
        indexes: that it may borrow, by the saves they are of.
    """

    version: str = VERSION
    save: str
    by: str = ""
    process: Process
    packs: list[str]
    indexes: list[str]


def claim_of(save: str, by: str, process: Process, borrow_from: Iterable[Manifest]) -> Claim:
    """The claim of a save that may borrow whatever some manifests name."""
    packs, indexes = {}, {}
    for manifest in borrow_from:
        packs.update(dict.fromkeys(pack.name for pack in manifest.packs))
        indexes.update(dict.fromkeys(part.save for part in manifest.indexes))
    return Claim(save=save, by=by, process=process, packs=list(packs), indexes=list(indexes))


def make(backend: Backend, claim: Claim) -> None:
    """Write a claim, before the first byte of its save. It need not survive a loss of power: neither does its process.

    Raises:
        FormatError: somebody else's has its name, which is random.
    """
    key = names.claim_key(claim.save)
    if not exclusive.put(backend, key, seal(claim), limit=MOST_BYTES, durable=False).done:
        raise FormatError(f"{backend.name}/{key}", "a claim of another writer has this name", hint="Open the store anew: names are random.")


def decode(data: bytes, file: str, save: str) -> Claim:
    """A claim that nobody vouches for.

    Args:
        data: the whole object.
        file: for messages.
        save: the one in its name.

    Raises:
        CorruptError, FormatError: it is damaged, or breaks the format in any way.
    """
    claim = unseal(data, Claim, file)
    if claim.save != save:
        raise FormatError(file, f"damaged: it says that it is of save {claim.save!r:.80}")
    for name, right in ((claim.packs, names.is_pack), (claim.indexes, names.is_save)):
        if wrong := [one for one in name if not right(one)]:
            raise FormatError(file, f"damaged: it claims {wrong[0]!r:.80}, which is no name of a pack or an index")
    return claim


def mentioned(data: bytes) -> tuple[set[str], set[str]]:
    """Packs, and saves of indexes, whose names stand in an object that cannot be read: what it may need."""
    found = {match.decode("ascii") for match in _NAMES.findall(data)}
    packs = {name for name in found if names.is_pack(name)}
    return packs, {name for name in found if names.is_save(name)} | {names.save_of_pack(name) for name in packs}
