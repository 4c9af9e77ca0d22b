"""tensorkeep demo: train, save, break, restore."""

import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

import tensorkeep as tk
from tensorkeep.cli import output

_EPOCHS, _MORE = 12, 8

_PREDICT: Final = """
import hashlib, sys
import tensorkeep as tk
from tensorkeep.nn import Network, digits
network = tk.load(sys.argv[1], types=(Network,))
print(hashlib.sha256(network.predict(digits()[0]).tobytes()).hexdigest())
"""

# The state is made large, so that there is a middle of the save to be killed in.
_SAVE_FOR_LONG: Final = """
import sys
import numpy as np
import tensorkeep as tk
state = {"network": tk.load(sys.argv[1]), "ballast": np.random.default_rng(0).standard_normal(16 << 20)}
print("saving", flush=True)
tk.save(state, sys.argv[1])
print("saved", flush=True)
"""


@click.command("demo", cls=output.Command, examples=("demo", "demo --folder somewhere"))
@click.option("--folder", type=click.Path(file_okay=False), default="tensorkeep-demo", show_default=True, help="Where to leave the file.")
@output.as_json
def command(folder: str, as_json: bool) -> None:
    """Train, save, break, restore: the whole promise in half a minute.

    Trains a small network on real handwritten digits, saves it, loads it in a new process, kills a save in the middle, resumes, and
    tries the file on a network of another shape.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    demo = _Demo(Path(folder) / "digits.safetensors", quiet=as_json)
    for title, step in demo.steps().items():
        demo.do(title, step)
    if as_json:
        output.print_json({"command": "demo", "file": str(demo.path), "steps": demo.done})
        return
    output.say()
    output.say("Try next:")
    for line in (f"tensorkeep show {demo.path}", f"tensorkeep verify {demo.path}"):
        output.say(f"  {line}")
    output.say(f"  python -c \"import tensorkeep as tk; print(tk.load('{demo.path.as_posix()}').keys())\"")


class _Demo:
    def __init__(self, path: Path, *, quiet: bool) -> None:
        import numpy as np  # only here: `--help` does without NumPy

        from tensorkeep.nn import Network, digits

        self.path, self.quiet = path, quiet
        self.make: Callable[..., Any] = Network
        self.images, self.labels = digits()
        order = np.random.default_rng(0).permutation(len(self.labels))
        self.train, self.test = order[360:], order[:360]
        self.network = Network([64, 128, 10])
        self.done: list[dict[str, Any]] = []

    def steps(self) -> dict[str, Callable[[], str]]:
        return {
            "Train a network on handwritten digits": self.step_train,
            "Save it: weights, optimizer, random numbers": self.step_save,
            "Load it in a new process and predict": self.step_predict,
            "Kill a save of the same file in the middle": self.step_kill,
            "Resume the training from that file": self.step_resume,
            "Load it into a network of another shape": self.step_mismatch,
        }

    def do(self, title: str, step: Callable[[], str]) -> None:
        number = len(self.done) + 1
        if not self.quiet:
            output.say(f"{output.styled(f'{number}. {title}', bold=True)}")
        began = time.perf_counter()
        said = step()
        seconds = time.perf_counter() - began
        self.done.append({"step": title, "result": said, "seconds": round(seconds, 3)})
        if not self.quiet:
            for line in said.split("\n"):
                output.say(f"   {output.escaped(line)}")
            output.say(f"   {output.styled(f'{seconds:.2f} s', dim=True)}")

    def fit(self, network: Any, epochs: int) -> float:
        """Train, with a bar where a person looks on. Returns the accuracy on images that it never saw."""
        shown = sys.stderr.isatty() and not self.quiet
        last = network.epoch + epochs

        def bar(epoch: int, loss: float) -> None:
            if shown:
                filled = 30 * (epoch - last + epochs) // epochs
                click.echo(f"\r   [{'#' * filled}{' ' * (30 - filled)}] epoch {epoch}, loss {loss:.4f} ", err=True, nl=False)

        network.fit(self.images[self.train], self.labels[self.train], epochs=epochs, on_epoch=bar)
        if shown:
            click.echo("\r" + " " * 70 + "\r", err=True, nl=False)
        accuracy: float = network.evaluate(self.images[self.test], self.labels[self.test])[1]
        return accuracy

    def step_train(self) -> str:
        accuracy = self.fit(self.network, _EPOCHS)
        return f"After {_EPOCHS} epochs it reads {accuracy:.1%} of 360 digits that it never saw."

    def step_save(self) -> str:
        tk.save(self.network, self.path)
        self.root = tk.verify(self.path).root
        return f"{self.path} has {output.size(self.path.stat().st_size)}, every byte of it with a digest."

    def step_predict(self) -> str:
        done = subprocess.run([sys.executable, "-c", _PREDICT, str(self.path)], capture_output=True, text=True, check=True)
        here = hashlib.sha256(self.network.predict(self.images).tobytes()).hexdigest()
        _expect(done.stdout.strip() == here, "the predictions of the new process differ")
        return f"All {len(self.images):,} predictions are the same, to the last bit."

    def step_kill(self) -> str:
        child = subprocess.Popen([sys.executable, "-c", _SAVE_FOR_LONG, str(self.path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        _expect(child.stdout.readline() == "saving\n", "the process that was to save never began")
        time.sleep(random.uniform(0.01, 0.04))
        child.kill()
        rest = child.stdout.read()
        child.wait()
        if rest:
            return "The save was done before the kill reached it; run the demo again to see one that is not."
        verdict = tk.verify(self.path)
        _expect(verdict.intact and verdict.root == self.root, "the file is not the one from before")
        left = [name.name for name in self.path.parent.iterdir() if name != self.path]
        return f"SIGKILL hit it before its 128 MiB were saved. The file from before is intact, bit for bit; {len(left)} leftovers."

    def step_resume(self) -> str:
        resumed = self.make([64, 128, 10], seed=1)
        tk.load(self.path, into=resumed)
        accuracy = self.fit(resumed, _MORE)
        self.fit(self.network, _MORE)
        same = all((a == b).all() for a, b in zip(resumed.get_weights(), self.network.get_weights(), strict=True))
        _expect(same, "the resumed run differs from the one that was never interrupted")
        return f"{_MORE} more epochs: {accuracy:.1%}, and the same weights, to the last bit, as a run that was never interrupted."

    def step_mismatch(self) -> str:
        try:
            tk.load(self.path, into=self.make([64, 32, 10]))
        except tk.MismatchError as error:
            return f"It is refused, and says why:\n{error}"
        raise click.ClickException("the demo failed: a network of another shape was filled")


def _expect(claim: bool, otherwise: str) -> None:
    if not claim:
        raise click.ClickException(f"the demo failed: {otherwise}")
