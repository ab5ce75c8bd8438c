"""The program `sidecar`, forked from a process that has imported it: what a start costs is not its imports (half a
second of processor time, thousands of times), and all the rest of a process is as real: arguments, environment,
standard streams, signals, exit status.

What is left out is what happens before `sidecar.cli.main`; tests of that start `BIN / "sidecar"` itself, as the
README's and those of a start's own behaviour do. Each process of pytest has one such server, which ends with it.

    python tests/forking.py DESCRIPTOR

of a socket: each message is a JSON array [arguments, environment, directory, network namespace] with four descriptors,
standard input, output and error, and a pipe, on which the process's number is told and at its end its status.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

BIN = Path(sys.executable).parent
_LONGEST = 1 << 17  # bytes of a message
_LIBC, _CLONE_NEWNET = ctypes.CDLL(None, use_errno=True), 0x40000000  # <linux/sched.h>


class Forked:
    """A process of the program, with what is used of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int = 0,
        stdout: int = 1,
        stderr: int = 2,
        namespace: str = "",
    ) -> None:
        """``stdin``, ``stdout``, ``stderr``: descriptors, or ``subprocess.PIPE``, ``subprocess.DEVNULL``.
        ``namespace``: the name of a network namespace to start it in; else it is the calling thread's.
        """
        self.args, self.returncode = list(arguments), None
        self.stdout: IO[str] | None
        self.stderr: IO[str] | None
        with contextlib.ExitStack() as given:
            streams = [_stream(given, each) for each in (stdin, stdout, stderr)]
            self._status, telling = os.pipe()
            given.callback(os.close, telling)
            where = namespace or _namespace()
            message = json.dumps([self.args, dict(environment), str(Path.cwd()), where]).encode()
            assert len(message) <= _LONGEST, "more arguments than a message holds"
            socket.send_fds(_server(), [message], [*(theirs for theirs, _ in streams), telling])
        self.stdin, self.stdout, self.stderr = (ours for _, ours in streams)
        self.pid = int(self._line())

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            more = os.read(self._status, 1)
            assert more, f"the process that forks {self.args} is gone"
            line += more
        return line.decode()

    def poll(self) -> int | None:
        """As `subprocess.Popen.poll`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As `subprocess.Popen.wait`."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._line())
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """As `subprocess.Popen.send_signal`."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *error: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def _namespace() -> str:
    """The name of the network namespace that the calling thread is in, if it is not the process's own."""
    here = Path("/proc/thread-self/ns/net").stat().st_ino
    if here == Path("/proc/self/ns/net").stat().st_ino:
        return ""
    return next(each.name for each in Path("/run/netns").iterdir() if each.stat().st_ino == here)


def _stream(given: contextlib.ExitStack, kind: int) -> tuple[int, IO[str] | None]:
    """The process's end of one of its standard streams, open as long as ``given``, and ours."""
    if kind == subprocess.DEVNULL:
        theirs = os.open(os.devnull, os.O_RDWR)
        given.callback(os.close, theirs)
        return theirs, None
    if kind != subprocess.PIPE:
        return kind, None
    ours, theirs = os.pipe()
    given.callback(os.close, theirs)
    return theirs, os.fdopen(ours)


def run(arguments: Sequence[str], environment: Mapping[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    """One command to its end, with what it wrote. Raises subprocess.TimeoutExpired."""
    with os.fdopen(os.memfd_create("stdout"), "w+") as out, os.fdopen(os.memfd_create("stderr"), "w+") as error:
        with Forked(arguments, environment, stdout=out.fileno(), stderr=error.fileno()) as process:
            try:
                process.wait(seconds)
            finally:
                process.kill()
        out.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(process.args, process.wait(), out.read(), error.read())


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _LONGEST)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "GRPC_"))}
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(command, env=clean, pass_fds=[theirs.fileno()], cwd="/")

    def end() -> None:
        ours.close()  # it is told by that
        process.wait()

    atexit.register(end)
    return ours


# --- in the server


def _serve(control: socket.socket) -> tuple[list[str], dict[str, str], str, str]:
    """Fork what is asked for. Returns in each such process, with what it was asked with; in the server never."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _LONGEST, 4)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            return _watched(message, *descriptors)
        for each in descriptors:
            os.close(each)


def _watched(message: bytes, stdin: int, stdout: int, stderr: int, telling: int) -> Any:
    """Fork once more: the process itself returns, and its parent tells how it ended."""
    pid = os.fork()
    if pid == 0:
        for at, each in enumerate((stdin, stdout, stderr)):
            os.dup2(each, at)
        for each in (stdin, stdout, stderr, telling):
            os.close(each)
        return json.loads(message)
    for each in (0, 1, 2, stdin, stdout, stderr):
        os.close(each)
    with contextlib.suppress(BrokenPipeError):
        os.write(telling, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(telling, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(arguments: list[str], environment: dict[str, str], directory: str, namespace: str) -> None:
    """Be as if started by its name."""
    if namespace:
        _enter(Path("/run/netns", namespace))
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.path[0] = arguments, str(BIN)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _enter(namespace: Path) -> None:
    """A network namespace, if this is not it."""
    if namespace.stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
        return
    with namespace.open("rb") as file:
        if _LIBC.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def _import() -> None:
    """All that the program imports in the end, and nothing that starts a thread: a fork would not have it."""
    os.environ["GRPC_VERBOSITY"] = "NONE"  # as `sidecar.cli.main` has it
    commands = importlib.import_module("sidecar.cli").COMMANDS
    for load in commands.values():
        load()
    for name in ("sidecar.main", "sidecar.collecting", "uvloop"):
        importlib.import_module(name)
    _compile()
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, threads
    gc.collect()
    gc.freeze()


def _compile() -> None:
    """The starter policy's machine code, made in a process of its own: the compiler starts threads."""
    policy = importlib.import_module("sidecar.policy")
    kept = importlib.import_module("sidecar.wasm.machine_code").MACHINE_CODE
    packed = policy.STARTER_BUNDLE.read_bytes()
    wasm = policy.open_bundle(packed).wasm
    reading, writing = os.pipe()
    if os.fork() == 0:
        policy.WasmEngine(packed, "agents/decision")
        with os.fdopen(writing, "wb") as out:
            out.write(kept.of(wasm))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as made:
        kept.keep(wasm, made.read())


if __name__ == "__main__":
    _enter(Path(f"/proc/{os.getppid()}/ns/net"))  # whichever thread it was that needed it first
    _import()
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
    from sidecar.cli import main

    sys.exit(main())
