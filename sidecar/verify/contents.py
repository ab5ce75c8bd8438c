"""One entry by itself: its header's structure, its payload, and whether the two agree (LEDGER.md rule 1)."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, NamedTuple

from msgspec import msgpack

from sidecar.chain import payload, personal
from sidecar.chain.entry import LAYOUT, EntryType, OtherLength, header_type, unpacked
from sidecar.chain.limits import GENESIS_SEQ, NO_SEQ, ZERO16
from sidecar.errors import Malformed, ProofRejected
from sidecar.verify import leave, outcomes, permits, plain
from sidecar.verify.plain import Plain
from sidecar.verify.receipts import request_digest
from sidecar.verify.report import Verdict
from sidecar.verify.statements import KINDS, fault

SHORTEST = 249
"""Bytes of a stored entry before its stored payload."""

_SALT_AT, _CODEC_AT = 216, 248
_EPOCH, _SEQ, _CHAIN = 4, 5, 7
_COMMIT, _LENGTH, _FIELDS, _REF_SEQ, _AGENT_TAG = 9, 10, 11, 16, 17  # fields of the layout
_MUCH = 16_384  # bytes
_COMMIT_LABEL = b"sidecar/v1/payload\0"
_DECISION = EntryType.DECISION  # Python 3.11 takes long to look it up
_REFERRING = frozenset({EntryType.OUTCOME, EntryType.APPROVAL})
_NAMING = frozenset({EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL})
_DECIDED = ("decision_id", "effect", "request_digest", "agent", "registry", "executor", "asked", "due", "sealed")
_TOLD: dict[EntryType, tuple[str, ...]] = {
    EntryType.DECISION: (*_DECIDED, "policy", "time", "terms", "approval", "delegators"),
    EntryType.OUTCOME: ("agent", "by", "permit", "decision_id", "decision_seq", "arguments_digest", "sealed"),
    EntryType.REJECTED: (),
}

Fields = tuple[Any, ...]
"""A header, cut by the layout."""


class Contradiction(Exception):
    """An entry that is well formed but does not agree with itself: TAMPERED."""


class Fault(NamedTuple):
    """Why a payload is of no use."""

    verdict: Verdict
    reason: str


Told = dict[str, Any] | Plain | Fault
"""What is to be known of an entry's payload: its value, or some members of it, or what is wrong with it."""

BARE = Fault(Verdict.INCOMPLETE, "its payload is not here")
"""Stands for the payload of an entry that comes without: whether it may is for `authority` to say."""


def read(kind: EntryType, fields: Fields, body: bytes, opening: bytes | None = None) -> Told:
    """The payload's value, if it is what the header commits to, proper, and agrees with the header.

    ``opening``: of its sealed fields, which are put back then. Where they are not, member ``sealed`` tells of them.
    """
    try:
        return _judged(kind, fields, read_payload(body, fields[_LENGTH], fields[_COMMIT]), opening)
    except Malformed as error:
        return Fault(Verdict.MALFORMED, str(error))
    except Contradiction as error:
        return Fault(Verdict.TAMPERED, str(error))


def needed(kind: EntryType, fields: Fields, body: bytes) -> Told:
    """As :func:`read`, at least those members that the judgement needs unless something is held against the whole."""
    try:
        data = read_payload(body, fields[_LENGTH], fields[_COMMIT])
        if kind is _DECISION and fields[_REF_SEQ] == NO_SEQ and not fields[_FIELDS]:
            told = plain.told(data, tagged=fields[_AGENT_TAG] != ZERO16)
            if told is not None:
                return told
        return _judged(kind, fields, data, None)
    except Malformed as error:
        return Fault(Verdict.MALFORMED, str(error))
    except Contradiction as error:
        return Fault(Verdict.TAMPERED, str(error))


def _judged(kind: EntryType, fields: Fields, data: bytes, opening: bytes | None) -> Told:
    """Raises Malformed, Contradiction."""
    value = read_value(kind, data, fields[_REF_SEQ], fields[_AGENT_TAG])
    if kind not in KINDS:
        return value
    value["sealed"] = None
    if fields[_FIELDS] or "personal" in value:
        _put_back(kind, value, fields, opening)
    unsaid = fault(kind, value, fields[_CHAIN], fields[_EPOCH])
    unsaid = unsaid or permits.fault(kind, value, fields[_CHAIN], fields[_REF_SEQ])
    if unsaid is None and kind is _DECISION:
        unsaid = leave.fault(value, fields[_CHAIN], fields[_SEQ])
        value["asked"] = None if unsaid else leave.asked(value)
        value["due"] = outcomes.due(value)
    return value if unsaid is None else Fault(Verdict.TAMPERED, unsaid)


