"""A door whose own certificate has ended answers nobody, and is said by name; who asks elsewhere is decided for."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from sidecar.client import Effect
from sidecar.enforce.envoy.v3 import ext_authz_pb2 as pb
from sidecar.probe import ask
from tests.api.tls_files import NAME, Files, server_certificate
from tests.authorities import HOUR, NOW, SERVER, Authority
from tests.cli.test_observing import url
from tests.enforce.pep import ACTIVE, EVALUATION, asking
from tests.enforce.test_door import request
from tests.identity.agents import BILLING, GATEWAY, registry_text
from tests.program import Serving, made, serving, sidecar

CA = Authority("ca")
EDGE = "spiffe://a/edge"
SHUT = (
    "ready, but the certificate of doors.envoy and doors.authzen has ended, and nobody is answered there; renew "
    "tls_cert_file, or see to the SPIFFE agent"
)


@contextlib.contextmanager
def by_envoy(port: int) -> Iterator[Any]:
    """What asks on one connection, and gives the status."""
    mine = CA.issue(EDGE)
    credentials = grpc.ssl_channel_credentials(CA.pem, mine.key_pem, mine.chain)
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.enable_retries", 0)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        call: Any = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")

        def status() -> int:
            answer = pb.CheckResponse.FromString(call(request().SerializeToString(), timeout=20))
            return int(answer.denied_response.status.code)

        yield status


@contextlib.contextmanager
def by_pep(port: int, place: Path) -> Iterator[Any]:
    """Likewise over HTTPS."""
    mine = CA.issue(EDGE)
    (place / "pep.pem").write_bytes(mine.chain + mine.key_pem)
    context = ssl.create_default_context(cadata=CA.pem.decode())
    context.load_cert_chain(place / "pep.pem")
    context.check_hostname = False  # it is asked for by its address
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    connection.connect()
    connection.auto_open = 0  # never another
    with contextlib.closing(connection):

        def status() -> int:
            body = json.dumps(asking("alice", "read", ACTIVE))
            connection.request("POST", EVALUATION, body, {"content-type": "application/json"})
            with connection.getresponse() as answer:
                told = json.load(answer)
            assert answer.status == 200 or "decision" not in told
            return answer.status

        yield status


def health(server: Serving) -> set[str]:
    """What it says, by whichever way."""
    web = url(server).removesuffix("/metrics")
    words = [ask(each, live=False, timeout=20.0) for each in (server.address, web)]
    return {f"{word.well} {word.cause}" for word in words}


def until(server: Serving, said: str) -> None:
    deadline = time.monotonic() + 60
    while health(server) != {said}:
        assert time.monotonic() < deadline, health(server)
        time.sleep(0.02)


def test_a_door_whose_certificate_has_ended(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    good, ended = server_certificate(CA), CA.issue(dns=[NAME], purposes=[SERVER], end=NOW - HOUR / 2)
    files = Files(tmp_path).write(good, CA)
    gateway = GATEWAY.entry("executor", spiffe_ids=[{"id": EDGE}])
    (tmp_path / "registry.json").write_bytes(registry_text(BILLING.entry(), gateway))
    settings = {"SIDECAR_REGISTRY": str(tmp_path / "registry.json")}
    for door in ("ENVOY", "AUTHZEN"):
        named = dict(zip(("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE"), files.paths, strict=True))
        named |= {"GATEWAY": GATEWAY.id, "AGENT": BILLING.id, "LISTEN": "127.0.0.1:0"}
        settings |= {f"SIDECAR_DOORS_{door}_{name}": value for name, value in named.items()}
    with serving(ledger, "--metrics", "127.0.0.1:0", **settings) as server:
        told = [json.loads(line)["message"] for line in server.said if " is answered on " in line]
        envoy, pep = (int(re.split("[ :]", each)[-1]) for each in told)
        with by_envoy(envoy) as check, by_pep(pep, tmp_path) as evaluate, server.guard(BILLING.id) as guard:
            assert (check(), evaluate()) == (403, 200)  # by the starter policy
            files.write(ended, CA)
            assert check() == 503
            until(server, f"True {SHUT.removeprefix('ready, but ')}")
            assert sidecar("health", "--server", server.address).stdout.strip() == SHUT
            assert guard.ask("crm.read", ("customer", "a"), {}).effect is Effect.ALLOW
            files.write(good, CA)
            assert (check(), evaluate()) == (403, 200)
            until(server, "True ")
        with by_pep(pep, tmp_path) as evaluate:
            files.write(ended, CA)
            assert evaluate() == 503
        assert server.stop() == 0
