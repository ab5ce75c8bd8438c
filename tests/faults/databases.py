"""A PostgreSQL on a host of its own, which can be killed with all its processes and started again on what it left."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.faults.hosts import Host
from tests.needs import cannot_run
from tests.servers.running import PATIENCE


class Database:
    """``address``: libpq's connection string, for other hosts."""

    def __init__(self, host: Host, home: Path, binaries: Path) -> None:
        self._host, self._home, self._binaries = host, home, binaries
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"host={host.address} port=5432 user=sidecar dbname=postgres"

    def make(self) -> None:
        made = self._as_nobody(
            "initdb", "-D", self._home / "data", "-U", "sidecar", "--auth=trust", "--no-locale", "-N"
        )
        assert made.wait(PATIENCE) == 0
        with (self._home / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.77.0.0/24 trust\n")

    def start(self) -> None:
        """Returns when it answers; tried again where what was killed has not let go of everything yet."""
        where = ("-k", self._home, "-h", self._host.address, "-p", "5432", "-F")
        until = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < until, "PostgreSQL does not start"
            if self._process is None or self._process.poll() is not None:
                self._process = self._as_nobody("postgres", "-D", self._home / "data", *where)
            time.sleep(0.02)  # between two looks

    def kill(self) -> None:
        """kill -9 of the server and all of its children, which are in sessions of their own."""
        if self._process is None:
            return
        started = self._process.pid
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/{started}/task/{started}/children").read_text().split()
            for process in (started, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"host={self._home} port=5432 user=sidecar dbname=postgres").close()
            return True
        return False

    def _as_nobody(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        nobody = pwd.getpwnam("nobody")
        drop = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
        command = [*self._host.within, *drop, str(self._binaries / program), *map(str, arguments)]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, cwd=self._home, stdin=quiet, stdout=quiet, stderr=quiet)


@contextlib.contextmanager
def database(host: Host) -> Iterator[Database]:
    """A new one, running."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        cannot_run("needs PostgreSQL's server: install postgresql with the system's package manager")
    home = Path(tempfile.mkdtemp(prefix="sidecar-pg-"))  # where another user may go; and a socket's path is short
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    made = Database(host, home, programs[-1].parent)
    try:
        made.make()
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(home)
