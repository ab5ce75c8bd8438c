"""The program `sidecar` as a user runs it: commands to their end, and a sidecar that serves until told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sidecar.client import AgentKey, Guard
from tests import forking

BIN = Path(sys.executable).parent
START_SECONDS = 60.0


def environment(**more: str) -> dict[str, str]:
    """The tests' environment without SIDECAR_ settings of the person who runs them."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    return {**clean, "PATH": f"{BIN}{os.pathsep}{clean['PATH']}", **more}


def sidecar(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """One command, run to its end."""
    words, env = [str(BIN / "sidecar"), *map(str, arguments)], environment(**more)
    if _for_a_start(more):
        return subprocess.run(words, capture_output=True, text=True, env=env, timeout=120)
    return forking.run(words, env, 120)


def _for_a_start(settings: Iterable[str]) -> bool:
    """Whether any is read when a process starts or imports gRPC, which is too late for a forked one."""
    return any(name.startswith(("PYTHON", "LD_", "LC_", "LANG", "TZ", "GRPC_", "SIDECAR_TLS_")) for name in settings)


Process = subprocess.Popen[str] | forking.Forked


def start(command: Sequence[str | Path], **more: str) -> Process:
    """A program whose standard error can be read: forked where it is `sidecar` itself (see `tests.forking`)."""
    words, env = list(map(str, command)), environment(**more)
    namespace = words[3] if words[:3] == ["ip", "netns", "exec"] else ""
    ours = words[4 if namespace else 0 :]
    if ours[0] == str(BIN / "sidecar") and not _for_a_start(more):
        return forking.Forked(ours, env, stderr=subprocess.PIPE, namespace=namespace)
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env)


class Serving:
    """A sidecar that serves. ``said`` is what it wrote to stderr up to being ready."""

    def __init__(self, process: Process, listener: Path, said: list[str]) -> None:
        self.process, self.socket, self.said = process, listener, said

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    def guard(self, agent: str = "billing-agent", *, attempts: int = 4, key: Path | None = None) -> Guard:
        duties = {"log_level": lambda *_: None}
        signer = None if key is None else AgentKey.from_file(key)
        return Guard(self.address, agent=agent, timeout=20.0, attempts=attempts, obligations=duties, key=signer)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(START_SECONDS)


@contextlib.contextmanager
def serving(
    ledger: Path,
    *flags: str | Path,
    dev: bool = True,
    within: Sequence[str] = (),
    program: Sequence[str | Path] = (BIN / "sidecar",),
    **more: str,
) -> Iterator[Serving]:
    """A sidecar on a socket beside its ledger; killed at the end if it still runs. ``within``: `Host.within`."""
    listener = ledger.with_name(ledger.name + ".sock")
    where = ["--data-dir", str(ledger), "--listen", f"unix:{listener}", *(["--dev"] if dev else [])]
    command = [*within, *map(str, program), "serve", *where, *map(str, flags)]
    with start(command, **more) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line.rstrip())
                if "is ready" in line:
                    break
            else:
                raise AssertionError(f"the sidecar did not start: {said}")
            yield Serving(process, listener, said)
        finally:
            process.kill()


def listens(path: Path) -> bool:
    """Whether a program takes connections there: the file is made by bind(), a moment before listen()."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0


@contextlib.contextmanager
def serving_unready(ledger: Path, *flags: str | Path, **more: str) -> Iterator[Serving]:
    """A sidecar that answers, though it may have no policy to decide by, and so never says that it is ready."""
    listener = ledger.with_name("unready.sock")
    where = ["--data-dir", ledger, "--listen", f"unix:{listener}", "--dev", *flags]
    command = [str(BIN / "sidecar"), "serve", *map(str, where)]
    with forking.Forked(command, environment(**more), stderr=subprocess.DEVNULL) as process:
        try:
            while not listens(listener):
                assert process.poll() is None, "the sidecar did not start"
                time.sleep(0.02)
            yield Serving(process, listener, [])
        finally:
            process.kill()
            listener.unlink(missing_ok=True)


def made(place: Path) -> tuple[Path, Path]:
    """A new ledger and its custodian's private key."""
    key, ledger = place / "auditor.pem", place / "ledger"
    assert sidecar("keys", "custodian", "--out", key).returncode == 0
    done = sidecar("init", "--data-dir", ledger, "--custodian", place / "auditor.pub.pem")
    assert done.returncode == 0, done.stderr
    return ledger, key
