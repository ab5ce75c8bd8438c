"""Envoy in a pod of its own: agents are who their certificates say, the sidecar is asked over TLS on both sides."""

from __future__ import annotations

import copy
import http.client
import ssl
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.authorities import Authority
from tests.enforce.gateway import AGENT, AGENT_ID, EDGE_ID, GATEWAY, Gateway, gateway, issue, shipped
from tests.enforce.mounted import mount

TRUSTED, OTHER = Authority("a"), Authority("a")


@pytest.fixture(scope="module")
def it() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as place, gateway(Path(place), apart=TRUSTED) as running:
        yield running


def ask(it: Gateway, name: str, authority: Authority, spiffe_id: str) -> int:
    """The status that somebody with such a certificate gets; without an authority, who shows none."""
    context = ssl.create_default_context(cadata=TRUSTED.pem.decode())
    context.check_hostname = False
    if spiffe_id:
        issue(it.place, name, authority, spiffe_id)
        context.load_cert_chain(it.place / f"{name}.crt", it.place / f"{name}.key")
    connection = http.client.HTTPSConnection("127.0.0.1", it.port, timeout=30, context=context)
    try:
        connection.request("GET", "/open/a", headers={"host": "api.example.com"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_an_agent_by_its_certificate(it: Gateway) -> None:
    assert ask(it, "mine", TRUSTED, AGENT_ID) == 200
    decision = it.of("DECISION")[-1]
    shown = ssl.PEM_cert_to_DER_cert((it.place / "mine.crt").read_text())
    assert decision["agent"].items() >= {
        "id": AGENT, "proof": "gateway", "gateway": GATEWAY, "gateway_proof": "mtls", "spiffe_id": AGENT_ID,
        "certificate": sha256(shown).hexdigest(),
    }.items()  # fmt: skip
    assert it.outcome(decision["decision_id"])["by"]["gateway_proof"] == "mtls"


def test_grpc_over_tls(it: Gateway) -> None:
    """A client that speaks nothing but HTTP/2, and asks for it in the handshake."""
    before = len(it.service.acts)
    issue(it.place, "caller", TRUSTED, AGENT_ID)
    chain, key = ((it.place / f"caller.{each}").read_bytes() for each in ("crt", "key"))
    options = [("grpc.ssl_target_name_override", "gateway.internal"), ("grpc.enable_retries", 0)]
    options.append(("grpc.default_authority", "api.example.com"))
    credentials = grpc.ssl_channel_credentials(TRUSTED.pem, key, chain)
    with grpc.secure_channel(f"127.0.0.1:{it.port}", credentials, options) as channel:
        assert list(channel.stream_stream("/echo.Echo/Back")(iter([b"one"]), timeout=30)) == [b"one"]
    (act,) = it.service.acts[before:]
    decision = it.of("DECISION")[-1]
    assert act.headers["x-sidecar-decision-id"] == decision["decision_id"] and decision["agent"]["id"] == AGENT
    assert '"protocol":"HTTP/2"' in decision["request"]["context"]


@pytest.mark.parametrize("spiffe_id", ["spiffe://a/nobody", EDGE_ID])
def test_who_is_no_agent(it: Gateway, spiffe_id: str) -> None:
    before, decided = len(it.service.acts), len(it.of("DECISION"))
    assert ask(it, "other", TRUSTED, spiffe_id) == 403
    assert len(it.service.acts) == before and len(it.of("DECISION")) == decided
    assert it.of("REJECTED")[-1]["call"] == "Check"


@pytest.mark.parametrize(("authority", "spiffe_id"), [(OTHER, AGENT_ID), (TRUSTED, "")])
def test_who_shows_nothing_that_counts(it: Gateway, authority: Authority, spiffe_id: str) -> None:
    before = len(it.service.acts)
    with pytest.raises(OSError):
        ask(it, "none", authority, spiffe_id)
    assert len(it.service.acts) == before


def shown(it: Gateway) -> bytes:
    """The certificate that Envoy shows."""
    return ssl.get_server_certificate(("127.0.0.1", it.port)).encode()


def test_certificates_that_are_replaced_are_shown_and_believed_without_a_restart(it: Gateway) -> None:
    """As kubelet replaces what is in a mounted Secret: what Envoy shows to agents, whom it believes, and by what the
    sidecar knows it."""
    later, before = Authority("a"), shown(it)
    (it.place / "new").mkdir()
    issue(it.place / "new", "edge", TRUSTED, EDGE_ID, dns="gateway.internal")
    new = {name: (it.place / "new" / f"edge.{name[4:]}").read_bytes() for name in ("tls.crt", "tls.key")}
    mount(it.place / "etc", {**new, "agents-ca.crt": TRUSTED.pem + later.pem})
    it.until(lambda: shown(it) != before)
    assert shown(it) in new["tls.crt"]

    def believed() -> bool:
        try:
            return ask(it, "later", later, AGENT_ID) == 200
        except OSError:
            return False

    it.until(believed)
    assert ask(it, "mine", TRUSTED, AGENT_ID) == 200


def test_the_two_configurations_differ_in_what_they_say_alone() -> None:
    here, apart = shipped(), copy.deepcopy(shipped("gateway.yaml"))
    listener: dict[str, Any] = apart["static_resources"]["listeners"][0]
    listener["address"] = here["static_resources"]["listeners"][0]["address"]
    chain = listener["filter_chains"][0]
    assert chain.pop("transport_socket")["typed_config"]["require_client_certificate"] is True
    filters = chain["filters"][0]["typed_config"]["http_filters"]
    assert filters[0]["typed_config"].pop("include_peer_certificate") is True
    (sidecar,) = (c for c in apart["static_resources"]["clusters"] if c["name"] == "sidecar")
    (beside,) = (c for c in here["static_resources"]["clusters"] if c["name"] == "sidecar")
    assert "combined_validation_context" in sidecar.pop("transport_socket")["typed_config"]["common_tls_context"]
    sidecar |= {"type": beside["type"], "load_assignment": beside["load_assignment"]}
    assert apart == here
