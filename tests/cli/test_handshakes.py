"""Certificates that a served sidecar's TLS refuses: each by status, by REJECTED entry and by metric."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sidecar.api import FailedHandshakes
from sidecar.api.handshakes import DEADLINE, WHYS, why
from sidecar.cli.standard_error import Overheard, overheard
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as stubs
from tests.api.pages import Series
from tests.api.running import request, running
from tests.api.tls_files import Files, channel, server_certificate
from tests.authorities import HOUR, NOW, SERVER, Authority, Issued
from tests.cli.test_observing import scrape
from tests.identity.agents import BILLING, registry_text
from tests.program import Serving, made, serving, sidecar

CA = Authority("ca")
ID = "spiffe://a/billing-agent"
ALONE = Authority("billing-agent")
BAD: dict[str, tuple[Issued | None, str]] = {
    "none": (None, "no certificate"),
    "expired": (CA.issue(ID, end=NOW - HOUR / 2), "expired"),
    "not yet valid": (CA.issue(ID, start=NOW + HOUR / 2), "not yet valid"),
    "for servers only": (CA.issue(ID, purposes=[SERVER]), "purpose"),
    "self-signed": (Issued(ALONE.certificate, ALONE.key), "authority"),
    "of another CA": (Authority("elsewhere").issue(ID), "authority"),
    "of another CA under our CA's name": (Authority("ca").issue(ID), "authority"),
    "larger than TLS takes": (CA.issue(ID, dns=[f"{n:063}.example" for n in range(2_000)]), "size"),
}
LINE = (
    b"I1125 22:40:34.176686    9896 ssl_transport_security.cc:2563] Handshake failed with error SSL_ERROR_SSL: error:"
    b"1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired\n"
)


def test_each_bad_certificate_has_its_status_its_entry_and_its_count(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    files = Files(tmp_path).write(server_certificate(CA), CA)
    (tmp_path / "registry.json").write_bytes(registry_text(BILLING.entry(spiffe_ids=[{"id": ID}])))
    names = ("SIDECAR_TLS_CERT_FILE", "SIDECAR_TLS_KEY_FILE", "SIDECAR_TLS_CLIENT_CA_FILE")
    known = {"SIDECAR_REQUIRE": "mtls", "SIDECAR_REGISTRY": str(tmp_path / "registry.json")}
    settings = {**dict(zip(names, files.paths, strict=True)), **known, "GRPC_VERBOSITY": "none"}
    flags = ("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    with serving(ledger, *flags, dev=False, **settings) as server:
        address, before = server.said[-1].split()[-1], scrape(server)
        assert {word for word in WHYS if before["sidecar_tls_refused_total", word] == 0} == WHYS
        for shown, word in BAD.values():
            code = asyncio.run(_asked(address, shown))
            assert code is grpc.StatusCode.UNAVAILABLE
            before = until_counted(server, before, word)
        plain(address)
        before = until_counted(server, before, "no TLS")
        assert asyncio.run(_asked(address, CA.issue(ID))) is grpc.StatusCode.OK
        assert server.stop() == 0
    recorded = [e["payload"] for e in entries(ledger) if e["payload"]["type"] == "REJECTED"]
    about = {(e["call"], e["code"], e["principal"], e["peer"]) for e in recorded}
    assert about == {("TLS", "UNAUTHENTICATED", "", "tls")}
    told = {e["cause"].removeprefix("tls: the handshake failed: ") for e in recorded}
    assert len(told) == len({word for _, word in BAD.values()} | {"no TLS"}), told
    failed = sum(value for key, value in before.items() if key[0] == "sidecar_tls_refused_total")
    assert sum(e["count"] for e in recorded) == failed == before["sidecar_unproved_total", "handshake"]


async def _asked(address: str, shown: Issued | None) -> grpc.StatusCode:
    async with channel(address, CA, shown) as to:
        call: Any = stubs.DecisionServiceStub(to).Decide(request(), timeout=20)
        with contextlib.suppress(grpc.aio.AioRpcError):
            answer: pb.DecideResponse = await call
            assert answer.decision_id
        code: grpc.StatusCode = await call.code()
        return code


def plain(address: str) -> None:
    """Somebody who speaks no TLS."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as talking, contextlib.suppress(ConnectionError):
        talking.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while talking.recv(4096):
            pass


def until_counted(server: Serving, before: Series, word: str) -> Series:
    """The page once it counts one more failed for that word; no other may rise."""
    name = ("sidecar_tls_refused_total", word)
    for _ in range(5_000):
        after = scrape(server)
        risen = {key[1] for key in after if key[0] == name[0] and after[key] > before[key]}
        assert risen <= {word}
        if risen:
            return after
    raise AssertionError(f"no handshake was counted for {word}")


