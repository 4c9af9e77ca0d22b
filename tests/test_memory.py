"""What a save and a part of a load take beside their state: memory, and bytes of the disk."""

import os
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import tensorkeep as tk
from tensorkeep.backends import capabilities
from tensorkeep.errors import UnsupportedError
from test_restoring import _peak, linux

MIB = 1 << 20


@linux
@pytest.mark.parametrize("sink", ["path", "open('/dev/null', 'wb')"])
def test_one_copy_at_a_time_to_a_file_and_to_a_stream(tmp_path: Path, sink: str) -> None:
    """Four transposed tensors of 128 MiB: one of them, and 64 MiB."""
    code = f"""
    state = [np.ones((4096, 8192), np.float32).T for i in range(4)]
    print(measured(lambda: tk.save(state, {sink}, **({{"durable": False}}))))
    """
    assert _peak(code, tmp_path) < 192 * MIB


@linux
def test_truth_values_are_copied_once(tmp_path: Path) -> None:
    """A transposed mask of 128 MiB takes that, and 64 MiB."""
    code = """
    state = np.ones((8192, 16384), bool).T
    print(measured(lambda: tk.save(state, path, durable=False)))
    """
    assert _peak(code, tmp_path) < 192 * MIB


@linux
def test_dumps_takes_its_result(tmp_path: Path) -> None:
    """The bytes of 192 MiB, and 64 MiB."""
    code = """
    state = np.ones((6144, 8192), np.float32)
    print(measured(lambda: tk.dumps(state)))
    """
    assert _peak(code, tmp_path) < 256 * MIB


@linux
@pytest.mark.parametrize("mmap", [None, False])
def test_one_small_tensor_reads_little_from_the_disk(tmp_path: Path, mmap: bool | None) -> None:
    """Of a cold file of 64 MiB, a tensor of 4 KiB costs its chunk and a little."""
    if not capabilities.in_use.advice:
        return
    path = tmp_path / "state.safetensors"
    tk.save({f"l{number}": np.full(MIB, number, np.float32) for number in range(16)} | {"s": np.ones(512)}, path)

    def read_bytes() -> int:
        return int(re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)[1])  # type: ignore[index]

    def cooled() -> None:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    try:
        cooled()
        before = read_bytes()
        path.read_bytes()
        if read_bytes() - before < 32 * MIB:
            pytest.skip("the file cannot be made cold here")
    except PermissionError as error:
        pytest.skip(str(error))
    for name, most in (("s", MIB), ("l7", 6 * MIB)):
        counts = []
        for _ in range(5):  # a machine short of memory reads pages of its programs anew, too: the least is what the load takes
            cooled()
            before = read_bytes()
            tk.load(path, only=name, mmap=mmap)
            counts.append(read_bytes() - before)
        assert min(counts) < most, name


class TestArraysOfAnOpenFile:
    def test_they_cannot_change_what_is_read_later(self, tmp_path: Path) -> None:
        """A view of the mapping is read-only, a row of it too; a copy can be written to, and what `load` gives."""
        path = tmp_path / "state.safetensors"
        tk.save({"w": np.zeros((1000, 100))}, path)
        for verify in (True, False):
            with tk.open(path, verify=verify) as contents:
                lazy = contents.tensors["w"]
                for view in (lazy.numpy(), lazy[3], lazy[3:5]):
                    if view.flags.writeable:  # memory of its own, where nothing is mapped
                        view[...] = 1
                np.array(lazy)[...] = 1
                passed_on = np.from_dlpack(lazy)  # type: ignore[arg-type]
                if passed_on.flags.writeable:  # never, with NumPy 1
                    passed_on[...] = 1
                assert not lazy.numpy().any()
        loaded = tk.load(path)["w"]
        loaded[0] = 1
        assert not tk.load(path)["w"].any()

    @pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float4_e2m1fn])
    def test_what_dlpack_lacks_is_named(self, dtype: type) -> None:
        """A dtype that NumPy cannot pass on is a BufferError with what to do; another byte order is swapped."""
        with tk.open(_file({"w": np.ones(4, dtype), "big": np.arange(3, dtype=">i4")})) as contents:
            with pytest.raises(BufferError, match=r"framework='torch'"):
                np.from_dlpack(contents.tensors["w"])  # type: ignore[arg-type]
            assert np.from_dlpack(contents.tensors["big"]).tolist() == [0, 1, 2]  # type: ignore[arg-type]


def _file(state: object) -> object:
    import io

    return io.BytesIO(tk.dumps(state))


def test_hints_name_a_type_that_holds_the_values() -> None:
    """A complex array is not told to become real, nor one with fields a number."""
    for array, hint in (
        (np.ones(2, np.clongdouble), "complex128"),
        (np.zeros(2, [(("title", "a"), "f4")]), "array.dtype.names"),
        (np.ones(2, np.longdouble), "float64"),
    ):
        with pytest.raises(UnsupportedError, match=hint):
            tk.dumps(array)
