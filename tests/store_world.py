"""A world for the store's protocol: processes that share one storage, doing one operation at a time in an order that a seed says.

Each actor is a thread that waits before every operation until it is its turn. Between two operations the world may kill an actor, lose an
answer, let a request arrive late, or move the clock; after each, it checks what must hold. So a seed replays everything.
"""

import errno
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from memory_backend import MemoryBackend
from tensorkeep.backends.keys import Entry, UnsureError
from tensorkeep.backends.processes import Process
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Killed(BaseException):
    """What an actor meets at its next operation after it was killed, and at every one that its cleaning up would do."""


class Broken(AssertionError):
    """A promise that does not hold."""


@dataclass
class Actor:
    """A process with one thread."""

    name: str
    body: Callable[[], None]
    go: threading.Lock = field(default_factory=threading.Lock)
    killed: bool = False
    ended: bool = False
    error: BaseException | None = None
    doing: tuple[str, str] = ("begins", "")
    request: Callable[[], None] | None = None  # of the change that it is about to make
    asleep_until: int = 0


class World:
    """The storage, the actors, the clock and chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.kind: Literal["folder", "object store"] = self.chance.choice(["folder", "object store"])
        self.slow_listing = self.kind == "folder" and self.chance.random() < 0.2
        self.storage = MemoryBackend(self.kind)
        self.storage.clock = 1e9
        self.actors: list[Actor] = []
        self.by_thread: dict[int, Actor] = {}
        self.back = threading.Lock()
        self.back.acquire()
        self.late: list[tuple[float, str, Callable[[], None]]] = []  # requests under way: the last moment at which they may arrive
        self.trace: list[str] = []
        self.made: set[bytes] = set()  # every manifest that ever was there
        self._needs: dict[bytes, dict[str, int]] = {}
        self._there: dict[str, bytes] = {}  # the manifests of checkpoints, as they were at the last look
        self._since: dict[str, int] = {}  # by save: the look at which its manifest was seen first, and its claim
        self._claimed: dict[str, int] = {}
        self._looks = 0
        self.turn = 0

    # ---------------------------------------------------------------- what actors call

    def backend(self, actor: str) -> "SharedBackend":
        return SharedBackend(self, actor)

    def process(self) -> Process:
        """The one that asks."""
        actor = self.by_thread[threading.get_ident()]
        elsewhere = actor.name.startswith("far")
        boot = actor.name if elsewhere else "here"
        return Process(host="sim", boot=boot, namespace="sim", pid=1 + self.actors.index(actor), started="1")

    def lives(self, process: Process) -> bool | None:
        """What a process of the same machine knows of another one."""
        return None if process.boot != "here" else not (self.actors[process.pid - 1].killed or self.actors[process.pid - 1].ended)

    def ask(self, operation: str, key: str, request: Callable[[], None] | None = None) -> None:
        """Wait for one's turn."""
        actor = self.by_thread[threading.get_ident()]
        if actor.killed:
            raise Killed
        actor.doing, actor.request = (operation, key), request
        self.back.release()
        actor.go.acquire()
        actor.request = None
        if actor.killed:
            raise Killed

    def wait(self, seconds: float) -> None:
        """How an actor waits: time passes."""
        self.ask("waits", str(seconds))
        self.storage.clock += seconds

    # ---------------------------------------------------------------- what moves

    def add(self, name: str, body: Callable[[], None]) -> Actor:
        actor = Actor(name, body)
        actor.go.acquire()
        self.actors.append(actor)

        def run() -> None:
            self.by_thread[threading.get_ident()] = actor
            actor.go.acquire()
            try:
                if not actor.killed:
                    body()
            except Killed:
                pass
            except BaseException as error:  # noqa: BLE001  # a thread ends here; the world raises it
                actor.error = error
            actor.ended = True
            self.back.release()

        threading.Thread(target=run, daemon=True).start()
        return actor

    def run(self) -> None:
        """Until all have ended. Raises what any of them met that it must not.

        Who is next: anybody; mostly whoever was last; or, best at orders that need few and exact switches, who comes first in a random
        ranking, from which the leader falls to the end at a few random moments.
        """
        sleepy, way = self.chance.random() < 0.3, self.chance.choice(["any", "last", "ranked", "ranked"])
        ranking = self.chance.sample(self.actors, len(self.actors))
        falls = {self.chance.randrange(1, 130) for _ in range(self.chance.randint(2, 6))}
        last: Actor | None = None
        while live := [actor for actor in self.actors if not actor.ended]:
            self.turn += 1
            self.happen(live, sleepy)
            awake = [actor for actor in live if not actor.ended and actor.asleep_until <= self.turn]
            awake = awake or [actor for actor in live if not actor.ended]
            if not awake:
                break
            if way == "ranked":
                actor = min(awake, key=ranking.index)
                if self.turn in falls:
                    ranking.remove(actor)
                    ranking.append(actor)
                    actor = min(awake, key=ranking.index)
            else:
                actor = last if way == "last" and last in awake and self.chance.random() < 0.8 else self.chance.choice(awake)
            self.step(actor)
            last = actor
        for _, label, request in self.late:
            self.note(f"late: {label}")
            request()
            self.check()

    def step(self, actor: Actor) -> None:
        self.note(f"{actor.name}: {' '.join(actor.doing)}" + (" KILLED" if actor.killed else ""))
        actor.go.release()
        self.back.acquire()
        if actor.error is not None:
            raise actor.error
        self.check()

    def happen(self, live: list[Actor], sleepy: bool) -> None:
        """What may come between two operations."""
        dice = self.chance.random()
        if dice < 0.01:
            victim = self.chance.choice(live)
            victim.killed = True
            if victim.request is not None and self.kind == "object store" and self.chance.random() < 0.7:
                self.late.append((self.storage.clock + 50 * MINUTE, " ".join(victim.doing), victim.request))
            self.step(victim)
        elif dice < 0.04:
            self.storage.clock += self.chance.choice([1.0, MINUTE, 20 * MINUTE])
        elif dice < 0.05:
            self.storage.clock += self.chance.choice([61 * MINUTE, 2 * HOUR] + [25 * HOUR] * sleepy)
        elif dice < 0.06 and sleepy:
            self.chance.choice(live).asleep_until = self.turn + self.chance.randrange(20, 150)
        self.late = [one for one in self.late if one[0] >= self.storage.clock]
        if self.late and self.chance.random() < 0.05:
            _, label, request = self.late.pop(self.chance.randrange(len(self.late)))
            self.note(f"late: {label}")
            request()
            self.check()

    def note(self, text: str) -> None:
        self.trace.append(f"{self.turn:>4} {self.storage.clock - 1e9:>9.0f} s  {text}")

    # ---------------------------------------------------------------- what must hold

    def check(self) -> None:
        """I1: a manifest that is there names only objects that are there, with their sizes."""
        objects = self.storage.objects
        for key, (data, _, _) in objects.items():
            if key.startswith((names.CHECKPOINTS, names.TAGS)):
                self.made.add(data)
                for needed, nbytes in self.needs(data, key).items():
                    if needed not in objects or len(objects[needed][0]) != nbytes:
                        raise Broken(f"I1: {key} needs {needed}, which is not there")
        self.check_places()

    def check_places(self) -> None:
        """I3: who takes the place of a checkpoint is that one, lighter, or a save that began when it was there; and nobody comes back."""
        self._looks += 1
        for key in self.storage.objects:
            if key.startswith(names.CLAIMS):
                self._claimed.setdefault(key.removeprefix(names.CLAIMS).removesuffix(".json"), self._looks)
        now = {key: data for key, (data, _, _) in self.storage.objects.items() if key.startswith(names.CHECKPOINTS)}
        for key, data in now.items():
            before = self._there.get(key)
            if data == before:
                continue
            new, old = manifests.decode(data, key), None if before is None else manifests.decode(before, key)
            if new.weights_only and (old is None or old.save != new.save):
                raise Broken(f"I3: the weights of save {new.save} take the place of {'nothing' if old is None else old.save}")
            if old is not None and old.save != new.save and self._since[old.save] > self._claimed[new.save]:
                raise Broken(f"I3: save {new.save} takes the place of {old.save}, which was made meanwhile")
            self._since.setdefault(new.save, self._looks)
        self._there = now

    def needs(self, data: bytes, key: str) -> dict[str, int]:
        if data not in self._needs:
            manifest = manifests.decode(data, key)
            self._needs[data] = {names.pack_key(pack.name): pack.nbytes for pack in manifest.packs}
            self._needs[data].update({names.index_key(part.save): part.nbytes for part in manifest.indexes})
        return self._needs[data]


