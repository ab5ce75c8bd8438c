"""Decisions as a real sidecar recorded them, and ledgers written of them anew with something changed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind, records
from sidecar.client import Alternative, Status
from sidecar.ledger import ledger_stream
from sidecar.policy import STARTER_BUNDLE
from tests.program import made, serving
from tests.scribe import ACTIVATED, Record, Scribe

STARTER = STARTER_BUNDLE.read_bytes()
Payload = dict[str, Any]


def recorded_ledger(place: Path, *flags: str | Path) -> Path:
    """A ledger with an ALLOW, a DENY, a REQUIRE_APPROVAL with an alternative, and what became of the first."""
    ledger, _ = made(place)
    with serving(ledger, *flags) as server, server.guard() as guard:
        allowed = guard.ask("crm.read", ("customer", "acme-42"), {"fields": ["name"]})
        guard.report(allowed.decision_id, Status.EXECUTED, {"name": "Acme"})
        guard.ask("db.query", ("table", "billing.customers"), {"columns": ["diagnosis"]})
        instead = Alternative("payments.refund", ("account", "acme-42"), {"amount": 400, "currency": "EUR"})
        wanted = {"amount": 4_800, "currency": "EUR"}
        guard.ask("payments.refund", ("account", "acme-42"), wanted, alternatives=[instead])
        assert server.stop() == 0
    return ledger


def decisions_of(ledger: Path) -> list[Payload]:
    """The payloads of its decisions."""
    with ledger_stream(ledger) as read:
        entries = [entry(body) for kind, body in records(read) if kind is Kind.ENTRY]
    return [payload for header, payload in entries if header.type is EntryType.DECISION]


def rewritten(
    decisions: Iterable[Payload], *, bundle: bytes | None = STARTER, name: str = "alpha", **policy: Any
) -> Scribe:
    """A whole ledger of these decisions, by a policy whose archived bundle is ``bundle``; ``policy``: its members."""
    s = Scribe(name)
    s.open()
    given = list(decisions)
    if bundle is not None:
        s.records.insert(0, Record(Kind.ATTACHMENT, bundle, 0))
    named = {**ACTIVATED, **given[0]["policy"], **policy}
    s.write(EntryType.POLICY, strictjson.dumps(named))
    for each in given:
        s.write(EntryType.DECISION, strictjson.dumps(each))
    s.head()
    return s


def by(decision: Payload, **policy: str) -> Payload:
    """The decision, made by another policy as far as the record goes."""
    return {**decision, "policy": {**decision["policy"], **policy}}


def changed(decision: Mapping[str, Any], path: str, value: object) -> Payload:
    """A copy with the member at ``path`` (``alternatives/0/effect``) replaced."""
    made = copy.deepcopy(dict(decision))
    *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place: Any = made
    for part in above:
        place = place[part]
    place[last] = value
    return made


def digest(bundle: bytes) -> str:
    return sha256(bundle).hexdigest()
