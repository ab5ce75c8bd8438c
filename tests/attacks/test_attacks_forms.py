"""Attacks 21 to 25, 32, 33: crashed tails, bad JSON, bad headers, bad notes, clocks, references, hostile lengths."""

from __future__ import annotations

import dataclasses
import tracemalloc
import zlib
from io import BytesIO

import pytest

from sidecar.chain import entry, lines, note, strictjson
from sidecar.chain.entry import EntryType, Header
from sidecar.chain.limits import MAX_RECORD, ZERO32
from sidecar.chain.ratchet import evolve
from sidecar.chain.stream import MAGIC, Kind
from sidecar.errors import Malformed
from sidecar.verify import Disclosure, Evidence, Verdict, verify_stream
from tests.attacks.expect import M, T, at, found, nothing_worse
from tests.scribe import NO_EVIDENCE, Record, Scribe, entry_tag, judge, secret, signing_key, story, stream

STORY = story()
KNOWN = pytest.mark.parametrize("evidence", [NO_EVIDENCE, STORY.keyed], ids=["no key", "key"])
SECOND = 1_000_000_000


def started() -> Scribe:
    s = Scribe()
    s.open()
    s.decision()
    return s


# --- 21: a crashed tail


def crashed(effect: str = "ALLOW") -> Scribe:
    s = started()
    s.seal("count")
    s.decision(effect)
    s.decision()
    s.decision()
    return s


@KNOWN
def test_attack_21_custodian_edits_the_tail_before_its_recovery(evidence: Evidence) -> None:
    """All tags are made anew with the true seed; the head is still the one that the segment's key signed."""
    true, forged = crashed(), crashed("DENY")
    true.head()
    records = [*forged.records, true.records[-1]]
    found(records, T, 1, 5, evidence)


@KNOWN
def test_attack_21_custodian_edits_the_recovered_tail(evidence: Evidence) -> None:
    true, forged = crashed(), crashed("DENY")
    true.crash()
    records = [*forged.records, *true.records[len(forged.records) :]]
    found(records, T, 1, 5, evidence)


@pytest.mark.parametrize("right_tags", [True, False])
def test_attack_21_garbage_appended_beyond_the_head(right_tags: bool) -> None:
    s = crashed()
    head = Record(Kind.HEAD, s.sign_head(5, decided=False), 1, 5)
    s.key = s.key if right_tags else secret("guess")
    s.decision("DENY")
    s.decision("DENY")
    records = [*s.records, head]
    for evidence in (NO_EVIDENCE, Evidence(disclosure=Disclosure(s.chain_id, s.keys))):
        report = nothing_worse(records, evidence)
        beyond = [(f.segment, f.seq) for f in report.findings]
        assert beyond == [(1, 6), (1, 7), (None, None)]
    if right_tags:
        nothing_worse(records, s.keyed)
    else:
        found(records, T, 1, 6, s.keyed)


@KNOWN
def test_attack_21_garbage_between_head_and_recovery_seal(evidence: Evidence) -> None:
    s = crashed()
    s.crash()
    longer = crashed()
    longer.decision()
    garbage = longer.records[-1]
    found([*s.records[:-2], garbage, *s.records[-2:]], T, 1, None, evidence)


# --- 22: bad JSON under a right tag

BAD_JSON = {
    "duplicate key": b'{"type":"CLOCK","step_ns":"1","step_ns":"1"}',
    "duplicate key, escaped": b'{"type":"CLOCK","step_ns":"1","step\\u005fns":"1"}',
    "duplicate key within": b'{"type":"CLOCK","step_ns":"1","x":{"a":1,"\\u0061":2}}',
    "NaN": b'{"type":"CLOCK","step_ns":"1","x":NaN}',
    "overflow": b'{"type":"CLOCK","step_ns":"1","x":1e400}',
    "integer": b'{"type":"CLOCK","step_ns":"1","x":9007199254740992}',
    "lone surrogate": b'{"type":"CLOCK","step_ns":"1","x":"\\ud800"}',
    "noncharacter": b'{"type":"CLOCK","step_ns":"1","x":"\xef\xbf\xbe"}',
    "noncharacter, escaped": b'{"type":"CLOCK","step_ns":"1","x":"\\uffff"}',
    "depth": b'{"type":"CLOCK","step_ns":"1","x":' + b"[" * 64 + b"]" * 64 + b"}",
    "byte order mark": b'\xef\xbb\xbf{"type":"CLOCK","step_ns":"1"}',
    "not UTF-8": b'{"type":"CLOCK","step_ns":"1","x":"\xff"}',
    "rubbish after it": b'{"type":"CLOCK","step_ns":"1"}x',
    "an array": b'["CLOCK"]',
    "another type": b'{"type":"CLOSE","reason":"shutdown"}',
    "a member missing": b'{"type":"CLOCK"}',
    "a member of another form": b'{"type":"CLOCK","step_ns":1}',
}


