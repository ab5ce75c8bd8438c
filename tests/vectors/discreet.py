"""Worked examples of sealed personal fields, their openings and their erasure; `tests.vectors.make` writes them."""

from __future__ import annotations

from typing import Any, NamedTuple

from sidecar.chain import personal
from sidecar.verify import Openings
from tests.scribe import signing_key
from tests.sealing import ARGUMENTS, OTHER, SUBJECT, Discreet

Place = tuple[int | None, int | None]


class Case(NamedTuple):
    """A stream, what is given with it, and what a verifier says."""

    name: str
    ledger: Discreet
    openings: Openings | None
    verdict: str
    place: Place
    why: str


def ledger(*, erased: bool = False, key: str = "authority", **of_genesis: Any) -> Discreet:
    """4: a signed decision, 5: its outcome, 6: another subject's decision; 7: the TOMBSTONE of the first."""
    s = Discreet(**of_genesis)
    s.open()
    s.registry()
    s.policy()
    s.personal_outcome(s.signed_personal_decision())
    s.personal_decision(subject=OTHER)
    s.seal("count")
    if erased:
        s.tombstone(key=signing_key("discreet", key))
        s.head()
    return s


def figures() -> dict[str, Any]:
    """One entry with sealed fields, taken apart; bytes are hex, what the ledger holds as text is text."""
    s = ledger()
    parts, said = s.parts[4], s.payloads[4]["personal"]
    return {
        "chain_id": s.chain_id.hex(),
        "seq": 4,
        "subject": SUBJECT.hex(),
        "subject_key": s.key_of(SUBJECT).hex(),
        "fields": [
            {**field, "index": index, "salt": salt.hex(), "value": value.decode()}
            for index, (field, (salt, value)) in enumerate(zip(said["fields"], parts, strict=True))
        ],
        "opening": personal.join(parts).hex(),
        "sealed": said["sealed"],
        "stored_arguments": s.payloads[4]["request"]["arguments"],
        "arguments": ARGUMENTS.decode(),
        "request_digest": s.payloads[4]["request_digest"],
    }


def cases() -> list[Case]:
    """Streams, good and bad."""
    s, gone = ledger(), ledger(erased=True)
    nowhere: Place = (None, None)
    (_, value), *rest = s.parts[6]
    salted = personal.join([(bytes(32), value), *rest])
    forged, kept = ledger(erased=True, key="mallory"), ledger(erased=True, retention="sec-17a-4")
    return [
        Case("personal", s, None, "UNANCHORED", nowhere, "sealed personal fields of three entries; no openings"),
        Case("personal-opened", s, s.opened(), "UNANCHORED", nowhere, "the same, opened"),
        Case(
            "personal-erased", gone, gone.opened(without=[4, 5]), "UNANCHORED", nowhere,
            "one subject erased with the authority: REDACTED with a receipt of a pinned log",
        ),
        Case("bad-opening-missing", s, s.opened(without=[5]), "INCOMPLETE", (0, 5), "entry 5 has no opening"),
        Case("bad-opening-salt", s, s.opened(at6=salted), "TAMPERED", (0, 6), "an opening with a wrong salt"),
        Case(
            "bad-opening-moved", s, s.opened(at6=personal.join(s.parts[4])), "TAMPERED", (0, 6),
            "the opening of entry 4 is given for entry 6",
        ),
        Case(
            "bad-opening-unsealed", s, s.opened(at3=personal.join(s.parts[4])), "TAMPERED", (0, 3),
            "an opening is given for an entry without sealed fields",
        ),
        Case("bad-tombstone", forged, None, "INCOMPLETE", (1, 7), "a TOMBSTONE that the authority did not sign"),
        Case("bad-tombstone-kept", kept, None, "INCOMPLETE", (1, 7), "a TOMBSTONE under the retention sec-17a-4"),
    ]  # fmt: skip
