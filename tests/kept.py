"""What tests bring or build once and keep: one worker makes it, the others wait and find it made."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path


def kept(where: Path, make: Callable[[Path], None]) -> Path:
    """``where``, a file or a directory; where nothing is there yet, what ``make`` leaves at the path that it is given.

    It gets there in one step, so that a run that was broken off leaves nothing that is half made.
    """
    if where.exists():
        return where
    where.parent.mkdir(parents=True, exist_ok=True)
    with where.with_name(f".{where.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not where.exists():
            with tempfile.TemporaryDirectory(dir=where.parent) as near:
                made = Path(near) / where.name
                make(made)
                made.rename(where)
    return where
