"""Starting the servers of others on loopback, and ending them by their process."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

from tests.faults.hosts import Host
from tests.needs import cannot_run
from tests.ports import free_port

PATIENCE = 120.0  # seconds; only a failing test waits so long


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], port: int, *, host: Host | None = None, **more: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens at ``port`` of loopback, or of a host, while the block runs."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, **more)  # type: ignore[call-overload]
        try:
            _wait(process, port, said, host)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, said: object, host: Host | None) -> None:
    def look() -> None:
        socket.create_connection(("127.0.0.1" if host is None else host.address, port), 1).close()

    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                look() if host is None else host.call(look)
                return
        else:
            said.seek(0)  # type: ignore[attr-defined]
            raise AssertionError(f"{process.args!r} ended: {said.read()[-2000:]!r}")  # type: ignore[attr-defined]
        time.sleep(0.02)  # between two looks, not for two things to happen in order
    raise AssertionError(f"{process.args!r} does not listen")


class Quiet(BaseHTTPRequestHandler):
    """An HTTP handler of a test's own, which says nothing on stderr."""

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send a whole answer; ``headers`` have ``_`` for ``-``."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def listening(handler: type[Quiet]) -> Iterator[str]:
    """The URL of an HTTP server in this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True, slots=True)
class Postgres:
    """A PostgreSQL of one's own; ``address`` is libpq's connection string for the database ``name``."""

    directory: Path
    port: int

    def address(self, name: str = "postgres") -> str:
        return f"host={self.directory} port={self.port} user=sidecar dbname={name}"


def _answers(server: Postgres) -> None:
    """Waits until it takes connections; it listens before it does."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg.connect(server.address()).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < until, "PostgreSQL does not start"
            time.sleep(0.02)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A fresh PostgreSQL on a unix socket and loopback, run by a user without privileges."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        cannot_run("needs PostgreSQL's server: install postgresql with the system's package manager")
    binaries = programs[-1].parent
    # Not below pytest's own directory, which another user may not enter; and a socket's path is short.
    home = Path(tempfile.mkdtemp(prefix="sidecar-pg-"))
    user: dict[str, object] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    try:
        data, port = home / "data", free_port()
        initdb = [binaries / "initdb", "-D", data, "-U", "sidecar", "--auth=trust", "-E", "UTF8", "--no-locale", "-N"]
        made = subprocess.run(initdb, capture_output=True, text=True, cwd=home, check=False, **user)  # type: ignore[call-overload]
        assert made.returncode == 0, made.stderr
        command = [binaries / "postgres", "-D", data, "-k", home, "-p", str(port), "-h", "127.0.0.1", "-F"]
        with running(command, port, cwd=home, **user):
            found = Postgres(home, port)
            _answers(found)
            yield found
    finally:
        shutil.rmtree(home)
