"""One entry by itself: its header's structure, its payload, and whether the two agree (LEDGER.md rule 1)."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from sidecar.chain import payload
from sidecar.chain.entry import HEADER_SIZE, EntryType, Header, OtherLength, StoredEntry
from sidecar.chain.limits import NO_SEQ, ZERO16
from sidecar.errors import Malformed

_SALT_AT, _CODEC_AT = 216, 248
_COMMIT_LABEL = b"sidecar/v1/payload\0"
_REFERRING = frozenset({EntryType.OUTCOME, EntryType.APPROVAL})
_FREE = EntryType.TOMBSTONE
_NAMING = frozenset({EntryType.DECISION, EntryType.OUTCOME})


class Contradiction(Exception):
    """An entry that is well formed but does not agree with itself: TAMPERED."""


def structure(body: bytes) -> Header:
    """The decoded header.

    Raises:
        Malformed: as `Header.decode`, or a reference that its type must not or must have.
    """
    header = Header.decode(body[:HEADER_SIZE])
    if header.type is not _FREE and (header.ref_seq != NO_SEQ) != (header.type in _REFERRING):
        raise Malformed(f"ref_seq does not go with the type {header.type.name}")
    return header


def read_payload(body: bytes, length: int, commit: bytes) -> bytes:
    """The payload's bytes, once they are known to be those the header commits to.

    Raises:
        Malformed: the stored form cannot be read.
        Contradiction: another length, other bytes, or another salt, than the header commits to.
    """
    plain = body[_CODEC_AT] == 0 and len(body) - _CODEC_AT - 1 == length
    try:
        data = body[_CODEC_AT + 1 :] if plain else StoredEntry.parse(body).payload(length)
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
    if kind is EntryType.OUTCOME and value["decision_seq"] != ref_seq:
        raise Contradiction("its payload refers to another entry than its header")
    if (agent_tag != ZERO16) != (proved_agent(kind, value) is not None):
        raise Contradiction("its agent tag does not go with the agent in its payload")
    return value


def proved_agent(kind: EntryType, value: dict[str, Any]) -> str | None:
    """The id of the agent whose blinded name the header must carry, if there is one."""
    if kind not in _NAMING or value["agent"]["proof"] == "asserted":
        return None
    return str(value["agent"]["id"])
