"""Bundles and streams for the page that the published ones do not have: hostile, long, with a real policy."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.stream import Kind
from sidecar.evidence import Order, export
from sidecar.policy import STARTER_BUNDLE
from tests.conformance.chains import EXPORTED, notary, sealed_at, source, trust
from tests.conformance.packing import bagged, packed, unpacked
from tests.page.decided import decisions
from tests.scribe import ACTIVATED, Record, Scribe, signing_key, stream
from tests.vectors import discreet

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</td></tr></table><script>alert(2)</script>",
    "a\u202egnitrevni\u202c b",
    "\u0000\u0007\u001b[31mred\u2028line\u2029para\ufeff",
    "e" + "\u0301" * 5_000,
    "W" * 200_000,
    "\U000e0041\U000e0042 tags, \u200b\u200d\u2060 nothing",
    "{{7*7}} ${alert(3)} javascript:alert(4)",
]


def hostile(place: Path) -> tuple[Path, Path]:
    """A sound bundle whose every text wants to be more than a text; and its trust file."""
    s = Scribe("hostile")
    s.open()
    s.policy()
    for text in HOSTILE:
        value = s.decision_value("ALLOW")
        value["agent"]["id"] = value["request"]["action"] = value["request"]["purpose"] = text
        value["request"]["resource"] = {"type": text, "id": text}
        value["reasons"] = [{"code": text, "message": text}]
        value["policy"] |= {"revision": text, "engine_version": text}
        seq = s.write(EntryType.DECISION, strictjson.dumps(value))
        outcome = s.outcome_value(seq)
        outcome["agent"]["id"] = outcome["by"]["id"] = text
        outcome["downstream_status"] = text[:256]  # as long as one may be
        s.write(EntryType.OUTCOME, strictjson.dumps(outcome), ref_seq=seq)
        s.rejected(call=text, cause=text, principal=text, code=text)
    s.seal("time")
    s.decision()
    s.close()
    order = Order(1, sealed_at(s, max(s.seals)), EXPORTED, HOSTILE[0], ("ledger", HOSTILE[1]), HOSTILE[2])
    return _written(place, s, order)


def long(place: Path, entries: int) -> tuple[Path, Path]:
    """A bundle of so many entries, in segments of 10,000."""
    s = Scribe("long")
    s.open()
    s.policy()
    refused = strictjson.dumps(
        {
            "type": "REJECTED", "call": "Decide", "code": "PERMISSION_DENIED", "field": "", "cause": "suspended",
            "peer": "unix:", "principal": "crawler", "decision_id": "", "count": 1,
        }
    )  # fmt: skip
    for n in range(s.seq, entries - 1):
        if n % 100 == 0:
            s.decision("DENY" if n % 300 == 0 else "ALLOW")
        else:
            s.write(EntryType.REJECTED, refused)
        if n % 10_000 == 9_999:
            s.mono += 60_000_000_000
            s.seal("count")
    s.close()
    return _written(place, s, Order(1, sealed_at(s, max(s.seals)), EXPORTED, "tests 1", ("ledger", "long"), "long"))


def signed(place: Path, decisions: int) -> tuple[Path, Path]:
    """A bundle of so many signed decisions with signed outcomes. Of 400, one is signed by a key that nobody registered,
    and one over something else."""
    s = Scribe("signed")
    s.open()
    s.policy()
    s.registry()
    for n in range(decisions):
        if n % 400 == 200:
            s.signed_decision(signing_key("nobody"))
        elif n % 400 == 300:
            s.signed_decision(digest=b"\0" * 32)
        else:
            s.signed_outcome(s.signed_decision())
        if n % 1_000 == 999:
            s.mono += 60_000_000_000
            s.seal("count")
    s.close()
    return _written(place, s, Order(1, sealed_at(s, max(s.seals)), EXPORTED, "tests 1", ("ledger", "signed"), "signed"))


def erased(place: Path) -> tuple[Path, Path]:
    """A bundle with openings of personal fields but those of one person, erased by the authority."""
    s = discreet.ledger()
    s.tombstone(key=signing_key("discreet", "authority"))
    s.close()
    order = Order(1, sealed_at(s, max(s.seals)), EXPORTED, "tests 1", ("ledger", "discreet"), "redacted")
    bundle, trust_file = _written(place, s, order)
    openings = s.opened(without=[4, 5]).encode()
    bundle.write_bytes(packed(bagged({**unpacked(bundle.read_bytes()), "data/openings.json": openings})))
    return bundle, trust_file


def decided(place: Path, *, altered: int | None = None) -> Path:
    """A stream whose decisions the starter policy made; ``altered``: the one that is recorded otherwise."""
    bundle = STARTER_BUNDLE.read_bytes()
    digest = hashlib.sha256(bundle).hexdigest()
    s = Scribe("decided")
    s.records.insert(0, Record(Kind.ATTACHMENT, bundle, 0))
    s.open()
    policy = {name: decisions()[0]["policy"][name] for name in ("engine", "engine_version", "entrypoint", "revision")}
    s.write(EntryType.POLICY, strictjson.dumps({**ACTIVATED, **policy, "bundle_digest": digest}))
    for n, value in enumerate(decisions()):
        other = {"effect": "DENY" if value["effect"] == "ALLOW" else "ALLOW"} if n == altered else {}
        changed = {"decision_id": f"019aaf3c-0000-7000-8000-{s.seq:012x}", **other}
        s.write(EntryType.DECISION, strictjson.dumps({**value, **changed}))
    s.close()
    path = place / "decided.sdcseg"
    path.write_bytes(stream(s.records))
    return path


def _written(place: Path, s: Scribe, order: Order) -> tuple[Path, Path]:
    with (place / f"{s.name}.zip").open("w+b") as file:
        export(order, [source(s, notary(s), max(s.seals))], file)
    (place / "trust.json").write_bytes(trust(s))
    return place / f"{s.name}.zip", place / "trust.json"
