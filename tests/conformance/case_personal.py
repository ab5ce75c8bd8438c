"""Sealed personal fields: sealed, opened, erased, and the attacks 29 and 30 on them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from sidecar.chain import personal
from sidecar.chain.acts import Erase
from sidecar.chain.entry import EntryType
from sidecar.verify import Openings
from tests.conformance.chains import bundle, disclosure, later, notary, source, window
from tests.conformance.packing import Files, packed
from tests.conformance.published import HERE, published, with_case
from tests.scribe import signing_key
from tests.sealing import OTHER, SUBJECT, Discreet

TRUST = "trust-personal.json"


@functools.cache
def ledger(tombstone: str = "", retention: str = "default", note: bool = False, within: bool = False) -> Discreet:
    """Segment 0, 4: a signed decision, 5: its outcome, 6: another subject's decision; segment 1, 7: perhaps a TOMBSTONE
    of the first, signed by the key of this name."""
    s = Discreet("case-personal", retention=retention)
    s.open()
    s.registry()
    s.policy()
    s.personal_outcome(s.signed_personal_decision())
    decision = s.personal_decision(subject=OTHER)
    if within:
        _one_within_another(s, decision)
    later(s, 60)
    s.seal("time")
    if tombstone:
        s.tombstone(key=signing_key("case-personal", tombstone))
    later(s, 60)
    s.close()
    if note:
        s.grant(Erase(s.chain_id, SUBJECT, "ticket 12"))
    return s


def _one_within_another(s: Discreet, decision: int) -> None:
    """An outcome whose response has three quotes, of which the first two and the last two stand for a field each."""
    value = s.outcome_value(decision) | {"response": '{"a":"""}'}
    fields = [{"in": "/response", "pointer": "/a", "at": at, "commit": bytes(32).hex()} for at in (5, 6)]
    s.sealed(EntryType.OUTCOME, value, [], subject=OTHER, ref_seq=decision, changed={"fields": fields}, count=2)


def files(s: Discreet, openings: Openings | None = None) -> Files:
    """A good bundle of all of it."""
    start, end = window(s, 0, 1)
    found = bundle([source(s, notary(s), 1)], start, end, keys=disclosure(s))
    return found if openings is None else {**found, "data/openings.json": openings.encode()}


def _opened(
    name: str, verdict: str, *place: int | None, **given: Any
) -> Callable[[Callable[[Discreet], Openings]], None]:
    """Publish a bundle of a ledger with these openings."""

    def registered(make: Callable[[Discreet], Openings]) -> None:
        @published(name, verdict, *place, trust=TRUST)
        def _() -> bytes:
            return packed(files(ledger(**given), make(ledger(**given))))

    return registered


@published("personal-sealed", "OK", trust=TRUST)
def _() -> bytes:
    return packed(files(ledger()))


@published("personal-fields-one-within-another", "MALFORMED", HERE, 0, 7, trust=TRUST)
def _() -> bytes:
    return packed(files(ledger(within=True)))


@published("29-tombstone-forged", "INCOMPLETE", HERE, 1, 7, trust=TRUST)
def _() -> bytes:
    return packed(files(ledger("mallory")))


@published("29-tombstone-retained", "INCOMPLETE", HERE, 1, 7, trust="trust-personal-kept.json")
def _() -> bytes:
    return packed(files(ledger("authority", "sec-17a-4")))


@published("personal-openings-external", "MALFORMED", trust=TRUST)
def _() -> bytes:
    return packed(with_case(files(ledger(), ledger().opened()), profile="external"))


@published("personal-openings-misshaped", "MALFORMED", trust=TRUST)
def _() -> bytes:
    value = json.loads(ledger().opened().encode())
    value["chains"][0]["entries"].reverse()
    return packed({**files(ledger()), "data/openings.json": json.dumps(value).encode()})


@_opened("personal-opened", "OK")
def _(s: Discreet) -> Openings:
    return s.opened()


@_opened("personal-opened-in-part", "OK")
def _(s: Discreet) -> Openings:
    return s.opened(complete=False, without=[4])


@_opened("personal-erased", "REDACTED", tombstone="authority")
def _(s: Discreet) -> Openings:
    return s.opened(without=[4, 5])


@_opened("personal-erased-by-note", "REDACTED", note=True)
def _(s: Discreet) -> Openings:
    return s.opened(without=[4, 5])


@_opened("30-erased-opened", "REDACTED", tombstone="authority")
def _(s: Discreet) -> Openings:
    return s.opened()


@_opened("29-opening-missing", "INCOMPLETE", HERE, 0, 5)
def _(s: Discreet) -> Openings:
    return s.opened(without=[5])


@_opened("29-opening-missing-of-another", "INCOMPLETE", HERE, 0, 6, tombstone="authority")
def _(s: Discreet) -> Openings:
    return s.opened(without=[4, 5, 6])


@_opened("30-opening-salt", "TAMPERED", HERE, 0, 6)
def _(s: Discreet) -> Openings:
    (_, value), *rest = s.parts[6]
    return s.opened(at6=personal.join([(bytes(32), value), *rest]))


@_opened("30-opening-value", "TAMPERED", HERE, 0, 4)
def _(s: Discreet) -> Openings:
    (salt, _), *rest = s.parts[4]
    return s.opened(at4=personal.join([(salt, b'"bob@example.org"'), *rest]))


@_opened("30-opening-moved", "TAMPERED", HERE, 0, 6)
def _(s: Discreet) -> Openings:
    return s.opened(at6=personal.join(s.parts[4]))


@_opened("30-opening-exchanged", "TAMPERED", HERE, 0, 4)
def _(s: Discreet) -> Openings:
    one, two, *rest = s.parts[4]
    return s.opened(at4=personal.join([two, one, *rest]))


@_opened("30-opening-too-long", "TAMPERED", HERE, 0, 5)
def _(s: Discreet) -> Openings:
    return s.opened(at5=personal.join(s.parts[5]) + bytes(4))


@_opened("30-opening-unsealed", "TAMPERED", HERE, 0, 3)
def _(s: Discreet) -> Openings:
    return s.opened(at3=personal.join(s.parts[4]))
