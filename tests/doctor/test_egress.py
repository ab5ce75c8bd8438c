"""`sidecar doctor --egress` in a pod: without rules, under the chart's, and where a network drops packets."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.enforce.pod import AGENT_USER, SIX, Pod, nft, pod
from tests.program import BIN, environment, sidecar
from tests.users import as_user

PORT, DOOR = 5300, 15001
RULES = "table inet network { chain held { type filter hook %s priority 10; policy accept; %s; }; }"


def resolver(at: Pod) -> tuple[socket.socket, ...]:
    """Sockets outside that take connections, and answer datagrams."""
    where = ("::", PORT)
    tcp = socket.create_server(where, family=socket.AF_INET6, dualstack_ipv6=True)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(where)
    return tcp, udp


def answering(udp: socket.socket) -> None:
    while True:
        data, sender = udp.recvfrom(512)
        if data == b"end":
            return
        udp.sendto(data, sender)


@pytest.fixture
def at() -> Iterator[Pod]:
    with pod() as made:
        tcp, udp = made.outside.call(lambda: resolver(made))
        thread = threading.Thread(target=answering, args=(udp,))
        thread.start()
        with closing(tcp), closing(udp):
            yield made
            nft(made.outside, "flush", "ruleset")

            def end() -> None:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                    out.sendto(b"end", ("127.0.0.1", PORT))

            made.outside.call(end)
            thread.join()


def told(at: Pod, place: Path, *hosts: str) -> tuple[list[tuple[str, str]], tuple[str, str]]:
    """Of each way, and of all together."""
    where = [flag for host in hosts for flag in ("--egress", f"{host}:{PORT}")]
    command = [*at.inside.within, BIN / "sidecar", "doctor", "--data-dir", place, "--agent-uid", AGENT_USER, "--json"]
    done = subprocess.run(
        [*map(str, command), *where], capture_output=True, text=True, env=environment(), check=False, timeout=120
    )
    assert done.returncode in (0, 1), done.stderr
    found = [each for each in json.loads(done.stdout)["findings"] if each["check"] in ("egress", "pattern")]
    assert done.returncode == 1 or "wrong" not in {each["state"] for each in found}
    *ways, pattern = found
    assert {each["check"] for each in ways} == {"egress"} and pattern["check"] == "pattern"
    return [(e["state"], e["found"].partition(": ")[2]) for e in ways], (pattern["state"], pattern["found"])


HELD = f"the agent's user {AGENT_USER} is held"


def test_it_tells_which_way_is_open_redirected_or_closed(at: Pod, tmp_path: Path) -> None:
    four, six = at.outside.address, f"[{SIX['outside']}]"
    ways, pattern = told(at, tmp_path, four, six)
    assert ways == [("wrong", "open")] * 4
    tried = ", ".join(f"{kind} to {host}:{PORT}" for host in (four, six) for kind in ("tcp", "udp"))
    assert pattern == ("wrong", f"{HELD} by no network ({tried}): 1 at most, credentials only in the gateway")
    at.guard(DOOR)
    ways, pattern = told(at, tmp_path, four)
    assert ways[0] == ("ok", "closed")  # nobody listens there
    assert pattern == ("careful", f"{HELD}, but by none of the patterns whole")
    door = at.inside.call(lambda: socket.create_server(("127.0.0.1", DOOR)))
    with closing(door):
        ways, pattern = told(at, tmp_path, four, six)
        assert ways == [("ok", "redirected"), ("ok", "closed"), ("ok", "closed"), ("ok", "closed")]
        assert pattern == ("ok", f"{HELD} in its pod: 2, egress redirected to Envoy")
        nft(at.inside, "insert rule inet decision_sidecar out", f"meta skuid {AGENT_USER} udp dport {PORT} accept")
        ways, pattern = told(at, tmp_path, four)
        assert ways == [("ok", "redirected"), ("wrong", "open")]  # a hole in the rules
        assert pattern[0] == "wrong" and f"(udp to {four}:{PORT})" in pattern[1]
    nft(at.inside, "flush", "ruleset")
    nft(at.inside, RULES % ("output", f"meta skuid {AGENT_USER} ip dscp set 10"))
    nft(at.outside, RULES % ("input", "ip dscp 10 drop"))  # on the way, so that nobody in the pod is told
    assert told(at, tmp_path, four)[0] == [("ok", "closed")] * 2


def test_a_host_that_does_not_answer_proves_nothing(at: Pod, tmp_path: Path) -> None:
    ways, _ = told(at, tmp_path, "10.77.0.77")
    assert [state for state, _ in ways] == ["careful"] * 2
    assert "nobody answers there" in ways[0][1]


def test_a_network_that_holds_the_whole_pod_looks_like_that_too(at: Pod, tmp_path: Path) -> None:
    """As a NetworkPolicy does: no user's packets arrive, and nobody here is told."""
    nft(at.outside, RULES % ("input", "drop"))
    ways, pattern = told(at, tmp_path, at.outside.address)
    assert [state for state, _ in ways] == ["careful"] * 2
    assert "closed for all of this pod" in ways[0][1]
    assert pattern == ("careful", f"{HELD} with all of its pod: 3, the gateway in a pod of its own, or no network")


def test_it_must_know_whom_to_be(tmp_path: Path) -> None:
    done = sidecar("doctor", "--data-dir", tmp_path, "--egress", "10.77.0.2:53")
    assert done.returncode == 2 and "--agent-uid" in done.stderr
    done = sidecar("doctor", "--data-dir", tmp_path, "--agent-uid", "1", "--egress", "nowhere")
    assert done.returncode == 1 and "--egress" in done.stdout
    done = sidecar("doctor", "--data-dir", tmp_path, "--agent-uid", "1", "--egress", "x..y:53")
    assert done.returncode == 1 and "x..y:53: no such host; give an address" in done.stdout
    command = [*as_user(4711, 4711, tmp_path), BIN / "sidecar", "doctor", "--data-dir", "/none", "--agent-uid", "1"]
    plain = subprocess.run(
        [*map(str, command), "--egress", "127.0.0.1:9"], capture_output=True, text=True, env=environment(), check=False
    )
    assert plain.returncode == 1 and "be root, or that user" in plain.stdout, plain.stderr
