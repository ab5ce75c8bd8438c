"""Envoy's door and AuthZEN's under a real SPIRE: what every side shows comes from the Workload API, and is renewed."""

from __future__ import annotations

import contextlib
import copy
import http.client
import json
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import WorkloadApiClient

from tests.authorities import Authority
from tests.cli.test_observing import scrape
from tests.enforce.finding import envoy
from tests.enforce.gateway import SHIPPED, Gateway, filters, placed, shipped
from tests.enforce.pep import EVALUATION, asking
from tests.enforce.test_one_ledger import LAX, POLICY
from tests.enforce.upstream import grpc_upstream, upstream
from tests.needs import needs_program
from tests.people import person, registry_text
from tests.ports import free_port
from tests.program import Serving, made, serving
from tests.spire import DOMAIN, Spire, program_of_its_own, spire

NAME = "sidecar.internal"
AGENT, EDGE, PEP, SIDECAR = (f"spiffe://{DOMAIN}/{name}" for name in ("shopper", "edge", "todo-backend", "sidecar"))
PEOPLE = (
    person("shopper", "agent", spiffe_ids=[{"id": AGENT}]),
    person("edge", "executor", spiffe_ids=[{"id": EDGE}]),
    person("pep", "executor", spiffe_ids=[{"id": PEP}]),
)
GOOD = asking("alice", "read", "record/1")
ROTATIONS = 2


@dataclass(frozen=True, slots=True)
class Fleet:
    """A sidecar with both doors and an Envoy, in a SPIRE that knows this process as the agent and as the PEP."""

    spire: Spire
    server: Serving
    gateway: Gateway
    ports: dict[str, int]

    def svid(self, spiffe_id: str) -> tuple[bytes, bytes, bytes]:
        """This process' newest certificates under that id, their key, and the bundle, in PEM."""
        with contextlib.closing(WorkloadApiClient(f"unix:{self.spire.workload_api}", default_timeout=20)) as client:
            context = client.fetch_x509_context()
        svid = next(each for each in context.x509_svids if str(each.spiffe_id) == spiffe_id)
        chain = b"".join(each.public_bytes(Encoding.PEM) for each in svid.cert_chain)
        key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (bundle,) = context.x509_bundle_set.bundles
        return chain, key, b"".join(each.public_bytes(Encoding.PEM) for each in bundle.x509_authorities)

    def tls(self, spiffe_id: str) -> ssl.SSLContext:
        chain, key, roots = self.svid(spiffe_id)
        context = ssl.create_default_context(cadata=roots.decode())
        context.check_hostname = False
        (self.spire.place / "shown.pem").write_bytes(chain + key)
        context.load_cert_chain(self.spire.place / "shown.pem")
        return context

    def evaluate(self, spiffe_id: str) -> tuple[int, Any, float]:
        """What AuthZEN's door answers such a PEP: status, ``decision``, and when its certificate ends."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.ports["authzen"], timeout=60, context=self.tls(spiffe_id)
        )
        with contextlib.closing(connection):
            connection.request("POST", EVALUATION, json.dumps(GOOD), {"content-type": "application/json"})
            end = ends(connection.sock.getpeercert(binary_form=True))
            response = connection.getresponse()
            assert response.getheader("connection") == "close"  # so short a certificate is not kept
            return response.status, json.loads(response.read()).get("decision"), end

    def get(self, path: str) -> tuple[int, float]:
        """What the agent gets through Envoy, and when Envoy's certificate ends."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.gateway.port, timeout=60, context=self.tls(AGENT))
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"host": "api.example.com"})
            end = ends(connection.sock.getpeercert(binary_form=True))
            return connection.getresponse().status, end


def ends(der: bytes) -> float:
    return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()


