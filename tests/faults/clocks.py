"""A wall clock of its own for a process: a few lines of C before the C library's, which move CLOCK_REALTIME alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.needs import needs_program

_MOVED = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#define OFF (HOURS * 3600L)
int clock_gettime(clockid_t which, struct timespec *at) {
  int failed = syscall(SYS_clock_gettime, which, at);
  if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) at->tv_sec += OFF;
  return failed;
}
int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  int failed = clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return failed;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return at ? (*at = now.tv_sec) : now.tv_sec;
}
"""


def off_by(hours: int, place: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is wrong by so many hours; what makes it so is put in ``place``."""
    library = place / f"clock{hours:+d}.so"
    source = library.with_suffix(".c")
    source.write_text(_MOVED)
    command = [needs_program("cc"), "-shared", "-fPIC", f"-DHOURS={hours}", "-o", library, source]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"LD_PRELOAD": str(library)}
