"""Sealed personal fields: what stands in a payload in place of a value, and how values are put back (proto/LEDGER.md,
"Personal fields").

A commitment names the entry's seq, which nobody knows before the entry is written. So a payload is composed with marks
(`mark`) in the commitments' places, and the writer replaces them (`bind`) once it knows.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.chain import note, pointer, strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import MAX_FIELDS
from sidecar.errors import Malformed, ProofRejected

SEALED: Final = ""
"""What stands in a value's place."""
SUBJECT_BYTES: Final = 16
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12

_GAP: Final = b'""'
_PADDED: Final = 256
_SALT: Final = 32
_LENGTH: Final = struct.Struct(">I")
_PLACE: Final = struct.Struct(">QI")
_DIGESTS: Final = {
    EntryType.OUTCOME: ("arguments_digest", "response_digest"),
    EntryType.APPROVAL: ("arguments_digest", "action_digest"),
}
_KEY_IN_REQUEST: Final = "/request/idempotency_key"
_SUBJECT: Final = re.compile(r"[0-9a-f]{32}")
_COMMIT: Final = re.compile(r"[0-9a-f]{64}")
_N: Final = "(?:0|[1-9][0-9]*)"
_TEXTS: Final = {
    EntryType.DECISION: re.compile(f"/request/(?:arguments|context|alternatives/{_N}/arguments)"),
    EntryType.OUTCOME: re.compile("/response"),
}
_VALUES: Final = {
    EntryType.DECISION: re.compile(
        f"/request/(?:purpose|idempotency_key)|(?:/alternatives/{_N})?/reasons/{_N}/message|/result(?:/.*)?"
        f"|/obligations/{_N}/parameters/.*",
        re.DOTALL,
    ),
    EntryType.OUTCOME: re.compile("/by/statement|/permit|/arguments_digest|/response_digest|/downstream_status"),
    EntryType.APPROVAL: re.compile("/by/statement|/action_digest|/arguments_digest|/comment"),
}

Part = tuple[bytes, bytes]
"""Salt, 32 bytes, and value, JSON text, of one field."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value that was taken out: where (``place``: the member `in`), and its commitment, 32 bytes. ``at``: its offset
    in the text there; None: it stood there itself."""

    place: str
    pointer: str
    at: int | None
    commit: bytes

    def member(self) -> dict[str, Any]:
        """As payloads have it."""
        return {"in": self.place, "pointer": self.pointer, "at": self.at, "commit": self.commit.hex()}


@dataclass(frozen=True, slots=True)
class Personal:
    """The member `personal` of a payload. ``subject``: 16 bytes; ``sealed``: nonce and ciphertext."""

    subject: bytes
    fields: tuple[Field, ...]
    sealed: bytes

    def member(self) -> dict[str, Any]:
        """As payloads have it."""
        fields = [field.member() for field in self.fields]
        return {"subject": self.subject.hex(), "fields": fields, "sealed": note.to_base64(self.sealed)}

    def check(self, chain_id: bytes, seq: int, parts: Sequence[Part]) -> None:
        """Hold an opening against the commitments of the entry ``seq``. Raises ProofRejected."""
        if len(parts) != len(self.fields):
            raise ProofRejected("the opening has another number of parts than the entry has sealed fields")
        for index, (field, (salt, value)) in enumerate(zip(self.fields, parts, strict=True)):
            if commitment(chain_id, seq, index, salt, value) != field.commit:
                raise ProofRejected(f"the opening of its sealed field {index} does not fit the commitment")


def read(kind: EntryType, payload: Mapping[str, Any]) -> Personal | None:
    """The sealed fields of a payload of a type of `entry.WITH_FIELDS`, held against it; None: it has none.

    Raises:
        Malformed: not as LEDGER.md has it.
    """
    read = _read(kind, payload) if "personal" in payload else None
    empty = {f"/{name}" for name in _DIGESTS.get(kind, ()) if payload.get(name) == SEALED}
    if empty and not (read and empty <= {field.place for field in read.fields}):
        raise Malformed("payload has an empty digest that is not sealed")
    return read


def _read(kind: EntryType, payload: Mapping[str, Any]) -> Personal:
    said = payload["personal"]
    if not isinstance(said, dict) or said.keys() != {"subject", "fields", "sealed"}:
        raise Malformed("personal has not exactly its members")
    listed, subject, sealed = said["fields"], said["subject"], said["sealed"]
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_FIELDS:
        raise Malformed(f"personal has not 1 to {MAX_FIELDS} fields")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject) or not isinstance(sealed, str):
        raise Malformed("personal has a misshaped subject or ciphertext")
    read = Personal(bytes.fromhex(subject), tuple(map(_field, listed)), note.from_base64(sealed))
    order = [(field.place, -1 if field.at is None else field.at) for field in read.fields]
    if any(
        before >= after or (before[0] == after[0] and after[1] - before[1] < len(_GAP))
        for before, after in pairwise(order)
    ):
        raise Malformed("personal has fields that do not rise, or one within another")
    for place, fields in _by_place(read.fields):
        _check_gaps(kind, payload, place, fields)
    if kind is EntryType.DECISION and all(field.place != _KEY_IN_REQUEST for field in read.fields):
        raise Malformed("personal leaves the idempotency key out")
    return read


