"""What whoever runs a sidecar, or exports, can write into chains whose every signature is right: registries that were
never in force, roles of nobody; and beside them: files of the log that hardly are. `forged.py` has more, as streams."""

from __future__ import annotations

import functools
import json
from hashlib import sha256
from typing import Any

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.request import recorded
from tests.conformance.chains import OURS, bundle, disclosure, later, notary, other, source, window
from tests.conformance.packing import Files, packed
from tests.conformance.published import HERE, folder, middle, published
from tests.scribe import Scribe, registered, registry_text

_CHECKPOINT = "\n\n"


def _told(way: str) -> Scribe:
    """Registries A, B, … put in force; decisions that name a, b, …; `|` ends a segment, `!` an epoch; `u`: an outcome
    that somebody whom no registry names reports as an admin."""
    s = Scribe("forged")
    s.open()
    s.policy()
    of = {name: registry_text(owner=name) for name in "ABC"}
    for each in way:
        if each in "|!":
            later(s, 60)
        if each == "|":
            s.seal("time")
        elif each == "!":
            s.close()
            s.open()
        elif each == "u":
            _reported(s)
        elif each in of:
            s.registry(of[each])
        else:
            s.registered = sha256(of[each.upper()]).hexdigest()
            s.signed_decision()
    later(s, 60)
    s.close()
    return s


def _reported(s: Scribe) -> None:
    ghost: dict[str, Any] = {"id": "ghost", "proof": "asserted", "roles": [], "attributes": {}}
    value = s.decision_value("ALLOW") | {"agent": ghost, "registry": None}
    value["request_digest"] = recorded(value).digest().hex()
    decision = s.write(EntryType.DECISION, strictjson.dumps(value))
    said = s.outcome_value(decision) | {"agent": {"id": "ghost", "proof": "asserted"}}
    s.write(EntryType.OUTCOME, strictjson.dumps(said | {"by": ghost | {"roles": ["admin"]}}), ref_seq=decision)


@functools.cache
def ledger() -> Scribe:
    """The chain of the bundles here that are of one of their own."""
    return _told("Aa|Ba")


def _window(s: Scribe, first: int, last: int, *agents: str) -> bytes:
    start, end = window(s, first, last)
    given = [source(s, notary(s), last)]
    return packed(bundle(given, start, end, agents=agents or None, keys=disclosure(s)))


@published("good-window-with-another-registry", "OK", of=ledger)
def _() -> bytes:
    return _window(ledger(), 1, 1)


@published("good-window-with-a-registry-that-was-resumed", "OK", of=ledger)
def _() -> bytes:
    return _window(_told("BA!Aa"), 1, 1)


@published("forged-registry-that-was-never-in-force", "TAMPERED", HERE, 1, 5, of=ledger)
def _() -> bytes:
    return _window(_told("A|Bc"), 1, 1)


@published("forged-registry-before-the-last-two", "TAMPERED", HERE, 1, 8, of=ledger)
def _() -> bytes:
    return _window(_told("BA!Ab"), 0, 1)


@published("forged-reporter-with-roles-of-nobody", "TAMPERED", HERE, 1, 6, of=ledger)
def _() -> bytes:
    return _window(_told("A|Bu"), 1, 1)


@published("forged-allow-under-a-denial-beside-what-is-withheld", "TAMPERED", HERE, 0, 6, of=ledger)
def _() -> bytes:
    s = Scribe("forged")
    s.open()
    s.policy()
    s.registry()
    other(s, "DENY")  # withheld
    agent = registered(OURS, "mtls")
    denied = s.decision("DENY", proof="mtls", agent=agent)
    under = {"decision_id": s.payloads[denied]["decision_id"], "decision_seq": denied, "approvals": []}
    value = s.decision_value("ALLOW", "mtls") | {"agent": agent, "approval": under}
    value["request"]["approval_of"] = under["decision_id"]
    value["request_digest"] = recorded(value).digest().hex()
    s.write(EntryType.DECISION, strictjson.dumps(value), ref_seq=denied, agent=OURS)
    later(s, 60)
    s.close()
    return _window(s, 0, 0, OURS)


@published("forged-policy-under-another-name", "TAMPERED")
def _() -> bytes:
    name = next(each for each in middle() if each.startswith("data/policies/"))
    return packed({**middle(), name: b"a policy that forbids it"})


# --- files of the log


def _receipt() -> tuple[str, str]:
    ((name, data),) = ((n, c) for n, c in middle().items() if n.startswith(f"{folder()}/receipts/"))
    return name, data.decode()


def _beside(name: str, data: str | bytes) -> bytes:
    files: Files = middle()
    raw = data.encode() if isinstance(data, str) else data
    return packed({**files, f"{folder()}/receipts/{name}": raw})


@published("forged-key-name-with-a-control-character", "TAMPERED", HERE, 4, None)
def _() -> bytes:
    name, text = _receipt()
    return packed({**middle(), name: f"{text}\N{EM DASH} ot\x01her AAAAAAA=\n".encode()})


@published("good-key-name-that-nobody-knows", "OK")
def _() -> bytes:
    name, text = _receipt()
    return packed({**middle(), name: f"{text}\N{EM DASH} other\x7f AAAAAAA=\n".encode()})


@published("forged-index-beyond-any-tree", "MALFORMED", HERE, None, None)
def _() -> bytes:
    name, text = _receipt()
    head, _, rest = text.partition("index ")
    return packed({**middle(), name: f"{head}index {2**63}\n{rest.partition(chr(10))[2]}".encode()})


@published("forged-consistency-from-beyond-any-tree", "MALFORMED", HERE, None, None)
def _() -> bytes:
    return _beside("beyond.tlog-consistency", f"old {2**63}\n\n{_receipt()[1].partition(_CHECKPOINT)[2]}")


def _stamped(**members: str) -> bytes:
    text = _receipt()[1].partition(_CHECKPOINT)[2].rpartition(_CHECKPOINT)[0] + "\n"
    said = {"format": "sidecar/v1/timestamp", "checkpoint": text, "nonce": "1", "response": "AAAA"}
    return _beside("x.timestamp", json.dumps(said | members))


@published("good-timestamp-with-a-long-nonce", "OK")
def _() -> bytes:
    return _stamped(nonce="9" * 50)


@published("forged-timestamp-with-a-longer-nonce", "MALFORMED", HERE, None, None)
def _() -> bytes:
    return _stamped(nonce="9" * 51)


@published("forged-timestamp-of-no-checkpoint", "MALFORMED", HERE, None, None)
def _() -> bytes:
    return _stamped(checkpoint="whatever\n")


@published("forged-timestamp-without-a-response", "MALFORMED", HERE, None, None)
def _() -> bytes:
    return _stamped(response="")
