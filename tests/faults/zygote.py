"""A zygote: a process that has imported all that is needed, and forks children on command, which cost milliseconds.

A child waits for a word before it begins, so that strace can be attached to the job alone and not to the start of Python.
Its exit status tells how the job ended.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

DONE: Final = 0
UNHARMED: Final = 3  # an error that says that the old file is untouched, or that none was written
IN_PLACE: Final = 4  # an error that says that the new file is in place
OTHER: Final = 5
_UNHARMED: Final = ("old file is untouched", "no file was written", "nothing was written", "left as it is")
TESTS: Final = Path(__file__).parent.parent


class Child:
    """A child that waits."""

    def __init__(self, zygote: "Zygote", pid: int) -> None:
        self.zygote, self.pid = zygote, pid

    def begin(self) -> None:
        self.zygote.tell("begin")

    def wait(self) -> int:
        """Its exit status; a signal's number, negative."""
        status = self.zygote.ask("wait")
        return os.waitstatus_to_exitcode(status)


class Zygote:
    """Runs one child at a time.

    Args:
        capabilities: "all" or "none" of the optional system calls.
    """

    def __init__(self, capabilities: str = "all", extra: tuple[str, ...] = ()) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faults.zygote", capabilities, *extra],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(300)
        assert self.process.stdout
        self.process.stdout.close()

    def tell(self, *command: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def ask(self, *command: object) -> int:
        self.tell(*command)
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def fork(self, job: str, *arguments: object) -> Child:
        """A child that will call `module:function` with these arguments, which JSON can say."""
        return Child(self, self.ask("fork", job, *arguments))

    def run(self, job: str, *arguments: object) -> int:
        child = self.fork(job, *arguments)
        child.begin()
        return child.wait()


def _child(go: int, ready: int, job: str, arguments: list[Any]) -> None:
    status = OTHER
    try:
        os.write(ready, b"x")
        os.read(go, 1)
        module, _, name = job.partition(":")
        getattr(importlib.import_module(module), name)(*arguments)
        status = DONE
    except OSError as error:
        said = f"{error} {getattr(error, '__notes__', '')}"
        if "in place" in said:
            status = IN_PLACE
        elif error.filename is not None or any(words in said for words in _UNHARMED):  # a name alone: refused before anything was begun
            status = UNHARMED
        else:
            traceback.print_exc()
    except BaseException:  # noqa: BLE001  whatever it is, the parent is told by the exit status
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    from faults import savers

    savers.use(sys.argv[1])
    for module in sys.argv[2:]:
        importlib.import_module(module)
    pid = go = -1
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        if command == "fork":
            read_end, go = os.pipe()
            ready, write_end = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(go)
                os.close(ready)
                _child(read_end, write_end, arguments[0], arguments[1:])
            os.close(read_end)
            os.close(write_end)
            os.read(ready, 1)  # no fault may meet the child before it waits for its job
            os.close(ready)
            print(pid, flush=True)
        elif command == "begin":
            with suppress(BrokenPipeError):  # it was killed before it began
                os.write(go, b"x")
            os.close(go)
        elif command == "wait":
            print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main()
