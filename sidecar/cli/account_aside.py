"""A process that makes the account of a bundle while that is written and verified, so that two processors work."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from sidecar.errors import UsageError
from sidecar.evidence import Account, Ask, Grown, Told, answered, asked, found, grown
from sidecar.evidence.aside import ENDED

_SOURCE: Final = str(Path(__file__).parents[2])
_PROGRAM: Final = "from sidecar.evidence.aside import main; main()"


class Aside:
    """An `Accountant` in a process of its own, which writes into two new files."""

    def __init__(self, events: BinaryIO, entries: BinaryIO) -> None:
        self._events, self._entries = events, entries
        self._child: subprocess.Popen[bytes] | None = None

    def begin(self, ask: Ask, bundle: BinaryIO) -> None:
        """As `Accountant.begin`. Raises UsageError where the process has ended."""
        files = [each.fileno() for each in (bundle, self._events, self._entries)]
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _SOURCE},
            pass_fds=files,
        )
        self._tell(asked(ask, files))

    def grown(self, stream: Grown) -> None:
        """As `Accountant.grown`. Raises UsageError where the process has ended."""
        self._tell(grown(stream))

    def _tell(self, line: bytes) -> None:
        assert self._child is not None and self._child.stdin is not None
        try:
            self._child.stdin.write(line)
            self._child.stdin.flush()
        except BrokenPipeError:
            raise UsageError(ENDED) from None

    def finish(self, told: Told, *, sound: bool) -> Account:
        """As `Accountant.finish`."""
        self._tell(found(sound=sound))
        assert self._child is not None and self._child.stdout is not None
        return answered(self._child.stdout, self._events, self._entries, told)

    @property
    def process(self) -> int | None:
        """Its id, once it has begun."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """The process is killed, if it goes on."""
        if self._child is not None:
            self._child.kill()
            with contextlib.suppress(BrokenPipeError):
                self._child.communicate()


@contextlib.contextmanager
def started(place: Path, *, wanted: bool) -> Iterator[Aside | None]:
    """One, if it is wanted, with temporary files in ``place``. Its process ends by itself if this one is killed."""
    if not wanted:
        yield None
        return
    with (
        tempfile.TemporaryFile(dir=place) as events,
        tempfile.TemporaryFile(dir=place) as entries,
        contextlib.closing(Aside(events, entries)) as aside,
    ):
        yield aside