class SharedBackend(MemoryBackend):
    """One actor's way to the storage: every operation waits for its turn, and an answer may be lost."""

    def __init__(self, world: World, actor: str) -> None:
        super().__init__(world.kind, world.storage.objects)
        self.world, self.slow_listing = world, world.slow_listing
        self._listed: dict[str, tuple[float, list[Entry]]] = {}
        self._versions = world.storage._versions

    @property
    def clock(self) -> float:
        return self.world.storage.clock

    @clock.setter
    def clock(self, value: float) -> None:
        pass  # the world's

    def _enter(self, operation: str, key: str) -> None:
        self.world.ask(operation, key)

    def list(self, prefix: str, *, strays: bool = False) -> Iterator[Entry]:
        found = list(super().list(prefix))
        if self.slow_listing:
            when, before = self._listed.get(prefix, (-1e9, []))
            if self.clock - when < 60 and self.world.chance.random() < 0.7:
                return iter(before)
            self._listed[prefix] = self.clock, found
        return iter(found)

    def create(self, key: str, data: Iterable[memoryview], *, durable: bool = True) -> None:
        whole = b"".join(data)

        def request() -> None:
            if key not in self.objects:
                self.put(key, whole)

        self.world.ask("create", key, request)
        there = key in self.objects
        self._change(key, request)
        if there:
            raise FileExistsError(errno.EEXIST, "exists", key)

    def replace(self, key: str, data: Iterable[memoryview], *, old: bytes) -> None:
        whole = b"".join(data)

        def is_old() -> bool:
            return key in self.objects and self.objects[key][0] == old

        def request() -> None:
            if is_old():
                self.put(key, whole)

        self.world.ask("replace", key, request)
        there = is_old()
        self._change(key, request)
        if not there:
            raise FileExistsError(errno.EEXIST, "another one, or none", key)

    def _change(self, key: str, request: Callable[[], None]) -> None:
        chance = self.world.chance
        if self.kind == "folder" or chance.random() > 0.05 or not key.startswith(("checkpoints/", "indexes/", "claims/", "tags/")):
            request()
            return
        fate = chance.choice(["answer lost", "answer lost, tried again", "request lost", "late"])
        self.world.note(f"    {fate}")
        if fate == "late":
            self.world.late.append((self.clock + 50 * MINUTE, f"{key} of a living one", request))
        elif fate != "request lost":
            request()
        if fate == "answer lost, tried again":
            raise FileExistsError(errno.EEXIST, "exists", key)
        raise UnsureError(errno.ETIMEDOUT, "no answer", key)
