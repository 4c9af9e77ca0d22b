"""Tags: names that keep a checkpoint whatever a policy says.

A tag is a manifest itself, the same bytes under another key. A mere note of the step would not do: prune may have listed that checkpoint
before, and remove it after the note was made. So a tag is made like a save that writes nothing: claim, check, fence, manifest.
Source: docs/store-format.md, "Protocol".
"""

from tensorkeep.errors import CorruptError, FormatError, NoCheckpoint, TagExists
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.commit import Commit, Writer
from tensorkeep.store.known import Known, reread
from tensorkeep.store.names import Ref


def put(catalog: Catalog, tag: str, ref: str | int | Ref, writer: Writer, *, move: bool = False) -> Known:
    """Tag a checkpoint.

    Args:
        catalog: of the store.
        tag: its name.
        ref: the checkpoint, by any reference.
        writer: in whose name.
        move: whether the tag may be taken from another checkpoint.

    Returns:
        The checkpoint that has it now.

    Raises:
        ValueError: it is no name for a tag.
        NoCheckpoint: there is no such checkpoint.
        CheckpointGone: it was deleted or replaced meanwhile; nothing was changed.
        TagExists: the tag is on another checkpoint, and `move` is False; or somebody else moved it meanwhile.
    """
    key = _key(catalog, tag)
    backend = catalog.backend
    known = catalog.look().find(ref)
    old = _there(catalog, key) if move else None
    with Commit(backend, writer.id, writer.number, [known], writer.by) as commit:
        data = reread(backend, known)  # the check, behind the claim
        commit.put_fence()
        outcome = commit.put(key, data, old=old)
        if not outcome.done and outcome.other is None:  # somebody took it away
            outcome = commit.put(key, data)
    if outcome.done or outcome.other is None:
        return known
    raise TagExists(backend.name, tag, step=step_on(outcome.other, f"{backend.name}/{key}"))


def step_on(data: bytes, file: str) -> int | None:
    """The step of the checkpoint that a tag is on; None where the tag is damaged."""
    try:
        return manifests.decode(data, file).step
    except (CorruptError, FormatError):
        return None


def _key(catalog: Catalog, tag: str) -> str:
    try:
        return names.tag_key(names.check_tag(tag))
    except ValueError as error:
        raise ValueError(f"{catalog.backend.name}: {error}") from None


def _there(catalog: Catalog, key: str) -> bytes | None:
    try:
        return catalog.backend.get(key, limit=manifests.MOST_BYTES)
    except FileNotFoundError:
        return None


def remove(catalog: Catalog, tag: str) -> None:
    """Take a tag away. The checkpoint stays, as long as it is one without.

    Raises:
        NoCheckpoint: there is no such tag.
    """
    key = _key(catalog, tag)
    tags = catalog.look().tags
    try:
        catalog.backend.stat(key)
    except FileNotFoundError:
        raise NoCheckpoint(catalog.backend.name, tag, f"its tags are {', '.join(tags()) or 'none'}") from None
    catalog.backend.delete(key)
