"""Seeded schedules of the store's real code: savers, prune, gc, tags and readers, one storage operation at a time.

Every seed is another order, with kills, sleepers, lost answers, late requests and clocks that jump. What must hold is checked after each
operation. A failure names its seed: `python tests/test_store_schedules.py --seed 17` replays it and prints every operation;
`--seeds 0 2000` runs that many.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from small_store import load, save
from store_world import DAY, HOUR, Broken, World
from tensorkeep.backends.keys import UnsureError
from tensorkeep.errors import CheckpointGone, ClaimLost, NoCheckpoint, StepExists, TagExists
from tensorkeep.store import commit as committing
from tensorkeep.store import gc, names, retention, tags
from tensorkeep.store import manifest as manifests
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.commit import Writer
from tensorkeep.store.keep import Keep
from tensorkeep.store.known import Known, why_missing

CI_SEEDS = 300


class Play:
    """The actors of one world."""

    def __init__(self, world: World) -> None:
        self.world, self.chance = world, world.chance
        self.focused = self.chance.random() < 0.5  # on what is borrowed from checkpoints that go
        self.contested = self.chance.random() < 0.2  # all want the same steps
        self.won: dict[str, int] = {}  # saves that were told that they committed

    def saver(self, name: str, writer: str, first: int) -> None:
        backend = self.world.backend(name)
        catalog = Catalog(backend)
        step = first
        for number in range(self.chance.randint(1, 3)):
            step += 0 if self.contested else self.chance.choice([0, 1, 1, 2])
            known = catalog.look().newest()
            overwrite = self.chance.random() < (0.8 if self.contested else 0.2)
            weights = b"frozen" if self.focused else self.chance.choice([b"frozen", b"frozen", f"{writer}{number}".encode()])
            loss = float(self.chance.randint(0, 3))
            made = f"{writer}-{number}"
            try:
                save(backend, writer, number, step, weights=weights, rest=made.encode(), base=[known] if known else [], overwrite=overwrite,
                     metrics={"loss": loss}, time=backend.clock)  # fmt: skip
            except StepExists:
                self.check_told(made, step)
            except (ClaimLost, UnsureError, FileNotFoundError, CheckpointGone):
                pass  # it was told; FileNotFoundError: the base's index went while it was read, though its claim was lost
            else:
                self.won[made] = step
            if self.chance.random() < 0.5 and not self.focused:
                self.prune(catalog, Writer(writer, 100 + number, name))

    def check_told(self, made: str, step: int) -> None:
        """I3: whoever is told that somebody else has the step sees that one's checkpoint; what was committed and replaced is another's."""
        there = self.world.storage.objects.get(names.checkpoint_key(step))
        if there is not None and manifest_of(there[0]).save == made:
            raise Broken(f"I3: save {made} of step {step} was told that another one has it, and has it")

    def prune(self, catalog: Catalog, writer: Writer) -> None:
        keep = self.chance.choice(
            [Keep(last=1), Keep(last=2, best="loss"), Keep(last=2, weights_only_after=1), Keep(weights_only_after=1), Keep(every=2)]
        )
        with suppress(ClaimLost, UnsureError):
            retention.prune(catalog, keep, writer)

    def pruner(self, name: str, writer: str) -> None:
        catalog = Catalog(self.world.backend(name))
        for number in range(2):
            self.prune(catalog, Writer(writer, number, name))

    def deleter(self, name: str) -> None:
        backend = self.world.backend(name)
        catalog = Catalog(backend)
        for _ in range(3):
            listing = catalog.look()
            old = [one for one in listing.all() if self.world.kind == "folder" or backend.clock - one.modified > HOUR]
            if not old:
                continue
            known = old[-1] if self.chance.random() < 0.5 else self.chance.choice(old)
            try:
                if self.chance.random() < 0.3 and self.world.kind == "folder":
                    retention.rollback(catalog, known.step)
                else:
                    retention.delete(catalog, [known.step])
            except (NoCheckpoint, CheckpointGone):
                pass
            except manifests.FormatError as error:
                self.must_be_gone(catalog, known, error)

    def tagger(self, name: str, writer: str) -> None:
        catalog = Catalog(self.world.backend(name))
        for number in range(3):
            tag = self.chance.choice(["a", "b"])
            try:
                if self.chance.random() < 0.25:
                    tags.remove(catalog, tag)
                else:
                    ref = self.chance.choice(["latest", "a", "b"])
                    tags.put(catalog, tag, ref, Writer(writer, number, name), move=self.chance.random() < 0.5)
            except (NoCheckpoint, CheckpointGone, TagExists, ClaimLost, UnsureError):
                pass

    def collector(self, name: str) -> None:
        catalog = Catalog(self.world.backend(name))
        for _ in range(2):
            gc.collect(catalog, wait=self.world.wait)

    def reader(self, name: str) -> None:
        backend = self.world.backend(name)
        catalog = Catalog(backend)
        for _ in range(3):
            for known in catalog.look().downwards():
                try:
                    found = load(backend, known.manifest)
                except FileNotFoundError as error:
                    key = str(error.filename)
                    why = why_missing(backend, known, key)
                    if not isinstance(why, CheckpointGone):
                        raise Broken(f"I4: {why}") from error
                    continue
                if "rest" in found and found["rest"] != known.manifest.save.encode() and found["rest"] != b"rest":
                    raise Broken(f"{known.key} has the bytes of another save")
                break

    def must_be_gone(self, catalog: Catalog, known: Known, error: Exception) -> None:
        """A look found something missing: then the manifest must be another one by now."""
        if not isinstance(why_missing(catalog.backend, known, "?"), CheckpointGone):
            raise Broken(f"I4: {error}") from error


def play(seed: int) -> World:
    """One schedule, and what must hold in the end."""
    world = World(seed)
    stage = Play(world)
    chance = world.chance
    first = world.storage
    save_without_waiting(first)
    a, b = ("far-a" if chance.random() < 0.3 else "near-a"), "near-b"
    world.add(a, lambda: stage.saver(a, "a" * 16, 1))
    world.add(b, lambda: stage.saver(b, "b" * 16, 1 if stage.contested else chance.choice([1, 2])))
    world.add("gc-1", lambda: stage.collector("gc-1"))
    others: dict[str, Callable[[], None]] = {
        "pruner": lambda: stage.pruner("pruner", "c" * 16),
        "deleter": lambda: stage.deleter("deleter"),
        "tagger": lambda: stage.tagger("tagger", "d" * 16),
        "reader": lambda: stage.reader("reader"),
        "gc-2": lambda: stage.collector("gc-2"),
    }
    more = ["deleter", "tagger"][: chance.randint(1, 2)] if stage.focused else chance.sample(sorted(others), 3)
    for name in ["pruner", "deleter"] if stage.contested else more:
        world.add(name, others[name])
    with simulated(world):
        try:
            world.run()
            at_last(world, stage)
        except BaseException as error:
            error.add_note(f"seed {seed}: python tests/test_store_schedules.py --seed {seed}")
            error.add_note("\n".join(world.trace[-60:]))
            raise
    return world


def save_without_waiting(storage: Any) -> None:
    """What there is before anybody does anything: two checkpoints that share their weights."""
    save(storage, "e" * 16, 0, 0, weights=b"frozen", rest=b"rest", metrics={"loss": 1.0})
    save(storage, "e" * 16, 1, 1, weights=b"frozen", rest=b"rest", base=[Catalog(storage).look().find(0)], metrics={"loss": 2.0})


def at_last(world: World, stage: Play) -> None:
    """I2 and I3, and every byte."""
    for made, step in stage.won.items():
        if not any(manifest_of(data).save == made for data in world.made):
            raise Broken(f"I3: save {made} of step {step} was told that it committed, and had not")
    storage = world.storage
    for actor in world.actors:
        actor.killed = True
    storage.clock += 31 * DAY
    gc.collect(Catalog(storage), wait=lambda seconds: None)
    needed = {key for key in storage.objects if key.startswith((names.CHECKPOINTS, names.TAGS))}
    for key in list(needed):
        needed |= set(world.needs(storage.objects[key][0], key))
    if left := set(storage.objects) - needed:
        raise Broken(f"I2: garbage stays: {sorted(left)}")
    for known in Catalog(storage).look().all():
        load(storage, known.manifest)


def manifest_of(data: bytes) -> manifests.Manifest:
    return manifests.decode(data, "a manifest that was there")


class simulated:  # a context manager
    """Processes are the world's actors."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __enter__(self) -> None:
        self.stack = ExitStack()
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(committing, "this_process", self.world.process)
        patch.setattr(gc, "known_dead", lambda process: self.world.lives(process) is False)
        patch.setattr(gc, "known_alive", lambda process: self.world.lives(process) is True)
        patch.setenv("TENSORKEEP_THREADS", "1")

    def __exit__(self, *_: object) -> None:
        self.stack.close()


@pytest.mark.parametrize("seeds", range(0, CI_SEEDS, 50))
def test_whatever_the_order_every_promise_holds(seeds: int) -> None:
    """Fifty seeds at a time; `python tests/test_store_schedules.py --seeds 0 2000` for more."""
    for seed in range(seeds, seeds + 50):
        play(seed)


def main() -> Iterator[str]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 2000))
    options = parser.parse_args()
    if options.seed is not None:
        yield from play(options.seed).trace
    else:
        turns = sum(play(seed).turn for seed in range(*options.seeds))
        yield f"seeds {options.seeds[0]} to {options.seeds[1]}: {turns:,} operations, every promise held after each"


if __name__ == "__main__":
    for line in main():
        sys.stdout.write(line + "\n")
