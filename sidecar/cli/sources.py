"""Opening what a command is pointed at: a ledger directory, a segment file or an evidence bundle, as streams."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from sidecar.errors import Malformed, UsageError
from sidecar.ledger import first_kept, ledger_stream
from sidecar.verify.bundle_files import CASE
from sidecar.verify.case import Case, parse_case
from sidecar.verify.container import LOCAL_MAGIC, Content, directory

if TYPE_CHECKING:
    from sidecar.evidence import FileSource

MAX_CASE_FILE: Final = 16 << 20
_DATABASE: Final = "ledger.mdb"
Read = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Stream:
    """One chain's stream. ``chain`` is the id (hex) that a bundle gives it, empty where the path has but one."""

    chain: str
    open: Callable[[], AbstractContextManager[Read]]


def streams(path: Path, *, rare: bool = False) -> list[Stream]:
    """The streams of a ledger directory, a segment file or an evidence bundle, each opened when it is wanted.
    ``rare``: of a ledger directory no more than `ledger_stream` gives then.

    Raises:
        UsageError: it cannot be read. Malformed: a bundle whose container is not as it must be.
    """
    if not is_bundle(path):
        return [Stream("", partial(_single, path, rare=rare))]
    with _file(path) as file:
        members = [m for name, m in directory(bundle_in(file)).items() if name.endswith("/stream.sdcseg")]
    if not members:
        raise Malformed(f"{path} has no stream in it")
    found = [Stream(m.name.split("/")[2], partial(_member, path, m.name)) for m in members if m.name.count("/") == 3]
    return sorted(found, key=lambda each: each.chain)


def bundle_in(file: BinaryIO, told: Callable[[int], None] = lambda _: None) -> FileSource:
    """A bundle in an open file; ``told``: how many bytes were read. Its room is imported here: a ledger needs none."""
    from sidecar.evidence import FileSource

    return FileSource(file, told)


def is_bundle(path: Path) -> bool:
    """Whether it is an evidence bundle, by its first bytes. Raises UsageError: it cannot be read as anything."""
    if path.is_dir():
        return False
    if path.name == _DATABASE:
        raise UsageError(f"{path} is the database of a ledger; name its directory, {path.parent}")
    with _file(path) as file:
        return bool(file.read(4) == LOCAL_MAGIC)


def case_of(path: Path) -> Case | None:
    """What an evidence bundle says it is; None for anything else. Raises Malformed."""
    found = file_of(path, CASE, MAX_CASE_FILE)
    return None if found is None else parse_case(found)


def file_of(path: Path, name: str, most: int) -> bytes | None:
    """A file of an evidence bundle, of at most so many bytes; None where there is no such file, or no bundle.

    Raises:
        Malformed: no proper bundle, or a longer file.
    """
    if not is_bundle(path):
        return None
    with _file(path) as file:
        source = bundle_in(file)
        member = directory(source).get(name)
        if member is not None and member.size > most:
            raise Malformed(f"{path}: {name} is longer than {most} bytes")
        return None if member is None else Content(source, member).read(member.size + 1)


@contextlib.contextmanager
def opened(path: Path, *, rare: bool = False) -> Iterator[Read]:
    """The one stream of a path; ``rare``: as :func:`streams`. Raises UsageError where it is none or has several."""
    found = streams(path, rare=rare)
    if len(found) != 1:
        raise UsageError(f"{path} holds {len(found)} chains; this command reads one")
    with found[0].open() as read:
        yield read


@contextlib.contextmanager
def _single(path: Path, *, rare: bool) -> Iterator[Read]:
    if path.is_dir():
        with ledger_stream(path, rare=rare) as read:
            yield read
        return
    with _file(path) as file:
        yield file.read


def say_what_is_gone(path: Path) -> None:
    """One line on stderr where the path is a ledger that let go of its start."""
    with contextlib.suppress(Malformed):
        if path.is_dir() and (first := first_kept(path)):
            told = f"sidecar: what was recorded before segment {first} is no longer kept here; the collector has it"
            click.echo(told, err=True)


@contextlib.contextmanager
def _member(path: Path, name: str) -> Iterator[Read]:
    with _file(path) as file:
        source = bundle_in(file)
        yield Content(source, directory(source)[name]).read


def _file(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


@contextlib.contextmanager
def with_progress(path: Path, read: Read, label: str, *, quiet: bool) -> Iterator[Read]:
    """``read`` with a progress bar on stderr, if that is a terminal; over the bytes of the file behind it."""
    with progress(size_of(path), label, quiet=quiet) as told:
        yield read if told is None else _counting(read, told)


@contextlib.contextmanager
def progress(length: int, label: str, *, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Something to tell how many bytes more were read, which a progress bar on stderr shows; None: there is none."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        pending, one = 0, threading.Lock()

        def told(size: int) -> None:
            nonlocal pending
            with one:  # a verifier reads on two threads
                pending += size
                if pending > 1 << 20:
                    bar.update(pending)
                    pending = 0

        yield told
        bar.update(bar.length or 0)


def _counting(read: Read, told: Callable[[int], None]) -> Read:
    def counted(size: int) -> bytes:
        data = read(size)
        told(len(data))
        return data

    return counted


def size_of(path: Path) -> int:
    """Bytes of the file behind a path, a ledger's or a segment's; 1 where that is not to be known."""
    with contextlib.suppress(OSError):
        return max(1, (path / "ledger.mdb" if path.is_dir() else path).stat().st_size)
    return 1
