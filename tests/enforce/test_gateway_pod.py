"""Two pods: an agent's, and the gateway's, with the chart's NetworkPolicies between them and the host outside, and
without: then what is left is that the agent has no credentials. `sidecar doctor` says which it is."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.authorities import Authority
from tests.charts.rendering import HERE, SIDECAR, template, workload_of
from tests.enforce.gateway import AGENT, AGENT_ID, TOKEN, Gateway, gateway, issue
from tests.enforce.pod import AGENT_USER, SIX, Pod, entered, pod
from tests.enforce.policies import PodOn, enforce
from tests.enforce.test_no_bypass import REACHES
from tests.enforce.upstream import HOST, Upstream, upstream
from tests.program import BIN, environment, sidecar

# PLACE HOST PORT NAME PATH: over TLS, to whoever is there by that name; the gateway is shown the agent's certificate.
REQUEST = """
import http.client, pathlib, socket, ssl, sys
place, host, port, name, path = pathlib.Path(sys.argv[1]), *sys.argv[2:]
context = ssl.create_default_context(cafile=place / "ca.pem")
if name.startswith("gateway"):
    context.load_cert_chain(place / "mine.crt", place / "mine.key")
connection = http.client.HTTPSConnection(name, context=context)
connection.sock = context.wrap_socket(socket.create_connection((host, int(port)), 5), server_hostname=name)
connection.request("GET", path, headers={"host": "api.example.com", "authorization": "Bearer a guess"})
print(connection.getresponse().status)
"""


@dataclass(frozen=True, slots=True)
class Two:
    network: Pod
    gateway: Gateway
    service: Upstream
    agent: Path
    pods: tuple[PodOn, ...]

    def hold(self, *more: dict[str, Any]) -> None:
        """By the chart's policies, and by others."""
        egress = [{"to": [{"ipBlock": {"cidr": f"{self.network.outside.address}/32"}}],
                   "ports": [{"protocol": "TCP", "port": self.service.port}]}]  # fmt: skip
        ran = template(
            SIDECAR, "--values", HERE / "installs" / "gateway.yaml", "--show-only", "templates/network.yaml",
            "--set", f"egress.gateway.dns=false,egress.gateway.port={self.gateway.port}",
            "--set-json", f"networkPolicy.egress={json.dumps(egress)}",
        )  # fmt: skip
        assert ran.status == 0, ran.err
        enforce([*yaml.safe_load_all(ran.out), *more], self.pods)

    def ask(self, path: str) -> int:
        """Through the gateway."""
        return self._request(self.network.others["gateway"].address, self.gateway.port, "gateway.internal", path)

    def go_round(self, path: str) -> int:
        """To the service itself."""
        return self._request(self.network.outside.address, self.service.port, HOST, path)

    def _request(self, *where: object) -> int:
        words = (sys.executable, "-c", REQUEST, self.agent, *map(str, where))
        return int(self.network.run(self.agent, *words))

    def ways(self) -> dict[str, str]:
        self.network.arrived()
        return self.network.try_ways(self.agent, Path("/run/envoy/admin.sock"))

    def doctor(self) -> tuple[int, dict[str, tuple[str, str]]]:
        """Its exit code, and what it says of the agent's ways out: the state and the finding."""
        host = f"{self.network.outside.address}:{self.service.port}"
        command = [*self.network.inside.within, BIN / "sidecar", "doctor", "--data-dir", self.agent, "--json"]
        command += ["--agent-uid", AGENT_USER, "--egress", host]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment(), check=False)
        found = json.loads(done.stdout)["findings"]
        ways = [each for each in found if each["check"] in ("egress", "pattern")]
        tried = ("tcp", "udp", "pattern")
        return done.returncode, {k: (e["state"], e["found"]) for k, e in zip(tried, ways, strict=True)}