def entries(ledger: Path) -> list[dict[str, Any]]:
    """All that the ledger holds."""
    done = sidecar("show", ledger, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (b"SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: certificate has expired", "expired"),
        (b"SSL_ERROR_SSL: error:10000418:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA", "alert"),
        (b"SSL_ERROR_SSL: error:1000007d:SSL routines: the chain is no good", "unknown"),
        (b"", "unknown"),
    ],
)
def test_what_grpc_says_is_a_word_of_ours(said: bytes, word: str) -> None:
    assert why(said) == word


def test_no_more_are_taken_for_clients_than_clients_began(tmp_path: Path) -> None:
    """The sidecar is a client too, of its collector: its own failures are in the same log."""
    counted: list[str] = []
    clock = [0.0]

    async def main() -> None:
        async with running(tmp_path) as run:
            first = run.ledger.position().next_seq
            failed = FailedHandshakes(run.path, counted.append, lambda: clock[0])
            failed.told(b"certificate has expired")  # nobody began one
            failed.begun()
            clock[0] = DEADLINE + 1
            failed.told(b"certificate has expired")  # it was over long ago
            failed.begun()
            failed.told(b"certificate has expired")
            failed.told(b"certificate has expired")  # there was one
            assert counted == ["expired"]
            await failed.settled()
            assert run.ledger.payload(first)["cause"].endswith("a certificate that had expired")
            assert run.ledger.position().next_seq == first + 1

    asyncio.run(main())


def test_standard_error_goes_where_it_went_but_for_what_grpc_tells(tmp_path: Path) -> None:
    told: list[bytes] = []
    came = threading.Event()

    def then(said: bytes) -> None:
        told.append(said)
        came.set()

    kept, target = os.dup(2), tmp_path / "stderr"
    try:
        with target.open("wb") as file:
            os.dup2(file.fileno(), 2)
            with overheard() as heard:
                heard.tell(then)
                os.write(2, b"a library's line\n" + LINE + b"I1125 22:40:34.1 1 x.cc:1] told merely\nno end")
                print("python's own", file=sys.stderr, flush=True)
                assert came.wait(20)
            os.write(2, b"\nafterwards\n")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert told == [LINE.partition(b"error ")[2].rstrip()]
    lines = target.read_text().splitlines()
    assert sorted(lines) == sorted(["a library's line", "python's own", "no end", "afterwards"])


def test_a_line_without_end_and_a_full_pipe_hold_nobody_up(tmp_path: Path) -> None:
    kept, target = os.dup(2), tmp_path / "stderr"
    try:
        with target.open("wb") as file:
            os.dup2(file.fileno(), 2)
            with overheard():
                for _ in range(4_096):
                    with contextlib.suppress(BlockingIOError):
                        os.write(2, b"x" * 4_096)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert set(target.read_bytes()) == {ord("x")}


REWORDED = (
    b"I1125 22:40:34.176686    9896 tls_security.cc:7] TLS handshake error: SSL_ERROR_SSL: certificate has expired\n",
    b"I1125 22:40:34.176686    9896 ssl_transport_security.cc:2563] handshaking was given up\n",
    b"2027-01-01T00:00:00.1Z INFO [src/core/tsi/ssl.cc:9] SSL routines:OPENSSL_internal:HTTP_REQUEST\n",
)


def test_what_grpc_tells_in_other_words_counts_and_is_handed_on(tmp_path: Path) -> None:
    """And is refused as any, for a reason that is not known, where none of its words is."""
    heard, told, counted = Overheard(), [], []

    async def main() -> list[str]:
        async with running(tmp_path) as run:
            first = run.ledger.position().next_seq
            failed = FailedHandshakes(run.path, counted.append)
            heard.tell(lambda said: (told.append(said), failed.told(said)))
            for line in REWORDED:
                failed.begun()
                assert heard.line(line) is False
            await failed.settled()
            return [run.ledger.payload(seq)["cause"] for seq in range(first, run.ledger.position().next_seq)]

    causes = asyncio.run(main())
    assert told == [*REWORDED] and counted == ["expired", "unknown", "no TLS"]
    assert causes[0] == "tls: the handshake failed: a certificate that had expired"


def test_lines_that_only_quote_a_handshake_are_told_and_nothing_else() -> None:
    heard, told = Overheard(), []
    heard.tell(told.append)
    assert [heard.line(each) for each in (b"E1125 10:00:00.0 1 a.cc:1] bad\n", LINE, b"Handshake failed\n")] == [
        False,
        True,
        False,
    ]
    assert len(told) == 1
