"""Runs a program of the image as `docker run --read-only` does: its root read-only, its user, no rights, process 1.

/tmp is a tmpfs, and volumes are bound in; nothing else can be written.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.image.making import Stage

PATIENCE: Final = 120.0  # seconds; a guard, not a measure


def command(image: Stage, arguments: Sequence[str], volumes: Mapping[Path, str]) -> list[str]:
    """What runs ``arguments`` there; ``volumes``: where directories of this machine are bound."""
    root, user = image.root, image.config["USER"]
    lines = [
        "set -e",
        f"mount --bind {root} {root}",
        f"mount -o remount,bind,ro {root}",
        f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
        f"mount --rbind /dev {root}/dev",
        f"mount -t proc proc {root}/proc",
        *(f"mount --bind {shlex.quote(str(here))} {root}{there}" for here, there in volumes.items()),
    ]
    assigned = [f"{name}={value}" for name, value in image.environment.items()]
    run = ["setpriv", "--no-new-privs", "chroot", f"--userspec={user}", "--groups=", str(root)]
    # No env(1) in there: this machine's own puts the variables in place before.
    lines.append(f"exec env -i {shlex.join(assigned)} {shlex.join(_found(run))} {shlex.join(arguments)}")
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", "\n".join(lines)]


def _found(run: list[str]) -> list[str]:
    """With paths of this machine: PATH is the image's by then."""
    return ["/usr/bin/setpriv", run[1], "/usr/sbin/chroot", *run[3:]]


def ran(image: Stage, *arguments: str, volumes: Mapping[Path, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A program of the image, to its end."""
    whole = command(image, arguments, volumes or {})
    return subprocess.run(whole, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)


class Running:
    """``said``: up to being ready. The process that is signalled is number 1 of its own."""

    def __init__(self, process: subprocess.Popen[str], said: list[str]) -> None:
        self.process, self.said = process, said

    @property
    def first(self) -> int:
        """What it is out here."""
        (first,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(first)

    def stop(self, number: int = signal.SIGTERM) -> int:
        subprocess.run(["kill", f"-{number}", str(self.first)], check=True)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def served(image: Stage, *arguments: str, volumes: Mapping[Path, str]) -> Iterator[Running]:
    """A program of the image that says when it is ready; killed at the end if it still runs."""
    whole = command(image, arguments, volumes)
    with subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stderr is not None
            said, until = [], time.monotonic() + PATIENCE
            for line in process.stderr:
                said.append(line)
                assert time.monotonic() < until, said
                if "is ready" in line:
                    break
            else:
                raise AssertionError(f"it did not start: {said}")
            yield Running(process, said)
        finally:
            process.kill()
