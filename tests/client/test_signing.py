"""Guards that sign: anew for each attempt, for one chain, in whatever epoch it is; calls, batches, streams."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from sidecar.chain.signing import public_spki, sign
from sidecar.client import AgentKey, Ask, AsyncGuard, Decision, NoDecision
from sidecar.client.signing import Signing
from sidecar.errors import UsageError
from sidecar.v1 import decision_pb2 as pb
from tests.api.running import Running, running
from tests.identity.agents import BILLING, PAYROLL, registered

CUSTOMER = ("customer", "acme-42")
DUTIES: Any = {"log_level": lambda *_: None}


class Elsewhere:
    """A key that this process does not hold: a token, an agent of its own."""

    spki = public_spki(BILLING.key)

    def __init__(self) -> None:
        self.signed: list[bytes] = []

    def sign(self, message: bytes) -> bytes:
        self.signed.append(message)
        return sign(BILLING.key, message)


def guard_of(tmp_path: Path, key: Any, **more: Any) -> AsyncGuard:
    return AsyncGuard(
        f"unix:{tmp_path}/s.sock", agent="billing-agent", timeout=20.0, key=key, obligations=DUTIES, **more
    )


async def restarted(tmp_path: Path, guard: AsyncGuard, story: Any) -> None:
    """The story in two epochs, with one guard."""
    for _ in range(2):
        async with running(tmp_path, development=False) as run:
            await run.in_force.put_registry(registered(BILLING.entry()))
            await story(run)
    await guard.close()


def test_each_attempt_is_signed_anew_and_a_new_epoch_is_found(tmp_path: Path) -> None:
    key = Elsewhere()
    guard = guard_of(tmp_path, key)

    async def story(run: Running) -> None:
        assert isinstance(await guard.ask("crm.read", CUSTOMER, idempotency_key="k"), Decision)
        answers = await guard.ask_many([Ask("crm.read", CUSTOMER)] * 3)
        assert all(isinstance(answer, Decision) for answer in answers)
        decision = await guard.ask("crm.read", CUSTOMER)
        await guard.report(decision.decision_id, "EXECUTED")  # type: ignore[arg-type]

    asyncio.run(restarted(tmp_path, guard, story))
    nonces = [message.splitlines()[-1] for message in key.signed]
    assert len(nonces) == len(set(nonces)) == 2 * (1 + 3 + 1 + 1) + 1  # the first of the second epoch, twice


def test_a_batch_for_the_epoch_before_is_asked_again(tmp_path: Path) -> None:
    guard = guard_of(tmp_path, Elsewhere())

    async def story(run: Running) -> None:
        answers = await guard.ask_many([Ask("crm.read", CUSTOMER)] * 2)
        assert all(isinstance(answer, Decision) for answer in answers), answers

    asyncio.run(restarted(tmp_path, guard, story))


def test_a_stream_goes_on_in_the_next_epoch(tmp_path: Path) -> None:
    guard = guard_of(tmp_path, Elsewhere())

    async def main() -> None:
        async def story(run: Running) -> None:
            async with guard.stream() as stream:
                asked = [stream.ask("crm.read", CUSTOMER, {"n": n}) for n in range(20)]
                assert {answer.agent_proof for answer in await asyncio.gather(*asked)} == {"signature"}

        await restarted(tmp_path, guard, story)

    asyncio.run(main())


def test_nothing_is_signed_for_another_chain(tmp_path: Path) -> None:
    key = Elsewhere()

    async def main() -> None:
        async with running(tmp_path, development=False) as run:
            await run.in_force.put_registry(registered(BILLING.entry()))
            head = await run.reading.Head(pb.HeadRequest())
            async with guard_of(tmp_path, key, chain="00" * 32) as pinned:
                with pytest.raises(NoDecision, match="another chain"):
                    await pinned.ask("crm.read", CUSTOMER)
                assert key.signed == []
            async with guard_of(tmp_path, key, chain=head.chain_id.hex()) as pinned:
                await pinned.ask("crm.read", CUSTOMER)

    asyncio.run(main())


def test_a_key_that_is_not_the_agents_gets_no_decision(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, development=False) as run:
            await run.in_force.put_registry(registered(BILLING.entry(), PAYROLL.entry()))
            async with guard_of(tmp_path, AgentKey(PAYROLL.key)) as guard:
                with pytest.raises(NoDecision) as caught:
                    await guard.ask("crm.read", CUSTOMER)
                assert caught.value.cause == "refused" and "not one of billing-agent" in str(caught.value)
            async with guard_of(tmp_path, None) as guard:
                with pytest.raises(NoDecision, match="is missing"):
                    await guard.ask("crm.read", CUSTOMER)

    asyncio.run(main())


def test_a_key_that_fails_permits_nothing(tmp_path: Path) -> None:
    class Broken(Elsewhere):
        def sign(self, message: bytes) -> bytes:
            raise OSError("the token was taken out")

    async def main() -> None:
        async with running(tmp_path, development=False), guard_of(tmp_path, Broken()) as guard:
            with pytest.raises(NoDecision, match="cannot be signed: the token was taken out"):
                await guard.ask("crm.read", CUSTOMER)

    asyncio.run(main())


RSA = rsa.generate_private_key(65537, 2048)
PEM = {
    "rsa": RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "another curve": ec.generate_private_key(ec.SECP384R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ),
    "encrypted": PAYROLL.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    "nothing": b"",
}


@pytest.mark.parametrize("what", PEM)
def test_files_that_hold_no_agent_key(what: str, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(PEM[what])
    with pytest.raises(UsageError, match=r"key\.pem"):
        AgentKey.from_file(tmp_path / "key.pem")
    with pytest.raises(UsageError, match="No such file"):
        AgentKey.from_file(tmp_path / "absent.pem")


@pytest.mark.parametrize("chain", ["mine", "", "ab" * 31, "ab" * 33])
def test_a_chain_that_is_no_id(chain: str) -> None:
    with pytest.raises(UsageError, match="64 hex digits"):
        Signing("a", Elsewhere(), chain)
