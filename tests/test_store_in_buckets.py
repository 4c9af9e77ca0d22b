"""The store in an object store: the same as in a folder, whatever of its requests fails."""

import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import servers
import tensorkeep as tk
from same import assert_same_bits
from servers import Proxy

pytest.importorskip("obstore", reason="obstore is not installed: pip install tensorkeep[cloud]")


@pytest.fixture
def proxy(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(moto_url) as proxy:
        servers.use(monkeypatch, proxy.url)
        yield proxy


@pytest.fixture(params=["memory", "moto", "localbucket"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "memory":
        return f"memory://{secrets.token_hex(8)}/runs/a"
    servers.use(monkeypatch, request.getfixturevalue(f"{request.param}_url"))
    return f"s3://{servers.BUCKET}/{secrets.token_hex(8)}/runs/a"


def test_exports_and_averages_go_to_urls(url: str) -> None:
    """Wherever a path goes, a URL does too."""
    bucket = url.removesuffix("/runs/a")
    with tk.Store(url) as store:
        for step in (1, 3):
            store.save({"w": np.full(3, float(step))}, step=step)
        assert store.export("step-1", f"{bucket}/one.safetensors").file == f"{bucket}/one.safetensors"
        store.average(path=f"{bucket}/mean.safetensors")
    assert tk.load(f"{bucket}/one.safetensors")["w"].tolist() == [1, 1, 1]
    assert tk.load(f"{bucket}/mean.safetensors")["w"].tolist() == [2, 2, 2]
    assert tk.verify(f"{bucket}/one.safetensors").intact


FROZEN = np.random.default_rng(0).standard_normal(300_000).astype(np.float32)


def state(step: int) -> dict[str, Any]:
    return {"w": np.random.default_rng(step).standard_normal((200, 500)).astype(np.float32), "frozen": FROZEN, "epoch": step}


def run(url: str) -> None:
    """A run: saved, gone on with, tagged, gone back, cleaned; every checkpoint that is left loads bit for bit."""
    with tk.Store(url, keep=tk.Keep(last=3)) as store:
        assert store.resume() is None
        for step in range(5):
            store.save(state(step), step=step, metrics={"loss": 1 / (step + 1)})
        store.finish()
        store.tag("good", "step-2")
    with tk.Store(url) as store:
        start = store.resume()
        assert start is not None and (start.step, start.metrics) == (4, {"loss": 0.2})
        assert_same_bits(start.state, state(4))
        store.rollback("step-3")
        store.save(state(40), step=4, metrics={"loss": 0.1}, wait=True)
        store.delete("step-2")
        store.gc()
        assert store.steps() == [0, 1, 3, 4]  # a bucket keeps each for an hour, whatever the policy says: "step-2" alone was deleted
    assert_same_bits(tk.load(f"{url}@latest"), state(40))
    assert_same_bits(tk.load(f"{url}@good"), state(2))
    assert_same_bits(tk.load(url, only="w"), {"w": state(40)["w"]})


def test_a_run_in_a_bucket(url: str) -> None:
    """By the same code as in a folder."""
    run(url)
    with tk.Store(url) as store, pytest.raises(tk.StepExists):
        store.save(state(0), step=4, wait=True)


@pytest.mark.parametrize("fault", ["503", "lost", "partial"])
def test_every_request_fails_once_and_the_run_is_well(proxy: Proxy, fault: str) -> None:
    """Whether the server did what it was asked, or not: no checkpoint is lost or wrong, and no save is told to have failed."""
    proxy.fail_each(fault)
    run(f"s3://{servers.BUCKET}/{secrets.token_hex(8)}/run")


def test_how_many_requests_a_save_and_a_resume_take(proxy: Proxy) -> None:
    """As docs/how-to/buckets.md says it."""
    url = f"s3://{servers.BUCKET}/{secrets.token_hex(8)}/run"
    with tk.Store(url) as store:
        taken = []
        for step in range(4):
            before = len(proxy.requests)
            store.save(state(step), step=step, wait=True)
            taken.append(len(proxy.requests) - before)
    assert max(taken) <= 16, taken
    before = len(proxy.requests)
    tk.Store(url).resume()
    assert len(proxy.requests) - before <= 16
    before = len(proxy.requests)
    tk.load(f"{url}@latest", only="epoch")
    assert len(proxy.requests) - before <= 10
