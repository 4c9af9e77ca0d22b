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
    from tensorkeep.nn import Network

_SIZES: Final = [64, 128, 10]
_EPOCHS, _MORE = 12, 8
_HELD_OUT: Final = 360  # images that are never trained on
_TRIES: Final = 10

_PREDICT: Final = """
import hashlib, sys
import tensorkeep as tk
from tensorkeep.nn import Network, digits
network = tk.load(sys.argv[1], types=(Network,))
print(hashlib.sha256(network.predict(digits()[0]).tobytes()).hexdigest())
"""

# 128 MiB of ballast, so that there is a middle of the save to be killed in.
_SAVE: Final = """
import sys
import numpy as np
import tensorkeep as tk
from tensorkeep.nn import Network
state = {"network": tk.load(sys.argv[1], types=(Network,)), "ballast": np.random.default_rng(0).random(16 << 20)}
print("begin", flush=True)
tk.save(state, sys.argv[1], progress=lambda done, whole: print(done, whole, flush=True))
print("end", flush=True)
"""


@click.command("demo", cls=output.Command, examples=("demo", "demo --folder somewhere"))
@click.option("--folder", type=click.Path(file_okay=False), default="tensorkeep-demo", show_default=True, help="Where to leave the file.")
@output.as_json
def command(folder: str, as_json: bool) -> None:
    """Train, save, break, restore: the whole promise in seconds.

    Trains a small network on real handwritten digits, saves it, loads it in a new process, kills a save in the middle, resumes, and
    tries the file on a network of another shape. Needs no internet, and leaves one small file.
    """
    began = time.perf_counter()
    Path(folder).mkdir(parents=True, exist_ok=True)
    demo = _Demo(Path(folder) / "digits.safetensors", quiet=as_json)
    for title, step in demo.steps.items():
        demo.do(title, step)
    if as_json:
        output.print_json({"command": "demo", "file": str(demo.path), "steps": demo.done})
        return
    name = shlex.quote(demo.path.as_posix())
    output.say(f"Done in {time.perf_counter() - began:.1f} s. The trained network is yours to look at:")
    output.say()
    for line in (f"tensorkeep show {name}", f"tensorkeep verify {name}", f"python -c {_python(demo.path)}"):
        output.say(f"  {output.lines_escaped(line)}")


def _python(path: Path) -> str:
    """A line of Python in quotes that a shell takes: double ones where they do, for Windows has no others."""
    code = f"import tensorkeep as tk; print(tk.load({path.as_posix()!r})['layers'][0]['weight'])"
    return shlex.quote(code) if any(char in code for char in '"$`\\!') else f'"{code}"'


class _Demo:
    """The steps, and what they share."""

    def __init__(self, path: Path, *, quiet: bool) -> None:
        import numpy as np  # only here: `--help` does without NumPy

        from tensorkeep.nn import Network, digits

        self.path, self.quiet = path, quiet
        self.images, self.labels = digits()
        order = np.random.default_rng(0).permutation(len(self.labels))
        self.train, self.test = order[_HELD_OUT:], order[:_HELD_OUT]
        self.make: Callable[..., Network] = Network
        self.network = Network(_SIZES)
        self.root = ""
        self.done: list[dict[str, Any]] = []
        self.steps: dict[str, Callable[[], str]] = {
            "Train a network on handwritten digits": self.step_train,
            "Save it: weights, optimizer, random numbers": self.step_save,
            "Load it in a new process and predict": self.step_predict,
            "Kill a save over that file in the middle": self.step_kill,
            "Resume the training from that file": self.step_resume,
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

    def fit(self, network: "Network", epochs: int) -> float:
        """Train, with a bar where a person has to wait. Returns the accuracy on images that it never saw."""
        began = network.epoch
        with output.bar("   training") as draw:

            def told(epoch: int, loss: float) -> None:
                if draw is not None and not self.quiet:
                    draw((epoch - began) / epochs, f"epoch {epoch}, loss {loss:.4f}")

            network.fit(self.images[self.train], self.labels[self.train], epochs=epochs, on_epoch=told)
        return network.evaluate(self.images[self.test], self.labels[self.test])[1]

    def step_train(self) -> str:
        accuracy = self.fit(self.network, _EPOCHS)
        return f"After {_EPOCHS} epochs on {len(self.train):,} images it reads {accuracy:.1%} of {_HELD_OUT} others right."

    def step_save(self) -> str:
        tk.save(self.network, self.path)
        self.root = tk.verify(self.path).root
        return f"{self.path} has {output.size(self.path.stat().st_size)}, with a digest of every byte."

    def step_predict(self) -> str:
        child = _start(_PREDICT, self.path)
        said, complaint = child.communicate()
        _expect(child.returncode == 0, f"the new process could not load the file: {complaint.strip()}")
        here = hashlib.sha256(self.network.predict(self.images).tobytes()).hexdigest()
        _expect(said.strip() == here, "the predictions of the new process differ")
        return f"All {len(self.images):,} predictions are the same there, to the last bit."

    def step_kill(self) -> str:
        for _ in range(_TRIES):
            told = self._kill_a_save()
            if told is not None:
                break
            tk.save(self.network, self.path)  # that save was too fast for the kill
        else:
            raise click.ClickException(f"the demo failed: {_TRIES} saves ended before they could be killed")
        verdict = tk.verify(self.path)
        _expect(verdict.intact and verdict.root == self.root, "the file is not the one from before")
        left = [entry.name for entry in self.path.parent.iterdir() if entry.name.startswith(f".{self.path.name}")]
        leftovers = f"The next save removes {', '.join(left)}." if left else "Nothing else was left behind."
        return f"{told}\nThe file from before is intact, every byte. {leftovers}"

    def _kill_a_save(self) -> str | None:
        """Kill a process in the middle of its save; None if all had already been written."""
        child = _start(_SAVE, self.path)
        assert child.stdout is not None
        with child:
            began = child.stdout.readline() == "begin\n"
            share = random.uniform(0.1, 0.8)
            done = whole = 0
            for line in child.stdout:
                done, whole = map(int, line.split())
                if done >= share * whole:
                    child.kill()
                    break
            for line in child.stdout:  # what it did before the kill reached it
                done = whole if line == "end\n" else int(line.split()[0])
        _expect(began and whole > 0, "the process that was to save never got so far")
        if done == whole:
            return None
        return f"Another process was saving {output.size(whole)} over it when SIGKILL hit it, after {output.size(done)}."

    def step_resume(self) -> str:
        resumed = self.make(_SIZES, seed=1)
        tk.load(self.path, into=resumed)
        accuracy = self.fit(resumed, _MORE)
        self.fit(self.network, _MORE)
        pairs = zip(resumed.get_weights(), self.network.get_weights(), strict=True)
        _expect(all(one.tobytes() == other.tobytes() for one, other in pairs), "the resumed run differs from the other")
        return (
            f"After {_MORE} more epochs it reads {accuracy:.1%}. The one that was never interrupted has the same weights, to the last bit."
        )

    def step_mismatch(self) -> str:
        try:
            tk.load(self.path, into=self.make([64, 32, 10]))
        except tk.MismatchError as error:
            return f"It is refused, the network is as it was, and the error tells all at once:\n\n{error}"
        raise click.ClickException("the demo failed: a network of another shape was filled")


def _start(code: str, path: Path) -> "subprocess.Popen[str]":
    """Run Python in a new process that finds the same packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _expect(claim: bool, otherwise: str) -> None:
    if not claim:
        raise click.ClickException(f"the demo failed: {otherwise}")
