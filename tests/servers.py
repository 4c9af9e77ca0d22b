"""Real S3 servers that tests start, and a proxy before them that fails as it is told.

Each server is somebody else's: moto's, in this process, and localbucket, in one of its own. What is not installed is skipped by name.
"""

import importlib.util
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from tensorkeep.backends import object_places

BUCKET: Final = "tests-of-tensorkeep"
_PATIENCE_S: Final = 300  # with a server that is well, on a loaded machine


@contextmanager
def moto() -> Iterator[str]:
    """moto's S3 server, with a bucket; its URL."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        pytest.skip("moto's server is not installed: pip install 'moto[server]'")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "test")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        assert server._server is not None
        server._server.app = _one_at_a_time(server._server.app)
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        make_bucket(url)
        yield url
    finally:
        server.stop()


def _one_at_a_time(app: Callable[..., Any]) -> Callable[..., Any]:
    """The same, one request after the other. moto looks at a condition first and then stores: of two at once, both would be told yes."""
    lock = threading.Lock()

    def locked(environ: Any, start_response: Any) -> Any:
        with lock:
            return app(environ, start_response)

    return locked


@contextmanager
def localbucket(folder: Path) -> Iterator[str]:
    """localbucket, in a process of its own; its URL."""
    if importlib.util.find_spec("localbucket") is None:
        pytest.skip("localbucket is not installed: pip install localbucket")
    with _process([sys.executable, "-m", "localbucket", "--port", "{port}", str(folder)]) as url:
        make_bucket(url)
        yield url


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Have the usual environment lead to a server."""
    values = {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    for name, value in {**values, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_places, "in_use", object_places.Patience(pause_s=0.02))  # the server is near, and fails when told to


def make_bucket(url: str) -> None:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=_PATIENCE_S)
    connection.request("PUT", f"/{BUCKET}", headers={"Content-Length": "0"})
    assert connection.getresponse().status in (200, 409)
    connection.close()


@contextmanager
def _process(command: list[str]) -> Iterator[str]:
    for _ in range(5):  # somebody else may get the port before the server does
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        child = subprocess.Popen(
            [part.format(port=port) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            if _answers(child, port):
                yield f"http://127.0.0.1:{port}"
                return
        finally:
            child.kill()
            child.wait()
    raise AssertionError(f"{command[:3]} does not start")


def _answers(child: subprocess.Popen[bytes], port: int) -> bool:
    """Whether a server has come up; False if it has ended, or takes minutes."""
    end = time.monotonic() + _PATIENCE_S
    while child.poll() is None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.05)
    return False


@dataclass(frozen=True)
class Request:
    """What came to the proxy."""

    number: int
    method: str
    path: str
    headers: dict[str, str]

    @property
    def key(self) -> str:
        """What it is about, without bucket and query."""
        return self.path.partition("?")[0].removeprefix(f"/{BUCKET}/")


class Server(ThreadingHTTPServer):
    """One that lets as many wait as clients ask at once: beyond Python's five, the system would let connections wait for seconds."""

    request_queue_size = 128
    daemon_threads = True


Fault = str
"""What happens to a request.

`500`, `503`, `429`, `409`: the server answers that, and does nothing. `reset`: the connection breaks before it does anything. `lost`: it
does it, and the connection breaks before the answer. `500 after`: it does it, and says that it failed. `hang`: it does it, and is silent.
`partial`: half the answer's body, then the connection breaks.
"""


class Proxy:
    """Stands before a server. `decide` says what happens to a request; `requests` are those that came.

    Args:
        upstream: URL of the server.
        hours: how far its clock is off.
        hang_s: how long it is silent, for `hang`.
        without: headers of requests that the server does not know.
    """

    def __init__(self, upstream: str, *, hours: float = 0, hang_s: float = 3, without: tuple[str, ...] = ()) -> None:
        self.requests: list[Request] = []
        self.decide: Callable[[Request], Fault | None] = lambda request: None
        self.hours, self.hang_s, self.without = hours, hang_s, ("expect", *without)
        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), _handler(self, upstream.removeprefix("http://")))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def note(self, method: str, path: str, headers: Any) -> Request:
        with self._lock:
            request = Request(len(self.requests), method, path, {name.lower(): value for name, value in headers.items()})
            self.requests.append(request)
            return request

    def fail_each(self, fault: Fault, *, once: bool = True, of: Callable[[Request], bool] = lambda request: True) -> None:
        """Every request fails this way the first time that it comes, or each time; for `hang`, which takes long, one of each kind."""
        seen: set[tuple[str, str]] = set()

        def decide(request: Request) -> Fault | None:
            if not of(request):
                return None
            with self._lock:
                # What obstore asks anew after an answer that broke off begins later; its end stays.
                what = (request.method, re.sub("uploadId=[^&]*", "", request.path) + request.headers.get("range", "").partition("-")[2])
                if fault == "hang":
                    what = (request.method, "uploadId" if "upload" in request.path else "if" if "if-none-match" in request.headers else "")
                if once and what in seen:
                    return None
                seen.add(what)
            return fault

        self.decide = decide


def _handler(proxy: Proxy, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = proxy.note(self.command, self.path, self.headers)
            fault = proxy.decide(request) or ""
            if fault in _SAID:
                self._answer(int(fault), {"Content-Type": "application/xml"}, _SAID[fault])
                return
            if fault == "reset":
                self._break()
                return
            connection = HTTPConnection(upstream, timeout=_PATIENCE_S)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in proxy.without}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            answer = response.read()
            connection.close()
            if fault == "lost":
                self._break()
            elif fault == "500 after":
                self._answer(500, {"Content-Type": "application/xml"}, _SAID["500"])
            elif fault == "hang":
                time.sleep(proxy.hang_s)
                self._break()
            else:
                self._pass(response, answer, partial=fault == "partial")

        def _pass(self, response: HTTPResponse, answer: bytes, *, partial: bool) -> None:
            headers = dict(response.getheaders())
            if proxy.hours:
                headers, answer = _shifted(headers, answer, timedelta(hours=proxy.hours))
            self._answer(response.status, headers, answer, partial=partial)

        def _answer(self, status: int, headers: dict[str, str], answer: bytes, *, partial: bool = False) -> None:
            self.send_response_only(status)
            length = headers.get("Content-Length") if self.command == "HEAD" else str(len(answer))
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer[: len(answer) // 2] if partial else answer)
            if partial:
                self._break()

        def _break(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            with suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by reset
                self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

        def handle_one_request(self) -> None:
            with suppress(ConnectionError):
                super().handle_one_request()

    return Handler


_CODES: Final = {
    "500": "InternalError", "503": "SlowDown", "429": "TooManyRequests", "409": "ConditionalRequestConflict", "403": "AccessDenied",
}  # fmt: skip
_SAID: Final = {
    status: f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told to</Message></Error>".encode() for status, code in _CODES.items()
}


def _shifted(headers: dict[str, str], answer: bytes, by: timedelta) -> tuple[dict[str, str], bytes]:
    """The answer of a server whose clock is off."""
    for name in headers:
        if name.lower() in ("date", "last-modified"):
            headers[name] = format_datetime(parsedate_to_datetime(headers[name]) + by, usegmt=True)

    def shift(match: re.Match[bytes]) -> bytes:
        when = datetime.fromisoformat(match[1].decode()) + by
        return b"<LastModified>" + when.strftime("%Y-%m-%dT%H:%M:%S.000Z").encode() + b"</LastModified>"

    return headers, re.sub(rb"<LastModified>([^<]+)</LastModified>", shift, answer)
