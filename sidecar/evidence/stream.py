"""Writing one chain's stream of a bundle (proto/EVIDENCE.md, "Stream"): context, attachments, the window's segments."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Final

import msgspec
import orjson

from sidecar.chain import note
from sidecar.chain.entry import LAYOUT, TAGGED, EntryType, StoredEntry
from sidecar.chain.limits import ZERO16
from sidecar.chain.seal import Seal
from sidecar.chain.stream import MAGIC, Kind, record
from sidecar.errors import Malformed, UsageError
from sidecar.evidence.facts import Facts
from sidecar.evidence.source import Records, Source
from sidecar.evidence.survey import Chosen
from sidecar.evidence.withhold import Withhold

_LEADING: Final = (Kind.ATTACHMENT, Kind.AUTHORITY)
_READ: Final = frozenset({EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL, EntryType.REJECTED})
_TYPE, _SEQ, _LENGTH, _REF_SEQ, _TAG = 1, 5, 10, 16, 17  # fields of the layout
_TYPE_AT, _CODEC_AT = 8, 248
_FRAME: Final = struct.Struct(">BI")


class Writer:
    """Writes ``chosen`` out of ``source``. ``facts`` are known afterwards; ``told``: how many bytes were read."""

    def __init__(
        self, source: Source, chosen: Chosen, agents: tuple[str, ...] | None, told: Callable[[int], None]
    ) -> None:
        self._source, self._chosen, self._told = source, chosen, told
        self._withhold = Withhold(agents)
        self._all = agents is None
        self._read = _seen if self._all else _payload
        self.facts = Facts(chosen.chain_id)

    def write(self, out: Callable[[bytes], object]) -> None:
        """The stream, in pieces.

        Raises:
            Malformed: the source cannot be followed.
            UsageError: what was chosen is no longer there.
        """
        out(MAGIC)
        chosen = self._chosen
        if chosen.first > 0:
            out(record(Kind.GENESIS, chosen.genesis))
            out(record(Kind.EPOCH, chosen.before.note))
            if chosen.first != chosen.before.first:
                out(record(Kind.OPEN, chosen.before.opening))
            for registry in chosen.before.registries if self._all else ():
                out(record(Kind.REGISTRY_BEFORE, registry))
        with self._source.open(chosen.first) as records:
            segments = self._segments(records)
            first = None
            for kind, body in segments:
                if kind is not Kind.CONTEXT_SEAL:
                    first = kind, body
                    break
                out(record(kind, body))
            for body in self.attached():
                out(record(Kind.ATTACHMENT, body))
            for body in self._leading(Kind.AUTHORITY):
                out(record(Kind.AUTHORITY, body))
            if first is not None:
                out(record(*first))
            for kind, body in segments:
                out(_FRAME.pack(kind, len(body)) + body)

    def attached(self) -> Iterator[bytes]:
        """The attachments that go with it."""
        return (body for body in self._leading(Kind.ATTACHMENT) if sha256(body).digest() in self._chosen.named)

    def _leading(self, wanted: Kind) -> Iterator[bytes]:
        """What stands first in a chain's stream, which is opened once more for it."""
        with self._source.rare() as records:
            for kind, body in records:
                if kind not in _LEADING:
                    return
                if kind is wanted:
                    yield body

    def _segments(self, records: Records) -> Iterator[tuple[Kind, bytes]]:
        """Context seals, then the window's records."""
        chosen, segment = self._chosen, 0
        for kind, body in records:
            self._told(len(body))
            inside = chosen.first <= segment <= chosen.last
            if kind in (Kind.SEAL, Kind.CONTEXT_SEAL):
                text = note.parse(body).text
                seal = Seal.parse(text)
                segment = seal.segment
                if kind is Kind.CONTEXT_SEAL and segment >= chosen.first:
                    raise UsageError("the ledger let go of some of the window meanwhile; export from the collector")
                if chosen.first <= segment <= chosen.last:
                    self.facts.seal(seal, text)
                    yield kind, body
                elif max(chosen.before.first - 1, 0) <= segment < chosen.first:
                    yield Kind.CONTEXT_SEAL, body
                segment += 1
            elif segment > chosen.last:
                return
            elif inside and kind is Kind.ENTRY:
                yield self._entry(body)
            elif inside and kind is Kind.BARE:
                self._bare(body)
                yield kind, body
            elif inside and kind not in _LEADING and not (kind is Kind.EPOCH and body == self._given()):
                yield kind, body

    def _given(self) -> bytes | None:
        """The epoch note that stands in the context."""
        return self._chosen.before.note if self._chosen.first > 0 else None

    def _entry(self, body: bytes) -> tuple[Kind, bytes]:
        fields = _header(body)
        value = self._read(body, fields[_LENGTH]) if fields[_TYPE] in _READ else None
        given = self._withhold.entry(body, value)
        if given[0] is Kind.BARE:
            self._bare(given[1])
        else:
            self._noted(fields, value)
        return given

    def _bare(self, body: bytes) -> None:
        fields = _header(body)
        self.facts.bare += 1
        self.facts.tagless += fields[_TAG] == ZERO16
        self.facts.withheld_registries += fields[_TYPE] == EntryType.REGISTRY
        self._noted(fields, None)

    def _noted(self, fields: tuple[Any, ...], value: dict[str, Any] | None) -> None:
        self.facts.last_segment = fields[6]
        self.facts.entry(fields[_TYPE], fields[_REF_SEQ], fields[_SEQ], value)


def _header(body: bytes) -> tuple[Any, ...]:
    """Raises Malformed."""
    if len(body) < TAGGED:
        raise Malformed("an entry is cut short; run `sidecar verify` on the source")
    return LAYOUT.unpack_from(body)


def _payload(body: bytes, length: int) -> dict[str, Any] | None:
    """A payload for who only looks: it is not judged here."""
    try:
        value = orjson.loads(StoredEntry.parse(body).payload(length))
    except (Malformed, ValueError):
        return None
    return value if isinstance(value, dict) else None


class _Seen(msgspec.Struct, gc=False):
    effect: Any = None
    agent: Any = None
    personal: Any = None


_look: Final = msgspec.json.Decoder(_Seen).decode


def _seen(body: bytes, length: int) -> dict[str, Any] | None:
    """As `_payload`, those members alone that `Facts` looks at: in half of the time."""
    try:
        seen = _look(StoredEntry.parse(body).payload(length))
    except (Malformed, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return {"effect": seen.effect, "agent": seen.agent, "personal": seen.personal}
