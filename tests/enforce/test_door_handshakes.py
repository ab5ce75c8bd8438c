"""TLS handshakes that fail at a door's port are counted and recorded as those of the sidecar's own port are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.tls_files import NAME, Files, channel, server_certificate
from tests.authorities import Issued
from tests.cli.test_handshakes import BAD, CA, entries, plain, until_counted
from tests.cli.test_observing import scrape
from tests.identity.agents import GATEWAY, registry_text
from tests.program import made, serving

EDGE = "spiffe://a/edge"
FLOOD = 60
CHECK = "/envoy.service.auth.v3.Authorization/Check"
PEP = b"GET /.well-known/authzen-configuration HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


def by_envoy(port: int, shown: Issued | None, _place: Path) -> bool:
    """Whether a call got through, whatever it was answered."""

    async def asked() -> bool:
        async with channel(f"127.0.0.1:{port}", CA, shown) as to:
            call: Any = to.unary_unary(CHECK)(b"", timeout=20)
            with contextlib.suppress(Exception):
                return bool(await call)
            return False

    return asyncio.run(asked())


def by_pep(port: int, shown: Issued | None, place: Path) -> bool:
    """Likewise over HTTPS."""
    context = ssl.create_default_context(cadata=CA.pem.decode())
    if shown is not None:
        (place / "pep.pem").write_bytes(shown.chain + shown.key_pem)
        context.load_cert_chain(place / "pep.pem")
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as secured,
        ):
            secured.sendall(PEP)
            return secured.recv(65_536).startswith(b"HTTP/1.1 404")
    except OSError:
        return False


def flood(port: int) -> None:
    """So many at once who speak no TLS."""
    with contextlib.ExitStack() as stack:
        talking = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(FLOOD)]
        for each in talking:
            each.sendall(b"GET / HTTP/1.1\r\n\r\n")
        for each in talking:
            with contextlib.suppress(ConnectionError):
                while each.recv(4_096):
                    pass


@pytest.mark.parametrize(("door", "asked"), [("envoy", by_envoy), ("authzen", by_pep)])
def test_each_bad_certificate_at_a_door(
    tmp_path: Path, door: str, asked: Callable[[int, Issued | None, Path], bool]
) -> None:
    ledger, _ = made(tmp_path)
    files = Files(tmp_path).write(server_certificate(CA), CA)
    (tmp_path / "registry.json").write_bytes(registry_text(GATEWAY.entry("executor", spiffe_ids=[{"id": EDGE}])))
    prefix = f"SIDECAR_DOORS_{door.upper()}"
    names = [f"{prefix}_TLS_{name}_FILE" for name in ("CERT", "KEY", "CLIENT_CA")]
    settings = {
        **dict(zip(names, files.paths, strict=True)),
        f"{prefix}_GATEWAY": GATEWAY.id,
        f"{prefix}_LISTEN": "127.0.0.1:0",
        "SIDECAR_REGISTRY": str(tmp_path / "registry.json"),
        "GRPC_VERBOSITY": "none",
    }
    with serving(ledger, "--metrics", "127.0.0.1:0", dev=False, **settings) as server:
        (told,) = (json.loads(line)["message"] for line in server.said if " is answered on " in line)
        port = int(re.split("[ :]", told)[-1])
        counted = scrape(server)
        for shown, word in BAD.values():
            assert not asked(port, shown, tmp_path)
            counted = until_counted(server, counted, word)
        plain(f"127.0.0.1:{port}")
        counted = until_counted(server, counted, "no TLS")
        flood(port)
        for _ in range(FLOOD):
            counted = until_counted(server, counted, "no TLS")
            if counted["sidecar_tls_refused_total", "no TLS"] == 1 + FLOOD:
                break
        assert asked(port, CA.issue(EDGE), tmp_path)
        assert scrape(server)["sidecar_tls_handshakes_total",] >= len(BAD) + FLOOD + 2
        assert server.stop() == 0
    payloads = [each["payload"] for each in entries(ledger)]
    recorded = [each for each in payloads if each["type"] == "REJECTED" and each["call"] == "TLS"]
    assert {(entry["code"], entry["peer"], entry["principal"]) for entry in recorded} == {
        ("UNAUTHENTICATED", "tls", "")
    }
    failed = sum(value for key, value in counted.items() if key[0] == "sidecar_tls_refused_total")
    assert failed == len(BAD) + FLOOD + 1
    assert len(recorded) < failed  # most of a flood have no entry of their own, but are in the count of one
    assert sum(entry["count"] for entry in recorded) == failed == counted["sidecar_unproved_total", "handshake"]