@pytest.fixture(scope="module")
def it() -> Iterator[Two]:
    with tempfile.TemporaryDirectory() as name, pod("gateway", "node") as network, contextlib.ExitStack() as stack:
        place, agents, outside = Path(name), Authority("a"), Authority("outside")
        for each in ("outside", "agent", "gateway"):
            (place / each).mkdir()
        (place / "outside.pem").write_bytes(outside.pem)
        at = network.outside.address
        service = entered(network.outside, upstream(outside, place / "outside", at), stack)
        service.token = TOKEN

        def to_the_outside(configuration: dict[str, Any]) -> None:
            (cluster,) = (c for c in configuration["static_resources"]["clusters"] if c["name"] == "upstream")
            (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            endpoint["endpoint"]["address"]["socket_address"] = {"address": at, "port_value": service.port}
            tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
            tls["validation_context"]["trusted_ca"]["filename"] = str(place / "outside.pem")

        given = gateway(place / "gateway", to_the_outside, apart=agents)
        running = entered(network.others["gateway"], given, stack)
        mine = place / "agent"
        issue(mine, "mine", agents, AGENT_ID)
        (mine / "ca.pem").write_bytes(agents.pem + outside.pem)
        for each in (place, mine, *mine.iterdir()):
            each.chmod(0o755)
        labels = workload_of("gateway")["metadata"]["labels"]
        pods = (
            PodOn(network.inside, {"app": "shopper"}, (network.inside.address, SIX["pod"])),
            PodOn(network.others["gateway"], labels, (network.others["gateway"].address, SIX["gateway"])),
        )
        yield Two(network, running, service, mine, pods)


def test_without_policies_the_agent_gets_out_and_is_nobody_there(it: Two) -> None:
    """Pattern 1 alone: credentials only in the gateway."""
    it.ways()
    assert set(it.network.arrived()) == set(REACHES.values())
    assert it.go_round("/open/a") == 401
    assert it.service.acts == [] and len(it.service.turned_away) == 1
    assert it.ask("/closed") == 403 and it.service.acts == []
    assert it.ask("/open/a") == 200
    assert [(act.path, act.headers["authorization"]) for act in it.service.acts] == [("/open/a", TOKEN)]
    code, said = it.doctor()
    assert code == 1 and said["tcp"][0] == "wrong" and said["tcp"][1].endswith(": open")
    assert said["pattern"][0] == "wrong" and ": 1 at most" in said["pattern"][1]


def test_with_the_charts_policies_it_reaches_the_gateway_alone(it: Two) -> None:
    """Pattern 3."""
    it.hold()
    it.service.acts.clear()
    told = it.ways()
    assert it.network.arrived() == [], told
    with pytest.raises(AssertionError, match=r"timed out|TimeoutError"):
        it.go_round("/open/a")
    assert len(it.service.turned_away) == 1  # that one
    assert it.ask("/closed") == 403 and it.service.acts == []
    assert it.ask("/open/b") == 200
    assert set(it.network.arrived()) == {f"tcp/{it.service.port}"}
    (act,) = it.service.acts
    assert (act.path, act.headers["authorization"]) == ("/open/b", TOKEN)
    decision = it.gateway.of("DECISION")[-1]
    assert (decision["agent"]["id"], decision["agent"]["gateway_proof"]) == (AGENT, "mtls")
    assert it.gateway.outcome(decision["decision_id"])["status"] == "executed"


def test_the_doctor_says_so_and_what_it_cannot_know(it: Two) -> None:
    it.hold()
    _, said = it.doctor()
    assert {state for state, _ in said.values()} == {"careful"}
    assert "nobody answers there" in said["tcp"][1] and ": 3, the gateway in a pod of its own" in said["pattern"][1]


HOLE = {
    "metadata": {"name": "somebody-elses"},
    "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"protocol": "TCP", "port": 0}]}]},
}


def test_another_policy_that_lets_these_pods_out_is_named(it: Two) -> None:
    hole = json.loads(json.dumps(HOLE))
    hole["spec"]["egress"][0]["ports"][0]["port"] = it.service.port
    it.hold(hole)
    assert it.go_round("/open/a") == 401
    code, said = it.doctor()
    assert code == 1 and said["tcp"][0] == "wrong" and f"tcp to {it.network.outside.address}" in said["pattern"][1]


def test_a_pod_that_nobody_named_does_not_reach_the_gateway(it: Two) -> None:
    """Agents are selected by their labels: without them a pod is not held, and not let in."""
    it.hold()
    nobody = (PodOn(it.network.inside, {"app": "other"}, it.pods[0].addresses), it.pods[1])
    Two(it.network, it.gateway, it.service, it.agent, nobody).hold()
    with pytest.raises(AssertionError, match=r"timed out|TimeoutError"):
        it.ask("/open/a")
    assert it.go_round("/open/a") == 401


def test_at_the_end_the_ledger_verifies(it: Two) -> None:
    told = json.loads(sidecar("verify", it.gateway.ledger, "--json").stdout)
    assert told["verdict"] == "UNANCHORED", told["findings"]
    assert told["decisions"]["vouched"] == len(it.gateway.of("DECISION")) == 4
