"""How long saving and loading take, as time over a peer's time, both measured in turn in one process: `python -m benchmarks`."""
