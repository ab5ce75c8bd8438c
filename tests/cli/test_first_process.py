"""As the first process of a container: what is asked to end does, although the kernel spares it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.needs import cannot_run, needs_program
from tests.program import BIN, environment

PATIENCE = 60.0  # seconds; a guard, not a measure


def opened(fifo: Path, process: subprocess.Popen[str]) -> int:
    """The writing end, once somebody reads the other."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)


def test_sigterm_ends_a_command_that_waits(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        cannot_run("needs root: only it may make a process the first of its own")
    fifo = tmp_path / "registry.json"
    os.mkfifo(fifo)
    within = [needs_program("unshare"), "--pid", "--fork", "--kill-child"]
    command = [*within, BIN / "sidecar", "agents", "list", "--registry", fifo]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            writing = opened(fifo, process)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            (first,) = map(int, children)
            os.kill(first, signal.SIGTERM)
            assert process.wait(PATIENCE) == 128 + signal.SIGTERM
            os.close(writing)
        finally:
            process.kill()
