"""A real SPIRE server and agent on loopback. Workloads are told apart by the program they run, as unix:path has it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.needs import needs_program
from tests.ports import free_port

DOMAIN = "sidecar.test"
SVID_SECONDS = 12  # SPIRE dates an SVID 10 s back and renews it at half of its life: every second or two
_HOST = f"spiffe://{DOMAIN}/host"
_PATIENCE_SECONDS = 60  # a guard against a program that waits forever, not a measure of speed

_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{place}/server.sock"
  trust_domain = "{domain}"
  data_dir = "{place}/server"
  log_level = "WARN"
  ca_ttl = "1h"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{place}/entries.sqlite3" }} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"""
_AGENT = """
agent {{
  data_dir = "{place}/agent"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{place}/agent.sock"
  trust_bundle_path = "{place}/bundle.pem"
  trust_domain = "{domain}"
  join_token = "{token}"
  log_level = "WARN"
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = true }} }}
}}
"""


@dataclass(frozen=True, slots=True)
class Spire:
    """What runs: the Workload API's socket, and the server's command line."""

    place: Path
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def workload_api(self) -> Path:
        return self.place / "agent.sock"

    def register(self, spiffe_id: str, program: Path, *more: str, seconds: int = SVID_SECONDS) -> None:
        """The id for whatever runs ``program``; an SVID is good for so many ``seconds``."""
        selector = ["-selector", f"unix:path:{program.resolve()}", "-x509SVIDTTL", str(seconds)]
        self.server("entry", "create", "-parentID", _HOST, "-spiffeID", spiffe_id, *selector, *more)

    def federate(self, domain: str, bundle: bytes) -> None:
        """Hand this bundle of another trust domain to workloads registered with `-federatesWith`."""
        path = self.place / f"{domain}.pem"
        path.write_bytes(bundle)
        self.server("bundle", "set", "-id", f"spiffe://{domain}", "-path", str(path))

    def end_agent(self) -> None:
        """The agent is gone for good: a join token is good for one start."""
        for process in self.agents:
            process.kill()
            process.wait(_PATIENCE_SECONDS)

    def server(self, *command: str) -> str:
        """One command of spire-server to the running one; gives what it printed."""
        where = ["-socketPath", str(self.place / "server.sock")]
        done = subprocess.run(
            [needs_program("spire-server"), *command, *where], capture_output=True, text=True, timeout=_PATIENCE_SECONDS
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


def program_of_its_own(place: Path, name: str) -> tuple[Path, dict[str, str]]:
    """A copy of this Python under another path, and the environment in which it finds our modules."""
    copy = place / name
    shutil.copy(Path(sys.executable).resolve(), copy)
    packages = os.pathsep.join(path for path in sys.path if path)
    return copy, {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": packages}


@contextlib.contextmanager
def spire(place: Path, register: Callable[[Spire], None]) -> Iterator[Spire]:
    """SPIRE of the trust domain `DOMAIN`; ``place`` must be short, since sockets are in it.

    ``register`` is called before the agent starts, so that it knows its workloads at once.
    """
    programs = needs_program("spire-server"), needs_program("spire-agent")
    for directory in ("server", "agent"):
        (place / directory).mkdir()
    here = Spire(place)
    names = {"place": place, "port": free_port(), "domain": DOMAIN}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(programs[0], place, "server", _SERVER.format(**names)))
        (place / "bundle.pem").write_text(here.server("bundle", "show"))
        register(here)
        token = here.server("token", "generate", "-spiffeID", _HOST).split()[-1]
        agent = _AGENT.format(**names, token=token)
        here.agents.append(stack.enter_context(_running(programs[1], place, "agent", agent)))
        yield here


@contextlib.contextmanager
def _running(program: str, place: Path, name: str, settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program, from when it says that it is healthy; killed at the end."""
    (place / f"{name}.conf").write_text(settings)
    log = place / f"{name}.log"
    command = [program, "run", "-config", str(place / f"{name}.conf")]
    healthy = [program, "healthcheck", "-socketPath", str(place / f"{name}.sock")]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            while subprocess.run(healthy, capture_output=True, timeout=_PATIENCE_SECONDS).returncode != 0:
                assert process.poll() is None, f"{name} did not start: {log.read_text()}"
                time.sleep(0.05)
            yield process
        finally:
            process.kill()
