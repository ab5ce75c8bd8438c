"""The service behind Envoy: it keeps what reached it, which is what a test of a door looks at."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc

from tests.authorities import SERVER, Authority

HOST = "api.example.com"


@dataclass(frozen=True, slots=True)
class Act:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Upstream:
    """``acts``: what it did. ``gate``: a request of ``/open/wait`` waits for it. ``token``: without it nothing is done,
    where there is one; ``turned_away``: who came without it."""

    port: int
    acts: list[Act] = field(default_factory=list)
    token: str = ""
    turned_away: list[Act] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def paths(self) -> list[str]:
        return [act.path for act in self.acts]


@contextlib.contextmanager
def upstream(authority: Authority, place: Path, address: str = "127.0.0.1", port: int = 0) -> Iterator[Upstream]:
    """A server over TLS, for :data:`HOST`."""
    server = ThreadingHTTPServer((address, port), _Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who goes away in the middle does so on purpose
    shown = authority.issue(dns=[HOST], purposes=[SERVER])
    (place / "upstream.crt").write_bytes(shown.chain)
    (place / "upstream.key").write_bytes(shown.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "upstream.crt", place / "upstream.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    it = Upstream(server.server_address[1])
    server.it = it  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield it
    finally:
        it.gate.set()
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def grpc_upstream(authority: Authority, seen: list[Act]) -> Iterator[int]:
    """A gRPC server over TLS, for :data:`HOST`: `/echo.Echo/Back` sends back what comes, until it is told to fail."""

    def back(parts: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        metadata = {k: str(v) for k, v in context.invocation_metadata()}
        seen.append(Act("POST", "/echo.Echo/Back", metadata, b""))
        for part in parts:
            if part == b"fail":
                context.abort(grpc.StatusCode.INTERNAL, "as it was told")
            yield part

    shown = authority.issue(dns=[HOST], purposes=[SERVER])
    server = grpc.server(ThreadPoolExecutor(2))
    handlers = {"Back": grpc.stream_stream_rpc_method_handler(back)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", handlers),))
    credentials = grpc.ssl_server_credentials([(shown.key_pem, shown.chain)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # head and body in one piece
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        it: Upstream = self.server.it  # type: ignore[attr-defined]
        body = self._body()
        act = Act(self.command, self.path, self._headers(), body)
        if it.token and act.headers.get("authorization") != it.token:
            it.turned_away.append(act)
            self._answer(401, b"who are you?\n")
            return
        it.acts.append(act)
        if self.path == "/open/abort":
            self.close_connection = True
            self.connection.close()
        elif self.path == "/open/half":
            self._head(200, length=1_000)
            self.wfile.write(b"only this")
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        elif self.path == "/stream/events":
            self._events()
        elif self.path == "/stream/socket":
            self._socket()
        else:
            if self.path == "/open/wait":
                it.gate.wait(60)
            self._answer(500 if self.path == "/open/fails" else 200, b"done\n")

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = _serve

    def _headers(self) -> dict[str, str]:
        """What occurs twice is joined, so that a test sees it."""
        found: dict[str, str] = {}
        for name, value in self.headers.items():
            found[name.lower()] = f"{found[name.lower()]}, {value}" if name.lower() in found else value
        return found

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _head(self, status: int, *, length: int) -> None:
        self.send_response(status)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(length))
        self.end_headers()

    def _answer(self, status: int, body: bytes) -> None:
        self._head(status, length=len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _events(self) -> None:
        """Two events; the second once the test has seen the first."""
        it: Upstream = self.server.it  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in (b"data: one\n\n", b"data: two\n\n"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            it.gate.wait(60)
        self.wfile.write(b"0\r\n\r\n")

    def _socket(self) -> None:
        """An upgrade; then what comes is sent back."""
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.end_headers()
        self.wfile.flush()
        while part := self.connection.recv(4_096):
            self.connection.sendall(part)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