def tell(body: bytes) -> Told | None:
    """As :func:`needed`, of a stored entry and for the judgement to use later: no more members than it needs.

    None where it must read the payload itself: an entry that is out of order before that, or of a rare type.
    """
    if len(body) < SHORTEST:
        return None
    fields = LAYOUT.unpack_from(body)
    try:
        kind = structure(fields)
    except Malformed:
        return None
    return tell_of(kind, fields, body)


def tell_of(kind: EntryType, fields: Fields, body: bytes) -> Told | None:
    """As :func:`tell`, where the header's structure is in order. None also where there is much to tell: many of these
    are kept until the judgement gets there."""
    if kind not in _TOLD:
        return None
    value = needed(kind, fields, body)
    if isinstance(value, dict):
        simple = kind is _DECISION and value["asked"] is None
        value = {name: value[name] for name in (_DECIDED if simple else _TOLD[kind])}
    if fields[_LENGTH] > _MUCH and len(msgpack.encode(value)) > _MUCH:
        return None
    return value


def structure(fields: Fields) -> EntryType:
    """The type of a header whose structure is in order; ``fields``: the header cut by the layout.

    Raises:
        Malformed: as `Header.decode`, or a reference that its type must not or must have.
    """
    kind = header_type(fields)
    reference = fields[_REF_SEQ]
    if kind is EntryType.TOMBSTONE:
        proper = reference == GENESIS_SEQ
    else:
        proper = kind is EntryType.DECISION or (reference != NO_SEQ) == (kind in _REFERRING)
    if not proper:
        raise Malformed(f"ref_seq does not go with the type {kind.name}")
    return kind


def read_payload(body: bytes, length: int, commit: bytes) -> bytes:
    """The payload's bytes, once they are known to be those the header commits to.

    Raises:
        Malformed: the stored form cannot be read.
        Contradiction: another length, other bytes, or another salt, than the header commits to.
    """
    try:
        data = unpacked(body[_CODEC_AT], body[_CODEC_AT + 1 :], length)
    except OtherLength as error:
        raise Contradiction(str(error)) from None
    if sha256(_COMMIT_LABEL + body[_SALT_AT:_CODEC_AT] + data).digest() != commit:
        raise Contradiction("its payload or salt is not what the header commits to")
    return data


def read_value(kind: EntryType, data: bytes, ref_seq: int, agent_tag: bytes) -> dict[str, Any]:
    """The payload's value, held against its type's table and the header.

    Raises:
        Malformed: not strict JSON, or not what the table says.
        Contradiction: another reference or agent tag than the header's.
    """
    value = payload.parse(kind, data)
    about = value if kind in _REFERRING else value.get("approval")
    if kind is not EntryType.TOMBSTONE and (NO_SEQ if about is None else about["decision_seq"]) != ref_seq:
        raise Contradiction("its payload refers to another entry than its header")
    if (agent_tag != ZERO16) != (proved_agent(kind, value) is not None):
        raise Contradiction("its agent tag does not go with the agent in its payload")
    return value


def _put_back(kind: EntryType, value: dict[str, Any], fields: Fields, opening: bytes | None) -> None:
    """Put sealed fields back, or note that they are sealed.

    Raises:
        Malformed: a value that is none, or what is put back is no proper payload.
        Contradiction: another number of them than in the header, an opening that does not fit, another request.
    """
    sealed = personal.read(kind, value)
    if (0 if sealed is None else len(sealed.fields)) != fields[_FIELDS]:
        raise Contradiction("its field_count is not the number of its sealed fields")
    if sealed is None:
        return
    if opening is None:
        places = [field.place for field in sealed.fields if field.at is None and kind in _REFERRING]
        value["sealed"] = {"subject": sealed.subject.hex(), "places": places}
        return
    try:
        parts = personal.split(opening, fields[_FIELDS])
        sealed.check(fields[_CHAIN], fields[_SEQ], parts)
    except (Malformed, ProofRejected) as error:
        raise Contradiction(str(error)) from None
    del value["sealed"]
    personal.put_back(value, sealed, parts)
    payload.hold(kind, value)
    value["sealed"] = None
    if kind is EntryType.DECISION and request_digest(value).hex() != value["request_digest"]:
        raise Contradiction("its request, with its personal fields put back, is not the one that its digest is of")


def proved_agent(kind: EntryType, value: dict[str, Any]) -> str | None:
    """The id of the agent whose blinded name the header must carry, if there is one."""
    if kind not in _NAMING or value["agent"]["proof"] == "asserted":
        return None
    return str(value["agent"]["id"])