@KNOWN
@pytest.mark.parametrize("case", BAD_JSON)
def test_attack_22(case: str, evidence: Evidence) -> None:
    s = started()
    seq = s.write(EntryType.CLOCK, BAD_JSON[case])
    s.decision()
    s.head()
    found(s.records, M, 0, seq, evidence)


@KNOWN
def test_attack_22_depth_64_is_allowed(evidence: Evidence) -> None:
    s = started()
    s.write(EntryType.CLOCK, b'{"type":"CLOCK","step_ns":"1","x":' + b"[" * 63 + b"]" * 63 + b"}")
    s.head()
    nothing_worse(s.records, evidence)


@KNOWN
@pytest.mark.parametrize("text", ['{"a":1,"a":2}', "[]", "{", '{"a":1e999}'])
def test_attack_22_in_the_callers_arguments(text: str, evidence: Evidence) -> None:
    s = started()
    value = s.decision_value("ALLOW")
    value["request"]["arguments"] = text
    seq = s.write(EntryType.DECISION, strictjson.dumps(value))
    s.head()
    found(s.records, M, 0, seq, evidence)


# --- 23: bad headers

BAD_HEADER = {
    "magic": (0, b"X"),
    "type 0": (8, b"\0"),
    "type 11": (8, b"\x0b"),
    "alg 2": (9, b"\x02"),
    "flag": (10, b"\x80"),
    "field count": (134, b"\x10\x01"),
    "reserved": (159, b"\x01"),
    "ref_seq is itself": (160, (2).to_bytes(8, "big")),
    "ref_seq is later": (160, (3).to_bytes(8, "big")),
}


def with_bad_header(case: str, *, retagged: bool) -> Scribe:
    place, value = BAD_HEADER[case]
    s = Scribe()
    s.open()
    plain = started()
    body = plain.records[at(plain.records, 2)].body
    raw = body[:place] + value + body[place + len(value) : 184]
    payload = entry.StoredEntry.parse(body).payload(plain.headers[2].payload_len)
    key = s.key
    s.append(plain.headers[2], body[216:248], payload, raw)
    if not retagged:
        s.records[-1].body = raw + body[184:]
        s.leaf = entry.leaf(raw, body[184:216])
    s.key = evolve(key)
    s.payloads[2] = plain.payloads[2]
    s.decision()
    s.head()
    return s


@KNOWN
@pytest.mark.parametrize("case", BAD_HEADER)
def test_attack_23_under_a_right_tag(case: str, evidence: Evidence) -> None:
    found(with_bad_header(case, retagged=True).records, M, 0, 2, evidence)


@pytest.mark.parametrize("case", BAD_HEADER)
def test_attack_23_edited(case: str) -> None:
    """With the links made anew, but not the tag."""
    s = with_bad_header(case, retagged=False)
    found(s.records, M, 0, 2)
    found(s.records, T, 0, 2, s.keyed)


# --- 24: signature lines and newlines


def extra_line(data: bytes) -> bytes:
    text = note.parse(data).text
    other = note.parse(note.sign(text, "example.org/other", signing_key("other")))
    return note.encode(note.SignedNote(text, (*note.parse(data).signatures, *other.signatures)))


def doubled(data: bytes) -> bytes:
    parsed = note.parse(data)
    return note.encode(note.SignedNote(parsed.text, parsed.signatures * 2))


def unknown(data: bytes) -> bytes:
    return note.sign(note.parse(data).text, "example.org/other", signing_key("other"))


