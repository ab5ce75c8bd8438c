"""Reading a ledger for verification: bytes from a child process, whose death is a finding and never our own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sidecar.chain import note
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind, records
from sidecar.errors import LedgerUnknown, Malformed, NotFound, SidecarError
from sidecar.ledger.causes import CAUSES, NO_SEGMENT, OTHER_VERSION, OVERTAKEN, UNREADABLE
from sidecar.ledger.look import FILE, refuse_absent

SILENCE_SECONDS: Final = 60.0
_PIPE: Final = 1 << 20
_CONTEXT: Final = (Kind.GENESIS, Kind.EPOCH, Kind.OPEN, Kind.REGISTRY_BEFORE)
_SOURCE: Final = str(Path(__file__).parents[2])
_ERRORS: Final[dict[int, type[SidecarError]]] = {
    OTHER_VERSION: LedgerUnknown, NO_SEGMENT: NotFound, OVERTAKEN: LedgerUnknown, UNREADABLE: LedgerUnknown,
}  # fmt: skip


@contextmanager
def ledger_stream(
    directory: Path,
    segment: int | None = None,
    *,
    since: int = 0,
    rare: bool = False,
    silence: float = SILENCE_SECONDS,
) -> Iterator[Callable[[int], bytes]]:
    """``read(n)`` over the stream of a ledger directory, or of one sealed segment's file (proto/LEDGER.md, "Stream").

    ``read`` gives at most n bytes, and none only where the stream ends in order. ``silence``: seconds without a byte.
    Of a whole ledger, ``since`` leaves out the entries of the segments before it, ``rare`` all entries but GENESIS,
    OPEN, POLICY, REGISTRY: these and all notes also where the ledger keeps its end, from the start of the chain.

    Raises:
        LedgerUnknown: no ledger there. From ``read``: LedgerUnknown, NotFound (no such sealed segment), or Malformed
            where the reading process crashed, fell silent or found a damaged file.
    """
    refuse_absent(directory)
    command = [sys.executable, "-P", "-m", "sidecar.ledger.dump", str(directory.absolute())]
    if segment is not None:
        command += ["--segment", str(segment)]
    elif rare or since:
        command += ["--rare"] if rare else ["--since", str(since)]
    with child_stream(command, silence=silence, overtaken=_watch(directory)) as read:
        yield read


def first_kept(directory: Path) -> int:
    """The first segment whose entries are here: 0, unless the ledger keeps its end. Raises as :func:`ledger_stream`."""
    first = 0
    with ledger_stream(directory) as read:
        for kind, body in records(read):
            if kind is Kind.CONTEXT_SEAL:
                first = Seal.parse(note.parse(body).text).segment + 1
            elif kind not in _CONTEXT:
                break
    return first


def _watch(directory: Path) -> Callable[[], bool]:
    """Whether the ledger was written to since now, under a reader that has no place in the lock file.

    LMDB then uses pages again that the reader is at, and it can come to any end: that says nothing against the file.
    """
    file, lock = directory / FILE, directory / f"{FILE}-lock"
    before = file.stat().st_mtime_ns
    unknown = lock.exists() and not os.access(lock, os.W_OK)
    return lambda: unknown and file.stat().st_mtime_ns != before


@contextmanager
def child_stream(
    command: list[str], *, silence: float, overtaken: Callable[[], bool] = lambda: False
) -> Iterator[Callable[[int], bytes]]:
    """``read(n)`` over what a command writes to its standard output; as :func:`ledger_stream`.

    ``overtaken``: whether a crash may come from the ledger being written to meanwhile.
    """
    environment = {**os.environ, "PYTHONPATH": _SOURCE}
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert child.stdout is not None
    with child.stdout as pipe:
        with contextlib.suppress(OSError):  # a larger pipe is only faster
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
        try:
            yield _Reading(child, pipe.fileno(), silence, overtaken).read
        finally:
            child.kill()
            child.wait()


class _Reading:
    def __init__(self, child: subprocess.Popen[bytes], fd: int, silence: float, overtaken: Callable[[], bool]) -> None:
        self._child, self._fd, self._silence, self._overtaken = child, fd, silence, overtaken

    def read(self, n: int) -> bytes:
        ready, _, _ = select.select([self._fd], [], [], self._silence)
        if not ready:
            raise Malformed(f"the process that reads ledger.mdb said nothing for {self._silence:.0f} s: a damaged file")
        data = os.read(self._fd, n)
        if not data:
            self._check_end()
        return data

    def _check_end(self) -> None:
        """The stream has ended; only exit code 0 makes that its true end."""
        try:
            code = self._child.wait(self._silence)
        except subprocess.TimeoutExpired:
            raise Malformed("the process that reads ledger.mdb does not end: a damaged file") from None
        if code != 0 and code not in _ERRORS and self._overtaken():
            raise LedgerUnknown(CAUSES[OVERTAKEN])
        if code in CAUSES:
            raise _ERRORS.get(code, Malformed)(CAUSES[code])
        if code != 0:
            raise Malformed(f"the process that reads ledger.mdb crashed (exit code {code}): a damaged file")
