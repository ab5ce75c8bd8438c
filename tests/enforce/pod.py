"""A pod and a host outside of it, in network namespaces; the host records every packet that reaches it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import platform
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.enforce import ways_out
from tests.faults.hosts import Host, hosts
from tests.needs import needs_program
from tests.users import as_user

RULES: Final = Path(__file__).resolve().parents[2] / "charts" / "sidecar" / "files" / "egress.nft"
AGENT_USER: Final = 10001
SIX: Final = {"pod": "fd77::1", "outside": "fd77::2", "gateway": "fd77::3", "node": "fd77::4"}
_FENCE: Final = 9
_SO_RCVBUFFORCE: Final = 33  # <asm-generic/socket.h>
_SETFSUID: Final = {"x86_64": 122, "aarch64": 151}[platform.machine()]  # <asm/unistd.h>
_PATIENCE: Final = 60.0
_NAMES: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}


@dataclass(slots=True)
class Pod:
    """Both. ``seen``: what reached the host outside, as `tcp/443`, without what a network says to itself; ``trusted``:
    a user whose packets the rules let out; ``others``: further hosts of that network."""

    inside: Host
    outside: Host
    sniffer: socket.socket
    seen: list[str] = field(default_factory=list)
    trusted: int = 0
    others: dict[str, Host] = field(default_factory=dict)

    def guard(self, door: int, trusted: str = "{ 0 }") -> None:
        """The chart's rules, in force. Here Envoy and the sidecar are root."""
        defined = (f"door={door}", f"doors={{ {door} }}", f"trusted={trusted}")
        nft(self.inside, *(word for each in defined for word in ("--define", each)), "--file", str(RULES))

    def run(self, scratch: Path, *command: str | Path, user: int = AGENT_USER) -> str:
        """A program in the pod, as the chart has the workload: no capabilities and no new ones."""
        words = self._words(scratch, command, user)
        done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def started(self, scratch: Path, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """The same, while it runs; what it prints can be read."""
        with subprocess.Popen(self._words(scratch, command, AGENT_USER), stdout=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    def _words(self, scratch: Path, command: Sequence[str | Path], user: int) -> list[str]:
        whose = () if user == 0 else (*as_user(user, user, scratch), needs_program("setpriv"), "--no-new-privs")
        return [*self.inside.within, *whose, *map(str, command)]

    def try_ways(self, scratch: Path, admin: Path, user: int = AGENT_USER) -> dict[str, str]:
        """What the agent says of each."""
        where = (self.outside.address, SIX["outside"], str(admin))
        told: dict[str, str] = json.loads(self.run(scratch, sys.executable, ways_out.__file__, *where, user=user))
        return told

    def arrived(self) -> list[str]:
        """What came since the last time."""
        self.others.get("node", self.inside).call(self._fence)
        wanted, end = {4, 6}, time.monotonic() + _PATIENCE
        before = len(self.seen)
        while wanted:
            ready, _, _ = select.select([self.sniffer], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the fence did not arrive: {wanted}"
            frame, address = self.sniffer.recvfrom(65_536)
            what = "" if address[2] == socket.PACKET_OUTGOING else told(frame)
            if what in (f"udp/{_FENCE}", f"udp6/{_FENCE}"):
                wanted.discard(6 if "6" in what else 4)
            elif what:
                self.seen.append(what)
        return self.seen[before:]

    def _fence(self) -> None:
        ctypes.CDLL(None).syscall(_SETFSUID, self.trusted)  # of this thread alone, which ends with the fence
        for family, host in ((socket.AF_INET, self.outside.address), (socket.AF_INET6, SIX["outside"])):
            with socket.socket(family, socket.SOCK_DGRAM) as out:
                out.sendto(b"fence", (host, _FENCE))


def told(frame: bytes) -> str:
    """What a frame is; nothing for ARP, IGMP, and neighbours' and routers' ICMPv6."""
    kind, packet = struct.unpack_from("!H", frame, 12)[0], frame[14:]
    if kind == 0x0800 and packet[9] == 2:
        return ""  # IGMP, the kernel's own
    if kind == 0x0800:
        protocol, rest, six = packet[9], packet[(packet[0] & 15) * 4 :], ""
    elif kind == 0x86DD:
        protocol, rest, six = packet[6], packet[40:], "6"
        if protocol == 0 or (protocol == 58 and 130 <= rest[0] <= 143):
            return ""  # multicast listeners, routers and neighbours
    else:
        return "" if kind == 0x0806 else f"frame/{kind:04x}"
    name = _NAMES.get(protocol, str(protocol))
    if protocol in (6, 17):
        return f"{name}{six}/{struct.unpack_from('!H', rest, 2)[0]}"
    return f"{name}{six}"


def nft(host: Host, *arguments: str) -> None:
    """As root there."""
    command = [*host.within, needs_program("nft"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def pod(*others: str) -> Iterator[Pod]:
    """They run; whoever the agent talks to beyond its network is the host outside. Of ``others`` a `node` is one that
    nothing holds."""
    needs_program("nft")
    with hosts(("pod", "outside", *others)) as at:
        for name, host in at.items():
            _in(host, "ip", "-6", "address", "add", f"{SIX[name]}/64", "dev", "eth0", "nodad")
        inside, outside = at.pop("pod"), at.pop("outside")
        _in(inside, "ip", "route", "add", "default", "via", outside.address)
        inside.call(_as_runtimes_have_it)
        sniffer = outside.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        with contextlib.closing(sniffer):
            sniffer.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)  # room for what a pod's start sends
            sniffer.bind(("eth0", 3))
            yield Pod(inside, outside, sniffer, others=at)


def _as_runtimes_have_it() -> None:
    """What container runtimes set in a pod: pings, and low ports, for everybody."""
    for name, value in (("ping_group_range", "0 2147483647"), ("ip_unprivileged_port_start", "0")):
        Path("/proc/sys/net/ipv4", name).write_text(value)


def _in(host: Host, *command: str) -> None:
    subprocess.run([*host.within, *command], check=True, capture_output=True)


def entered(host: Host, manager: contextlib.AbstractContextManager[Any], stack: contextlib.ExitStack) -> Any:
    """What a context manager gives that was entered on that host: its sockets and processes are there."""
    given = host.call(manager.__enter__)
    stack.push(manager.__exit__)
    return given
