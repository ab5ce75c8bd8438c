"""The chains that the published bundles are of, and good bundles of them: always the same bytes."""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from sidecar.chain import note, strictjson
from sidecar.chain.acts import Prune
from sidecar.chain.entry import EntryType
from sidecar.chain.payload import wall_ns_of
from sidecar.chain.request import recorded
from sidecar.chain.seal import Seal
from sidecar.chain.stream import records
from sidecar.evidence import Order, Receipt, Records, Source, export
from sidecar.verify import Disclosure
from tests.attacks import test_attacks_approvals as approvals
from tests.conformance.packing import Files, unpacked
from tests.notary import Notary, standing
from tests.scribe import Scribe, principal, public, signing_key

OURS, OTHER = "billing-agent", "travel-agent"
EXPORTED = wall_ns_of("2026-02-01T00:00:00.000000000Z")
_DROPPED = {"data/verify.py", "data/verify.html", "data/HOW-TO-VERIFY.txt", "data/report.pdf"}


def other(s: Scribe, effect: str = "ALLOW") -> int:
    """A decision of another agent, proved in transit."""
    value = s.decision_value(effect, "mtls")
    value |= {"agent": principal(OTHER, "mtls"), "registry": None}
    value["request_digest"] = recorded(value).digest().hex()
    return s.write(EntryType.DECISION, strictjson.dumps(value), agent=OTHER)


def later(s: Scribe, seconds: int) -> None:
    """Time goes by."""
    s.mono += seconds * 1_000_000_000


@functools.cache
def chain(name: str = "case") -> Scribe:
    """Segments 0 to 4 are epoch 0 (2 is empty), 5 is epoch 1, ended by a crash, 6 to 8 epoch 2, 8 is open."""
    s = Scribe(name)
    s.open()
    s.policy()
    s.registry()
    s.signed_outcome(s.signed_decision())
    other(s)
    later(s, 60)
    s.seal("time")
    s.decision("DENY", proof="mtls")
    other(s, "DENY")
    later(s, 60)
    s.seal("time")
    later(s, 60)
    s.seal("time")
    s.signed_outcome(s.signed_decision())
    other(s)
    s.rejected(principal=OTHER)
    s.decision("DENY")
    later(s, 60)
    s.seal("time")
    other(s, "DENY")
    s.signed_decision()
    later(s, 60)
    s.close()
    s.open()
    s.decision("DENY", proof="mtls")
    s.crash()
    s.open()
    s.policy()
    s.registry(event="resumed")
    other(s)
    s.signed_outcome(s.signed_decision())
    later(s, 60)
    s.seal("time")
    s.decision("DENY", proof="mtls")
    later(s, 60)
    s.seal("time")
    s.signed_decision()
    s.head()
    return s


@functools.cache
def pruned() -> Scribe:
    """Two epochs that ended in order, segments 0 to 3; of 0 and 1 the authority let payloads go."""
    s = Scribe("pruned", authority=True)
    s.open()
    s.policy()
    s.decision("DENY", proof="mtls")
    other(s, "DENY")
    later(s, 60)
    s.seal("time")
    s.decision("DENY", proof="mtls")
    s.rejected()
    later(s, 60)
    s.close()
    s.open()
    later(s, 60)
    s.seal("time")
    s.decision("DENY", proof="mtls")
    later(s, 60)
    s.close()
    s.grant(Prune(s.chain_id, (s.run(0, 1),), "retention is over"))
    s.strip(0, 1)
    return s


@functools.cache
def approved() -> Scribe:
    """A question with a delegation, which two approvers approve, and the ALLOW under it; in segment 1 one rejected."""
    s = approvals.story()
    later(s, 60)
    s.seal("time")
    asked = approvals.waits(s)
    approvals.approve(s, asked, "ann", "reject")
    later(s, 60)
    s.close()
    return s


def sealed_at(s: Scribe, segment: int) -> int:
    """When a segment was sealed, ns."""
    return Seal.parse(note.parse(s.seals[segment]).text).time


def notary(*scribes: Scribe) -> Notary:
    """A log that holds everything of these chains."""
    found = Notary(witnesses=2)
    for each in scribes:
        found.take(each)
    return found


def trust(*scribes: Scribe) -> bytes:
    """The auditor's trust file."""
    value: dict[str, Any] = {
        "format": "sidecar/v1/trust",
        "chains": [
            {"chain": s.chain_id.hex(), "identity": public(signing_key(s.name, "identity")).hex()} for s in scribes
        ],
        "policy": Notary(witnesses=2).policy(),
    }
    return json.dumps(value, indent=1).encode() + b"\n"


def source(s: Scribe, log: Notary, segment: int, *, end: bool = False) -> Source:
    """A chain as an exporter has it, with the receipt of one segment's seal, and with ``end`` that of a roll-call."""
    receipts = [Receipt(f"seal-{segment}-1.tlog-proof", lambda: log.of_seal(s, segment))]
    if end:
        roll = log.call_roll(standing(s))
        answer = log.answer(roll, s.chain_id)
        receipts.append(Receipt("roll-call.tlog-proof", lambda: answer))
        receipts[0] = Receipt(receipts[0].name, lambda: log.of_seal(s, segment))

    @contextlib.contextmanager
    def opened(_since: int = 0) -> Iterator[Records]:
        yield records(BytesIO(s.stream()).read)

    return Source(opened, opened, receipts)


def bundle(
    sources: list[Source],
    start: int,
    end: int,
    *,
    agents: tuple[str, ...] | None = None,
    keys: Disclosure | None = None,
) -> Files:
    """A good bundle's files, without its documents."""
    order = Order(start, end, EXPORTED, "tests 1", ("ledger", "conformance"), "conformance", agents, disclosure=keys)
    with tempfile.TemporaryFile() as file:
        export(order, sources, file)
        file.seek(0)
        return {n: c for n, c in unpacked(file.read()).items() if n.startswith("data/") and n not in _DROPPED}


def disclosure(s: Scribe, *segments: int) -> Disclosure:
    """Keys that its custodian hands out."""
    return Disclosure(s.chain_id, {each: s.keys[each] for each in segments or s.keys})


def window(s: Scribe, first: int, last: int) -> tuple[int, int]:
    """From and to of a window of exactly these segments, ending inside the chain."""
    start = sealed_at(s, first - 1) + 1 if first else 0
    return max(start, 1), sealed_at(s, last)


@functools.cache
def _files(first: int, last: int, agents: tuple[str, ...] | None, keys: bool) -> Files:
    s = chain()
    start, end = window(s, first, last)
    given = disclosure(s) if keys else None
    return bundle([source(s, notary(s), last)], start, end, agents=agents, keys=given)


def files(first: int, last: int, *, agents: tuple[str, ...] | None = None, keys: bool = True) -> Files:
    """A good bundle of some segments of :func:`chain`."""
    return dict(_files(first, last, agents, keys))
