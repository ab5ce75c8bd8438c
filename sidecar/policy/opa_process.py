"""One run of an OPA that belongs to this process: started in a private place, heard, and gone with it.

The place is a new directory with mode 0700; the socket in it has 0600. OPA gets nothing of our environment, a session
of its own (a Ctrl-C at the sidecar's terminal is not for it), and the kernel kills it when the thread that started it
ends, however it ends. If memory runs out, the kernel takes OPA before the sidecar, which has a ledger to close.

What OPA writes goes to the log `sidecar.opa`. Once it answers questions, only what cannot quote one: the message of a
log line, without its other members, and the Go runtime's own last words.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .opa_guard import Guarded
from .opa_program import OpaProgram

log = logging.getLogger("sidecar.opa")

# Becomes OPA: a step of its own, because Python code between fork and exec is not safe in a process with threads.
# prctl(PR_SET_PDEATHSIG, SIGKILL) outlives exec; a parent that ended before it is seen by its pid.
# GOGC says by how many percent Go's heap may grow before garbage is collected.
_BECOME: Final = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(1, 9) != 0 or os.getppid() != int(sys.argv[1]):
    sys.exit("opa was not started: it could not be tied to the sidecar's life")
try:
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")
except OSError:
    pass
os.umask(0o077)
try:
    os.execve(sys.argv[3], sys.argv[3:], {"GOGC": sys.argv[2]})
except OSError as error:
    sys.exit(f"cannot start {sys.argv[3]}: {error.strerror}")
"""
# At level error OPA logs neither requests nor what `print` in a policy says: both could quote an input.
_FLAGS: Final = (
    *("run", "--server", "--skip-version-check", "--log-level", "error", "--log-format", "json"),
    *("--authentication", "token", "--authorization", "basic"),
)
_PLACE: Final = "sidecar-opa-"
_SMALL: Final = 1 << 20  # bytes of a bundle, packed
_SMALL_GOGC: Final = 400  # a quarter less of OPA's processor time for 40 MB more; what is large keeps Go's own 100
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_LAST_WORDS: Final = ("fatal error: ", "runtime: ")
_MOST_LINES: Final = 100
_MOST_CHARACTERS: Final = 512


@dataclass(slots=True)
class OpaProcess:
    """A running OPA. ``ended`` gives its exit status; ``loaded`` says that it has read its bundle and serves it.

    ``pid`` is 0 for one that somebody else started (`opa_room`); ``socket``, where it is given, is the file that is
    there once it serves.
    """

    pid: int
    address: str
    socket: Path | None = None
    ended: asyncio.Task[int] = field(init=False)
    loaded: bool = False

    @property
    def told(self) -> str:
        """Which it is, for the log."""
        return f"pid {self.pid}" if self.pid else self.address

    @property
    def may_be_asked(self) -> bool:
        """Whether what it says may quote a question."""
        return self.loaded or (self.socket is not None and self.socket.exists())


@contextlib.asynccontextmanager
async def opa_process(program: OpaProgram, guarded: Guarded) -> AsyncIterator[OpaProcess]:
    """Start OPA on a socket in a private directory; on leaving it is killed, reaped, and its directory removed.

    A kill is a clean end: OPA keeps nothing. Raises `OSError` when there is no place or no process to be had.
    """
    with _private_place() as place:
        (place / "bundle.tar.gz").write_bytes(guarded.bundle)
        socket = place / "opa.sock"
        process = spawn(program, place, "bundle.tar.gz", socket, guarded.rule, mode="600")
        running = OpaProcess(process.pid, f"unix:{socket}")
        running.ended = asyncio.create_task(heard_out(process, running))
        try:
            yield running
        finally:
            process.kill()
            await running.ended


@contextlib.contextmanager
def _private_place() -> Iterator[Path]:
    """A new directory with mode 0700. It is locked, so that what a sidecar that was killed left can be told from it."""
    _remove_left_places()
    directory, lock = _new_place()
    try:
        with directory as place:
            yield Path(place)
    finally:
        os.close(lock)


def _new_place() -> tuple[tempfile.TemporaryDirectory[str], int]:
    """With its lock. Before it is locked, another sidecar may take it for left and remove it: then another is made."""
    while True:
        directory = tempfile.TemporaryDirectory(prefix=_PLACE)
        try:
            lock = _lock(Path(directory.name))
        except (FileNotFoundError, BlockingIOError):
            directory.cleanup()
            continue
        if Path(directory.name).exists():
            return directory, lock
        os.close(lock)
        directory.cleanup()


def _lock(place: Path) -> int:
    """The descriptor that holds it. Raises `OSError` when somebody else does, or it is a link."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_left_places() -> None:
    for place in Path(tempfile.gettempdir()).glob(_PLACE + "*"):
        with contextlib.suppress(OSError):
            if place.lstat().st_uid == os.geteuid():
                lock = _lock(place)
                try:
                    shutil.rmtree(place)
                finally:
                    os.close(lock)


def spawn(
    program: OpaProgram, place: Path, bundle: str, socket: Path, rule: str, *, mode: str
) -> subprocess.Popen[bytes]:
    """Start OPA in ``place``, with the guarded ``bundle`` that lies there, on a socket with that octal mode.

    Not by the event loop: uvloop forks with gRPC's fork handlers, `subprocess` does without a fork's copy.
    """
    flags = [*_FLAGS, "--bundle", bundle, "--addr", f"unix://{socket}", "--unix-socket-perm", mode]
    flags += ["--set", f"default_authorization_decision={rule}"]
    gogc = _SMALL_GOGC if (place / bundle).stat().st_size <= _SMALL else 100
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), str(gogc), program.path, *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=place,
        env={},
        start_new_session=True,
    )


async def heard_out(process: subprocess.Popen[bytes], running: OpaProcess) -> int:
    """Log what OPA says until it ends, and reap it. Returns its exit status, negative for a signal."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), process.stderr)
    try:
        await _forward(reader, running)
    finally:
        pipe.close()
    return await asyncio.to_thread(process.wait)


async def _forward(reader: asyncio.StreamReader, running: OpaProcess) -> None:
    """Read to the end, and log the first lines of it."""
    logged = 0
    while True:
        try:
            line = await reader.readline()
        except ValueError:  # longer than the reader's limit, and dropped by it
            continue
        if not line:
            return
        said = _said(line.decode(errors="replace"), loading=not running.may_be_asked)
        if said is not None and logged < _MOST_LINES:
            logged += 1
            log.log(said[0], "opa[%d]: %s", running.pid, said[1])


def _said(line: str, *, loading: bool) -> tuple[int, str] | None:
    """Level and text of a line, or None for one that is withheld."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return (logging.ERROR, _plain(line)) if loading or line.startswith(_LAST_WORDS) else None
    text = str(fields.get("msg", ""))
    if loading and "err" in fields:
        text += f": {fields['err']}"
    return _LEVELS.get(str(fields.get("level")), logging.ERROR), _plain(text)


def _plain(text: str) -> str:
    """One printable line of bounded length."""
    return "".join(c if c.isprintable() else " " for c in text[:_MOST_CHARACTERS]).strip()
