"""Retention: removing checkpoints, by a policy or by name, and giving up all of one but its weights.

Lives here: what becomes of manifests. Lives elsewhere: what a policy decides (keep), what is intact (intact), the removal of packs (gc).

A manifest is only ever removed, or replaced by one that names fewer packs. That replacement must not bring back what somebody else removes
meanwhile, with packs that are gone: so it is made like a save, with a claim, a check and a fence.
Source: docs/store-format.md, "Protocol".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from tensorkeep.errors import CheckpointGone, CorruptError, FormatError
from tensorkeep.limits import Limits
from tensorkeep.store import claims, names, sealed
from tensorkeep.store import manifest as manifests
from tensorkeep.store.catalog import Catalog, Listing
from tensorkeep.store.checkpoint import read_index
from tensorkeep.store.commit import Commit, Writer
from tensorkeep.store.gc import LATE_S, needs
from tensorkeep.store.groups import WEIGHTS
from tensorkeep.store.intact import Look
from tensorkeep.store.keep import Candidate, Keep
from tensorkeep.store.known import Known, concerns_one_object, reread
from tensorkeep.store.names import Ref
from tensorkeep.store.table import NO_BASE


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of checkpoints, or would become.

    Attributes:
        steps: those that were removed.
        weights_only: those that gave up all but their weights.
        tags: those that were removed.
        nbytes: what `gc` then frees: packs and indexes that no other checkpoint and no tag names.
        spared: steps that would have gone, and stay for now: in an object store, for an hour after they were written.
        damaged: manifests that cannot be read, and why. No policy touches them; `delete` does.
        dry_run: whether nothing was changed.
    """

    steps: tuple[int, ...] = ()
    weights_only: tuple[int, ...] = ()
    tags: tuple[str, ...] = ()
    nbytes: int = 0
    spared: tuple[int, ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    dry_run: bool = False


def prune(catalog: Catalog, keep: Keep, writer: Writer, *, dry_run: bool = False, limits: Limits | None = None) -> Removal:
    """Do what a policy says.

    Args:
        catalog: of the store.
        keep: the policy.
        writer: in whose name manifests are replaced.
        dry_run: only say what would become of them.
        limits: for indexes.
    """
    limits = limits or Limits()
    listing = catalog.look()
    known = {one.step: one for one in listing.all()}
    tagged = listing.tags()
    look = Look(catalog, limits)
    on_tags = {(tag.step, tag.manifest.save) for tag in tagged.values()}
    doubtful = _mentioned(catalog, [key for key in listing.damaged if key.startswith(names.TAGS)])
    candidates = [
        _candidate(one, tagged=(one.step, one.manifest.save) in on_tags or one.manifest.save in doubtful) for one in known.values()
    ]
    decision = keep.decide(candidates, lambda one: look.problem(known[one.step]) is None)
    young = _young(catalog, [known[step] for step in (*decision.remove, *decision.weights_only)])
    remove = [known[step] for step in decision.remove if step not in young]
    lighter = _lighten(
        catalog, [known[step] for step in decision.weights_only if step not in young], writer, dry_run=dry_run, limits=limits
    )
    if not dry_run and remove:
        catalog.backend.delete(*(one.key for one in remove))
    result = _result(known.values(), tagged.values(), remove, lighter)
    damaged = tuple((key, str(error)) for key, error in sorted(listing.damaged.items()))
    return replace(result, spared=tuple(sorted(young)), damaged=damaged, dry_run=dry_run)


def delete(catalog: Catalog, refs: Iterable[str | int | Ref], *, dry_run: bool = False) -> Removal:
    """Remove checkpoints, and tags by their names, damaged ones too. A tag keeps what it is on.

    Args:
        catalog: of the store.
        refs: `step-1200`, a step as an int, `latest`, `best`, `best:loss`, or a tag.
        dry_run: only say what it would free.

    Raises:
        NoCheckpoint: one is not there. Nothing was removed.
    """
    listing = catalog.look()
    keys: dict[str, None] = {}
    for ref in refs:
        ref = listing.parsed(ref)
        try:
            keys[listing.find(ref).key] = None
        except (CorruptError, FormatError, OSError) as error:
            if isinstance(error, OSError) and not concerns_one_object(error):
                raise
            keys[names.tag_key(ref.name) if ref.kind == "tag" else names.checkpoint_key(ref.step)] = None
    return _remove(catalog, listing, list(keys), dry_run=dry_run)


def rollback(catalog: Catalog, ref: str | int | Ref, *, dry_run: bool = False, limits: Limits | None = None) -> Removal:
    """Remove every checkpoint after one, so that a rerun can save those steps again. Tags keep what they are on.

    Args:
        catalog: of the store.
        ref: the checkpoint to go back to.
        dry_run: only say what it would free.
        limits: for indexes.

    Raises:
        NoCheckpoint: it is not there.
        CorruptError, FormatError: it is damaged. Nothing was removed.
    """
    listing = catalog.look()
    target = listing.find(ref)
    problem = Look(catalog, limits or Limits()).problem(target)
    if problem is not None:
        raise problem
    there = listing.at(target.step)
    if there is None or there.manifest.save != target.manifest.save:
        raise FormatError(
            f"{catalog.backend.name}/{target.key}",
            f"step {target.step} itself is not there any more, only this tag of it",
            hint="Delete the later steps, load the tag, and save its state as a step.",
        )
    later = [names.checkpoint_key(step) for step in listing.steps() if step > target.step]
    return _remove(catalog, listing, later[::-1], dry_run=dry_run)  # from the newest down: a kill leaves a history without a hole


def _remove(catalog: Catalog, listing: Listing, keys: Sequence[str], *, dry_run: bool) -> Removal:
    known, tagged = listing.all(), list(listing.tags().values())
    gone = [one for one in (*known, *tagged) if one.key in keys]
    if keys and not dry_run:
        catalog.backend.delete(*keys)
    steps = tuple(sorted(step for step in map(names.step_of, keys) if step is not None))
    tags = tuple(sorted(tag for tag in map(names.tag_of, keys) if tag is not None))
    return replace(_result(known, tagged, gone, {}), steps=steps, tags=tags, dry_run=dry_run)


def _result(known: Iterable[Known], tagged: Iterable[Known], removed: Sequence[Known], lighter: dict[str, Known]) -> Removal:
    """What is freed when some manifests are gone and some have lighter ones in their place."""
    gone = {one.key for one in removed}
    sizes: dict[str, int] = {}
    for one in (*removed, *known):
        if one.key in gone or one.key in lighter:
            sizes.update((names.pack_key(pack.name), pack.nbytes) for pack in one.manifest.packs)
            sizes.update((names.index_key(part.save), part.nbytes) for part in one.manifest.indexes)
    for one in (*known, *tagged):
        if one.key not in gone:
            for key in needs(lighter.get(one.key, one)):
                sizes.pop(key, None)
    steps = tuple(one.step for one in removed)
    return Removal(steps=steps, weights_only=tuple(one.step for one in lighter.values()), nbytes=sum(sizes.values()))


def _candidate(known: Known, *, tagged: bool) -> Candidate:
    manifest = known.manifest
    return Candidate(manifest.step, manifest.time, manifest.numbers(), manifest.nbytes, manifest.weights_only, tagged)


def _mentioned(catalog: Catalog, keys: Iterable[str]) -> set[str]:
    """The saves whose names stand in tags that cannot be read: one of them may be on it."""
    saves: set[str] = set()
    for key in keys:
        try:
            saves |= claims.mentioned(catalog.backend.get(key, limit=manifests.MOST_BYTES))[1]
        except FileNotFoundError:
            continue
        except OSError as error:
            if not concerns_one_object(error):
                raise
    return saves


def _young(catalog: Catalog, touched: Sequence[Known]) -> set[int]:
    """In an object store, a request to create one may be under way yet, and would bring it back."""
    if catalog.backend.kind != "object store" or not touched:
        return set()
    now = catalog.backend.now()
    return {one.step for one in touched if now - one.modified < LATE_S}


def _lighten(catalog: Catalog, whole: Sequence[Known], writer: Writer, *, dry_run: bool, limits: Limits) -> dict[str, Known]:
    """Replace manifests by those that name the packs of their weights alone; by key, those that now stand there."""
    lighter: dict[str, tuple[Known, bytes, bytes]] = {}
    for one in whole:
        try:
            lighter[one.key] = _without_rest(catalog, one, limits)
        except (CheckpointGone, CorruptError, FormatError) as error:
            if not isinstance(error, CheckpointGone):
                catalog.found_damaged(one, error)
    if dry_run or not lighter:
        return {key: known for key, (known, _, _) in lighter.items()}
    done = {}
    with Commit(catalog.backend, writer.id, writer.number, [one for one in whole if one.key in lighter], writer.by) as commit:
        commit.put_fence()
        for one in commit.borrowed:
            known, data, old = lighter[one.key]
            if commit.put(one.key, data, old=old).done:  # else somebody else removed or replaced it, which stands
                done[one.key] = known
    return done


def _without_rest(catalog: Catalog, known: Known, limits: Limits) -> tuple[Known, bytes, bytes]:
    """The same checkpoint without what only the rest of its state needs; its manifest's bytes, in which fields that are not known stay, and
    those that they are made of."""
    needed: set[str] = set()
    packs = {pack.name: pack.nbytes for pack in known.manifest.packs}
    for part in known.manifest.indexes:
        index = read_index(catalog.backend, known, part, packs, limits)
        for group in index.groups:
            if group.name == WEIGHTS:
                rows = slice(group.first_row, group.first_row + len(group.grid))
                bases = index.table.base[rows]
                numbers = [*index.table.pack[rows].tolist(), *index.table.pack[bases[bases != NO_BASE]].tolist()]
                needed.update(index.packs[pack].name for pack in set(numbers))
    data = reread(catalog.backend, known)
    changes: dict[str, Any] = {"weights_only": True, "packs": [pack for pack in known.manifest.packs if pack.name in needed]}
    return replace(known, manifest=msgspec.structs.replace(known.manifest, **changes)), sealed.changed(data, changes), data
