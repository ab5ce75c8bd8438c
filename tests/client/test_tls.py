"""The guard over TLS, against a real server: what it shows, whom it believes, and files that change under it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.api import ServerTls, Transports, half
from sidecar.client import AsyncGuard, Effect, FileSource, Guard, Material, NoDecision, TlsFiles, TlsSpiffe
from sidecar.client.channels import Channels
from sidecar.client.retry import Patience
from sidecar.errors import UsageError
from sidecar.identity import Transport
from tests.api.running import Running, running
from tests.api.tls_files import NAME, Files, server_certificate
from tests.authorities import SERVER, Authority, Issued
from tests.identity.agents import BILLING, registered

CA = Authority("ca")
ID = "spiffe://a/billing-agent"
QUESTION = ("crm.read", ("customer", "acme-42"))
AMPLE = 30.0  # seconds; no test here waits for it


class Seen(Transports):
    """Keeps the fingerprints of the certificates that calls came with."""

    def __init__(self, tls: ServerTls) -> None:
        super().__init__(tls.bundles)
        self.fingerprints: list[bytes] = []

    def of(self, context: Any) -> Transport:
        found = super().of(context)
        self.fingerprints.append(found.certificate.fingerprint if found.certificate else b"")
        return found


@contextlib.asynccontextmanager
async def served(tmp_path: Path, *, mutual: bool = True) -> AsyncIterator[tuple[Running, Seen]]:
    place = tmp_path / "server"
    place.mkdir()
    files = Files(place).write(server_certificate(CA), CA)
    paths = files.paths if mutual else (*files.paths[:2], "")
    tls = ServerTls(FileSource(paths, half(mutual=mutual)))
    seen = Seen(tls)
    async with running(tmp_path, tls=tls, transports=seen, development=not mutual, require=("mtls",)) as run:
        await run.in_force.put_registry(registered(BILLING.entry(spiffe_ids=[{"id": ID}])))
        yield run, seen


def caller(tmp_path: Path, shown: Issued, *roots: Authority) -> Files:
    place = tmp_path / "caller"
    place.mkdir(exist_ok=True)
    return Files(place).write(shown, *(roots or (CA,)))


def fingerprint(issued: Issued) -> bytes:
    return hashlib.sha256(issued.certificate.public_bytes(Encoding.DER)).digest()


def test_new_calls_show_the_new_certificate_and_a_broken_one_is_never_shown(tmp_path, caplog):
    certificates = [CA.issue(ID), CA.issue(ID)]
    files = caller(tmp_path, certificates[0])

    async def main() -> None:
        async with served(tmp_path) as (run, seen):
            with Guard(run.address, agent="billing-agent", timeout=AMPLE, tls=TlsFiles(*files.paths, NAME)) as guard:
                for _ in range(2):
                    await asyncio.to_thread(guard.ask, *QUESTION)
                files.spoil(1, b"nonsense")
                await asyncio.to_thread(guard.ask, *QUESTION)
                files.write(certificates[1], CA)
                await asyncio.to_thread(guard.ask, *QUESTION)
            assert seen.fingerprints == [*[fingerprint(certificates[0])] * 3, fingerprint(certificates[1])]

    with caplog.at_level(logging.WARNING, "sidecar.client"):
        asyncio.run(main())
    assert ["cannot be used" in record.message for record in caplog.records] == [True]


def test_a_stream_goes_on_over_a_new_connection(tmp_path):
    certificates = [CA.issue(ID), CA.issue(ID)]
    files = caller(tmp_path, certificates[0])

    async def main() -> None:
        tls = TlsFiles(*files.paths, NAME)
        async with (
            served(tmp_path) as (run, seen),
            AsyncGuard(run.address, agent="billing-agent", timeout=AMPLE, attempts=1, tls=tls) as guard,
            guard.stream() as stream,
        ):
            for shown in certificates:
                files.write(shown, CA)
                many = [stream.ask(*QUESTION) for _ in range(8)]
                assert {each.effect for each in await asyncio.gather(*many)} == {Effect.ALLOW}
                assert (await guard.ask(*QUESTION)).effect is Effect.ALLOW
            assert set(seen.fingerprints[:9]) == {fingerprint(certificates[0])}
            assert set(seen.fingerprints[9:]) == {fingerprint(certificates[1])}

    asyncio.run(main())


IMPOSTORS = {
    "of another name": (CA, "other.internal"),
    "of another CA": (Authority("elsewhere"), NAME),
    "by its address, which it has no name for": (CA, ""),
}


@pytest.mark.parametrize(("root", "name"), IMPOSTORS.values(), ids=list(IMPOSTORS))
def test_a_server_that_is_not_the_sidecar_meant_gets_no_question(tmp_path, root, name):
    files = caller(tmp_path, CA.issue(ID), root)

    async def main() -> None:
        async with served(tmp_path) as (run, seen):
            with Guard(run.address, agent="a", timeout=AMPLE, attempts=1, tls=TlsFiles(*files.paths, name)) as guard:
                with pytest.raises(NoDecision) as none:
                    await asyncio.to_thread(guard.ask, *QUESTION)
                assert none.value.cause == "unreachable"
            assert seen.fingerprints == []

    asyncio.run(main())


def test_an_agents_certificate_does_not_make_it_a_sidecar(tmp_path):
    """A workload of the same CA, even with the sidecar's name, is none unless its certificate is for servers."""
    place = tmp_path / "server"
    place.mkdir()
    thief = Files(place).write(CA.issue(ID, dns=[NAME]), CA)
    tls = ServerTls(FileSource(thief.paths, half(mutual=True)))
    files = caller(tmp_path, CA.issue(ID))

    async def main() -> None:
        async with running(tmp_path, tls=tls, transports=Seen(tls)) as run:
            with Guard(run.address, agent="a", timeout=AMPLE, attempts=1, tls=TlsFiles(*files.paths, NAME)) as guard:
                with pytest.raises(NoDecision) as none:
                    await asyncio.to_thread(guard.ask, *QUESTION)
                assert none.value.cause == "unreachable"

    asyncio.run(main())


