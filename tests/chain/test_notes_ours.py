"""Epoch notes, heads and seals: their texts there and back, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sidecar.chain import lines
from sidecar.chain.epoch import EpochNote, epoch_hash
from sidecar.chain.head import Decided, Head, head_hash
from sidecar.chain.seal import Seal, Span, seal_hash
from sidecar.errors import Malformed


def d(byte: int) -> bytes:
    return bytes((byte,)) * 32


EPOCH = EpochNote(d(1), 3, 41, 90211, d(2), d(3), 40, d(4), d(5), d(6), d(7), d(8), "example.org/log", 1767225600)
DECIDED = Decided("019aaf3c-0000-7000-8000-000000000001", "ALLOW", d(9))
HEAD = Head(d(1), 3, 41, 90211, d(2), -5, DECIDED)
SEAL = Seal(
    d(1),
    3,
    41,
    90001,
    10_000,
    d(2),
    d(3),
    d(4),
    Span(-1, 2, 3, 4),
    d(5),
    d(6),
    d(7),
    d(8),
    d(10),
    None,
    "count",
    1767225600,
)
EMPTY = dataclasses.replace(SEAL, count=0, span=None, reason="time")
CLOSE = dataclasses.replace(SEAL, reason="close", next=None)
CRASH = dataclasses.replace(SEAL, reason="crash", next=None, mac_key=None, tag_key=None, head=d(9))
EMPTY_CRASH = dataclasses.replace(CRASH, count=0, span=None, head=None)

NOTES: list[Any] = [
    EPOCH,
    dataclasses.replace(EPOCH, recovered=None, log=None),
    HEAD,
    dataclasses.replace(HEAD, decided=None, time=2**63 - 1),
    SEAL,
    EMPTY,
    CLOSE,
    CRASH,
    EMPTY_CRASH,
]


@pytest.mark.parametrize("note", NOTES)
def test_there_and_back(note: Any) -> None:
    text = note.text()
    assert type(note).parse(text) == note
    assert type(note).parse(text).text() == text
    assert text.startswith("sidecar/v1/") and text.endswith("\n")


@pytest.mark.parametrize("note", NOTES)
def test_lines_missing_doubled_swapped_added_or_misspelt(note: Any) -> None:
    text = note.text()
    rows = text.split("\n")[:-1]
    for i in range(len(rows)):
        others = [
            [*rows[:i], *rows[i + 1 :]],
            [*rows[:i], rows[i], *rows[i:]],
            [*rows[:i], *rows[i : i + 2][::-1], *rows[i + 2 :]] if i + 1 < len(rows) else [*rows, "more 1"],
            [*rows[:i], rows[i] + " ", *rows[i + 1 :]],
            [*rows[:i], rows[i].replace(" ", "  ", 1) + " " * (" " not in rows[i]), *rows[i + 1 :]],
            [*rows[:i], rows[i].upper(), *rows[i + 1 :]] if rows[i].upper() != rows[i] else [],
        ]
        for changed in others:
            with pytest.raises(Malformed):
                type(note).parse("\n".join([*changed, ""]))
    for changed_text in ("", "\n", text[:-1], text + "\n", text.replace("\n", "\r\n"), "\n" + text):
        with pytest.raises(Malformed):
            type(note).parse(changed_text)


def replaced(note: Any, name: str, value: str) -> str:
    rows = note.text().split("\n")
    (i,) = [i for i, row in enumerate(rows) if row.startswith(name + " ")]
    rows[i] = f"{name} {value}"
    return "\n".join(rows)


NUMBERS = ["-0", "+1", "01", "1.0", "1e3", " 1", "", "x", "0x1", "1_0", "١", "-1", str(2**64), "9" * 30]
DIGESTS = ["", "-", "ab" * 31, "ab" * 33, "AB" * 32, "0x" + "ab" * 31, "ab" * 31 + "a ", "zz" * 32]


@pytest.mark.parametrize(
    ("note", "name"),
    [(EPOCH, n) for n in ("epoch", "segment", "seq", "time", "recovered")]
    + [(HEAD, n) for n in ("epoch", "segment", "seq")]
    + [(SEAL, n) for n in ("epoch", "segment", "first", "count", "mono_first", "mono_last", "time")],
)
@pytest.mark.parametrize("value", NUMBERS)
def test_numbers_have_one_spelling(note: Any, name: str, value: str) -> None:
    with pytest.raises(Malformed):
        type(note).parse(replaced(note, name, value))


@pytest.mark.parametrize("value", ["-0", "+1", "01", "-01", "", "--1", "-", str(2**63), str(-(2**63) - 1)])
def test_signed_numbers_have_one_spelling(value: str) -> None:
    with pytest.raises(Malformed):
        Head.parse(replaced(HEAD, "time", value))


@pytest.mark.parametrize(
    ("note", "name"),
    [(EPOCH, n) for n in ("chain", "leaf", "seal", "custodians", "seeds", "seed_commit", "key", "config")]
    + [(HEAD, n) for n in ("chain", "leaf", "request")]
    + [(SEAL, n) for n in ("chain", "root", "last", "prev", "mac_key", "tag_key", "next", "policy")],
)
@pytest.mark.parametrize("value", DIGESTS)
def test_digests_have_one_spelling(note: Any, name: str, value: str) -> None:
    with pytest.raises(Malformed):
        type(note).parse(replaced(note, name, value))


@pytest.mark.parametrize(
    ("note", "name", "value"),
    [
        (EPOCH, "epoch", str(2**32)),
        (HEAD, "epoch", str(2**32)),
        (SEAL, "epoch", str(2**32)),
        (EPOCH, "alg", "sha256,hmac-sha256"),
        (EPOCH, "log", "é"),
        (HEAD, "effect", "MAYBE"),
        (HEAD, "effect", "-"),
        (HEAD, "decision", "-"),
        (HEAD, "decision", "019AAF3C-0000-7000-8000-000000000001"),
        (HEAD, "decision", "019aaf3c00007000800000000000000001"),
        (HEAD, "request", "-"),
        (SEAL, "reason", "bored"),
        (SEAL, "reason", "close"),
        (SEAL, "reason", "crash"),
        (SEAL, "count", "0"),
        (SEAL, "wall_first", "-"),
        (SEAL, "mono_last", "-"),
        (SEAL, "head", "09" * 32),
        (EMPTY, "count", "1"),
        (EMPTY, "wall_first", "1"),
        (CLOSE, "reason", "count"),
        (CLOSE, "next", "09" * 32),
        (CRASH, "reason", "close"),
        (CRASH, "next", "09" * 32),
        (CRASH, "mac_key", "09" * 32),
        (CRASH, "tag_key", "09" * 32),
        (CRASH, "head", "-"),
        (EMPTY_CRASH, "head", "09" * 32),
    ],
)
def test_lines_that_do_not_go_together(note: Any, name: str, value: str) -> None:
    with pytest.raises(Malformed):
        type(note).parse(replaced(note, name, value))


@pytest.mark.parametrize("parse", [EpochNote.parse, Head.parse, Seal.parse])
@pytest.mark.parametrize("note", NOTES)
def test_one_kind_is_not_taken_for_another(parse: Any, note: Any) -> None:
    if parse.__self__ is type(note):
        return
    with pytest.raises(Malformed):
        parse(note.text())


def test_hashes_have_their_own_domains() -> None:
    text = HEAD.text()
    assert len({epoch_hash(text), head_hash(text), seal_hash(text)}) == 3


def test_names() -> None:
    assert lines.identity_name(d(10)) == f"sidecar.v1/{'0a' * 32}/identity"
    assert lines.segment_name(d(10), 41) == f"sidecar.v1/{'0a' * 32}/segment/41"
