"""JAX in several processes: what a process has whole is saved by it, the rest is refused, and a file loads under any sharding."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="JAX is not installed")

SCRIPT = """
    import sys

    import jax
    import numpy as np
    from jax.experimental import multihost_utils
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    import tensorkeep as tk

    number, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, number)
    multihost_utils.sync_global_devices("begun")
    print("together", flush=True)
    mesh = Mesh(np.array(jax.devices()), ("x",))
    assert len(jax.devices()) == 4 and len(jax.local_devices()) == 2
    whole = np.arange(16, dtype="f4").reshape(8, 2)

    def placed(array, *axes):
        return jax.make_array_from_callback(array.shape, NamedSharding(mesh, PartitionSpec(*axes)), lambda index: array[index])

    state = {"replicated": placed(whole), "own": jax.device_put(whole, jax.local_devices()[1])}
    path = f"{folder}/{number}.safetensors"
    tk.save(state, path)
    assert all((array == whole).all() for array in tk.load(path, framework="numpy").values())

    sharded = placed(whole, "x")
    try:
        tk.save({"w": sharded}, path)
    except tk.UnsupportedError as error:
        assert error.path == "w" and "other processes" in str(error) and "multihost_utils" in str(error)
    else:
        raise AssertionError("half of an array was saved")

    gathered = multihost_utils.process_allgather(sharded, tiled=True)
    if number == 0:
        tk.save({"w": gathered}, f"{folder}/whole.safetensors")
    multihost_utils.sync_global_devices("saved")
    for target in (placed(np.zeros_like(whole), "x"), placed(np.zeros_like(whole), None, None)):
        loaded = tk.load(f"{folder}/whole.safetensors", into={"w": target})["w"]
        assert loaded.sharding == target.sharding
        assert all((np.asarray(shard.data) == whole[shard.index]).all() for shard in loaded.addressable_shards)
"""


def test_two_processes_save_what_they_have_and_load_what_they_share(tmp_path: Path) -> None:
    """Two devices each: replicated and local arrays are saved by any process, those that lie in both are refused and said how to gather."""
    for _ in range(3):  # where they do not even meet, as when another took the port meanwhile, that is JAX's and the machine's
        codes, said = _two_processes(tmp_path)
        if all("together" in text for text in said):
            break
    assert codes == [0, 0], "\n".join(said)


def _two_processes(folder: Path) -> tuple[list[int], list[str]]:
    """How the script ended in each, and what it said."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [*command, str(number), str(port), str(folder)], env={**os.environ, **environment}, stdout=-1, stderr=-2, text=True
        )
        for number in range(2)
    ]
    try:
        said = []
        for process in running:
            said.append(process.communicate(timeout=1000)[0])
            if process.returncode:
                running[-1].kill()  # it would wait minutes for the first
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], said
