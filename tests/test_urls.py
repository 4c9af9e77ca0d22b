"""Files at URLs: read by ranges from a server that the tests start, and never fetched whole where a part will do."""

import contextlib
import http.server
import io
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import servers
import tensorkeep as tk
from same import assert_same_bits
from tensorkeep.modelfile import held

pytest.importorskip("obstore")


class Server:
    """A server of files in memory, which notes what it is asked.

    Attributes:
        files: by path.
        asked: method, path and range of each request.
        given: bytes of answers, all together.
        ranges: whether parts are given.
        version, token, failures: of its ETag; what it wants to be told; how many requests still fail.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.given = 0
        self.ranges = True
        self.version = 1
        self.token = ""
        self.failures = 0
        self.elsewhere = ""
        self.tokens: list[str | None] = []
        outer, counting = self, threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
                wanted = self.headers.get("range", "")
                outer.asked.append((self.command, path, wanted))
                outer.tokens.append(self.headers.get("authorization"))
                if path.startswith("/elsewhere/") and outer.elsewhere:
                    self.answer(302, b"", {"location": outer.elsewhere + urllib.parse.quote(path)})
                elif path.startswith("/moved/"):
                    self.answer(302, b"", {"location": urllib.parse.quote(path.removeprefix("/moved"))})
                elif outer.failures:
                    outer.failures -= 1
                    self.answer(503, b"", {})
                elif outer.token and self.headers.get("authorization") != f"Bearer {outer.token}":
                    self.answer(401, b"", {})
                elif path not in outer.files:
                    self.answer(404, b"not here", {})
                elif self.headers.get("if-match", self.etag) != self.etag:
                    self.answer(412, b"", {})
                else:
                    self.give(outer.files[path], wanted)

            @property
            def etag(self) -> str:
                return f'"{outer.version}"'

            def give(self, data: bytes, wanted: str) -> None:
                headers = {"etag": self.etag, "last-modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
                if not wanted or not outer.ranges:
                    self.answer(200, data, headers)
                    return
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                part = data[int(first) : int(last) + 1]
                if not part:
                    self.answer(416, b"", headers | {"content-range": f"bytes */{len(data)}"})
                    return
                self.answer(206, part, headers | {"content-range": f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"})

            def answer(self, code: int, data: bytes, headers: dict[str, str]) -> None:
                self.send_response(code)
                for key, value in (headers | {"content-length": str(len(data))}).items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    with counting:  # first: whoever has the bytes may look at once
                        outer.given += len(data)
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has had enough
                        self.wfile.write(data)

        self._server = servers.Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


STATE: dict[str, Any] = {"embed": np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024), "small": np.arange(3), "epoch": 3}


def test_a_strangers_file_is_scanned_where_it_is(server: Server) -> None:
    """Before it is downloaded, and told by its URL."""
    server.files["/stranger.pkl"] = b"cposix\nsystem\n(S'id'\ntR."
    scan = tk.scan(server.url + "/stranger.pkl?download=true")
    assert [finding.severity for finding in scan.findings] == ["dangerous"] and scan.file.startswith(server.url)
    with pytest.raises(FileNotFoundError, match="nothing is at this URL") as caught:
        tk.scan(server.url + "/nothing.pkl")
    assert caught.value.filename == server.url + "/nothing.pkl"


def test_a_model_file_loads_from_a_url_bit_for_bit(server: Server) -> None:
    """`load`, `verify` and `show` take a URL, spaces and queries in it, and follow where it was moved."""
    server.files["/a model.safetensors"] = tk.dumps(STATE)
    for url in ("/a%20model.safetensors", "/a%20model.safetensors?download=true", "/moved/a%20model.safetensors"):
        assert_same_bits(tk.load(server.url + url), STATE)
        assert tk.verify(server.url + url).intact
        assert tk.show(server.url + url).tensors == 2
    into = {"embed": np.zeros((1024, 1024), np.float32), "small": np.zeros(3, np.int64)}
    tk.load(server.url + "/a%20model.safetensors", into=into)
    assert_same_bits(into["embed"], STATE["embed"])


def test_nothing_is_fetched_twice(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a model too, though every digest is compared before the first byte is in place; beyond a limit of memory, some is."""
    server.files["/m.safetensors"] = data = tk.dumps({**STATE, **{f"small.{number}": np.full(3000, number) for number in range(200)}})
    for most, given in ((1 << 30, 1.1), (5 << 20, 1.6)):
        monkeypatch.setattr(held, "MOST_BYTES", most)
        into = {"embed": np.zeros((1024, 1024), np.float32), **{f"small.{number}": np.zeros(3000, np.int64) for number in range(200)}}
        server.given = 0
        tk.load(f"{server.url}/m.safetensors", into=into)
        assert_same_bits(into["embed"], STATE["embed"])
        assert all((into[f"small.{number}"] == number).all() for number in range(200))
        assert (given - 0.2) * len(data) < server.given < given * len(data) + (512 << 10)