def test_where_callers_show_no_certificate_none_is_taken_for_proved(tmp_path):
    files = caller(tmp_path, CA.issue(ID))

    async def main() -> None:
        async with served(tmp_path, mutual=False) as (run, seen):
            for tls in (TlsFiles("", "", files.paths[2], NAME), TlsFiles(*files.paths, NAME)):
                with Guard(run.address, agent="billing-agent", timeout=AMPLE, tls=tls) as guard:
                    assert (await asyncio.to_thread(guard.ask, *QUESTION)).effect is Effect.ALLOW
            assert seen.fingerprints == [b"", b""]

    asyncio.run(main())


def test_the_old_channel_is_closed_when_the_last_call_on_it_has_ended(tmp_path):
    files = caller(tmp_path, CA.issue(ID))
    opened: list[object] = []

    def secure(address: str, credentials: grpc.ChannelCredentials, options: Any) -> object:
        opened.append(object())
        return opened[-1]

    channels = Channels(Patience("127.0.0.1:1", 1.0), TlsFiles(*files.paths, NAME), secure, secure)
    first, second = channels.take(), channels.take()
    assert channels.give_back(first) == []
    files.write(CA.issue(ID), CA)
    assert channels.superseded(second)
    third = channels.take()
    assert (third.channel is opened[1], channels.superseded(third)) == (True, False)
    assert channels.give_back(third) == []  # the first channel still has a call
    assert channels.give_back(second) == [opened[0]]
    files.write(CA.issue(ID), CA)
    assert channels.give_back(channels.take()) == [opened[1]]  # it was idle
    assert channels.end() == [opened[2]]


HERE = "127.0.0.1:1"
MEANT = TlsFiles("a", "b", "c")
REFUSED = {
    "TLS on a unix socket": ("unix:/x", MEANT, "for host:port"),
    "a certificate without a key": (HERE, TlsFiles("a", "", "c"), "together"),
    "no CA": (HERE, TlsFiles("a", "b", ""), "needs ca"),
    "files that are not there": (HERE, TlsFiles("/none/a", "/none/b", "/none/c"), "cannot read /none/a"),
    "any workload for a sidecar": (HERE, TlsSpiffe("/x", "a", ""), "any workload"),
    "any trust domain": (HERE, TlsSpiffe("/x", "", NAME), "any workload"),
}


@pytest.mark.parametrize(("address", "tls", "why"), REFUSED.values(), ids=list(REFUSED))
@pytest.mark.parametrize("kind", [Guard, AsyncGuard])
def test_what_cannot_be_meant_is_refused_when_the_guard_is_made(kind, address, tls, why):
    with pytest.raises(UsageError, match=why):
        kind(address, agent="a", tls=tls)


def test_a_key_that_grpc_does_not_take_is_refused_before_each_handshake_fails(tmp_path):
    files = caller(tmp_path, CA.issue(ID, key=ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(UsageError, match="neither an RSA nor an elliptic-curve key"):
        Guard(HERE, agent="a", tls=TlsFiles(*files.paths, NAME))


def test_a_channel_given_has_credentials_of_its_own():
    with grpc.insecure_channel(HERE) as channel, pytest.raises(UsageError, match="credentials of its own"):
        Guard(channel, agent="a", tls=MEANT)


def test_without_a_spiffe_agent_there_is_no_decision(tmp_path):
    tls = TlsSpiffe(str(tmp_path / "none.sock"), "a", NAME)
    with (
        Guard(HERE, agent="a", timeout=1, tls=tls) as guard,
        pytest.raises(NoDecision, match="no SPIFFE Workload API") as none,
    ):
        guard.ask(*QUESTION)
    assert none.value.cause == "unreachable"


def test_material_does_not_show_its_key():
    assert "secret" not in repr(Material(b"chain", b"secret", {}))


def test_a_server_certificate_alone_does_not_open_the_door(tmp_path):
    files = caller(tmp_path, CA.issue(ID, purposes=[SERVER]))

    async def main() -> None:
        async with served(tmp_path) as (run, seen):
            tls = TlsFiles(*files.paths, NAME)
            with Guard(run.address, agent="a", timeout=AMPLE, attempts=1, tls=tls) as guard, pytest.raises(NoDecision):
                await asyncio.to_thread(guard.ask, *QUESTION)
            assert seen.fingerprints == []

    asyncio.run(main())
