"""The executor's check of a permit: what it takes, once, and everything it refuses."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import lines, note
from sidecar.chain.digests import arguments_digest, target_digest
from sidecar.chain.permit import Permit
from sidecar.client.permits import PermitCheck, PermitRefused
from sidecar.client.taken import TakenInMemory
from sidecar.errors import RequestError, UsageError

IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CHAIN = b"c" * 32
NOW = 1_795_000_000_000_000_000
MINUTE = 60_000_000_000
ACCOUNT = ("account", "acme-42")
ARGUMENTS = b'{"amount":120}'
GIVEN = Permit(
    CHAIN, "0190a5b2-5c3d-7a10-8000-0123456789ab", 17, "billing-agent", "payments-api",
    target_digest("payments.transfer", *ACCOUNT), arguments_digest(ARGUMENTS), NOW + MINUTE,
)  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.ns = NOW

    def __call__(self) -> int:
        return self.ns


def permits(now: Clock | None = None, **other: Any) -> PermitCheck:
    public = IDENTITY.public_key().public_bytes_raw().hex()
    given: dict[str, Any] = {"chain": CHAIN.hex(), "identity": public, "executor": "payments-api"}
    return PermitCheck(**(given | {"now": now or Clock()} | other))


def permit(n: int = 0, **changed: Any) -> bytes:
    changed.setdefault("decision_id", f"{GIVEN.decision_id[:-4]}{n:04x}")
    return dataclasses.replace(GIVEN, **changed).sign(IDENTITY)


def take(check: PermitCheck, brought: bytes, **changed: Any) -> Permit:
    asked = {"action": "payments.transfer", "resource": ACCOUNT, "arguments": ARGUMENTS} | changed
    return check.check(brought, **asked)


def cause(check: PermitCheck, brought: bytes, **changed: Any) -> str:
    with pytest.raises(PermitRefused) as caught:
        take(check, brought, **changed)
    assert "\n" not in str(caught.value)
    return caught.value.cause


def test_a_permit_for_this_very_action_is_taken_once():
    check, brought = permits(), permit()
    taken = take(check, brought)
    assert (taken.agent, taken.executor, taken.seq, taken.note) == ("billing-agent", "payments-api", 17, brought)
    assert cause(check, brought) == "used"
    take(check, permit(1))
    take(permits(), brought)  # another object remembers nothing of it


def test_arguments_may_be_a_mapping_as_the_guard_writes_it():
    take(permits(), permit(), arguments={"amount": 120})
    assert cause(permits(), permit(), arguments={"amount": 121}) == "arguments"
    with pytest.raises(RequestError):
        take(permits(), permit(), arguments={"amount": float("nan")})
    empty = permit(arguments=arguments_digest(b""))
    for nothing in (b"", b"{}", {}):
        take(permits(), empty, arguments=nothing)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"action": "payments.refund"}, "target"),
        ({"action": "payments.transfer\ud800"}, "target"),
        ({"resource": ("account", "acme-43")}, "target"),
        ({"resource": ("accounta", "cme-42")}, "target"),
        ({"arguments": b'{"amount": 120}'}, "arguments"),
        ({"arguments": b""}, "arguments"),
    ],
)
def test_it_is_for_nothing_else(changed: dict[str, Any], expected: str):
    check = permits()
    assert cause(check, permit(), **changed) == expected
    take(check, permit())  # what was refused is not used up


def test_a_permit_for_another_executor_is_refused():
    assert cause(permits(), permit(executor="crm-api")) == "executor"
    assert cause(permits(executor="crm-api"), permit()) == "executor"


def test_a_permit_of_another_chain_or_key_is_refused():
    other = Ed25519PrivateKey.generate()
    assert cause(permits(), dataclasses.replace(GIVEN, chain_id=b"d" * 32).sign(IDENTITY)) == "forged"
    assert cause(permits(), GIVEN.sign(other)) == "forged"
    assert cause(permits(chain="dd" * 32), permit()) == "forged"
    assert cause(permits(identity=other.public_key().public_bytes_raw().hex()), permit()) == "forged"
    text = note.parse(permit()).text  # a chain's own line, signed under another chain's name
    renamed = note.sign(text.replace(CHAIN.hex(), "dd" * 32), lines.identity_name(CHAIN), IDENTITY)
    assert cause(permits(), renamed) == "forged"


def test_no_byte_of_a_permit_can_be_changed():
    check, brought = permits(), permit()
    for at in range(len(brought)):
        spoilt = bytearray(brought)
        spoilt[at] ^= 1
        assert cause(check, bytes(spoilt)) == "forged"
    for worse in (b"", brought[:-1], brought + brought, brought + b"\n", b"\xff" * 100, b"a" * 20_000):
        assert cause(check, worse) == "forged"
    take(check, brought)


def test_it_is_good_before_its_end_and_not_at_it():
    clock = Clock()
    check = permits(clock)
    clock.ns = GIVEN.not_after - 1
    take(check, permit(1))
    clock.ns = GIVEN.not_after
    assert cause(check, permit(2)) == "expired"


def test_a_clock_put_back_brings_nothing_to_life():
    clock = Clock()
    check, brought = permits(clock), permit()
    take(check, brought)
    clock.ns = GIVEN.not_after
    assert cause(check, brought) == "expired"  # and it is forgotten
    clock.ns = NOW
    assert cause(check, brought) == "expired"


def test_memory_is_bounded_and_full_is_no_leave():
    clock = Clock()
    check = permits(clock, remember=3)
    for n in range(3):
        take(check, permit(n, not_after=NOW + MINUTE * (n + 1)))
    assert cause(check, permit(3)) == "full"
    assert cause(check, permit(0, not_after=NOW + MINUTE)) == "used"
    clock.ns = NOW + MINUTE  # the first has expired: there is room for one
    take(check, permit(4, not_after=NOW + 9 * MINUTE))
    assert cause(check, permit(5, not_after=NOW + 9 * MINUTE)) == "full"
    clock.ns = NOW + 9 * MINUTE
    take(check, permit(6, not_after=NOW + 99 * MINUTE))
    assert isinstance(check._taken, TakenInMemory)
    assert (len(check._taken._taken), len(check._taken._expiries)) == (1, 1)


def test_of_many_threads_one_gets_it():
    check, brought = permits(), permit()

    def one(_: int) -> bool:
        try:
            take(check, brought)
        except PermitRefused:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(one, range(64))) == 1


@pytest.mark.parametrize(
    "bad", [{"chain": "c" * 63}, {"chain": "C" * 64}, {"identity": "no hex"}, {"executor": ""}, {"remember": 0}]
)
def test_what_cannot_be_checked_with_is_refused_at_once(bad: dict[str, Any]):
    with pytest.raises(UsageError, match=next(iter(bad))):
        permits(**bad)
