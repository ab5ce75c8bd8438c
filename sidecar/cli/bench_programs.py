"""Programs that `sidecar bench` starts and stops, and the machine they run on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sidecar.client import Guard
from sidecar.errors import UsageError

_START_SECONDS: Final = 60.0
_LOOK_EVERY: Final = 0.02
LEDGER_MIB: Final = 65_536  # greatest size of the bench's ledgers: ten million entries take 15 GB
_UNTESTED: Final = {
    "SIDECAR_POLICY_GATE_MIN_COVERAGE": "0",
    "SIDECAR_POLICY_GATE_EXPECTATIONS": "false",
    "SIDECAR_LEDGER_MAX_MIB": str(LEDGER_MIB),
}
_LIBRARIES: Final = ("grpcio", "lmdb", "wasmtime", "orjson", "cryptography", "uvloop")


@dataclass(frozen=True, slots=True)
class Serving:
    """A running sidecar: its process id, socket, ledger and log."""

    pid: int
    socket: Path
    ledger: Path
    log: Path

    def guard(self, agent: str) -> Guard:
        """The SDK's guard for one of the bench's agents; it meets the obligations the bench's policy imposes."""
        return Guard(f"unix:{self.socket}", agent=agent, timeout=30.0, obligations={"log_level": lambda *_: None})

    def rss_anon(self) -> int:
        """Anonymous memory that is resident, bytes (proc(5), RssAnon), with the process that evaluates beside it.

        LMDB's map is not in it, and no OPA.
        """
        ours = [one for one in children(self.pid) if b"sidecar.wasm" in Path(f"/proc/{one}/cmdline").read_bytes()]
        return sum(map(_rss_anon, (self.pid, *ours)))


def children(pid: int) -> list[int]:
    """The process ids of a process' children (proc(5))."""
    return [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]


def processor_time() -> float:
    """Of this process and its children, those that run and those that ended, seconds (proc(5), stat)."""
    running = (Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in children(os.getpid()))
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in running)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def _rss_anon(pid: int) -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise UsageError("this kernel does not say RssAnon in /proc/PID/status")
    return int(found[1]) * 1024


@contextlib.contextmanager
def serving(ledger: Path, *flags: str | Path, settings: Mapping[str, str] = _UNTESTED) -> Iterator[Serving]:
    """`sidecar serve --dev` on a new or prepared ledger, until the block ends; then SIGTERM, and an orderly end.

    ``settings``: of its environment. Raises:
        UsageError: it did not come up.
    """
    log = ledger.with_name(ledger.name + ".log")
    with _short_place() as near, log.open("wb") as said:
        socket = near / "sidecar.sock"
        where = ("serve", "--data-dir", ledger, "--init", "--dev", "--listen", f"unix:{socket}")
        command = [sys.executable, "-m", "sidecar", *map(str, (*where, *flags))]
        with _process(command, said, settings) as process:
            _await("sidecar serve", process, log, lambda: b"is ready" in log.read_bytes())
            yield Serving(process.pid, socket, ledger, log)


@contextlib.contextmanager
def collecting(place: Path) -> Iterator[tuple[str, str]]:
    """`sidecar collector serve --dev` in a new directory; gives its address and its log's key."""
    log = place.with_name(place.name + ".log")
    where = ("--data-dir", str(place), "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0")
    with log.open("wb") as said:
        command = [sys.executable, "-m", "sidecar", "collector", "serve", "--dev", *where]
        with _process(command, said, {}) as process:
            _await("sidecar collector serve", process, log, lambda: b"log key" in log.read_bytes())
            address = log.read_text().partition("is ready on ")[2].partition(",")[0]
            yield address, (place / "log.vkey").read_text().strip()


@contextlib.contextmanager
def opa_server(opa: str, bundle: Path, place: Path, *flags: str) -> Iterator[Path]:
    """A bare `opa run --server` on a unix socket; what it logs goes to a file. Gives the socket."""
    place.mkdir()
    log = place / "opa.log"
    with _short_place() as near, log.open("wb") as said:
        socket = near / "opa.sock"
        addressed = ("--addr", f"unix://{socket}", "--log-level", "error", "--skip-version-check")
        with _process([opa, "run", "--server", *addressed, *flags, "-b", str(bundle)], said, {}) as it:
            _await("opa run", it, log, socket.exists)
            yield socket


@contextlib.contextmanager
def _short_place() -> Iterator[Path]:
    """A directory for a socket: the path of one may have 107 bytes, and the data directory's may be longer."""
    with tempfile.TemporaryDirectory(prefix="bench-") as near:
        yield Path(near)


@contextlib.contextmanager
def _process(command: list[str], said: IO[bytes], settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    with subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env={**clean, **settings}) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_START_SECONDS)
            process.kill()


def _await(name: str, process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise UsageError(f"{name} did not start: {said[-1][:200]}")
        time.sleep(_LOOK_EVERY)


def machine(place: Path, opa: str | None) -> dict[str, str]:
    """What the figures were measured on: processor, kernel, the ledger's file system, programs and libraries."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load": f"{os.getloadavg()[0]:.2f}",
        "kernel": platform.release(),
        "filesystem": _filesystem(place),
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES),
        "opa": _version(opa and [opa, "version"]),
        "h2load": _version(["h2load", "--version"]),
        "openssl": _version(["openssl", "version"]),
    }


def _filesystem(place: Path) -> str:
    """Type and source of the mount that holds ``place`` (proc(5), /proc/self/mounts)."""
    best = ("", "unknown", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, where, kind, *_ = line.split(" ")
        if place.is_relative_to(where) and len(where) >= len(best[0]):
            best = (where, kind, source)
    return f"{best[1]} ({best[2]} on {best[0]})"


def _version(command: list[str] | str | None) -> str:
    if not command:
        return "missing"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except OSError:
        return "missing"
    return (done.stdout.splitlines() or ["unknown"])[0].removeprefix("Version: ")
