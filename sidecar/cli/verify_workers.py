"""Processes that read payloads ahead for `sidecar verify`, so that all processors work (`sidecar.verify.ahead`)."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sidecar.verify import Piped, Worker

_SOURCE: Final = str(Path(__file__).parents[2])
_PROGRAM: Final = (
    "import sys; from sidecar.cli.verify_workers import collect_rarely; from sidecar.verify.ahead import work; "
    "collect_rarely(); work(sys.stdin.buffer, sys.stdout.buffer)"
)
_PIPE: Final = 1 << 20
_LARGE: Final = 64 << 20  # bytes of a ledger from which on the start of processes, a quarter second each, is worth it
_MOST: Final = 6  # the judgement itself, which is one process, keeps no more of them busy


def collect_rarely() -> None:
    """For a process that does nothing but read and verify: values are many and short-lived, and none refers to another
    in a circle.

    What was imported is not looked at again, and what is new not before there is much of it: it took a tenth of the
    time, and a quarter of that of a process which others read for.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def suitable(size: int) -> int:
    """How many processes to use for a ledger of so many bytes; 1: no workers."""
    return min(_MOST, len(os.sched_getaffinity(0))) if size >= _LARGE else 1


@contextlib.contextmanager
def started(count: int) -> Iterator[list[Worker]]:
    """So many workers, 1: none. They are killed in the end, and end by themselves if this process is killed."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        while len(children) < count and count > 1:
            children.append(_start())
        yield [_worker(child) for child in children]
    finally:
        for child in children:
            _end(child)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": _SOURCE},
    )


def _worker(child: subprocess.Popen[bytes]) -> Worker:
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(OSError):  # a larger pipe is only faster
        fcntl.fcntl(child.stdin, fcntl.F_SETPIPE_SZ, _PIPE)
    return Piped(child.stdin, child.stdout)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with contextlib.suppress(BrokenPipeError):  # from what was still to be written
        child.communicate()