def test_a_few_rows_take_few_bytes(server: Server) -> None:
    """Of a file of 4 MiB, the header, and the chunks of the rows that are touched."""
    server.files["/m.safetensors"] = tk.dumps(STATE)
    with tk.open(f"{server.url}/m.safetensors") as file:
        assert file.tensors["embed"][5, :3].tolist() == [5120.0, 5121.0, 5122.0]
    assert server.given < 2 << 20
    assert {method for method, _, _ in server.asked} == {"GET"}


def test_other_formats_are_read_by_ranges_too(server: Server) -> None:
    """An archive of NumPy's, of which one member is touched."""
    buffer = io.BytesIO()
    np.savez(buffer, embed=STATE["embed"], small=STATE["small"])
    server.files["/m.npz"] = buffer.getvalue()
    with tk.open(f"{server.url}/m.npz") as file:
        assert file.tensors["small"].numpy().tolist() == [0, 1, 2]
    assert server.given < 1 << 20
    assert_same_bits(tk.load(f"{server.url}/m.npz")["embed"], STATE["embed"])


def test_an_archive_of_many_records_is_opened_by_few_requests(server: Server) -> None:
    """The directory and the pickle of a torch archive are read, and of its tensors only what is touched."""
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    torch.save({f"layer.{number}": torch.full((128, 1024), float(number)) for number in range(40)}, buffer)
    server.files["/net.pt"] = buffer.getvalue()
    with tk.open(f"{server.url}/net.pt") as f:
        assert len(f.tensors) == 40
        assert server.given < len(server.files["/net.pt"]) // 10 and len(server.asked) < 10
        assert f.tensors["layer.7"][3:5].tolist() == [[7.0] * 1024] * 2
        assert len(server.asked) < 13


def test_the_hub_is_asked_as_its_own_tools_ask(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hf://owner/name/file`, with a revision, and a token that goes along."""
    server.files["/owner/name/resolve/main/model.safetensors"] = tk.dumps({"w": np.ones(2)})
    server.files["/owner/name/resolve/refs/pr/1/sub/m.safetensors"] = tk.dumps({"w": np.zeros(2)})
    server.token = "secret"
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(PermissionError, match="HF_TOKEN"):
        tk.load("hf://owner/name/model.safetensors")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert tk.load("hf://owner/name/model.safetensors")["w"].tolist() == [1.0, 1.0]
    assert tk.load("hf://owner/name@refs/pr/1/sub/m.safetensors")["w"].tolist() == [0.0, 0.0]
    with pytest.raises(OSError, match="hf://owner/name/file"):
        tk.load("hf://owner/name")


def test_a_token_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub sends one on to another host, the token stays behind."""
    hub, bucket = Server(), Server()
    try:
        hub.elsewhere = bucket.url
        bucket.files["/elsewhere/name/resolve/main/m.safetensors"] = tk.dumps({"w": 1})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "secret")
        assert tk.load("hf://elsewhere/name/m.safetensors") == {"w": 1}
        assert set(hub.tokens) == {"Bearer secret"} and set(bucket.tokens) == {None}
    finally:
        hub.stop()
        bucket.stop()


def test_a_file_that_changes_is_no_mixture(server: Server) -> None:
    """Every request names the version that was opened."""
    server.files["/m.safetensors"] = tk.dumps(STATE)
    with tk.open(f"{server.url}/m.safetensors") as file:
        server.version += 1
        with pytest.raises(OSError, match="changed"):
            file.tensors["embed"].numpy()


def test_what_a_server_refuses_is_said_in_plain_words(server: Server) -> None:
    """Nothing there, no parts, an empty file, no server, a scheme that is not read."""
    with pytest.raises(FileNotFoundError):
        tk.load(f"{server.url}/missing.safetensors")
    server.files["/empty"] = b""
    with pytest.raises(tk.FormatError):
        tk.load(f"{server.url}/empty")
    server.files["/m.safetensors"] = tk.dumps(STATE)
    server.ranges = False
    with pytest.raises(OSError, match="parts of a file"):
        tk.load(f"{server.url}/m.safetensors")
    with pytest.raises(OSError, match="not supported yet"):
        tk.load("ftp://host/m.safetensors")
    with pytest.raises(OSError, match="not supported yet"):
        tk.save({}, f"{server.url}/m.safetensors")


def test_a_server_that_is_busy_is_asked_again(server: Server) -> None:
    """A failure that may pass is no failure of the load."""
    server.files["/m.safetensors"] = tk.dumps(STATE)
    server.failures = 2
    assert tk.load(f"{server.url}/m.safetensors")["epoch"] == 3


def test_damage_on_the_way_is_found(server: Server) -> None:
    """Digests are compared as on a disk."""
    data = bytearray(tk.dumps(STATE))
    data[-5] ^= 1
    server.files["/m.safetensors"] = bytes(data)
    with pytest.raises(tk.CorruptError):
        tk.load(f"{server.url}/m.safetensors")
    assert tk.verify(f"{server.url}/m.safetensors").damaged
