"""Two processes of tests have no port in common, and none that the kernel gives to a socket by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.ports import free_port

REPOSITORY = Path(__file__).parent.parent


def test_no_other_is_given_it_while_this_process_lives() -> None:
    ours = {free_port() for _ in range(10)}
    code = "from tests.ports import free_port\nprint(*(free_port() for _ in range(10)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    theirs = {int(port) for port in done.stdout.split()}
    assert len(ours) == len(theirs) == 10 and not ours & theirs
    kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ours | theirs) < kernels
