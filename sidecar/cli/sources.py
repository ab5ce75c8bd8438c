"""Opening what a command is pointed at: a ledger directory or a segment file, as a stream of bytes with progress."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from sidecar.errors import UsageError
from sidecar.ledger import ledger_stream

Read = Callable[[int], bytes]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Read]:
    """The stream of a ledger directory or a segment file. Raises UsageError where it is neither."""
    if path.is_dir():
        with ledger_stream(path) as read:
            yield read
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    with file:
        yield file.read


@contextlib.contextmanager
def with_progress(path: Path, read: Read, label: str, *, quiet: bool) -> Iterator[Read]:
    """``read`` with a progress bar on stderr, if that is a terminal; over the bytes of the file behind it."""
    if quiet or not sys.stderr.isatty():
        yield read
        return
    with click.progressbar(length=size_of(path), label=label, file=sys.stderr) as bar:
        yield _counting(read, bar)
        bar.update(bar.length or 0)


def _counting(read: Read, bar: Any) -> Read:
    pending = 0

    def counted(size: int) -> bytes:
        nonlocal pending
        data = read(size)
        pending += len(data)
        if pending > 1 << 20:
            bar.update(pending)
            pending = 0
        return data

    return counted


def size_of(path: Path) -> int:
    """Bytes of the file behind a path, a ledger's or a segment's; 1 where that is not to be known."""
    with contextlib.suppress(OSError):
        return max(1, (path / "ledger.mdb" if path.is_dir() else path).stat().st_size)
    return 1