def _field(value: Any) -> Field:
    if not isinstance(value, dict) or value.keys() != {"in", "pointer", "at", "commit"}:
        raise Malformed("a sealed field has not exactly its members")
    place, where, at, commit = value["in"], value["pointer"], value["at"], value["commit"]
    if not all(isinstance(each, str) for each in (place, where, commit)) or not _COMMIT.fullmatch(commit):
        raise Malformed("a sealed field has a misshaped place or commitment")
    if (at is None and where) or not (at is None or (type(at) is int and at >= 0)):
        raise Malformed("a sealed field has a misshaped offset")
    return Field(place, where, at, bytes.fromhex(commit))


def _by_place(fields: Sequence[Field]) -> Iterator[tuple[str, list[Field]]]:
    """Fields that stand in one text, or one that stands by itself: a text is looked at once, however many it has."""
    for place, group in groupby(fields, key=attrgetter("place")):
        yield place, list(group)


def _check_gaps(kind: EntryType, payload: Mapping[str, Any], place: str, fields: Sequence[Field]) -> None:
    by_itself = fields[0].at is None
    allowed = (_VALUES if by_itself else _TEXTS).get(kind)
    if allowed is None or not allowed.fullmatch(place):
        raise Malformed("a sealed field is where none may be")
    found = pointer.get(payload, place)
    if by_itself:
        proper = found == SEALED and len(fields) == 1
    else:
        text = found.encode() if isinstance(found, str) else b""
        proper = all(text[f.at : f.at + 2] == _GAP for f in fields if f.at is not None)
    if not proper:
        raise Malformed("a sealed field has something else in its place than the empty string")


def commitment(chain_id: bytes, seq: int, index: int, salt: bytes, value: bytes) -> bytes:
    """The 32-byte commitment to one value."""
    return hashlib.sha256(b"sidecar/v1/field\0" + chain_id + _PLACE.pack(seq, index) + salt + value).digest()


def mark(salt: bytes) -> bytes:
    """What stands in a commitment's place until the entry's seq is known; nobody can guess it."""
    return hashlib.sha256(b"sidecar/v1/field-mark\0" + salt).digest()


def bind(payload: bytes, chain_id: bytes, seq: int, parts: Sequence[Part]) -> bytes:
    """A payload with its marks replaced by commitments; of the same length."""
    for index, (salt, value) in enumerate(parts):
        made = commitment(chain_id, seq, index, salt, value).hex().encode()
        payload = payload.replace(mark(salt).hex().encode(), made, 1)
    return payload


def put_back(payload: dict[str, Any], personal: Personal, parts: Sequence[Part]) -> None:
    """Put values back in place, and take `personal` out. ``personal`` is the payload's, ``parts`` fit it.

    Raises:
        Malformed: a value that is no strict JSON text, or what comes out is not UTF-8.
    """
    values = iter([value for _, value in parts])
    for place, fields in _by_place(personal.fields):
        read = [(field.at, value, strictjson.parse(value)) for field, value in zip(fields, values, strict=False)]
        if fields[0].at is None:
            pointer.put(payload, place, read[0][2])
        else:
            pointer.put(payload, place, _filled(pointer.get(payload, place).encode(), read))
    del payload["personal"]


def _filled(text: bytes, values: Sequence[tuple[int | None, bytes, object]]) -> str:
    pieces: list[bytes] = []
    before = 0
    for at, value, _ in values:
        assert at is not None
        pieces += (text[before:at], value)
        before = at + len(_GAP)
    try:
        return b"".join((*pieces, text[before:])).decode()
    except UnicodeDecodeError:
        raise Malformed("a text with its values put back is not UTF-8") from None


def join(parts: Sequence[Part]) -> bytes:
    """The opening of an entry."""
    return b"".join(salt + _LENGTH.pack(len(value)) + value for salt, value in parts)


def split(opening: bytes, count: int, *, padded: bool = False) -> list[Part]:
    """The ``count`` parts of an opening; ``padded``: only zeros come after them.

    Raises:
        Malformed: cut short, or with something else after it.
    """
    parts: list[Part] = []
    at = 0
    for _ in range(count):
        start = at + _SALT + _LENGTH.size
        if start > len(opening):
            raise Malformed("an opening is cut short")
        end = start + _LENGTH.unpack_from(opening, at + _SALT)[0]
        if end > len(opening):
            raise Malformed("an opening is cut short")
        parts.append((opening[at : at + _SALT], opening[start:end]))
        at = end
    if opening[at:].strip(b"\0" if padded else b""):
        raise Malformed("an opening goes on after its last part")
    return parts


def encrypt(key: bytes, nonce: bytes, chain_id: bytes, subject: bytes, parts: Sequence[Part]) -> bytes:
    """The `sealed` of a payload. ``nonce``: 12 random bytes, never used with this key before."""
    opening = join(parts)
    return nonce + AESGCM(key).encrypt(nonce, opening + bytes(-len(opening) % _PADDED), _bound(chain_id, subject))


def decrypt(key: bytes, chain_id: bytes, personal: Personal) -> list[Part]:
    """The parts that a payload keeps sealed; still to be held against its commitments.

    Raises:
        Malformed: another key, or not what was encrypted.
    """
    nonce, sealed = personal.sealed[:NONCE_BYTES], personal.sealed[NONCE_BYTES:]
    try:
        opening = AESGCM(key).decrypt(nonce, sealed, _bound(chain_id, personal.subject))
    except (InvalidTag, ValueError):
        raise Malformed("sealed fields do not open with their subject's key") from None
    return split(opening, len(personal.fields), padded=True)


def _bound(chain_id: bytes, subject: bytes) -> bytes:
    return b"sidecar/v1/personal\0" + chain_id + subject
