"""Attachments: what entries name by digest is there, once, and all stand in their place."""

from __future__ import annotations

from hashlib import sha256

import pytest

from sidecar.chain.limits import MAX_ATTACHMENT
from sidecar.chain.stream import Kind
from sidecar.verify import Verdict
from tests.scribe import BUNDLE, Record, Scribe, judge

ATTACHED = Record(Kind.ATTACHMENT, BUNDLE, 0)


def written() -> list[Record]:
    scribe = Scribe()
    scribe.open()
    scribe.policy()
    scribe.decision()
    scribe.close()
    return scribe.records


def said(records: list[Record]) -> list[tuple[Verdict, int | None, str]]:
    return [(f.verdict, f.seq, f.reason) for f in judge(records).findings if f.verdict is not Verdict.UNANCHORED]


def test_what_is_named_and_there() -> None:
    records = written()
    assert records[0] == ATTACHED and said(records) == []


def test_what_is_named_and_gone() -> None:
    assert said(written()[1:]) == [(Verdict.INCOMPLETE, 2, "the bundle that it names is not here")]


def test_what_is_there_instead() -> None:
    """One that no entry names says nothing, and is no finding."""
    other = Record(Kind.ATTACHMENT, b"another bundle", 0)
    assert [(v, seq) for v, seq, _ in said([other, *written()[1:]])] == [(Verdict.INCOMPLETE, 2)]
    assert said(sorted((ATTACHED, other), key=lambda r: sha256(r.body).digest()) + written()[1:]) == []


@pytest.mark.parametrize("place", [1, 2, 3, -1])
def test_one_out_of_its_place(place: int) -> None:
    records = written()[1:]
    records.insert(len(records) if place < 0 else place, ATTACHED)
    assert Verdict.MALFORMED in [v for v, _, _ in said(records)]


def test_twice_out_of_order_or_too_large() -> None:
    records = written()
    first, last = sorted((b"a", b"b"), key=lambda body: sha256(body).digest())
    for wrong in ([ATTACHED], [Record(Kind.ATTACHMENT, last, 0), Record(Kind.ATTACHMENT, first, 0)]):
        assert Verdict.MALFORMED in [v for v, _, _ in said([*wrong, *records])]
    large = Record(Kind.ATTACHMENT, bytes(MAX_ATTACHMENT + 1), 0)
    assert "too large" in said([large, *records[1:]])[-1][2]
