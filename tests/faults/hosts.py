"""Several hosts on one machine: network namespaces on one switch, each with an address of its own, that can be cut off.

What runs on a host is a real process that reaches the others over real TCP. A host that is cut off drops every packet,
as a pulled cable does: no connection is closed, nothing is refused. Files and unix sockets are shared, so that a test
drives and looks at everything from outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from tests.needs import cannot_run, needs_program

_CLONE_NEWNET: Final = 0x40000000  # <linux/sched.h>
_SWITCH: Final = "switch0"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Host:
    """``address``: of this host on the switch; ``within``: what to put before a command that is to run on it."""

    name: str
    namespace: str
    port: str
    switch: str
    address: str

    @property
    def within(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.namespace)

    def cut(self) -> None:
        """Nothing gets to this host, or away from it, until `heal`."""
        _run("ip", "-n", self.switch, "link", "set", self.port, "down")

    def heal(self) -> None:
        """As before."""
        _run("ip", "-n", self.switch, "link", "set", self.port, "up")

    def call(self, what: Callable[[], _T]) -> _T:
        """What ``what`` gives where it is called on this host: in a thread of its own, which stays there."""
        given: list[_T] = []
        failed: list[BaseException] = []

        def there() -> None:
            try:
                _enter(self.namespace)
                given.append(what())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return given[0]


@contextlib.contextmanager
def hosts(names: Sequence[str]) -> Iterator[dict[str, Host]]:
    """Hosts of these names, taken away at the end with all that their processes left."""
    if os.getuid() != 0:
        cannot_run("needs root: only it may make network namespaces")
    needs_program("ip")
    own = f"sidecar-{os.getpid()}"
    switch = f"{own}-switch"
    made: list[str] = []
    try:
        _make(switch, made)
        _run("ip", "-n", switch, "link", "add", "name", _SWITCH, "type", "bridge")
        _run("ip", "-n", switch, "link", "set", _SWITCH, "up")
        found = {}
        for number, name in enumerate(names, 1):
            host = Host(name, f"{own}-{name}", f"port{number}", switch, f"10.77.0.{number}")
            _make(host.namespace, made)
            _plug(host)
            found[name] = host
        yield found
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _make(namespace: str, made: list[str]) -> None:
    added = subprocess.run(["ip", "netns", "add", namespace], check=False, capture_output=True, text=True)
    if added.returncode != 0:
        cannot_run(f"this machine makes no network namespaces: {added.stderr.strip()}")
    made.append(namespace)


def _plug(host: Host) -> None:
    _run("ip", "link", "add", host.port, "netns", host.switch, "type", "veth", "peer", "eth0", "netns", host.namespace)
    _run("ip", "-n", host.switch, "link", "set", host.port, "master", _SWITCH, "up")
    _run("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    for each in ("eth0", "lo"):
        _run("ip", "-n", host.namespace, "link", "set", each, "up")


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as file:  # noqa: PTH123  a descriptor is what is wanted
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
