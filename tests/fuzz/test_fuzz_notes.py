"""Notes, heads, seals, epoch notes and verifier keys: what parses is written back as the very same text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import acts, authority_note, lines, note
from sidecar.chain.acts import Position, Run
from sidecar.chain.authority_note import AuthorityNote
from sidecar.chain.epoch import EpochNote
from sidecar.chain.head import Head
from sidecar.chain.note import MAX_SIZE
from sidecar.chain.seal import Seal
from sidecar.errors import Malformed, SignatureInvalid
from tests.fuzz.examples import fuzz, hostile
from tests.scribe import START, public, secret, signing_key, story

STORY = story()
NOTES = [*STORY.notes.values(), *STORY.seals.values(), STORY.receipt(5), STORY.records[-1].body]
AUTHORITY = signing_key("authority")
ACTS: list[acts.Act] = [
    acts.Prune(STORY.chain_id, (Run(0, 3, secret("a")), Run(4, 4, secret("b"))), "old"),
    acts.AcceptLoss(STORY.chain_id, Position(3, 9, secret("kept")), Position(5, 12, secret("lost")), "é"),
]
GRANTS = [authority_note.compose(act, START, AUTHORITY) for act in ACTS]
TEXTS = {
    Head: [note.parse(STORY.receipt(5)).text, note.parse(STORY.records[-1].body).text],
    Seal: [note.parse(data).text for data in STORY.seals.values()],
    EpochNote: [note.parse(data).text for data in STORY.notes.values()],
    AuthorityNote: [authority_note.read(grant).note.text() for grant in GRANTS],
}
VALUES = st.sampled_from(
    ["-", "0", "-0", "00", "+1", "-1", " 1", "1 ", "1_0", "1e3", "٣", "18446744073709551615", "18446744073709551616",
     "-9223372036854775808", "9" * 5000, "ab" * 32, "AB" * 32, "ab" * 31, "crash", "count", "ALLOW", "\x7f", "é", ""],
)  # fmt: skip


@st.composite
def line_by_line(draw: st.DrawFn, texts: list[str]) -> str:
    """A text with some lines' values exchanged, or lines dropped, doubled or swapped."""
    rows = draw(st.sampled_from(texts)).split("\n")
    for _ in range(draw(st.integers(1, 3))):
        at, other = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, len(rows) - 1))
        how = draw(st.sampled_from(["value", "value", "value", "drop", "double", "swap", "borrow"]))
        name = rows[at].partition(" ")[0]
        if how == "value":
            rows[at] = f"{name} {draw(VALUES | st.text(max_size=8) | st.integers().map(str))}"
        elif how == "borrow":
            rows[at] = f"{name} {rows[other].partition(' ')[2]}"
        elif how == "swap":
            rows[at], rows[other] = rows[other], rows[at]
        else:
            rows[at : at + 1] = [rows[at]] * 2 if how == "double" else []
        if not rows:
            break
    return "\n".join(rows)


@pytest.mark.parametrize("kind", [Head, Seal, EpochNote, AuthorityNote])
@given(data=st.data())
@fuzz(400)
def test_a_text_that_parses_is_written_back_as_it_was(kind: Any, data: st.DataObject) -> None:
    text = data.draw(line_by_line(TEXTS[kind]) | line_by_line([text for texts in TEXTS.values() for text in texts]))
    try:
        read = kind.parse(text)
    except Malformed:
        return
    assert read.text() == text


@given(hostile(NOTES))
@fuzz(1_000)
def test_a_note_that_parses_is_encoded_back_as_it_was(data: bytes) -> None:
    try:
        read = note.parse(data)
    except Malformed:
        return
    assert note.encode(read) == data and len(data) <= MAX_SIZE


@given(hostile([STORY.receipt(5)]))
@fuzz(500)
def test_no_other_note_verifies(data: bytes) -> None:
    name, key = lines.segment_name(STORY.chain_id, 1), public(STORY.signing[1])
    assert note.verify_single(STORY.receipt(5), name, key)
    try:
        text = note.verify_single(data, name, key)
    except (Malformed, SignatureInvalid):
        return
    assert data == STORY.receipt(5) and text == note.parse(data).text


@given(hostile(GRANTS))
@fuzz(500)
def test_no_other_grant_verifies(data: bytes) -> None:
    try:
        grant = authority_note.verify(data, STORY.chain_id, public(AUTHORITY))
    except (Malformed, SignatureInvalid):
        return
    assert data in GRANTS and grant.act in ACTS


@given(hostile([act.encode() for act in ACTS]))
@fuzz(500)
def test_a_body_that_parses_says_the_same_written_again(data: bytes) -> None:
    try:
        act = acts.parse(data)
    except Malformed:
        return
    assert acts.parse(act.encode()) == act


@given(hostile([str(note.VerifierKey("example.com/log", public(STORY.identity))).encode()]))
@fuzz(300)
def test_a_verifier_key_that_parses_is_written_back(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    try:
        assert str(note.parse_vkey(text)) == text
    except Malformed:
        return


Parser = Callable[[str], object]


@pytest.mark.parametrize("parse", [Head.parse, Seal.parse, EpochNote.parse, AuthorityNote.parse, note.parse_vkey])
@given(text=st.text(max_size=300))
@fuzz(150)
def test_any_text(parse: Parser, text: str) -> None:
    with pytest.raises(Malformed):
        parse(text)
