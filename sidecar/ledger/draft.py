"""What callers hand to the ledger, and what they get back. A draft the verifier would refuse is refused here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain import payload as payloads
from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.head import Decided
from sidecar.chain.limits import GENESIS_SEQ, MAX_ATTACHMENT, MAX_DEPTH, MAX_PAYLOAD, NO_SEQ
from sidecar.chain.personal import Part
from sidecar.chain.stream import attachment_of
from sidecar.errors import Malformed
from sidecar.ledger.batch import Wait
from sidecar.ledger.given import Decision

WRITABLE: Final = frozenset(
    {
        *(EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL),
        *(EntryType.REJECTED, EntryType.POLICY, EntryType.REGISTRY, EntryType.TOMBSTONE),
    }
)
"""What callers may write; the other types are the ledger's own, or reserved."""

DecisionAt = Callable[[int], Mapping[str, Any] | None]
"""The payload, as it is stored, of the DECISION at a seq, or None."""

_NAMES_AGENT: Final = frozenset({EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL})
_REFERRING: Final = frozenset({EntryType.OUTCOME, EntryType.APPROVAL})
_ASSERTED: Final = "asserted"


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry to be. ``ref_seq``: the entry this one is about; ``about``: the decision there, where it was looked up.

    ``repeat_key``: 16 bytes by which the entry and its receipt are recalled when the same is asked again. ``read``:
    JSON texts that were read strictly before, of those in the payload. ``attachment``: the bytes that a POLICY's
    payload names by digest, at most 8 MiB. ``parts``: what was taken out of the payload, which has marks in place of
    their commitments (`chain.personal`).
    """

    type: EntryType
    payload: dict[str, Any]
    ref_seq: int = NO_SEQ
    about: Decision | None = None
    repeat_key: bytes | None = None
    read: Collection[bytes] = ()
    attachment: bytes | None = None
    parts: tuple[Part, ...] = ()

    def decision(self, decision_at: DecisionAt) -> Mapping[str, Any] | None:
        """The stored payload of the decision that it refers to, or None where there is no decision."""
        if self.about is not None and self.about.seq == self.ref_seq:
            return self.about.stored
        return decision_at(self.ref_seq)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry that is on disk. ``receipt``: the signed head about this very entry (proto/LEDGER.md, "Head")."""

    seq: int
    segment: int
    leaf: bytes
    receipt: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked draft, its payload already in bytes. ``agent``: a *proved* agent's id, else None. ``decided``: of a
    DECISION, what its receipt says, and by whose id it is found again."""

    type: EntryType
    payload: bytes
    ref_seq: int = NO_SEQ
    agent: str | None = None
    decided: Decided | None = None
    repeat_key: bytes | None = None
    attachment: tuple[bytes, bytes] | None = None  # its SHA-256, and itself
    expires: int | None = None  # until when it waits for approvals, wall clock in ns
    settles: Wait | None = None  # the wait that it ends
    parts: tuple[Part, ...] = ()


def prepare(draft: Draft, decision_at: DecisionAt) -> Prepared:
    """Check a draft and turn its payload into bytes; later changes of the dict do not matter.

    Raises:
        Malformed: the entry would not be a proper one.
    """
    if draft.type not in WRITABLE:
        raise Malformed(f"an entry of type {draft.type.name} is not for callers to write")
    payload, data = draft.payload, _written(draft.type, draft.payload, draft.read)
    about = _check_reference(draft, decision_at)
    _check_registry(draft, payload)
    attachment = _attached(draft, payload)
    return Prepared(
        draft.type, data, draft.ref_seq, _agent(draft), _decided(draft), draft.repeat_key, attachment,
        _expires(payload), None if about is None else _settles(draft, payload, about), draft.parts,
    )  # fmt: skip


def own(kind: EntryType, payload: dict[str, Any]) -> Prepared:
    """An entry of the ledger's own, checked as any other.

    Raises:
        Malformed: it would not be a proper one.
    """
    return Prepared(kind, _written(kind, {"type": kind.name, **payload}))


def _written(kind: EntryType, payload: dict[str, Any], read: Collection[bytes] = ()) -> bytes:
    """The bytes of a payload, which `payload.parse` would take."""
    data = strictjson.dumps(payload)
    if len(data) > MAX_PAYLOAD:
        raise Malformed("payload is over the limit")
    strictjson.check_written(data, max_depth=MAX_DEPTH)
    payloads.hold(kind, payload, read=read)
    return data


def _agent(draft: Draft) -> str | None:
    named = draft.payload["agent"] if draft.type in _NAMES_AGENT else None
    return named["id"] if named is not None and named["proof"] != _ASSERTED else None


def _decided(draft: Draft) -> Decided | None:
    if draft.type is not EntryType.DECISION:
        return None
    said = draft.payload
    return Decided(said["decision_id"], said["effect"], bytes.fromhex(said["request_digest"]))


def _check_registry(draft: Draft, payload: dict[str, Any]) -> None:
    if draft.type is EntryType.REGISTRY:
        said = hashlib.sha256(payload["registry"].encode()).hexdigest() if payload["event"] != "refused" else ""
        if payload["digest"] != said:
            raise Malformed("its digest is not that of the registry in it")


def _attached(draft: Draft, payload: dict[str, Any]) -> tuple[bytes, bytes] | None:
    named = attachment_of(draft.type, payload)
    given = draft.attachment
    if given is None and not named:
        return None
    if given is None or len(given) > MAX_ATTACHMENT:
        raise Malformed(f"what the payload names must be attached, at most {MAX_ATTACHMENT} bytes of it")
    digest = hashlib.sha256(given).digest()
    if digest.hex() != named:
        raise Malformed("the attachment is not what the payload names")
    return digest, given


def _expires(payload: Mapping[str, Any]) -> int | None:
    terms = payload.get("terms")
    return None if terms is None else payloads.wall_ns_of(terms["expires"])


def _settles(draft: Draft, payload: dict[str, Any], decision: Mapping[str, Any]) -> Wait | None:
    """A decision waits until it is rejected, or used for an ALLOW."""
    expires = _expires(decision)
    ends = payload["effect"] == "ALLOW" if draft.type is EntryType.DECISION else payload.get("verdict") == "reject"
    return Wait(expires, draft.ref_seq) if ends and expires is not None else None


def _check_reference(draft: Draft, decision_at: DecisionAt) -> Mapping[str, Any] | None:
    """The decision that it refers to, if it does."""
    payload = draft.payload
    if draft.type is EntryType.TOMBSTONE and draft.ref_seq == GENESIS_SEQ:
        return None
    about = payload if draft.type in _REFERRING else payload.get("approval")
    if about is None:
        if draft.ref_seq != NO_SEQ:
            raise Malformed(f"an entry of type {draft.type.name} refers to no other")
        return None
    decision = draft.decision(decision_at)
    if decision is None or about["decision_seq"] != draft.ref_seq:
        raise Malformed("it must refer to a recorded decision, in header and payload alike")
    if decision["decision_id"] != about["decision_id"]:
        raise Malformed("it names another decision than the one it refers to")
    if any(decision["agent"][name] != payload["agent"][name] for name in ("id", "proof") if draft.type in _REFERRING):
        raise Malformed("it names another agent than the decision it refers to")
    return decision
