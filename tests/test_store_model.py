"""The store's protocol as a small model, of which every state is visited: the rules hold, and left out one by one they break.

Lives here: what saves, taggers, removers, gc, kills, sleepers and lost answers do, one storage operation at a time.
Lives elsewhere: the same for the real code, by sample (test_store_schedules). The rules: docs/store-format.md, "Protocol".

Objects are bits of one number: of each save its pack, its index, and the empty index that gc puts in its place. What a manifest names is a
number of the same bits, and 0 where there is none; so is a claim.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeVar

import pytest

SAVES: Final = 3  # save 0 made the checkpoint that is there at the beginning
PACK, INDEX, EMPTY = ([1 << (kind * SAVES + save) for save in range(SAVES)] for kind in range(3))
PACKS, INDEXES = sum(PACK), sum(INDEX)
STEPS: Final = 3  # keys of checkpoints: 0, 1, 2; those of tags come behind them
TAG_A, TAG_B = 3, 4
FIRST: Final = PACK[0] | INDEX[0]

LOOK, CLAIM, CHECK, BYTES, FENCE, COMMIT, AGAIN, UNCLAIM, DONE, DEAD, LATE = range(11)
"""What an actor does next. AGAIN: its answer was lost. LATE: killed, its last request under way."""


class State(NamedTuple):
    """Everything there is."""

    objects: int
    told: tuple[int, ...]  # by save: what its index says that it needs
    claims: tuple[int, ...]  # by save
    manifests: tuple[int, ...]  # by key
    minds: tuple[tuple[int, ...], ...]  # by actor; the next operation first


START: Final = State(FIRST, (FIRST, 0, 0), (0, 0, 0), (FIRST, 0, 0, 0, 0), ())


Thing = TypeVar("Thing")


class Wrong(Exception):
    """A promise that is broken."""


@dataclass(frozen=True)
class Save:
    """Who commits: claim, check, pack, index, manifest, unclaim. Its mind: next operation, key of its base, what that names, unchanged?

    Who overwrites has what stands at its target for a base, borrows nothing from it, and takes its place alone.

    Attributes:
        number: of the save.
        target: the key of its manifest.
        source: the key of its base; -1 for the newest checkpoint.
        kind: `save` borrows packs; `overwrite` none, and replaces; `tag` borrows all; `lighten` replaces its base by what names less.
    """

    number: int
    target: int
    source: int = -1
    kind: str = "save"

    def order(self, off: frozenset[str]) -> tuple[int, ...]:
        if self.kind == "lighten" and "lightening like a save" in off:
            return LOOK, COMMIT, DONE
        if self.kind in ("tag", "lighten"):
            return LOOK, CLAIM, CHECK, FENCE, COMMIT, UNCLAIM, DONE
        first = (BYTES, CLAIM) if "claim before the first byte" in off else (CLAIM, CHECK, BYTES)
        return LOOK, *first, FENCE, COMMIT, UNCLAIM, DONE

    def needs(self, base: int, borrows: int) -> int:
        if self.kind == "lighten":
            return base & ~PACK[0]
        return (
            base
            if self.kind == "tag"
            else PACK[self.number] | INDEX[self.number] | (base & PACKS if borrows and self.kind == "save" else 0)
        )

    def places(self, base: int) -> tuple[int, ...]:
        """What may stand at the target for it to commit."""
        return {"lighten": (base,), "overwrite": (base, 0)}.get(self.kind, (0,))

    def moves(self, world: "World", state: State, actor: int) -> Iterator[tuple[str, State]]:
        objects, told, claims, manifests, minds = state
        step, key, base, borrows = minds[actor]
        number, target, plan = self.number, self.target, self.order(world.off)
        needed = self.needs(base, borrows)
        borrows_all = self.kind in ("tag", "lighten")
        compares = self.kind in ("save", "tag") or "replacing compares" not in world.off
        shared = 1 if "a claim a save" in world.off else number

        def then(
            following: int | None = None,
            *,
            key: int = key,
            base: int = base,
            borrows: int = borrows,
            objects: int = objects,
            told: tuple[int, ...] = told,
            claims: tuple[int, ...] = claims,
            manifests: tuple[int, ...] = manifests,
        ) -> State:
            mind = (plan[plan.index(step) + 1] if following is None else following, key, base, borrows)
            return State(objects, told, claims, manifests, put(minds, actor, mind))

        if step in (DONE, DEAD):
            return
        if step == LATE:
            after = put(manifests, target, needed) if manifests[target] in self.places(base) else manifests
            yield "its request arrives", then(DEAD, manifests=after)
            yield "an hour passes", then(DEAD)
            return
        if step != LOOK and number in world.kills:
            yield "is killed", then(DEAD)
        if step == LOOK:
            place = (
                self.source
                if self.source >= 0
                else self.target
                if self.kind == "overwrite"
                else max((at for at in range(STEPS) if manifests[at]), default=-1)
            )
            there = manifests[place] if place >= 0 else 0
            yield "looks", then(DONE if borrows_all and not there else None, key=place, base=there)
        elif step == CLAIM:
            claimed = base & PACKS if "claims name indexes" in world.off else base
            yield "claims", then(claims=put(claims, shared, claimed | PACK[number] | INDEX[number]))
        elif step == CHECK:
            same = bool(base) and (manifests[key] != 0 if "the check compares bytes" in world.off else manifests[key] == base)
            same = same or (bool(base) and "the check" in world.off)
            yield "checks", then(UNCLAIM if borrows_all and not same else None, borrows=int(same))
        elif step == BYTES:
            yield "writes", then(objects=objects | PACK[number], borrows=int("claim before the first byte" in world.off) or borrows)
        elif step == FENCE and objects & EMPTY[number]:
            yield "is told that its claim was lost", then(UNCLAIM)
        elif step == FENCE:
            says = 0 if borrows_all and "a tag's index says what it borrows" in world.off else needed
            yield "makes its index", then(objects=objects | INDEX[number], told=put(told, number, says))
        elif step in (COMMIT, AGAIN) and manifests[target] not in self.places(base) and compares:
            if manifests[target] == needed and "settling by reading" in world.off and step == AGAIN:
                raise Wrong("I3: a lost answer is taken for a conflict")
            yield "finds another one there, or none", then(UNCLAIM if UNCLAIM in plan else DONE)
        elif step in (COMMIT, AGAIN):
            if manifests[target] not in self.places(base):
                raise Wrong("I3: it takes the place of another one than it was made for, or brings back what was removed")
            if self.kind == "tag" and "a tag is a manifest" in world.off:
                needed = manifests[key]  # a note of the step, true while that is there
            after = put(manifests, target, needed)
            yield "commits", then(UNCLAIM if UNCLAIM in plan else DONE, manifests=after)
            if world.loses and step == COMMIT:
                yield "commits, the answer is lost", then(AGAIN, manifests=after)
            if world.late:
                yield "is killed, its request under way", then(LATE)
        elif step == UNCLAIM:
            yield "unclaims", then(claims=put(claims, shared, 0))


@dataclass(frozen=True)
class Remove:
    """Who removes one manifest, once it is there.

    Attributes:
        key: of a checkpoint or a tag.
        policy: whether it is prune, which lists first, and spares what a tag was on then.
    """

    key: int
    policy: bool = False

    def moves(self, world: "World", state: State, actor: int) -> Iterator[tuple[str, State]]:
        step, there = state.minds[actor][0], state.manifests[self.key]
        if step == LOOK and self.policy and there and there not in state.manifests[STEPS:]:
            yield "lists", state._replace(minds=put(state.minds, actor, (COMMIT, 0, 0, 0)))
        elif step == COMMIT or (step == LOOK and there and not self.policy):
            manifests = put(state.manifests, self.key, 0)
            yield "removes", state._replace(minds=put(state.minds, actor, (DONE, 0, 0, 0)), manifests=manifests)


@dataclass(frozen=True)
class Collect:
    """gc. Its mind: next operation, what it would remove, the indexes there were at first, claims it has not judged yet."""

    def moves(self, world: "World", state: State, actor: int) -> Iterator[tuple[str, State]]:
        objects, told, claims, manifests, minds = state
        step, found, first, unjudged = minds[actor]
        plan = self.order(world.off)
        if step >= len(plan):
            return

        def then(
            stay: bool = False,
            *,
            found: int = found,
            first: int = first,
            unjudged: int = unjudged,
            objects: int = objects,
            claims: tuple[int, ...] = claims,
        ) -> State:
            return State(objects, told, claims, manifests, put(minds, actor, (step if stay else step + 1, found, first, unjudged)))

        does = plan[step]
        if does == "list claims":
            yield "lists claims", then(unjudged=sum(1 << save for save in range(SAVES) if claims[save]))
        elif does == "drop claims" and not unjudged:
            yield from self.moves(world, then(), actor)  # no operation
        elif does == "drop claims":
            save = (unjudged & -unjudged).bit_length() - 1
            left = unjudged & ~(1 << save)
            whose = next(state.minds[at][0] for at, one in enumerate(world.actors) if isinstance(one, Save) and one.number == save)
            dropped = put(claims, save, 0)
            if whose == DEAD or (whose == LATE and "an hour's grace" in world.off):
                yield "drops a dead claim", then(stay=True, unjudged=left, claims=dropped, objects=objects & ~EMPTY[save])
            else:
                yield "leaves a claim", then(stay=True, unjudged=left)
            if world.sleeps and "the fence" in world.off:
                yield "drops an old claim", then(stay=True, unjudged=left, claims=dropped)
            elif world.sleeps and not objects & INDEX[save]:
                yield "drops an old claim", then(stay=True, unjudged=left, claims=dropped, objects=objects | EMPTY[save])
        elif does == "list objects":
            there = objects & (PACKS | INDEXES)
            yield "lists", then(found=there & found if "objects are listed first" in world.off else there, first=there)
        elif does == "claims":
            ignored = [self._is_dead(world, state, save) and "dead claims are dropped" in world.off for save in range(SAVES)]
            yield "reads claims", then(found=without(found, (claim for save, claim in enumerate(claims) if not ignored[save])))
        elif does == "manifests":
            seen = list(manifests)
            if "manifests are cached by version" in world.off and seen[0]:
                seen[0] = FIRST  # as it read it an hour ago
            if "a tag is a manifest" in world.off:
                seen[STEPS:] = []
            yield "reads manifests", then(found=without(found, seen))
        elif does == "new indexes":
            new = objects & INDEXES & ~first
            yield "reads new indexes", then(found=without(found, (told[save] | INDEX[save] for save in range(SAVES) if new & INDEX[save])))
        elif does == "remove":
            yield "removes garbage", then(objects=objects & ~found, found=0, first=0)

    def order(self, off: frozenset[str]) -> list[str]:
        passes = ["claims", "manifests", "claims", "manifests", "new indexes"]
        if "claims come before manifests" in off:
            passes = ["manifests", "claims", "manifests", "claims", "new indexes"]
        for number, name in enumerate(PASSES):
            if name in off:
                passes[number] = ""
        drop = [] if "dead claims are dropped" in off else ["list claims", "drop claims"]
        listing = [*passes, "list objects"] if "objects are listed first" in off else ["list objects", *passes]
        return [*drop, *filter(None, listing), "remove"]

    @staticmethod
    def _is_dead(world: "World", state: State, save: int) -> bool:
        return any(state.minds[at][0] == DEAD for at, one in enumerate(world.actors) if isinstance(one, Save) and one.number == save)


PASSES: Final = (
    "the first reading of claims",
    "the first listing of manifests",
    "the second reading of claims",
    "the second listing of manifests",
    "the look at new indexes",
)


@dataclass(frozen=True)
class World:
    """Who acts, what may go wrong, and which rules are left out.

    Attributes:
        actors: each does its work once, in any interleaving.
        kills: the saves that may be killed at any moment.
        sleeps: whether who saves may stand still for a day, so that gc takes its claim for an old one.
        loses: whether the answer to a conditional create may be lost.
        late: whether a killed one's last request may arrive later, within the hour.
        off: rules that are left out.
    """

    actors: tuple[Save | Remove | Collect, ...]
    kills: tuple[int, ...] = ()
    sleeps: bool = False
    loses: bool = False
    late: bool = False
    off: frozenset[str] = frozenset()

    def check(self, state: State) -> None:
        for key, named in enumerate(state.manifests):
            if named & (PACKS | INDEXES) & ~state.objects:
                raise Wrong(f"I1: manifest {key} names what is not there")
            if "a tag is a manifest" in self.off and key >= STEPS and named and named not in state.manifests[:STEPS]:
                raise Wrong(f"I1: tag {key} is on a checkpoint that is not there")

    def check_end(self, state: State) -> None:
        """When nobody does anything more, a last gc leaves nothing but what is named."""
        claims = state.claims if "dead claims are dropped" in self.off else (0,) * SAVES
        if any(claims):
            raise Wrong("I2: a claim stays for ever")


def put(row: "tuple[Thing, ...]", place: int, value: "Thing") -> "tuple[Thing, ...]":
    return (*row[:place], value, *row[place + 1 :])


def without(found: int, named: "Iterator[int] | list[int]") -> int:
    for one in named:
        found &= ~one
    return found


def explore(world: World) -> tuple[int, list[str]]:
    """Visit every state, those with the shortest way first.

    Returns:
        How many there are, and the way to the first in which a promise is broken; none if all hold.
    """
    minds = tuple((0, PACKS | INDEXES, 0, 0) if isinstance(one, Collect) else (LOOK, 0, 0, 0) for one in world.actors)
    start = START._replace(minds=minds)
    before: dict[State, tuple[State, str] | None] = {start: None}
    layer = [start]
    while layer:
        following = []
        for state in layer:
            label, idle = "the end", True
            try:
                for actor, one in enumerate(world.actors):
                    for what, after in one.moves(world, state, actor):
                        label, idle = f"{one} {what}", False
                        if after not in before:
                            before[after] = state, label
                            following.append(after)
                            world.check(after)
                if idle:
                    world.check_end(state)
            except Wrong as wrong:
                way = [str(wrong), label]
                while (came := before[state]) is not None:
                    state, label = came
                    way.append(label)
                return len(before), way[::-1]
        layer = following
    return len(before), []


W1, W2 = Save(1, 1), Save(2, 2)
AGAIN_1, AGAIN_0 = Save(1, 0, kind="overwrite"), Save(2, 0, kind="overwrite")
TAG, TAG_OF_TAG, LIGHTEN = Save(1, TAG_A, 0, "tag"), Save(2, TAG_B, TAG_A, "tag"), Save(1, 0, 0, "lighten")

WORLDS: Final = {
    "two savers, two removals, gc": World((W1, W2, Remove(0), Remove(1), Collect())),
    "two savers, a removal, gc, kills": World((W1, W2, Remove(0), Collect()), kills=(1,)),
    "a saver, a removal, gc, whatever may go wrong": World((W1, Remove(0), Collect()), kills=(1,), sleeps=True, loses=True, late=True),
    "two savers, gc, sleepers": World((W1, W2, Collect()), sleeps=True),
    "a saver, an overwriter, gc": World((W1, AGAIN_0, Collect()), loses=True),
    "a tagger, a tagger of that tag, two removals, gc": World((TAG, TAG_OF_TAG, Remove(0), Remove(TAG_A), Collect())),
    "a tagger, prune, gc, sleepers": World((TAG, Remove(0, policy=True), Collect()), sleeps=True, kills=(1,)),
    "one that lightens, a saver, a removal, gc, sleepers": World((LIGHTEN, W2, Remove(0), Collect()), sleeps=True),
    "two that overwrite, gc": World((AGAIN_1, AGAIN_0, Collect()), kills=(1,), loses=True, late=True),
    "one that lightens, one that overwrites, a removal, gc": World((LIGHTEN, AGAIN_0, Remove(0), Collect()), loses=True),
}

NEW = "the look at new indexes"
LEFT_OUT: Final = [
    (("the first reading of claims",), "two savers, two removals, gc"),
    (("the second reading of claims",), "two savers, two removals, gc"),
    (("the first listing of manifests",), "two savers, two removals, gc"),
    ((NEW,), "two savers, two removals, gc"),
    (("the second listing of manifests", NEW), "two savers, a removal, gc, kills"),
    (("claims come before manifests", NEW), "two savers, two removals, gc"),
    (("objects are listed first",), "a saver, a removal, gc, whatever may go wrong"),
    (("dead claims are dropped",), "a saver, a removal, gc, whatever may go wrong"),
    (("the check",), "a saver, a removal, gc, whatever may go wrong"),
    (("claim before the first byte",), "a saver, a removal, gc, whatever may go wrong"),
    (("the fence",), "a saver, a removal, gc, whatever may go wrong"),
    (("a claim a save",), "two savers, a removal, gc, kills"),
    (("settling by reading",), "a saver, a removal, gc, whatever may go wrong"),
    (("an hour's grace",), "a saver, a removal, gc, whatever may go wrong"),
    (("the check compares bytes",), "a saver, an overwriter, gc"),
    (("manifests are cached by version",), "a saver, an overwriter, gc"),
    (("a tag is a manifest",), "a tagger, prune, gc, sleepers"),
    (("claims name indexes",), "a tagger, prune, gc, sleepers"),
    (("a tag's index says what it borrows",), "a tagger, a tagger of that tag, two removals, gc"),
    (("replacing compares",), "two that overwrite, gc"),
    (("replacing compares",), "one that lightens, one that overwrites, a removal, gc"),
]


@pytest.mark.parametrize("name", WORLDS)
def test_every_state_of_the_protocol_keeps_its_promises(name: str) -> None:
    """A manifest that is there names only what is there, whoever does what in whatever order."""
    count, way = explore(WORLDS[name])
    assert not way, "\n".join(way)
    assert count > 500


@pytest.mark.parametrize(("off", "name"), LEFT_OUT, ids=lambda value: value if isinstance(value, str) else ", ".join(value))
def test_every_rule_is_needed(off: tuple[str, ...], name: str) -> None:
    """Left out, some order of operations breaks a promise: so the model sees what the rule is for."""
    _, way = explore(replace(WORLDS[name], off=frozenset(off)))
    assert way and way[-1].startswith("I")


TWICE: Final = [
    ("the second listing of manifests", "two savers, two removals, gc"),
    ("claims come before manifests", "two savers, two removals, gc"),
    ("lightening like a save", "one that lightens, a saver, a removal, gc, sleepers"),
]


@pytest.mark.parametrize(("off", "name"), TWICE)
def test_some_rules_are_there_twice(off: str, name: str) -> None:
    """What the look at new indexes makes redundant, and what the comparison of a replacement does; they stay: these hold without."""
    assert not explore(replace(WORLDS[name], off=frozenset({off})))[1]


if __name__ == "__main__":
    for off, name in [((), name) for name in WORLDS] + LEFT_OUT:
        begun = time.monotonic()
        count, way = explore(replace(WORLDS[name], off=frozenset(off)))
        said = f"{count:>8,} states, {len(way) - 1 if way else 0:>2} operations, {time.monotonic() - begun:4.1f} s"
        print(f"{said}: {name}; without {', '.join(off)}")
