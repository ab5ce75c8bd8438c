"""Members of payloads are changed, taken away or added to, under a header and head that go with it.

Both verifiers must come to the same, so that the tables of LEDGER.md are read alike.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from sidecar.chain import entry, lines, note
from sidecar.chain.head import Head
from sidecar.chain.stream import Kind
from sidecar.verify import Evidence, verify_stream
from tests.attacks.test_attacks_approvals import story as approvals
from tests.scribe import SOAK, Record, Scribe, signed_story, story, stream, vouched_story
from tests.second import first_bad, second

CASES = 6_000 if SOAK else 200
WORLDS = (story(), signed_story(), approvals(), vouched_story())
TEXTS = (
    "", "x", "-", "0", "01", "-1", "+1", "99999999999999999999", "00" * 32, "AB" * 32, "ab" * 31, "AAAA", "AAA", "AB==",
    "2026-01-01T00:00:01.000000000Z", "2026-02-30T00:00:01.000000000Z", "2026-01-01T00:00:60.000000000Z",
    "0000-01-01T00:00:00.000000000Z", "2026-01-01T00:00:01Z", "019aaf3c-0000-7000-8000-00000000ffff",
    "00000000-0000-0000-0000-000000000000", "policy", "ALLOW", "DENY", "activated", "refused", "{}", "[]",
    '{"a":1,"a":2}', "x" * 300, "é" * 1_024, "é" * 1_025, "*", " a", "opa", "file", "mtls", "asserted", "signature",
    "gateway", "socket", "payments-gateway", "billing-agent",
)  # fmt: skip
VALUES = (*TEXTS, None, True, 1, 0, -1, 1.5, 2**60, [], {}, ["x"], [1], [[]], [{}], {"a": 1}, [""])
NAMES = ("extra", "extra", "spiffe_id", "personal", "sealed", "proof", "key", "type", "accepted_loss")
Path = tuple[str | int, ...]


def paths(value: Any, way: Path = ()) -> Iterator[Path]:
    """The ways to all members and items below a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        yield (*way, name)
        yield from paths(each, (*way, name))


def changed(rng: random.Random, value: dict[str, Any]) -> dict[str, Any]:
    """The payload with one member changed, gone or more."""
    value = copy.deepcopy(value)
    *way, last = rng.choice(list(paths(value)))
    place: Any = value
    for name in way:
        place = place[name]
    kind = rng.random()
    if kind < 0.15:
        del place[last]
    elif kind < 0.3 and isinstance(place, dict):
        place[rng.choice(NAMES)] = rng.choice(VALUES)
    else:
        place[last] = rng.choice(VALUES)
    return value


def ending_with(s: Scribe, seq: int, value: dict[str, Any]) -> bytes:
    """The ledger up to an entry with this payload, and the head about it."""
    kept = []
    for record in s.records:
        if record.kind is Kind.ENTRY and record.seq == seq:
            break
        kept.append(record)
    payload, salt, old = json.dumps(value, ensure_ascii=False).encode(), bytes(32), s.headers[seq]
    header = dataclasses.replace(old, payload_commit=entry.payload_commit(salt, payload), payload_len=len(payload))
    encoded, tag = header.encode(), bytes(32)
    kept.append(Record(Kind.ENTRY, entry.store(encoded, tag, salt, payload), old.segment, seq))
    head = Head(s.chain_id, old.epoch, old.segment, seq, entry.leaf(encoded, tag), old.wall_ns, None)
    signed = note.sign(head.text(), lines.segment_name(s.chain_id, old.segment), s.signing[old.segment])
    return stream([*kept, Record(Kind.HEAD, signed, old.segment, seq)])


def test_agreement_on_changed_payloads() -> None:
    rng = random.Random(20261125)
    for _ in range(CASES):
        s = rng.choice(WORLDS)
        seq = rng.choice([seq for seq in s.payloads if seq > 0])
        value = changed(rng, s.payloads[seq])
        data = ending_with(s, seq, value)
        report = verify_stream(BytesIO(data).read, Evidence())
        told, other = second(data, Evidence())
        assert told == first_bad(report), (value, report.findings[:4], other.findings()[:4])
