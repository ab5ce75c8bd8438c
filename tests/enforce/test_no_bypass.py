"""The agent's ways out of its pod: without the chart's rules they lead out, with them only what Envoy let pass does."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.authorities import Authority
from tests.charts.rendering import configuration_of, containers_of, workload_of
from tests.enforce.gateway import TOKEN, Gateway, gateway
from tests.enforce.pod import Pod, entered, nft, pod
from tests.enforce.upstream import HOST, Upstream, upstream

# What reaches the host outside, by way. The admin's is a socket of the pod, and reaches nobody outside.
REACHES = {
    "tcp": "tcp/443", "tcp, another port": "tcp/8080", "tcp, IPv6": "tcp6/444", "tcp, IPv4-mapped IPv6": "tcp/445",
    "tcp, from a port of a service": "tcp/446", "tcp, bound to the device": "tcp/449", "tcp, fast open": "tcp/448",
    "tcp, metadata": "tcp/80", "udp": "udp/5000", "udp, IPv6": "udp6/5001", "udp, from the resolver's port": "udp/5002",
    "udp, from Envoy's port": "udp/5004", "udp, bound to the device": "udp/5005", "udp, metadata": "udp/5006",
    "udp, broadcast": "udp/5003", "udp, multicast": "udp/5353", "udp, IPv4-mapped IPv6": "udp/5007",
    "dns tunnel": "udp/53", "dns tunnel, tcp": "tcp/53", "icmp": "icmp", "the rules taken away": "udp/5008",
}  # fmt: skip
# Those that already the kernel refuses to who has no capabilities.
REACHES_OF_ROOT = {"raw socket": "253", "frame": "frame/88b5", "another user": "udp/5009"}
REQUEST = """
import http.client, sys
connection = http.client.HTTPConnection("203.0.113.9", 80, timeout=30)
connection.request("GET", sys.argv[1], headers={"host": "api.example.com"})
print(connection.getresponse().status)
"""


@dataclass(frozen=True, slots=True)
class Whole:
    pod: Pod
    gateway: Gateway
    service: Upstream
    place: Path


@pytest.fixture(scope="module")
def it() -> Iterator[Whole]:
    with tempfile.TemporaryDirectory() as name, pod() as made, contextlib.ExitStack() as stack:
        place, authority = Path(name), Authority("outside")
        (place / "outside").mkdir()
        (place / "outside.pem").write_bytes(authority.pem)
        at = made.outside.address
        service = entered(made.outside, upstream(authority, place / "outside", at), stack)

        def to_the_outside(configuration: dict[str, Any]) -> None:
            clusters = {each["name"]: each for each in configuration["static_resources"]["clusters"]}
            cluster = clusters["upstream"]
            (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            endpoint["endpoint"]["address"]["socket_address"] = {"address": at, "port_value": service.port}
            tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
            tls["validation_context"]["trusted_ca"]["filename"] = str(place / "outside.pem")

        running = entered(made.inside, gateway(place, to_the_outside), stack)
        yield Whole(made, running, service, place)


def test_without_the_rules_every_way_leads_out(it: Whole) -> None:
    it.pod.arrived()
    it.pod.try_ways(it.place, it.place / "admin.sock")
    assert set(it.pod.arrived()) == set(REACHES.values())
    told = it.pod.try_ways(it.place, it.place / "admin.sock", user=0)
    assert set(it.pod.arrived()) == {*REACHES.values(), *REACHES_OF_ROOT.values()}
    assert told["Envoy's admin"] == "HTTP/1.1 200 OK"


def test_with_the_rules_none_does(it: Whole) -> None:
    it.pod.guard(it.gateway.port)
    it.pod.arrived()
    before = it.gateway.of("DECISION")
    told = it.pod.try_ways(it.place, it.place / "admin.sock")
    assert it.pod.arrived() == [], told
    assert set(told) == {*REACHES, *REACHES_OF_ROOT, "Envoy's admin", "user namespace"}
    for way in (*REACHES_OF_ROOT, "Envoy's admin", "user namespace"):
        assert "not permitted" in told[way] or "PermissionError" in told[way], (way, told[way])
    assert told["tcp"] == "sent"  # to Envoy, which makes nothing of it
    assert it.gateway.of("DECISION") == before and it.service.acts == []


def test_a_user_that_nobody_named_is_none_that_is_trusted(it: Whole) -> None:
    it.pod.guard(it.gateway.port)
    it.pod.try_ways(it.place, it.place / "admin.sock", user=31_337)
    assert it.pod.arrived() == []


def asked(it: Whole, path: str) -> int:
    return int(it.pod.run(it.place, sys.executable, "-c", REQUEST, path))


def test_only_what_was_allowed_goes_on_wherever_it_was_sent(it: Whole) -> None:
    it.pod.guard(it.gateway.port)
    it.pod.arrived()
    assert asked(it, "/closed") == 403
    assert it.pod.arrived() == [] and it.service.acts == []
    assert asked(it, "/open/redirected") == 200
    assert set(it.pod.arrived()) == {f"tcp/{it.service.port}"}
    (act,) = it.service.acts
    assert (act.path, act.headers["host"], act.headers["authorization"]) == ("/open/redirected", HOST, TOKEN)
    decision = it.gateway.of("DECISION")[-1]
    assert json.loads(decision["request"]["context"])["door"]["kind"] == "envoy"
    assert it.gateway.outcome(decision["decision_id"])["status"] == "executed"


PORT_OF_A_FORMER_OWNER = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.bind(("", 6000))
    out.sendto(b"x", ("10.77.0.2", 5010))
"""


