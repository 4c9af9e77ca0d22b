"""Stores put to every test that there is, for as long as one wants: `python tests/endurance.py --minutes 15`.

Every point of `store_faults`, kills at random moments, eight processes at once. Prints what was done; the first promise that does not hold
ends it, with what replays it.
"""

import argparse
import multiprocessing
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

import store_faults
import store_processes


def main() -> None:
    """Divide the time: a fifth for faults, a tenth for kills, the rest for the crowd."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbits(31))
    asked = parser.parse_args()
    seconds, rng = 60 * asked.minutes, random.Random(asked.seed)
    print(f"seed {asked.seed}", flush=True)
    points = store_faults.points()
    order = rng.sample(range(len(points)), len(points))
    began = time.monotonic()
    with multiprocessing.Pool() as pool:
        done = 0
        for said in pool.imap_unordered(_check, order, chunksize=4):
            if said:
                sys.exit(said)
            done += 1
            if time.monotonic() - began > 0.2 * seconds:
                break
        pool.terminate()
    print(f"{done:,} of {len(points):,} points at which a call fails, is answered wrongly or is the last: all well", flush=True)
    began, kills, saved = time.monotonic(), 0, 0
    while time.monotonic() - began < 0.1 * seconds:
        with tempfile.TemporaryDirectory() as folder:
            saved += store_processes.kills(Path(folder) / "run", 50, rng.getrandbits(31))
            kills += 50
    print(f"{kills:,} kills at random moments, {saved:,} checkpoints saved: none that was committed is lost or wrong", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        saved = store_processes.crowd(Path(folder) / "run", 0.7 * seconds, rng.getrandbits(31))
    print(f"8 processes for {0.7 * seconds:.0f} s, {saved:,} checkpoints saved: all well", flush=True)


def _check(number: int) -> str:
    try:
        store_faults.check(store_faults.points()[number])
    except BaseException as error:  # noqa: BLE001  # told by the process that asked
        return f"point {number}: {store_faults.points()[number]}: {error!r}\nAgain: python tests/store_faults.py {number}"
    return ""


if __name__ == "__main__":
    main()
