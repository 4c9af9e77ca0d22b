"""tensorkeep demo: train, save, break, restore."""

import hashlib
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import tensorkeep as tk
from tensorkeep.cli import output
from tensorkeep.errors import escaped

if TYPE_CHECKING:
    pass

_SIZES: Final = [64, 128, 10]
_EPOCHS: Final = 20
_HELD_OUT: Final = 360  # images that are never trained on
_TRIES: Final = 10
_KEPT: Final = 3  # checkpoints, beside the best

# What a person would write: resume, train, save after each epoch. The process is killed somewhere in it, and begun again.
_TRAIN: Final = """
import sys
import numpy as np
import tensorkeep as tk
from tensorkeep.nn import Network, digits

folder, epochs, held_out, kept, *sizes = sys.argv[1], *map(int, sys.argv[2:])
images, labels = digits()
order = np.random.default_rng(0).permutation(len(labels))
train, test = order[held_out:], order[:held_out]
network = Network(sizes)
with tk.Store(folder, keep=tk.Keep(last=kept, best="loss")) as store:
    start = store.resume(into=network)
    print("resumed", start.step if start else 0, flush=True)
    while network.epoch < epochs:
        network.fit(images[train], labels[train], epochs=1)
        loss, accuracy = network.evaluate(images[test], labels[test])
        store.save(network, step=network.epoch, metrics={"loss": loss, "accuracy": accuracy})
        print("epoch", network.epoch, flush=True)
print("end", flush=True)
"""

_PREDICT: Final = """
import hashlib, sys
import tensorkeep as tk
from tensorkeep.nn import Network, digits
network = tk.load(sys.argv[1], types=(Network,))
print(hashlib.sha256(network.predict(digits()[0]).tobytes()).hexdigest())
"""


@click.command("demo", cls=output.Command, examples=("demo", "demo --folder somewhere"))
@click.option(
    "--folder", type=click.Path(file_okay=False), default="tensorkeep-demo", show_default=True, help="Where to leave what it made."
)
@output.as_json
def command(folder: str, as_json: bool) -> None:
    """Train, save, break, restore: the whole promise in seconds.

    Trains a small network on real handwritten digits and saves it into a store after each epoch, is killed, resumes, and has the same
    weights as a run that nobody disturbed, to the last bit. Then it keeps the network in a file, loads that in a new process, and tries
    it on a network of another shape. Needs no internet, and leaves a small store and a small file.
    """
    began = time.perf_counter()
    Path(folder).mkdir(parents=True, exist_ok=True)
    demo = _Demo(Path(folder), quiet=as_json)
    for title, step in demo.steps.items():
        demo.do(title, step)
    if as_json:
        output.print_json({"command": "demo", "store": str(demo.store), "file": str(demo.path), "steps": demo.done})
        return
    store, name = shlex.quote(demo.store.as_posix()), shlex.quote(demo.path.as_posix())
    output.say(f"Done in {time.perf_counter() - began:.1f} s. The run and the trained network are yours to look at:")
    output.say()
    for line in (f"tensorkeep log {store}", f"tensorkeep show {name}", f"python -c {_python(demo.path)}"):
        output.say(f"  {output.lines_escaped(line)}")


def _python(path: Path) -> str:
    """A line of Python in quotes that a shell takes: double ones where they do, for Windows has no others."""
    code = f"import tensorkeep as tk; print(tk.load({path.as_posix()!r})['layers'][0]['weight'])"
    return shlex.quote(code) if any(char in code for char in '"$`\\!') else f'"{code}"'