def test_the_port_of_a_connection_that_envoy_had_is_worth_nothing(it: Whole) -> None:
    it.pod.guard(it.gateway.port)
    it.pod.arrived()
    it.pod.run(it.place, sys.executable, "-c", PORT_OF_A_FORMER_OWNER, user=0)
    assert it.pod.arrived() == ["udp/5010"]
    with pytest.raises(AssertionError, match="Operation not permitted"):
        it.pod.run(it.place, sys.executable, "-c", PORT_OF_A_FORMER_OWNER)
    assert it.pod.arrived() == []


SERVER = """
import socket
with socket.create_server(("", 8080)) as server:
    print("listening", flush=True)
    caller, _ = server.accept()
    caller.sendall(b"answer")
"""


def test_callers_of_the_agent_are_answered(it: Whole) -> None:
    it.pod.guard(it.gateway.port)
    with it.pod.started(it.place, sys.executable, "-c", SERVER) as server:
        assert server.stdout is not None and server.stdout.readline() == b"listening\n"

        def call() -> bytes:
            with socket.create_connection((it.pod.inside.address, 8080), 30) as connection:
                return connection.recv(16)

        assert it.pod.outside.call(call) == b"answer"
        assert server.wait(30) == 0


def test_the_charts_init_container_makes_the_rules(it: Whole) -> None:
    """By its own command line: the sidecar's user and Envoy's get out, the workload's does not."""
    (rules,) = (c for c in containers_of(workload_of("redirect")) if c["name"] == "egress")
    file = it.place / "egress.nft"
    file.write_text(configuration_of("redirect", "billing-sidecar-egress")["egress.nft"])
    program, *arguments = rules["command"]
    assert program == "nft"
    words = [str(file) if each == "/etc/egress/egress.nft" else each for each in arguments]
    nft(
        it.pod.inside, *(each.replace("trusted={ ", "trusted={ 0, ") for each in words)
    )  # who asks what arrived is root
    it.pod.arrived()
    out = 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("10.77.0.2", 5011))'
    for user in (10010, 10012):
        it.pod.run(it.place, sys.executable, "-c", out, user=user)
        assert it.pod.arrived() == ["udp/5011"]
    for user in (10001, 10011):
        with pytest.raises(AssertionError, match="Operation not permitted"):
            it.pod.run(it.place, sys.executable, "-c", out, user=user)
    assert it.pod.arrived() == []


def test_with_envoy_gone_nothing_goes_out(it: Whole) -> None:
    it.pod.guard(it.gateway.port)
    it.gateway.kill("envoy")
    it.pod.arrived()
    told = it.pod.try_ways(it.place, it.place / "admin.sock")
    assert it.pod.arrived() == []
    assert "refused" in told["tcp"]
