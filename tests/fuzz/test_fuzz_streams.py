"""Ledgers and segment files changed by somebody who knows the format: never an exception, never a better verdict.

`tests/verify/test_fuzz.py` changes bytes; here records are taken apart, changed within, and put together again.
"""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import entry
from sidecar.chain.entry import LAYOUT, StoredEntry
from sidecar.chain.limits import MAX_RECORD
from sidecar.chain.ratchet import SegmentKeys
from sidecar.chain.stream import Kind
from sidecar.errors import Malformed
from sidecar.verify import Disclosure, Evidence, Verdict, verify_stream
from tests.fuzz.examples import fuzz
from tests.scribe import Record, Scribe, judge, story, stream

STORY = story()
OTHER = Scribe("beta")
OTHER.open()
OTHER.policy()
OTHER.decision()
OTHER.head()
LAST = STORY.seq - 1
RECEIPTS = [STORY.receipt(n) for n in (5, 9, LAST)]
PARTIES = {
    "nobody": Evidence(receipts=RECEIPTS),
    "custodian": dataclasses.replace(STORY.keyed, receipts=RECEIPTS),
    "auditor": Evidence(disclosure=Disclosure(STORY.chain_id, STORY.keys), receipts=RECEIPTS),
}
NUMBERS = st.sampled_from([0, 1, 2, 255, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
FIELDS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "Q", 6: "Q", 10: "I", 11: "I", 12: "q", 13: "Q", 14: "I", 15: "I", 16: "Q"}
BYTES = {0: 8, 7: 32, 8: 32, 9: 32, 17: 16}


def packed(kind: Kind, body: bytes) -> tuple[Kind, object]:
    """What a record says, whichever way its payload is packed."""
    if kind is not Kind.ENTRY:
        return kind, body
    try:
        stored = StoredEntry.parse(body)
        length = LAYOUT.unpack(stored.header)[10]
        return kind, (stored.header, stored.tag, stored.salt, stored.payload(length))
    except Malformed:
        return kind, body


NAMED = {r.body for r in STORY.records if r.kind is Kind.ATTACHMENT}


def meaning(records: Sequence[Record]) -> list[tuple[Kind, object]]:
    """An attachment that no entry names says nothing (LEDGER.md, rule 9)."""
    return [packed(r.kind, r.body) for r in records if r.kind is not Kind.ATTACHMENT or r.body in NAMED]


@st.composite
def changed_entry(draw: st.DrawFn, body: bytes) -> bytes:
    """An entry with a header's field, its tag, salt, codec or payload changed; lengths made to fit, or not."""
    stored = StoredEntry.parse(body)
    values = list(LAYOUT.unpack(stored.header))
    what = draw(st.sampled_from(["field", "field", "bytes", "tag", "salt", "payload", "codec", "repacked"]))
    tag, salt, codec, rest = stored.tag, stored.salt, stored.codec, stored.stored
    if what == "field":
        at = draw(st.sampled_from(sorted(FIELDS)))
        size = struct.calcsize(">" + FIELDS[at])
        number = draw(NUMBERS | st.integers(-2, 2).map(lambda step: values[at] + step)) % 2 ** (8 * size)
        values[at] = number - 2**64 if FIELDS[at] == "q" and number >= 2**63 else number
    elif what == "bytes":
        at = draw(st.sampled_from(sorted(BYTES)))
        values[at] = draw(st.binary(min_size=BYTES[at], max_size=BYTES[at]) | st.just(bytes(BYTES[at])))
    elif what == "tag":
        tag = draw(st.binary(min_size=32, max_size=32))
    elif what == "salt":
        salt = draw(st.binary(min_size=32, max_size=32))
    elif what == "payload":
        payload = draw(st.binary(max_size=60) | st.just(stored.payload(values[10]).replace(b"ALLOW", b"DENY")))
        codec, rest = 0, payload
        if draw(st.booleans()):
            values[10] = len(payload)
        if draw(st.booleans()):
            values[9] = entry.payload_commit(salt, payload)
    elif what == "codec":
        codec = draw(st.integers(0, 255))
    else:
        codec, rest = 1, zlib.compress(stored.payload(values[10]), draw(st.integers(0, 9)))
    return LAYOUT.pack(*values) + tag + salt + bytes((codec,)) + rest


@st.composite
def changed_note(draw: st.DrawFn, body: bytes) -> bytes:
    """A note with a line's value or its signature changed, or another note's signature under it."""
    rows = body.split(b"\n")
    at = draw(st.integers(0, len(rows) - 1))
    name = rows[at].partition(b" ")[0]
    others = [r.body.split(b"\n")[-2] for r in STORY.records if r.kind not in (Kind.ENTRY, Kind.ATTACHMENT)]
    values = st.sampled_from([b"-", b"0", b"1", b"ff" * 32, b"crash", b"count", b"close", b"18446744073709551615"])
    if draw(st.booleans()):
        rows[at] = name + b" " + draw(values | st.binary(max_size=6))
    else:
        rows[-2:-1] = [draw(st.sampled_from(others))]
    return b"\n".join(rows)


@st.composite
def tampered(draw: st.DrawFn, originals: list[Record]) -> list[Record]:
    """The records with up to three of them changed, dropped, doubled, moved, turned into another kind, or another's."""
    records = list(originals)
    for _ in range(draw(st.integers(1, 3))):
        if not records:
            break
        at, other = draw(st.integers(0, len(records) - 1)), draw(st.integers(0, len(records) - 1))
        how = draw(st.sampled_from(["within", "within", "within", "drop", "double", "move", "kind", "foreign", "cut"]))
        it = records[at]
        if how == "within":
            inside = changed_entry if it.kind is Kind.ENTRY and len(it.body) > 249 else changed_note
            try:
                records[at] = dataclasses.replace(it, body=draw(inside(it.body)))
            except Malformed:
                continue  # it was changed before, so that it cannot be taken apart again
        elif how == "drop":
            del records[at]
        elif how == "double":
            records.insert(other, it)
        elif how == "move":
            records.insert(other, records.pop(at))
        elif how == "kind":
            records[at] = dataclasses.replace(it, kind=draw(st.sampled_from(Kind)))
        elif how == "foreign":
            records[at : at + draw(st.integers(0, 1))] = [draw(st.sampled_from(OTHER.records))]
        else:
            del records[at:]
    return records


@pytest.mark.parametrize("party", PARTIES)
@given(data=st.data())
@fuzz(400)
def test_a_ledger_changed_within_its_records(party: str, data: st.DataObject) -> None:
    """With a receipt for the last entry, whatever changed what is said makes the verdict worse, for everyone."""
    records = data.draw(tampered(STORY.records))
    report = judge(records, PARTIES[party])
    if meaning(records) != meaning(STORY.records):
        assert report.verdict > Verdict.UNANCHORED
    else:
        assert report.verdict in (Verdict.UNANCHORED, Verdict.MALFORMED)  # packed otherwise: as strict as one likes


@pytest.mark.parametrize("segment", range(4))
@given(data=st.data())
@fuzz(150)
def test_a_segment_file_changed_within_its_records(segment: int, data: st.DataObject) -> None:
    original = STORY.segment_file(segment)
    keyed = dataclasses.replace(STORY.keyed, receipts=[])
    assert judge(original, keyed).verdict is Verdict.UNANCHORED
    records = data.draw(tampered(original))
    report = judge(records, keyed)
    told = list if segment == 0 else entries_and_notes  # the file of segment 0 reads as a whole ledger
    if meaning(told(records)) != meaning(told(original)):
        assert report.verdict > Verdict.UNANCHORED
    else:
        assert report.verdict in (Verdict.UNANCHORED, Verdict.MALFORMED)


def entries_and_notes(records: list[Record]) -> list[Record]:
    """Without attachments: which of them a segment file must hold cannot be told from the file alone."""
    return [r for r in records if r.kind is not Kind.ATTACHMENT]


class Endless:
    """A stream that is made while it is read: some bytes, then records of zeros."""

    def __init__(self, first: bytes, shape: list[tuple[Kind, int]]) -> None:
        self._source, self._shape, self._zeros = first, list(shape), 0

    def read(self, n: int) -> bytes:
        if not self._source and not self._zeros and self._shape:
            kind, self._zeros = self._shape.pop(0)
            self._source = bytes((kind,)) + self._zeros.to_bytes(4, "big")
        if self._source:
            piece, self._source = self._source[:n], self._source[n:]
            return piece
        given, self._zeros = min(n, self._zeros), max(0, self._zeros - n)
        return bytes(given)


@given(st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, MAX_RECORD)), min_size=1, max_size=4))
@fuzz(25)
def test_memory_is_bounded_by_the_longest_record(shape: list[tuple[Kind, int]]) -> None:
    """Huge records after a good ledger; no more than a few of them are ever held at once."""
    read = Endless(stream(STORY.records), shape).read
    tracemalloc.start()
    try:
        report = verify_stream(read, STORY.keyed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.verdict > Verdict.UNANCHORED
    assert peak < 4 * MAX_RECORD + (4 << 20)


@given(
    st.dictionaries(
        st.integers(0, 8), st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
    ),
    st.lists(st.binary(max_size=300) | st.sampled_from([OTHER.receipt(3), *RECEIPTS]), max_size=5),
)
@fuzz(150)
def test_false_keys_and_foreign_receipts_raise_nothing(
    keys: dict[int, tuple[bytes, bytes]], receipts: list[bytes]
) -> None:
    disclosure = Disclosure(STORY.chain_id, {n: SegmentKeys(*pair) for n, pair in keys.items()})
    report = judge(STORY.records, Evidence(disclosure=disclosure, receipts=receipts))
    if any(receipt not in RECEIPTS for receipt in receipts):
        assert report.verdict > Verdict.UNANCHORED


def test_an_entry_of_a_later_segment_before_one_that_is_cut_short() -> None:
    """What is cut short is of no segment, whatever its header says: nothing is missing before the one that stands there
    for another place."""
    entries = [at for at, record in enumerate(STORY.records) if record.kind is Kind.ENTRY]
    pairs = [(at, at + 1) for at in entries if at + 1 in entries]
    assert pairs
    for pair in pairs:
        changed = list(STORY.records)
        for at in pair:
            body = bytearray(changed[at].body)
            fields = list(LAYOUT.unpack_from(body))
            fields[6] += 1  # its segment
            LAYOUT.pack_into(body, 0, *fields)
            changed[at] = dataclasses.replace(changed[at], body=bytes(body))
        changed[at] = dataclasses.replace(changed[at], body=changed[at].body[: LAYOUT.size + 64])
        assert judge(changed, PARTIES["nobody"]).first_bad() is not None