class _Demo:
    """The steps, and what they share."""

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        import numpy as np  # only here: `--help` does without NumPy

        from tensorkeep.nn import Network, digits

        self.store, self.path, self.quiet = folder / "run", folder / "digits.safetensors", quiet
        self.images, self.labels = digits()
        order = np.random.default_rng(0).permutation(len(self.labels))
        self.train, self.test = order[_HELD_OUT:], order[:_HELD_OUT]
        self.make: Callable[..., Network] = Network
        self.network = Network(_SIZES)
        self.done: list[dict[str, Any]] = []
        self.steps: dict[str, Callable[[], str]] = {
            "Train a network on handwritten digits, saving after each epoch, and kill it": self.step_kill,
            "Look at what is left": self.step_look,
            "Begin again: it resumes by itself": self.step_resume,
            "Compare it with a run that nobody disturbed": self.step_compare,
            "Keep the network in a file, load it in a new process and predict": self.step_predict,
            "Load it into a network of another shape": self.step_mismatch,
        }

    def do(self, title: str, step: Callable[[], str]) -> None:
        """Do one step, and tell what came of it and how long it took."""
        if not self.quiet:
            output.say(output.styled(f"{len(self.done) + 1}. {title}", bold=True))
        began = time.perf_counter()
        said = step()
        seconds = time.perf_counter() - began
        self.done.append({"step": title, "result": said, "seconds": round(seconds, 3)})
        if not self.quiet:
            for line in said.split("\n"):
                output.say(f"   {escaped(line)}".rstrip())
            output.say(f"   {output.styled(f'{seconds:.2f} s', dim=True)}")
            output.say()

    def step_kill(self) -> str:
        for number in range(_TRIES):
            store = self.store.with_name(f"run{number + 1}") if number else self.store
            if store.exists() and not tk.Store(store).steps():
                raise click.ClickException(f"{store} is there and holds no run; take another folder")
            if store.exists():
                continue  # of an earlier demo
            self.store = store
            if (epoch := self._train_and_kill()) is not None:
                return f"SIGKILL hit it at a random moment, in or after epoch {epoch} of {_EPOCHS}."
        raise click.ClickException(f"the demo failed: there are {_TRIES} runs here; remove {self.store.parent}")

    def _train_and_kill(self) -> int | None:
        """The last epoch that it told; None if it came to its end."""
        epoch, last = 0, random.randint(_EPOCHS // 4, _EPOCHS // 2)
        child = self._start(_TRAIN, *self._arguments())
        assert child.stdout is not None
        with child:
            for line in child.stdout:
                if line.startswith("epoch"):
                    epoch = int(line.split()[1])
                if epoch == last:
                    time.sleep(random.uniform(0, 0.05))
                    child.kill()
                    break
            rest = child.stdout.read()
            complaint = child.stderr.read() if child.stderr is not None else ""
        _expect(epoch > 0, f"the training never got so far: {complaint.strip()}")
        return None if "end" in rest else epoch

    def step_look(self) -> str:
        from tensorkeep.store.results import Checkpoint

        checkpoints: list[Checkpoint] = list(tk.Store(self.store))
        for one in checkpoints:
            _expect(tk.verify(f"{self.store}@step-{one.step}").intact, f"step {one.step} is damaged")
        steps = ", ".join(str(one.step) for one in checkpoints)
        return (
            f"{self.store} has the last {_KEPT} checkpoints and the best one: epochs {steps}. Each is intact, every byte.\n"
            f"The newest says: loss {checkpoints[-1].metrics['loss']:.4f}, {checkpoints[-1].metrics['accuracy']:.1%} right "
            f"of {_HELD_OUT} images that it never saw."
        )

    def step_resume(self) -> str:
        child = self._start(_TRAIN, *self._arguments())
        said, complaint = child.communicate()
        _expect(child.returncode == 0 and said.endswith("end\n"), f"the second run failed: {complaint.strip()}")
        newest = list(tk.Store(self.store))[-1]
        resumed = said.splitlines()[0].split()[1]
        return f"It went on from epoch {resumed} to {newest.step}, and reads {newest.metrics['accuracy']:.1%} right."

    def step_compare(self) -> str:
        with output.bar("   training") as draw:

            def told(epoch: int, loss: float) -> None:
                if draw is not None and not self.quiet:
                    draw(epoch / _EPOCHS, f"epoch {epoch}, loss {loss:.4f}")

            for _ in range(_EPOCHS):  # the same calls as the other run's: `fit` shuffles at its beginning
                self.network.fit(self.images[self.train], self.labels[self.train], epochs=1, on_epoch=told)
        resumed = self.make(_SIZES)
        tk.Store(self.store).load(into=resumed)
        pairs = zip(resumed.get_weights(), self.network.get_weights(), strict=True)
        _expect(all(one.tobytes() == other.tobytes() for one, other in pairs), "the resumed run differs from the other")
        _expect(tk.dumps(resumed) == tk.dumps(self.network), "what is not a weight differs")
        return "Weights, optimizer and random numbers are the same, to the last bit."

    def step_predict(self) -> str:
        tk.save(self.network, self.path)
        child = self._start(_PREDICT, self.path)
        said, complaint = child.communicate()
        _expect(child.returncode == 0, f"the new process could not load the file: {complaint.strip()}")
        here = hashlib.sha256(self.network.predict(self.images).tobytes()).hexdigest()
        _expect(said.strip() == here, "the predictions of the new process differ")
        return (
            f"{self.path} has {output.size(self.path.stat().st_size)}, with a digest of every byte.\n"
            f"All {len(self.images):,} predictions are the same there, to the last bit."
        )

    def step_mismatch(self) -> str:
        try:
            tk.load(self.path, into=self.make([64, 32, 10]))
        except tk.MismatchError as error:
            return f"It is refused, the network is as it was, and the error tells all at once:\n\n{error}"
        raise click.ClickException("the demo failed: a network of another shape was filled")

    def _arguments(self) -> list[object]:
        return [self.store, _EPOCHS, _HELD_OUT, _KEPT, *_SIZES]

    @staticmethod
    def _start(code: str, *arguments: object) -> "subprocess.Popen[str]":
        """Run Python in a new process that finds the same packages."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.Popen(
            [sys.executable, "-P", "-c", code, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )


def _expect(claim: bool, otherwise: str) -> None:
    if not claim:
        raise click.ClickException(f"the demo failed: {otherwise}")
