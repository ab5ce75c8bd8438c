"""Running `opa` over a policy that nobody has judged yet: bounded in time, memory, CPU and what it writes.

It gets an environment of two names, a session of its own and ends with the thread that started it. No shell, no
network of its own accord: what could reach out is taken away by the capabilities (`capabilities`).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .findings import refused
from .killing import kill_group
from .opa_program import OpaProgram

# A step of its own, because Python code between fork and exec is not safe in a process with threads.
# prctl(PR_SET_PDEATHSIG, SIGKILL) outlives exec, and so do the limits.
_BECOME: Final = """
import ctypes, os, resource, sys
parent, memory, cpu, size = map(int, sys.argv[1:5])
if ctypes.CDLL(None).prctl(1, 9) != 0 or os.getppid() != parent:
    sys.exit("opa was not started: it could not be tied to the sidecar's life")
for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_FSIZE, size)):
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")  # if memory runs out, the kernel takes this process before the sidecar
except OSError:
    pass
os.umask(0o077)
os.execve(sys.argv[5], sys.argv[5:], {"HOME": os.getcwd(), "TMPDIR": os.getcwd()})
"""
_LOOK: Final = 0.1  # seconds between two looks whether it was broken off
_TOO_LARGE: Final = re.compile(r"^(error: )?write \S+: file too large$|^SIGXFSZ", re.MULTILINE)
_OUT_OF_MEMORY: Final = ("out of memory", "cannot allocate memory", "failed to reserve", "failed to allocate")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of each run of `opa`: ``seconds`` by the clock (twice that of CPU), address space, bytes of one file or stream.

    OPA reserves more than 1 GiB of addresses that it does not use.
    """

    seconds: float = 60.0
    memory_bytes: int = 3 << 30
    output_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory_bytes < 3 << 29 or self.output_bytes < 1 << 20:
            raise ValueError("bounds are above 0 seconds, at least 1.5 GiB of memory and 1 MiB of output")


@dataclass(frozen=True, slots=True)
class Said:
    """How a run ended: its exit status, negative for a signal, and what it wrote."""

    status: int
    out: bytes
    err: str


def run_opa(
    program: OpaProgram, arguments: list[str], place: Path, bounds: Bounds, broken_off: threading.Event | None = None
) -> Said:
    """Run ``opa arguments`` in the directory ``place``, to its end, or until ``broken_off`` is set.

    Raises `Refused` when it was broken off or went beyond its bounds; its whole process group is then dead.
    """
    limits = [os.getpid(), bounds.memory_bytes, int(2 * bounds.seconds) + 1, bounds.output_bytes]
    start = [sys.executable, "-I", "-S", "-c", _BECOME, *map(str, limits), program.path, *arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            start, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=place, env={}, start_new_session=True
        )
        try:
            status = _status(process, arguments[0], bounds, broken_off)
        finally:
            if process.returncode is None:
                kill_group(process)
        out.seek(0)
        err.seek(0)
        said = Said(status, out.read(bounds.output_bytes), err.read(1 << 20).decode(errors="replace"))
    if trouble := _beyond(said, bounds):
        raise refused(f"opa {arguments[0]} {trouble}; simplify the policy")
    return said


def _status(process: subprocess.Popen[bytes], name: str, bounds: Bounds, broken_off: threading.Event | None) -> int:
    end = time.monotonic() + bounds.seconds
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(left, _LOOK))
        if broken_off is not None and broken_off.is_set():
            raise refused(f"opa {name} was broken off")
    raise refused(f"opa {name} did not finish in {bounds.seconds:g} s; simplify the policy")


def _beyond(said: Said, bounds: Bounds) -> str:
    """Which bound it ran into, in words."""
    if said.status == 0:
        return ""
    if said.status == -signal.SIGXFSZ or _TOO_LARGE.search(said.err + said.out[:4096].decode(errors="replace")):
        return f"wrote more than {bounds.output_bytes >> 20} MiB"
    if "fatal error:" in said.err and any(words in said.err for words in _OUT_OF_MEMORY):
        return f"needs more than {bounds.memory_bytes >> 20} MiB of memory"
    if said.status in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"was stopped after {2 * bounds.seconds:g} s of CPU, or for want of memory"
    return f"was killed by signal {-said.status}" if said.status < 0 else ""
