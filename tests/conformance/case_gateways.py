"""Agents whom a gateway named, and what the gateway reported (proof `gateway`)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from sidecar.chain import strictjson
from tests.conformance.chains import bundle, later, notary, sealed_at, source
from tests.conformance.packing import packed
from tests.conformance.published import HERE, published
from tests.scribe import Scribe, vouched_story

DECISION, OUTCOME = 4, 5
Change = Callable[[dict[str, Any]], None]


@functools.cache
def ledger() -> Scribe:
    """Two sealed segments; the chain of every bundle here."""
    return _ledger(None)


def _ledger(change: tuple[int, Change] | None) -> Scribe:
    """The story, with the entry of this number once more, changed, as the last of segment 1 but one."""
    s = vouched_story()
    if change is not None:
        seq, alter = change
        value = copy.deepcopy(s.payloads[seq])
        alter(value)
        s.write(s.headers[seq].type, strictjson.dumps(value), ref_seq=s.headers[seq].ref_seq, agent="billing-agent")
    later(s, 60)
    s.close()
    return s


def _bundle(s: Scribe) -> bytes:
    return packed(bundle([source(s, notary(s), 1)], 1, sealed_at(s, 1)))


def _bad(seq: int, alter: Change) -> bytes:
    return _bundle(_ledger((seq, alter)))


@published("good-gateway", "OK", of=ledger)
def _() -> bytes:
    return _bundle(ledger())


@published("gateway-unknown", "TAMPERED", HERE, 1, 8, of=ledger)
def _() -> bytes:
    return _bad(DECISION, lambda v: v["agent"].update(gateway="mallory"))


@published("gateway-is-an-agent", "TAMPERED", HERE, 1, 8, of=ledger)
def _() -> bytes:
    return _bad(DECISION, lambda v: v["agent"].update(gateway="billing-agent"))


@published("gateway-without-registry", "TAMPERED", HERE, 1, 8, of=ledger)
def _() -> bytes:
    return _bad(DECISION, lambda v: v.update(registry=None))


@published("gateway-of-another-proof", "MALFORMED", HERE, 1, 8, of=ledger)
def _() -> bytes:
    return _bad(DECISION, lambda v: v["agent"].update(gateway_proof="promise"))


@published("gateway-reports-for-another", "TAMPERED", HERE, 1, 8, of=ledger)
def _() -> bytes:
    return _bad(OUTCOME, lambda v: v["by"].update(gateway="billing-agent"))


@published("gateway-reports-twice", "TAMPERED", HERE, 1, 8, of=ledger)
def _() -> bytes:
    return _bad(OUTCOME, lambda _: None)
