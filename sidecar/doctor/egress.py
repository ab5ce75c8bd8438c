"""Ways out: whether the agent's user reaches a host outside, tried as that user."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from sidecar.config import host_and_port
from sidecar.doctor.finding import Finding, careful, ok, wrong
from sidecar.doctor.patient import Patient
from sidecar.errors import UsageError

_SECONDS: Final = 2.0  # for each attempt
_NOBODYS: Final = "192.0.2.1"  # RFC 5737: no host has it, so who answers there stands between
_PR_SET_NO_NEW_PRIVS: Final = 38  # <linux/prctl.h>
# The name servers of the root: any resolver answers, and many another service with an error.
_QUESTION: Final = struct.pack("!6H", 1, 0, 1, 0, 0, 0) + b"\0" + struct.pack("!2H", 2, 1)
_MEND: Final = "see docs/EGRESS.md: redirect the agent's pod, or let it reach its gateway alone"


@dataclass(frozen=True, slots=True)
class Way:
    """``kind``: tcp or udp; ``host`` an address."""

    kind: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind} to {host}:{self.port}"


def check_egress(patient: Patient) -> Iterator[Finding]:
    """What becomes of the agent's attempts, and which of docs/EGRESS.md's patterns that is; nothing where no address is
    given. Raises UsageError, OSError."""
    agent = patient.agent
    found: list[Finding] = []
    for given in patient.egress:
        ways = list(_ways(given))
        theirs = _apart(partial(_each, _fate, ways), agent.uid, tuple(agent.gids))
        ours = [""] * len(ways) if agent.uid == os.geteuid() else _each(_try, ways)
        found += [_judged(agent.uid, *each) for each in zip(ways, theirs, ours, strict=True)]
    yield from found
    if found:
        yield _pattern(agent.uid, found)


def _pattern(uid: int | None, found: list[Finding]) -> Finding:
    """Which one holds, by all attempts together: one that is open is a way round all the others."""
    said, states = f"the agent's user {uid} is held", {each.state for each in found}
    if "wrong" in states:
        open_ = ", ".join(_way(each) for each in found if each.state == "wrong")
        return wrong("pattern", f"{said} by no network ({open_}): 1 at most, credentials only in the gateway", _MEND)
    if states == {"careful"}:
        mend = "see from elsewhere that the hosts answer, and from here that the gateway does"
        return careful(
            "pattern", f"{said} with all of its pod: 3, the gateway in a pod of its own, or no network", mend
        )
    if states == {"ok"} and any(each.found.endswith("redirected") for each in found):
        return ok("pattern", f"{said} in its pod: 2, egress redirected to Envoy")
    mend = "see that Envoy listens, and give IPv4 addresses that answer where nobody is held"
    return careful("pattern", f"{said}, but by none of the patterns whole", mend)


def _way(finding: Finding) -> str:
    return finding.found.partition(", ")[2].partition(": ")[0]


def _each(what: Callable[[Way], str], ways: list[Way]) -> list[str]:
    """All at once: most of it is waiting."""
    with ThreadPoolExecutor(len(ways)) as attempts:
        return list(attempts.map(what, ways))


def _judged(uid: int, way: Way, fate: str, ours: str) -> Finding:
    said = f"the agent's user {uid}, {way}: "
    if fate == "open":
        return wrong("egress", f"{said}open", _MEND)
    if fate == "silent" and ours != "answered":
        why = "closed for all of this pod, or nobody answers there"
        return careful("egress", f"{said}no answer to any user: {why}", "see from elsewhere that the host answers")
    return ok("egress", f"{said}{'closed' if fate == 'silent' else fate}")


def _ways(given: str) -> Iterator[Way]:
    name, port = host_and_port("--egress", given)
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--egress {given}: no such host; give an address") from error
    for host in dict.fromkeys(str(each[4][0]) for each in found):
        yield Way("tcp", host, port)
        yield Way("udp", host, port)


def _fate(way: Way) -> str:
    """`open`, `redirected`, `closed`, or `silent` where that cannot be told from a host that does not answer."""
    if way.kind == "tcp" and ":" not in way.host:
        nobody = _try(Way("tcp", _NOBODYS, way.port))
        if nobody == "answered":
            return "redirected"
        if nobody == "refused":
            return "closed"  # by a rule here, which sends it to where nobody listens
    told = _try(way)
    return "open" if told in ("answered", "refused") else told


def _try(way: Way) -> str:
    """`answered`; `refused` by whoever is there; `closed` by this host's own word; or `silent`."""
    family = socket.AF_INET6 if ":" in way.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if way.kind == "tcp" else socket.SOCK_DGRAM) as out:
        out.settimeout(_SECONDS)
        try:
            out.connect((way.host, way.port))
            if way.kind == "udp":
                out.send(_QUESTION)
                out.recv(1)
        except ConnectionRefusedError:
            return "refused"
        except OSError as error:
            return "closed" if error.errno in (errno.EPERM, errno.EACCES, errno.ENETUNREACH) else "silent"
    return "answered"


def _apart(what: Callable[[], list[str]], uid: int | None, gids: tuple[int, ...]) -> list[str]:
    """What it gives in a process of its own, as that user with no capability. Raises OSError."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.suppress(BaseException):
            os.write(writing, json.dumps(_as_user(what, uid, gids)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        found = json.loads(told.read() or '[0, "it ended without a word"]')
    os.waitpid(child, 0)
    if found and isinstance(found[0], int):
        raise OSError(found[0], f"{found[1]}; be root, or that user", f"the agent's user {uid}")
    return list(found)


def _as_user(what: Callable[[], list[str]], uid: int | None, gids: tuple[int, ...]) -> list[str] | tuple[int, str]:
    try:
        if uid is not None and uid != os.geteuid():
            os.setgroups(gids)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return what()
    except OSError as error:
        return error.errno or 0, error.strerror or str(error)
