"""A directory in which OPAs run for a sidecar that is another user, in another container.

    sidecar (`OpaRoom`)                      DIR/room, 0770, both users' group      `sidecar opa` (`Keeper`)
    writes NAME.tar.gz ────────────────────►  a guarded bundle, 0640   ──────────►  starts an OPA with it
    asks on NAME.sock  ◄────────────────────  OPA's socket, 0660       ◄──────────  (OPA listens)
    reads NAME.ended   ◄────────────────────  its exit status          ◄──────────  when it ended by itself
    removes NAME.tar.gz ───────────────────►                           ──────────►  kills it, takes its socket away

NAME is the package of the guard's rule (`opa_guard`) and a number of its own for each run, so that nothing of a run
that ended reaches the next. A policy that comes into force has an OPA of its own beside the one before, as where the
sidecar starts OPA itself. What keeps others out is the room's mode: its group is that of the two users, and nobody
else's; who enters it all the same lacks the token, but could put a policy of their own in a bundle's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from sidecar.errors import UsageError

from .opa_guard import Guarded
from .opa_process import OpaProcess, heard_out, spawn
from .opa_program import OpaProgram

log = logging.getLogger("sidecar.opa")

_ROOM: Final = "room"
_BUNDLE: Final = re.compile(r"(sidecar_[0-9a-f]{32}\.[0-9a-f]{8})\.tar\.gz")
_LOOK_EVERY: Final = 0.1  # seconds
_NOT_STARTED: Final = 127
_ENDED: Final = re.compile(r"-?[0-9]{1,3}")


def room_in(directory: Path) -> Path:
    """The room below the directory that both sides name."""
    return directory / _ROOM


def sockets_in(directory: Path) -> list[Path]:
    """Where the OPAs listen that the sidecar asks for now, or should; none for who may not enter the room."""
    room = room_in(directory)
    return [room / f"{name}.sock" for name in sorted(_names(room))]


class OpaRoom:
    """The sidecar's side: the room is made, or taken over from an earlier run, and emptied. One sidecar has it."""

    def __init__(self, directory: Path) -> None:
        """Raises `UsageError` where ``directory`` cannot be used."""
        self._room = room_in(directory)
        try:
            self._descriptor = _taken(self._room)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise UsageError(f"opa_room {directory} cannot be used ({why}): {_mend(error)}") from None
        for left in self._room.iterdir():
            with contextlib.suppress(OSError):
                left.unlink()

    @contextlib.asynccontextmanager
    async def started(self, guarded: Guarded) -> AsyncIterator[OpaProcess]:
        """As `opa_process`: an OPA that begins to run; on leaving, its bundle is taken away, and so it is ended."""
        name = f"{guarded.rule.split('/')[1]}.{secrets.token_hex(4)}"
        bundle, running = self._room / f"{name}.tar.gz", OpaProcess(0, f"unix:{self._room / name}.sock")
        _write(bundle, guarded.bundle)
        running.ended = asyncio.create_task(_end_of(self._room / f"{name}.ended"))
        try:
            yield running
        finally:
            running.ended.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running.ended
            bundle.unlink(missing_ok=True)

    def close(self) -> None:
        """Somebody else may take it."""
        os.close(self._descriptor)


def _taken(room: Path) -> int:
    """The open directory, ours alone to write into, and its group's. Raises `OSError`."""
    with contextlib.suppress(FileExistsError):
        room.mkdir(0o700)
    descriptor = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(1, "its room belongs to another user")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchown(descriptor, -1, os.getegid())  # a volume's group, which it would inherit, is every container's
        os.fchmod(descriptor, 0o770)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _mend(error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return "another sidecar has it; give each one of its own"
    return "name a directory that this user may write in and no agent can enter"


def _write(bundle: Path, data: bytes) -> None:
    """Whole, or not there."""
    making = bundle.with_suffix(".making")
    making.write_bytes(data)
    making.chmod(0o640)
    os.chown(making, -1, os.getegid())
    making.rename(bundle)


async def _end_of(mark: Path) -> int:
    """Wait for the mark of an OPA that ended: its exit status."""
    status = None
    while status is None:
        await asyncio.sleep(_LOOK_EVERY)
        status = _status(mark)
    return status


def _status(mark: Path) -> int | None:
    """What a mark says, 127 where that makes no sense; None without one. It is another user's and may be anything."""
    try:
        descriptor = os.open(mark, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError:
        return _NOT_STARTED
    try:
        text = os.read(descriptor, 8).decode("ascii", "replace")
    except OSError:
        text = ""
    finally:
        os.close(descriptor)
    return int(text) if _ENDED.fullmatch(text) else _NOT_STARTED


class Keeper:
    """The other side: one OPA for each bundle in the room."""

    def __init__(self, program: OpaProgram, directory: Path) -> None:
        self._program, self._room = program, room_in(directory)
        self._kept: dict[str, asyncio.Task[None]] = {}

    async def keep(self, stop: asyncio.Event) -> None:
        """Start and end OPAs until ``stop``; then end all of them. The room need not be there yet.

        Raises:
            UsageError: the room is open to everybody.
        """
        try:
            self._clear()
            while not stop.is_set():
                await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY):
                        await stop.wait()
        finally:
            await self._end(set(self._kept))

    def _clear(self) -> None:
        """What an earlier run left: the OPAs of that are gone."""
        for name in _names(self._room):
            self._forget(name)

    async def _look(self) -> None:
        wanted = _names(self._room)
        for name in wanted - self._kept.keys():
            self._kept[name] = asyncio.create_task(self._run(name))
        await self._end(self._kept.keys() - wanted)

    async def _end(self, names: set[str]) -> None:
        for name in names:
            task = self._kept.pop(name)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self._forget(name)

    async def _run(self, name: str) -> None:
        """Start an OPA and stay to its end; a task that is cancelled ends it."""
        socket, rule = self._room / f"{name}.sock", f"/{name.partition('.')[0]}/allow"
        try:
            process = spawn(self._program, self._room, f"{name}.tar.gz", socket, rule, mode="660")
        except OSError as error:
            log.error("OPA could not be started (%s)", error.strerror)
            return self._mark(name, _NOT_STARTED)
        running = OpaProcess(process.pid, f"unix:{socket}", socket)
        running.ended = asyncio.create_task(heard_out(process, running))
        log.info("OPA %s is started, pid %d", self._program.version, process.pid)
        try:
            self._mark(name, await asyncio.shield(running.ended))
        finally:
            process.kill()
            await running.ended

    def _mark(self, name: str, status: int) -> None:
        log.error("OPA ended with status %d", status)
        with contextlib.suppress(OSError):  # the sidecar finds that nobody answers
            (self._room / f"{name}.ended").write_text(str(status))

    def _forget(self, name: str) -> None:
        for suffix in (".sock", ".ended"):
            with contextlib.suppress(OSError):
                (self._room / f"{name}{suffix}").unlink(missing_ok=True)


def _names(room: Path) -> set[str]:
    """The runs that are asked for; none where the room is not there, or not open to us, yet."""
    try:
        found = room.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o007:
            raise UsageError(f"{room} is open to everybody, or no directory; let the sidecar make it (opa_room)")
        return {match[1] for match in (_BUNDLE.fullmatch(file.name) for file in room.iterdir()) if match}
    except (FileNotFoundError, PermissionError):
        return set()
