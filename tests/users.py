"""Programs as other users. They may lie where only root comes (a Python below /root): then in mounts of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from tests.needs import cannot_run, needs_program

_NEEDED: Final = (Path(sys.base_prefix).resolve(), Path(__file__).resolve().parents[1])
# $1: a scratch directory, $2: what is needed of it, $3: the directory that only root enters; the rest: the command.
_OPENED: Final = """
mkdir -p "$1" && mount --bind "$2" "$1" && mount -t tmpfs -o mode=755 none "$3"
mkdir -p "$2" && mount --bind "$1" "$2" && shift 3 && exec "$@"
"""


def as_user(user: int, group: int, scratch: Path, *groups: int) -> tuple[str, ...]:
    """What to put before a command that is to run as that user, in those groups and no others; its pid stays.

    ``scratch``: a directory that root may write in.
    """
    if os.geteuid() != 0:
        cannot_run("needs to be root, to start processes as other users")
    supplementary = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    command = [needs_program("setpriv"), f"--reuid={user}", f"--regid={group}", supplementary]
    for number, needed in enumerate(_NEEDED):
        closed = next((p for p in reversed(needed.parents) if not p.stat().st_mode & 0o001), None)
        if closed is not None:
            place = scratch / f"opened-{number}"
            command = [
                needs_program("unshare"),
                "--mount",
                "sh",
                "-ec",
                _OPENED,
                "sh",
                *map(str, (place, needed, closed)),
                *command,
            ]
    return tuple(command)