def none(data: bytes) -> bytes:
    return note.parse(data).text.encode()


@KNOWN
@pytest.mark.parametrize("kind", [Kind.EPOCH, Kind.HEAD, Kind.SEAL])
@pytest.mark.parametrize("change", [extra_line, doubled, unknown, none])
def test_attack_24_signature_lines(change: object, kind: Kind, evidence: Evidence) -> None:
    assert callable(change)
    records = list(STORY.records)
    i = max(i for i, r in enumerate(records) if r.kind is kind)
    record = records[i]
    records[i] = Record(kind, change(record.body), record.segment, record.seq)
    seq = {Kind.EPOCH: 13, Kind.HEAD: 18, Kind.SEAL: None}[kind]
    report = found(records, M, record.segment, seq, evidence)
    assert all(f.verdict is not Verdict.FORK for f in report.findings)


@pytest.mark.parametrize("change", [extra_line, doubled, unknown, none])
def test_attack_24_in_a_receipt(change: object) -> None:
    assert callable(change)
    report = judge(STORY.records, Evidence(receipts=[change(STORY.receipt(5))]))
    assert report.verdict is M
    assert all(f.verdict is not Verdict.FORK for f in report.findings)


@pytest.mark.parametrize("value", ["a\nseq 7", "a\n", "", " a", "a ", "a\x00", "a\x7f", "é"])
def test_attack_24_a_value_that_would_forge_a_line_is_not_written(value: str) -> None:
    with pytest.raises(Malformed):
        lines.join("sidecar/v1/head", [("chain", value)])


def test_attack_24_fork_needs_a_valid_signature() -> None:
    """Another leaf for one place: FORK if the segment's key signed it, TAMPERED if another did."""
    data = STORY.sign_head(5, decided=False, leaf=secret("another"))
    found(STORY.records, Verdict.FORK, 1, 5, Evidence(receipts=[data]))
    text = note.parse(data).text
    theirs = note.sign(text, lines.segment_name(STORY.chain_id, 1), signing_key("other"))
    found(STORY.records, T, 1, 5, Evidence(receipts=[theirs]))


# --- 25: clocks


@KNOWN
@pytest.mark.parametrize("step", [-3600 * SECOND, 365 * 86400 * SECOND, SECOND + 1, -SECOND - 1])
def test_attack_25_within_an_epoch(step: int, evidence: Evidence) -> None:
    s = started()
    s.wall_offset += step
    seq = s.decision()
    s.decision()
    s.head()
    report = found(s.records, Verdict.CLOCK, 0, seq, evidence)
    assert report.findings_total == 2, report.findings
    recorded = started()
    seq = recorded.clock(step)
    recorded.decision()
    recorded.head()
    report = nothing_worse(recorded.records, evidence)
    assert f"segment 0, entry {seq}: the wall clock stepped by {step} ns" in report.notes


@KNOWN
@pytest.mark.parametrize("step", [SECOND, -SECOND])
def test_attack_25_a_second_is_no_step(step: int, evidence: Evidence) -> None:
    s = started()
    s.wall_offset += step
    s.decision()
    s.head()
    nothing_worse(s.records, evidence)


@KNOWN
def test_attack_25_from_epoch_to_epoch(evidence: Evidence) -> None:
    s = started()
    s.close()
    s.wall_offset -= 10 * SECOND
    s.open()
    s.decision()
    s.head()
    found(s.records, Verdict.CLOCK, 1, 4, evidence)
    s = started()
    s.close()
    s.wall_offset -= 10 * SECOND
    s.open()
    s.clock(-10 * SECOND)
    s.head()
    nothing_worse(s.records, evidence)


@KNOWN
@pytest.mark.parametrize("back", [1, 2])
def test_attack_25_the_boot_time_clock_stands_or_goes_back(back: int, evidence: Evidence) -> None:
    s = started()
    s.mono -= back * 1_000_000
    seq = s.decision()
    s.head()
    found(s.records, T, 0, seq, evidence)


# --- 32: references


