"""How much memory is left: within the limit of a container, and never a guess."""

from pathlib import Path

from tensorkeep.backends.memory import available_bytes


def test_memory_that_is_left(tmp_path: Path) -> None:
    """The least of what the system and the groups leave, of either version; cached files are given back; nothing said is nothing left."""
    meminfo, group = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    group.write_text("0::/mine\n")

    def left() -> int:
        return available_bytes(str(meminfo), str(group), str(tmp_path))

    assert left() == 4000 * 1024
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/memory.max").write_text("max\n")
    (tmp_path / "mine/memory.current").write_text("500\n")
    assert left() == 4000 * 1024
    (tmp_path / "mine/memory.max").write_text("3000\n")
    assert left() == 2500
    (tmp_path / "mine/memory.stat").write_text("anon 1\ninactive_file 400\n")
    assert left() == 2900
    group.write_text("5:cpu,memory:/old\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("100")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("700")
    assert left() == 0
    assert available_bytes() > 1 << 20
