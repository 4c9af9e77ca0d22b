"""Savers: small jobs for children to be killed in, and how to tell what they left."""

import dataclasses
import errno
import hashlib
import os
import resource
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

import tensorkeep as tk
from same import assert_same_bits
from tensorkeep.backends import capabilities, local

NBYTES: Final = 3 * 4096 + 1000  # several pages, and one that is not full
_CUTS: Final = (0, 100, 4096, 9000, NBYTES)


def content(version: int) -> bytes:
    """What `save_tiny` writes: every byte depends on the version, and the last ones prove the rest."""
    body = hashlib.shake_256(version.to_bytes(8, "little")).digest(NBYTES - 40)
    body = version.to_bytes(8, "little") + body
    return body + hashlib.sha256(body).digest()


def state(version: int) -> dict[str, Any]:
    """What `save_state` saves: large tensors, small ones, plain values."""
    return {
        "version": version,
        "large": [np.full(300_000, version, np.float32) for _ in range(2)],
        "small": {f"layer.{number}": np.full(50, version + number) for number in range(100)},
    }


def old_file(target: Path, version: int) -> None:
    """Put a file there that one of the jobs might have written."""
    target.write_bytes(tk.dumps(state(version)) if target.suffix == ".safetensors" else content(version))


def version_of(path: Path) -> int:
    """Which version a file holds, whole; an AssertionError if it is none."""
    if path.suffix == ".safetensors":
        assert tk.verify(path).intact, f"{path} is no whole model file"
        found = tk.load(path)
        assert_same_bits(found, state(found["version"]))
        return int(found["version"])
    data = path.read_bytes()
    version = int.from_bytes(data[:8], "little")
    assert data == content(version), f"{path} is no whole file: {len(data)} bytes"
    return version


def parts(version: int) -> Iterator[tuple[int, list[memoryview]]]:
    view = memoryview(content(version))
    for start, stop in pairwise(_CUTS):
        middle = (start + stop) // 2
        yield start, [view[start:middle], view[middle:stop]]


def save_tiny(path: str, version: int, durable: bool = True, overwrite: bool = True) -> None:
    """Save in several writes."""
    with local.replacing(path, nbytes=NBYTES, durable=durable, overwrite=overwrite) as pending:
        for offset, pieces in parts(version):
            pending.write(offset, pieces)


def save_state(path: str, version: int) -> None:
    """The public verb."""
    tk.save(state(version), path)


def save_not_durable(path: str, version: int) -> None:
    save_tiny(path, version, durable=False)


def save_new(path: str, version: int) -> None:
    save_tiny(path, version, overwrite=False)


def save_for_ever(path: str, version: int) -> None:
    while True:
        if path.endswith(".safetensors"):
            tk.save(state(version), path, durable=version % 7 == 0)
        else:
            save_tiny(path, version, durable=version % 7 == 0)
        version += 1


def use(name: str) -> None:
    """Use all optional system calls, or none."""
    capabilities.in_use = {"all": capabilities.ALL, "none": capabilities.NONE}[name]


def temporaries(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".tmp"))


def save_with_little_room(path: str, version: int, limit: int) -> None:
    """Save where no file may be larger than a limit: a short write, then an error, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    save_tiny(path, version)


def save_with_little_limit_told(path: str, version: int) -> None:
    """The error of a limit on file size names the limit, and no free space."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        save_tiny(path, version)
    except OSError as error:
        assert error.errno == errno.EFBIG and "ulimit -f" in str(error) and "free" not in str(error), error


def save_as_nobody(path: str, version: int) -> None:
    """Save as a user without any right."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    save_tiny(path, version)


def save_with_umask(path: str, version: int, umask: int) -> None:
    os.umask(umask)
    save_tiny(path, version)


def save_in_short_writes(path: str, version: int) -> None:
    """Save where the system takes at most 1,000 bytes a call."""
    pwritev, write = os.pwritev, os.write
    os.pwritev = lambda fd, buffers, offset: pwritev(fd, [buffers[0][:1000]], offset)
    os.write = lambda fd, data: write(fd, data[:1000])
    save_tiny(path, version)


def save_and_fork(path: str, version: int) -> None:
    """Save, with forks in the middle of it and after: a child that ends at once, one that leaves by an error, one that saves itself."""
    with local.replacing(path, nbytes=NBYTES) as pending:
        for number, (offset, pieces) in enumerate(parts(version)):
            if (pid := os.fork()) == 0:
                if number == 0:
                    os._exit(0)
                if number == 1:
                    raise RuntimeError("the child leaves the block by an error")
                if number == 2:
                    save_tiny(path + ".other", version)
                    os._exit(0)
                break  # the last child tries to finish its parent's save: an error
            os.waitpid(pid, 0)
            pending.write(offset, pieces)
    if (pid := os.fork()) == 0:
        save_tiny(path + ".after", version)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def save_on_full_disk(folder: str) -> None:
    """On a file system of 64 KiB: a save that does not fit leaves the old file, says both sizes, and the next one that fits works."""
    target = Path(folder, "run.bin")
    save_tiny(str(target), 1)
    for reserve_first in (True, False):
        capabilities.in_use = dataclasses.replace(capabilities.in_use, preallocate=reserve_first and capabilities.in_use.preallocate)
        for nbytes in (60_000, 1 << 20):
            try:
                with local.replacing(target, nbytes=nbytes) as pending:
                    for offset in range(0, nbytes, 10_000):
                        pending.write(offset, [memoryview(bytes(min(10_000, nbytes - offset)))])
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                assert f"{nbytes:,} bytes needed" in str(error) and "free" in str(error) and "old file is untouched" in str(error), error
            else:
                raise AssertionError("it cannot have fitted")
            assert version_of(target) == 1
            assert os.listdir(folder) == ["run.bin"]
    save_tiny(str(target), 2)
    assert version_of(target) == 2
    print("full disk: all held")


if __name__ == "__main__":
    use(sys.argv[1])
    save_on_full_disk(sys.argv[2])
