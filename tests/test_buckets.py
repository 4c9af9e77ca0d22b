"""Object stores that fail: real servers behind a proxy that breaks what it is told to."""

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import servers
from servers import Proxy, Request
from tensorkeep.backends.keys import UnsureError, may_mend
from tensorkeep.store import exclusive

obstore = pytest.importorskip("obstore", reason="obstore is not installed: pip install tensorkeep[cloud]")

from tensorkeep.backends.bucket import BucketBackend  # noqa: E402  # both need obstore
from tensorkeep.backends.object_places import Patience, place_of  # noqa: E402

SHORT = Patience(retries=2, pause_s=0.05, tries=3)
PART = 5 << 20
LARGE = bytes(range(256)) * (11 * 4096)  # 11 MiB: three parts


@pytest.fixture
def proxy(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(moto_url) as proxy:
        servers.use(monkeypatch, proxy.url)
        yield proxy


@pytest.fixture
def backend(proxy: Proxy) -> BucketBackend:
    return fresh()


def fresh(patience: Patience = SHORT) -> BucketBackend:
    """An empty place, proven already."""
    backend = BucketBackend(f"s3://{servers.BUCKET}/{secrets.token_hex(8)}", patience=patience, part_bytes=PART)
    backend.prove()
    return backend


def view(data: bytes) -> list[memoryview]:
    return [memoryview(data)]


def created(backend: BucketBackend, key: str, data: bytes) -> None:
    """Rule 6 of the protocol: "exists" is settled by reading."""
    try:
        backend.create(key, view(data))
    except FileExistsError:
        assert backend.get(key, limit=100) == data


def session(backend: BucketBackend) -> None:
    """Everything that a store does, and what must come of it."""
    created(backend, "claims/w-1.json", b"claim")
    with backend.creating() as new:
        assert new.write("packs/w-1-0.pack", [memoryview(LARGE)[: 7 << 20]]) == 0
        assert new.write("packs/w-1-1.pack", view(b"small")) == 0
        assert new.write("packs/w-1-0.pack", [memoryview(LARGE)[7 << 20 :]]) == 7 << 20
    created(backend, "checkpoints/1.json", b"manifest")
    created(backend, "tags/best", b"old")
    try:
        backend.replace("tags/best", view(b"tag"), old=b"old")
    except FileExistsError:
        assert backend.get("tags/best", limit=100) == b"tag"
    assert backend.get("checkpoints/1.json", limit=100) == b"manifest"
    assert backend.stat("tags/best").nbytes == 3
    into = bytearray(10 << 20)
    backend.read("packs/w-1-0.pack", 1 << 20, 11 << 20, memoryview(into))
    assert into == LARGE[1 << 20 :]
    assert [(entry.key, entry.nbytes) for entry in backend.list("packs/")] == [("packs/w-1-0.pack", len(LARGE)), ("packs/w-1-1.pack", 5)]
    backend.delete("claims/w-1.json")
    backend.delete("packs/w-1-1.pack", "packs/none", "tags/best")
    left = [entry.key for prefix in ("claims/", "packs/", "checkpoints/", "tags/") for entry in backend.list(prefix)]
    assert left == ["packs/w-1-0.pack", "checkpoints/1.json"]


@pytest.mark.parametrize("server", ["moto", "localbucket"])
def test_the_servers_refuse_a_second_conditional_create(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What all that follows rests on, asked of obstore directly: the second is told, and the first one's bytes stay."""
    servers.use(monkeypatch, request.getfixturevalue(f"{server}_url"))
    store, _ = place_of(f"s3://{servers.BUCKET}")
    key = secrets.token_hex(8)
    obstore.put(store, key, b"first", mode="create")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, key, b"second", mode="create")
    assert obstore.get(store, key).bytes() == b"first"


def test_a_bucket_that_ignores_the_condition_is_refused_before_anything_is_written(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would let two writers overwrite each other; the error says so and what to use. Nothing is left in it."""
    with Proxy(moto_url, without=("if-none-match",)) as proxy:
        servers.use(monkeypatch, proxy.url)
        backend = BucketBackend(f"s3://{servers.BUCKET}/{secrets.token_hex(8)}", patience=SHORT)
        for _ in range(2):
            with pytest.raises(OSError, match="use one that knows conditional creates") as caught:
                backend.create("checkpoints/1.json", view(b"x"))
            assert caught.value.errno == errno.ENOTSUP and not isinstance(caught.value, UnsureError)
        assert list(backend.list("checkpoints/")) == list(backend.list("")) == []


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "lost", "500 after", "hang", "partial"])
def test_every_request_fails_once_and_all_is_well(proxy: Proxy, fault: str) -> None:
    """Whatever the failure, and whether the server did it before or not, each call does what it promises."""
    if fault == "hang":
        _hang(proxy)
    else:
        backend = fresh()
        proxy.fail_each(fault)
        session(backend)
    assert len(proxy.requests) > 20, "each has met the fault"


def _hang(proxy: Proxy) -> None:
    """With as much patience as it takes: on a loaded machine, a second is too little for a server that is well."""
    for request_s in (1, 5, 25, 125):
        proxy.decide, proxy.hang_s = lambda request: None, 1.5 * request_s
        try:
            backend = fresh(replace(SHORT, request_s=request_s))
            proxy.fail_each("hang")
            session(backend)
            return
        except OSError as error:
            failed = error
    raise failed


def test_a_conflict_on_a_create_is_tried_again(proxy: Proxy) -> None:
    """S3 answers 409 while another create of that key is under way: obstore calls it "exists", and there is none."""
    backend = fresh()
    proxy.fail_each("409", of=lambda request: request.method == "PUT" and "checkpoints" in request.path)
    backend.create("checkpoints/1.json", view(b"mine"))
    assert backend.get("checkpoints/1.json", limit=10) == b"mine"
    proxy.fail_each("409", once=False, of=lambda request: request.method == "PUT")
    with pytest.raises(UnsureError):
        backend.create("checkpoints/2.json", view(b"mine"))
    proxy.fail_each("409", of=lambda request: request.method == "PUT")
    fresh().create("checkpoints/1.json", view(b"mine"))  # nor is it taken for a bucket that overwrites
    assert fresh().now() > 0


@pytest.mark.parametrize("fault", ["503", "lost"])
def test_a_replacement_without_an_answer_may_have_been_done(proxy: Proxy, fault: str) -> None:
    """Nobody can say, where it was not done and where it was: who wants to know reads. A second try does not take it for another's."""
    backend = fresh()
    backend.create("tags/a", view(b"old"))
    proxy.fail_each(fault, once=False, of=lambda request: request.method == "PUT")
    with pytest.raises((UnsureError, FileExistsError)):
        backend.replace("tags/a", view(b"new"), old=b"old")
    proxy.decide = lambda request: None
    assert backend.get("tags/a", limit=9) == (b"new" if fault == "lost" else b"old")
    outcome = exclusive.put(backend, "tags/a", b"new", old=b"old", limit=100)
    assert outcome.done and backend.get("tags/a", limit=9) == b"new"


def test_a_bucket_that_ignores_the_condition_of_a_replacement_is_looked_at_first(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was changed before is left alone; only who comes between the look and the replacement is not seen."""
    with Proxy(moto_url, without=("if-match",)) as proxy:
        servers.use(monkeypatch, proxy.url)
        backend = fresh()
        backend.create("tags/a", view(b"other"))
        with pytest.raises(FileExistsError):
            backend.replace("tags/a", view(b"new"), old=b"old")
        backend.replace("tags/a", view(b"new"), old=b"other")
        assert backend.get("tags/a", limit=9) == b"new"


@pytest.mark.parametrize("fault", ["503", "reset", "hang"])
def test_a_server_that_stays_broken_is_an_error_in_time(proxy: Proxy, fault: str) -> None:
    """Every call ends, with an error that says that it may mend, and of a change that nobody knows whether it was made."""
    patience = Patience(2, 0.2, retries=1, retry_s=1, pause_s=0.02, tries=2)
    calm = fresh()
    calm.create("packs/a", view(b"abc"))
    backend = BucketBackend(calm.name, patience=patience, part_bytes=PART)
    backend._proven = True  # so much patience is too little for a loaded machine whose server is well
    proxy.fail_each(fault, once=False)

    def create_large() -> None:
        with backend.creating() as new:
            new.write("packs/b", view(LARGE))

    reads: list[Callable[[], Any]] = [
        lambda: backend.stat("packs/a"),
        lambda: backend.get("packs/a", limit=9),
        lambda: backend.list("packs/"),
        lambda: backend.read("packs/a", 0, 3, memoryview(bytearray(3))),
        lambda: backend.replace("packs/a", view(b"x"), old=b"abc"),  # which looks first
    ]
    changes: list[Callable[[], Any]] = [
        lambda: backend.create("packs/c", view(b"x")),
        lambda: backend.delete("packs/a"),
        lambda: backend.delete("packs/a", "packs/b"),
        create_large,
    ]
    for call in (*reads, *changes)[:: 4 if fault == "hang" else 1]:
        started = time.monotonic()
        with pytest.raises(OSError) as caught:
            call()
        assert may_mend(caught.value), caught.value
        assert isinstance(caught.value, UnsureError) == (call in changes), caught.value
        assert backend.name in str(caught.value)
        assert time.monotonic() - started < 60


def test_a_forbidden_bucket_is_no_missing_object(proxy: Proxy) -> None:
    """What the server says is told: which rights, and which bucket, are wanting."""
    with pytest.raises(FileNotFoundError, match="no such bucket"):
        BucketBackend(f"s3://no-{servers.BUCKET}", patience=SHORT).create("a", [])
    backend = fresh()
    proxy.decide = lambda request: "403"
    for call in (lambda: backend.stat("a"), lambda: backend.create("a", []), lambda: backend.delete("a"), lambda: list(backend.list(""))):
        with pytest.raises(PermissionError):
            call()


def test_a_clock_that_is_hours_off_does_not_matter(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages are told by the storage's own clock, whatever this machine thinks."""
    for hours in (-7, 9):
        with Proxy(moto_url, hours=hours) as proxy:
            servers.use(monkeypatch, proxy.url)
            backend = fresh()
            backend.create("claims/a", view(b"x"))
            (listed,) = backend.list("claims/")
            assert abs(listed.modified - (time.time() + hours * 3600)) < 1800
            assert -2 <= backend.now() - listed.modified < 1800
            assert abs(backend.stat("claims/a").modified - listed.modified) < 1
            backend.delete("claims/a")
            session(backend)


def test_requests_are_counted_as_the_server_sees_them(proxy: Proxy) -> None:
    """So that what a save costs can be stated."""
    backend = fresh()
    before, seen = sum(backend.requests.values()), len(proxy.requests)
    session(backend)
    assert sum(backend.requests.values()) - before == len(proxy.requests) - seen
    assert backend.requests["put"] >= 9


def test_nothing_between_keeps_small_objects(proxy: Proxy) -> None:
    """Claims, manifests and tags are marked so that no cache answers in the bucket's place; packs, which never change, are not."""
    backend = fresh()
    session(backend)
    marked = {request.key.partition("/")[2]: "no-store" in request.headers.get("cache-control", "") for request in puts(proxy)}
    assert marked["checkpoints/1.json"] and marked["claims/w-1.json"] and marked["tags/best"]
    assert not marked["packs/w-1-1.pack"]


def puts(proxy: Proxy) -> list[Request]:
    return [request for request in proxy.requests if request.method == "PUT"]


def test_an_upload_that_fails_leaves_nothing(proxy: Proxy, backend: BucketBackend) -> None:
    """Neither an object nor parts of one that nobody sees and everybody pays for."""
    with pytest.raises(ZeroDivisionError), backend.creating() as new:
        new.write("packs/a", view(LARGE))
        new.write("packs/a", view(LARGE))
        _ = 1 / 0
    assert list(backend.list("packs/")) == []
    begun = sum(request.method == "POST" and "uploads" in request.path for request in proxy.requests)
    assert begun == sum(request.method == "DELETE" and "uploadId" in request.path for request in proxy.requests) == 1


def test_probes_of_the_dead_are_leftovers(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between the first and the last request of a proof leaves a few bytes; an hour later they may go."""
    servers.use(monkeypatch, moto_url)
    backend = fresh()
    backend.create("probe-0123", view(b"first"))
    assert backend.leftovers("", "packs/", remove=True) == []
    with Proxy(moto_url, hours=-2) as proxy:  # what lies there is two hours old for whoever comes later
        servers.use(monkeypatch, proxy.url)
        early = BucketBackend(backend.name, patience=SHORT)
        left = [entry.key for entry in early.list("")]
        assert left == ["probe-0123"]
        monkeypatch.setattr(early, "now", backend.now)
        assert [entry.key for entry in early.leftovers("", remove=True)] == left
    assert list(backend.list("")) == []


def test_a_forked_child_is_told_instead_of_waiting_for_ever(backend: BucketBackend) -> None:
    """obstore's threads are not there in it."""
    child = os.fork()
    if child == 0:
        try:
            backend.list("")
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///path", "s3://bucket/a//b", "s3://bucket/../x", "s3://bucket/a\nb", "s3://buck et/x", "gs://", "memory://a/./b"]
)
def test_what_is_no_place_is_an_error_at_once(url: str) -> None:
    """No request is sent for a URL that names no bucket, or a path that could be read in two ways."""
    with pytest.raises(OSError) as caught:
        BucketBackend(url)
    assert caught.value.errno == errno.EINVAL