@KNOWN
def test_attack_32_reference_edited(evidence: Evidence) -> None:
    records = list(STORY.records)
    i = at(records, 4)
    header = dataclasses.replace(Header.decode(records[i].body[:184]), ref_seq=2)
    records[i] = Record(Kind.ENTRY, header.encode() + records[i].body[184:], 0, 4)
    found(records, T, 0, 4, evidence)


@KNOWN
def test_attack_32_reference_that_the_payload_denies(evidence: Evidence) -> None:
    s = started()
    s.decision()
    seq = s.outcome(3, refer=2)
    s.head()
    found(s.records, T, 0, seq, evidence)


# --- 33: hostile lengths


class Counting:
    """A reader that knows the most it was ever asked for."""

    def __init__(self, data: bytes) -> None:
        self._stream = BytesIO(data)
        self.most = 0

    def __call__(self, n: int) -> bytes:
        self.most = max(self.most, n)
        return self._stream.read(n)


HOSTILE = {
    "past the end": b"\x05" + (1000).to_bytes(4, "big") + b"x",
    "4 GiB": b"\x05\xff\xff\xff\xff" + b"x" * 100,
    "over the limit": b"\x05" + (MAX_RECORD + 1).to_bytes(4, "big") + b"x",
    "half a frame": b"\x05\x00\x00",
    "unknown kind": b"\x08\x00\x00\x00\x00",
    "kind 0": b"\x00\x00\x00\x00\x00",
}


@KNOWN
@pytest.mark.parametrize("case", HOSTILE)
def test_attack_33_framing(case: str, evidence: Evidence) -> None:
    s = started()
    read = Counting(s.stream() + HOSTILE[case])
    report = verify_stream(read, evidence)
    assert read.most <= MAX_RECORD
    assert report.verdict is M and report.entries == 3
    bad = report.first_bad()
    assert bad is not None and (bad.segment, bad.seq) == (0, 3), report.findings
    assert "whatever follows the place where the stream could no longer be read" in report.not_checked


@pytest.mark.parametrize("data", [b"", b"SDCSEG", b"SDCSEG\x00\x02", b"\x00" * 64])
def test_attack_33_no_stream(data: bytes) -> None:
    assert verify_stream(BytesIO(data).read).verdict is M


def compressed(payload_len: int, stored: bytes) -> bytes:
    """Entry 3 with a payload stored under codec 1."""
    s = started()
    header = dataclasses.replace(s.headers[2], seq=3, prev=s.leaf, payload_len=payload_len, payload_commit=ZERO32)
    encoded = header.encode()
    return encoded + entry_tag(s.key, encoded) + bytes(32) + b"\x01" + stored


BOMB = zlib.compress(bytes(200_000_000), 9)
PACKED = {
    "a bomb": (250_000, BOMB),
    "a bomb with the greatest length": (8 * 1024 * 1024, BOMB),
    "shorter than it says": (5000, zlib.compress(bytes(4000))),
    "cut short": (5000, zlib.compress(bytes(5000))[:-1]),
    "rubbish after it": (5000, zlib.compress(bytes(5000)) + b"x"),
    "two streams": (5000, zlib.compress(bytes(2500)) * 2),
    "no stream": (5000, b"rubbish"),
    "empty": (5000, b""),
    "not shorter": (5, zlib.compress(b"hello")),
}


@KNOWN
@pytest.mark.parametrize("case", PACKED)
def test_attack_33_compressed(case: str, evidence: Evidence) -> None:
    data = started().stream() + stream([Record(Kind.ENTRY, compressed(*PACKED[case]), 0)])[len(MAGIC) :]
    tracemalloc.start()
    try:
        report = judge(data, evidence)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30_000_000
    expected = T if case == "shorter than it says" else M  # sound, but not what the header commits to
    assert report.verdict is expected
    told = [f for f in report.findings if f.verdict is expected]
    assert (0, 3) in [(f.segment, f.seq) for f in told]
    assert expected is T or len(told) == 1


@KNOWN
@pytest.mark.parametrize("length", [0, 1, 183, 184, 216, 248])
def test_attack_33_entry_cut_short(length: int, evidence: Evidence) -> None:
    records = list(STORY.records)
    i = at(records, 3)
    records[i] = Record(Kind.ENTRY, records[i].body[:length], 0, 3)
    found(records, M, 0, 3, evidence)