def under_spire(configuration: dict[str, Any], workload_api: Path) -> dict[str, Any]:
    """gateway.yaml with what spire.yaml says."""
    told = yaml.safe_load((SHIPPED / "spire.yaml").read_text().replace("/run/spire/agent.sock", str(workload_api)))
    resources = configuration["static_resources"]
    chain = resources["listeners"][0]["filter_chains"][0]
    (sidecar,) = (each for each in resources["clusters"] if each["name"] == "sidecar")
    for socket in chain["transport_socket"], sidecar["transport_socket"]:
        socket["typed_config"]["common_tls_context"] = copy.deepcopy(told["common_tls_context"])
    common = sidecar["transport_socket"]["typed_config"]["common_tls_context"]
    common["combined_validation_context"]["default_validation_context"] = told["default_validation_context"]
    resources["clusters"].append(told["cluster"])
    return configuration


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    needs_program("opa")
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        place, ports = Path(scratch), {"envoy": free_port(), "authzen": free_port()}
        program, more = program_of_its_own(place, "sidecar-program")

        def register(here: Spire) -> None:
            here.register(SIDECAR, program, "-dns", NAME)
            here.register(EDGE, envoy())
            here.register(AGENT, Path(sys.executable))
            here.register(PEP, Path(sys.executable))

        running = stack.enter_context(spire(place, register))
        ledger, _ = made(place)
        (place / "registry.json").write_bytes(registry_text(*PEOPLE))
        (place / "policy").mkdir()
        (place / "policy" / "decision.rego").write_text(POLICY)
        (place / "sidecar.toml").write_text(
            f'registry = "{place}/registry.json"\n[doors.envoy]\ngateway = "edge"\n'
            f'listen = "127.0.0.1:{ports["envoy"]}"\nspiffe_socket = "{running.workload_api}"\n'
            f"connection_seconds = 2\n"
            f'[doors.authzen]\ngateway = "pep"\nagent = "shopper"\nlisten = "127.0.0.1:{ports["authzen"]}"\n'
            f'spiffe_socket = "{running.workload_api}"\n'
        )
        flags = ("--policy", place / "policy", "--config", place / "sidecar.toml", "--metrics", "127.0.0.1:0")
        served = serving(ledger, *flags, dev=False, program=(program, "-m", "sidecar"), **more, **LAX)
        server = stack.enter_context(served)
        authority = Authority("services")
        (place / "ca.pem").write_bytes(authority.pem)
        service = stack.enter_context(upstream(authority, place))
        http2 = stack.enter_context(grpc_upstream(authority, service.acts))
        it = Gateway(place, ledger, free_port(), service)
        stack.callback(it.end)
        configuration = placed(shipped("gateway.yaml"), place, it.port, service.port, http2, ports["envoy"])
        filters(configuration)[0]["typed_config"]["grpc_service"]["timeout"] = "30s"
        it.start_envoy(under_spire(configuration, running.workload_api))
        yield Fleet(running, server, it, ports)


def test_an_agent_and_its_envoy_by_their_svids(fleet: Fleet) -> None:
    status, _ = fleet.get("/open/a")
    assert status == 200
    decision = fleet.gateway.of("DECISION")[-1]
    assert decision["agent"].items() >= {
        "id": "shopper", "spiffe_id": AGENT, "proof": "gateway", "gateway": "edge", "gateway_proof": "mtls"
    }.items()  # fmt: skip
    assert fleet.gateway.outcome(decision["decision_id"])["by"]["gateway_proof"] == "mtls"


def test_a_pep_by_its_svid(fleet: Fleet) -> None:
    assert fleet.evaluate(PEP)[:2] == (200, True)
    agent = fleet.gateway.of("DECISION")[-1]["agent"]
    assert (agent["id"], agent["gateway"], agent["gateway_proof"]) == ("shopper", "pep", "mtls")


def test_another_workload_of_the_trust_domain_is_no_gateway(fleet: Fleet) -> None:
    """At neither door, though TLS lets it in."""
    before = len(fleet.gateway.of("DECISION"))
    assert fleet.evaluate(AGENT)[:2] == (401, None)
    chain, key, roots = fleet.svid(PEP)
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    options = [("grpc.ssl_target_name_override", NAME)]
    with grpc.secure_channel(f"127.0.0.1:{fleet.ports['envoy']}", credentials, options=options) as channel:
        answered: bytes = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")(b"", timeout=20)
    assert b'"error":"refused"' in answered
    fleet.gateway.until(lambda: len(fleet.gateway.of("REJECTED")) >= 2)
    assert {each["code"] for each in fleet.gateway.of("REJECTED")} == {"UNAUTHENTICATED"}
    assert len(fleet.gateway.of("DECISION")) == before


def test_requests_go_on_while_every_svid_is_renewed(fleet: Fleet) -> None:
    """Until each side has shown others than at first, and the first have ended."""
    seen: dict[str, list[float]] = {"door": [], "envoy": []}
    asked = 0
    while min(map(len, seen.values())) <= ROTATIONS or time.time() < max(first for first, *_ in seen.values()):
        status, decision, end = fleet.evaluate(PEP)
        through, envoys = fleet.get("/open/b")
        assert (status, decision, through) == (200, True, 200)
        for name, at in (("door", end), ("envoy", envoys)):
            seen[name] += [at] if at not in seen[name] else []
        asked += 1
        time.sleep(0.3)  # there is no hurry
    assert asked > ROTATIONS
    page, now = scrape(fleet.server), time.time()
    assert all(now < page["sidecar_tls_certificate_end_seconds", door] < now + 60 for door in fleet.ports)
    outcomes = fleet.gateway.until(lambda: len(found := fleet.gateway.of("OUTCOME")) > asked and found)
    assert {each["status"] for each in outcomes} == {"executed"}
    assert not any("StreamAccessLogs" in key for key, value in scrape(fleet.server).items() if value)


def test_without_its_agent_the_doors_go_on_and_say_so(fleet: Fleet) -> None:
    """The last one here: SPIRE's agent does not come back."""
    tls = fleet.tls(PEP)
    fleet.spire.end_agent()
    fleet.gateway.until(lambda: scrape(fleet.server)["sidecar_tls_faults_total",] >= 2)  # one of each door
    connection = http.client.HTTPSConnection("127.0.0.1", fleet.ports["authzen"], timeout=60, context=tls)
    with contextlib.closing(connection):
        connection.request("POST", EVALUATION, json.dumps(GOOD), {"content-type": "application/json"})
        assert connection.getresponse().status == 200
