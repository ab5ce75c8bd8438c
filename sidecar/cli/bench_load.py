"""Native load for `sidecar bench`: h2load (nghttp2) asks, so that what is measured is never the client.

h2load counts a gRPC call that failed as done, because its HTTP status is 200. Whoever measures a sidecar must hold the
count against the ledger.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.errors import UsageError

_CONNECTIONS: Final = 8  # over which gRPC calls in flight are spread; HTTP/1.1 carries one call a connection
_RUN_SECONDS: Final = 300
_DONE: Final = re.compile(r"^requests: (\d+) total.* (\d+) succeeded", re.MULTILINE)
_FINISHED: Final = re.compile(r"^finished in ([0-9.]+)(us|ms|s|m)", re.MULTILINE)
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Door:
    """Where questions go: a unix socket, the URL's path, the headers, and whether it speaks HTTP/1.1 or h2c."""

    socket: Path
    path: str
    headers: tuple[str, ...]
    http1: bool


@dataclass(frozen=True, slots=True)
class Call:
    """When a call began, seconds since 1970, and how long it took, seconds."""

    began: float
    took: float

    @property
    def ended(self) -> float:
        return self.began + self.took


@dataclass(frozen=True, slots=True)
class Run:
    """``calls`` answered in ``seconds``; ``p50`` of one call, seconds."""

    calls: int
    seconds: float
    p50: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


def decide_door(socket: Path, method: str = "Decide") -> Door:
    """A sidecar's DecisionService."""
    headers = ("content-type: application/grpc", "te: trailers")
    return Door(socket, f"/sidecar.v1.DecisionService/{method}", headers, http1=False)


def opa_door(socket: Path, entrypoint: str) -> Door:
    """An OPA's Data API."""
    return Door(socket, f"/v1/data/{entrypoint}", ("content-type: application/json",), http1=True)


def ask(door: Door, body: Path, in_flight: int, calls: int) -> Run:
    """Ask ``calls`` times, ``in_flight`` at once.

    Raises:
        UsageError: h2load did not run, or a call was not answered.
    """
    each, seconds = _asked(door, body, in_flight, calls)
    return Run(len(each), seconds, statistics.median(call.took for call in each))


def ask_each(door: Door, body: Path, in_flight: int, calls: int) -> list[Call]:
    """The same, each call by itself. Raises as :func:`ask`."""
    return _asked(door, body, in_flight, calls)[0]


def _asked(door: Door, body: Path, in_flight: int, calls: int) -> tuple[list[Call], float]:
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as scratch:
        log = Path(scratch, "calls.log")
        command = [*_command(door, body, in_flight, calls), f"--log-file={log}", f"http://localhost{door.path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_SECONDS)
        counted, finished = _DONE.search(done.stdout), _FINISHED.search(done.stdout)
        if counted is None or finished is None or int(counted[1]) != int(counted[2]):
            raise UsageError(f"h2load: not every call to {door.path} was answered; {_last_line(done)}")
        lines = [line.split("\t") for line in log.read_text().splitlines()]
    each = [Call(int(began) / 1e6, int(took) / 1e6) for began, _status, took, *_ in lines]
    return each, float(finished[1]) * _UNITS[finished[2]]


def calls_for(door: Door, body: Path, in_flight: int, seconds: float, warm: int) -> int:
    """How many calls take about ``seconds``, as ``warm`` calls show; at least as many as are in flight."""
    return max(in_flight, int(ask(door, body, in_flight, warm).rate * seconds))


def _command(door: Door, body: Path, in_flight: int, calls: int) -> list[str]:
    connections = in_flight if door.http1 else min(in_flight, _CONNECTIONS)
    headers = [part for header in door.headers for part in ("-H", header)]
    return [
        *("h2load", "-B", f"unix:{door.socket}", "-d", str(body), "-n", str(calls), "-c", str(connections)),
        *("-m", str(in_flight // connections), *(("--h1",) if door.http1 else ()), *headers),
    ]


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit {done.returncode}"
