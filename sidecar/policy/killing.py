"""Ending a program that went beyond its bounds, with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Final

_DYING: Final = 1.0  # seconds that killed processes may take to be gone
_LOOK: Final = 0.005


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the group that a process leads, and wait for all of it: what still writes is in the way of tidying up."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    end = time.monotonic() + _DYING
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(_LOOK)
