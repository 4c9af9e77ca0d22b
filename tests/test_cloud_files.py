"""Model files in buckets: every verb takes their URLs, reads them by ranges, and writes them whole or not at all."""

import errno
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import servers
import tensorkeep as tk
from same import assert_same_bits
from servers import Proxy
from tensorkeep.cli import cli

pytest.importorskip("obstore", reason="obstore is not installed: pip install tensorkeep[cloud]")

STATE: dict[str, Any] = {"embed": np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024), "small": np.arange(3), "epoch": 3}
LARGE: dict[str, Any] = {"w": np.arange(9 << 20, dtype=np.uint16)}  # 18 MiB: two parts


@pytest.fixture
def proxy(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(moto_url, hang_s=1) as proxy:
        servers.use(monkeypatch, proxy.url)
        yield proxy


@pytest.fixture(params=["memory", "moto", "localbucket", "file"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}"
    scheme = "memory" if request.param == "memory" else "s3"
    if scheme == "s3":
        servers.use(monkeypatch, request.getfixturevalue(f"{request.param}_url"))
    return f"{scheme}://{servers.BUCKET}/{secrets.token_hex(8)}/a b%20c"


def test_every_verb_takes_a_url(place: str) -> None:
    """Saved, shown, verified, opened, scanned, compared, converted and loaded, bit for bit, where it is."""
    url = f"{place}/run.safetensors"
    tk.save(STATE, url)
    assert_same_bits(tk.load(url), STATE)
    assert tk.verify(url).intact
    assert tk.show(url).tensors == 2
    assert tk.scan(url).findings == ()
    with tk.open(url) as file:
        assert file.tensors["embed"][5, :3].tolist() == [5120.0, 5121.0, 5122.0]
    done = tk.convert(url, f"{place}/run.npz")
    assert (done.target, done.files) == (tk.convert(url, f"{place}/run.npz", dry_run=True).target, ("run.npz",))
    assert_same_bits(tk.load(f"{place}/run.npz")["embed"], STATE["embed"])
    tk.convert(url, f"{place}/again.safetensors")
    assert tk.same(url, f"{place}/again.safetensors")
    assert tk.diff(url, f"{place}/again.safetensors").same
    into = {"embed": np.zeros((1024, 1024), np.float32), "small": np.zeros(3, np.int64)}
    tk.load(url, into=into)
    assert_same_bits(into["embed"], STATE["embed"])


def test_the_command_line_takes_a_url(place: str) -> None:
    """So does each command."""
    tk.save(STATE, f"{place}/run.safetensors")
    for command in (["show"], ["verify"], ["scan"], ["diff", f"{place}/run.safetensors"]):
        ran = CliRunner().invoke(cli, [*command, f"{place}/run.safetensors"])
        assert ran.exit_code == 0, ran.output
    ran = CliRunner().invoke(cli, ["convert", f"{place}/run.safetensors", f"{place}/run.npz"])
    assert ran.exit_code == 0, ran.output
    assert tk.show(f"{place}/run.npz").tensors == 2


@pytest.mark.parametrize("state", [STATE, LARGE], ids=["one part", "two parts"])
def test_without_overwrite_nothing_is_replaced(place: str, state: dict[str, Any]) -> None:
    """Who comes second is told, also if it began before the first ended."""
    url = f"{place}/run.safetensors"

    def progress(done: int, whole: int) -> None:
        if done == whole:
            tk.save({**state, "number": 1}, url)

    with pytest.raises(FileExistsError, match="overwrite=True replaces it"):
        tk.save({**state, "number": 2}, url, overwrite=False, progress=progress)
    assert tk.load(url)["number"] == 1
    with pytest.raises(FileExistsError, match="overwrite=True replaces it"):
        tk.save(state, url, overwrite=False)
    tk.save(state, url)
    assert "number" not in tk.load(url)


@pytest.mark.parametrize("state", [STATE, LARGE], ids=["one part", "two parts"])
def test_what_was_interrupted_leaves_the_old_object(place: str, state: dict[str, Any]) -> None:
    """No part of the new one is seen, whenever it broke off."""
    url = f"{place}/run.safetensors"
    tk.save({"old": 1}, url)

    def progress(done: int, whole: int) -> None:
        if done == whole:
            raise KeyboardInterrupt

    for name, overwrite in ((url, True), (f"{url}2", False)):
        with pytest.raises(KeyboardInterrupt):
            tk.save(state, name, overwrite=overwrite, progress=progress)
    assert tk.load(url) == {"old": 1}
    with pytest.raises(FileNotFoundError):
        tk.load(f"{url}2")


@pytest.mark.parametrize("fault", ["503", "lost", "partial"])
def test_every_request_fails_once_and_all_is_well(proxy: Proxy, fault: str) -> None:
    """A failure that may pass is no failure of the save or the load, whether the server did what it was asked or not."""
    url = f"s3://{servers.BUCKET}/{secrets.token_hex(8)}.safetensors"
    for number, (state, overwrite) in enumerate(((STATE, True), (STATE, False), (LARGE, fault == "503"))):
        proxy.fail_each(fault)
        tk.save(state, f"{url}-{number}", overwrite=overwrite)
        assert_same_bits(tk.load(f"{url}-{number}"), state)


def test_a_save_takes_few_requests(proxy: Proxy) -> None:
    """Two for a small file; for a large one, those of its parts and three more. A load of a few rows takes few bytes."""
    url = f"s3://{servers.BUCKET}/{secrets.token_hex(8)}.safetensors"
    tk.save(STATE, url)
    assert [request.method for request in proxy.requests] == ["HEAD", "PUT"]
    proxy.requests.clear()
    tk.save(LARGE, url)
    assert sorted(request.method for request in proxy.requests) == ["HEAD", "POST", "POST", "PUT", "PUT"]
    proxy.requests.clear()
    with tk.open(url) as file:
        assert file.tensors["w"][5:7].tolist() == [5, 6]
    assert len(proxy.requests) <= 3 and all("range" in request.headers for request in proxy.requests)


def test_an_object_that_changes_is_no_mixture(place: str) -> None:
    """Every request names the version that was opened."""
    url = f"{place}/run.safetensors"
    tk.save(STATE, url)
    with tk.open(url) as file:
        tk.save({**STATE, "embed": STATE["embed"] + 1}, url)
        if url.startswith("file"):
            assert file.tensors["embed"][0, 0] == 0  # the old file is kept by who has it open
            return
        with pytest.raises(OSError, match="changed"):
            file.tensors["embed"].numpy()


def test_what_cannot_be_done_is_said(place: str) -> None:
    """Nothing there, a bucket instead of an object, a folder that would have to be written."""
    with pytest.raises(FileNotFoundError):
        tk.load(f"{place}/missing.safetensors")
    tk.save({"w": np.ones(3, np.float32)}, f"{place}/run.safetensors")
    if not place.startswith("file"):
        for url in (f"{place.partition('://')[0]}://{servers.BUCKET}", f"{place}/"):
            for call in (tk.load, lambda url: tk.save({}, url)):
                with pytest.raises(IsADirectoryError):
                    call(url)
        with pytest.raises(OSError, match="convert into one, and copy it") as caught:
            tk.convert(f"{place}/run.safetensors", f"{place}/shards", max_shard_size="1MB")
        assert caught.value.errno == errno.ENOTSUP
    with pytest.raises(OSError):
        tk.load("file://elsewhere/run.safetensors")


def test_an_empty_object_is_told(place: str) -> None:
    """As an empty file is."""
    import obstore

    from tensorkeep.backends.object_places import place_of

    if not place.startswith("file"):
        store, path = place_of(f"{place}/empty")
        obstore.put(store, path, b"")
        with pytest.raises(tk.FormatError, match="empty"):
            tk.load(f"{place}/empty")
