"""Authority notes and their bodies: there and back, and what is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from sidecar.chain import acts, authority_note, lines, note
from sidecar.chain.acts import AcceptLoss, Position, Prune, Run
from sidecar.chain.authority_note import AuthorityNote
from sidecar.errors import Malformed, SignatureInvalid
from tests.scribe import public, secret, signing_key

CHAIN, KEY, TIME = secret("chain"), signing_key("authority"), 1_767_225_600_000_000_000
PRUNE = Prune(CHAIN, (Run(0, 41, secret("seal")), Run(43, 43, secret("other"))), "retention is over")
LOSS = AcceptLoss(CHAIN, Position(42, 1_001, secret("kept")), Position(45, 1_200, secret("lost")), "disk lost: é")


def signed(text: str, body: bytes, name: str | None = None) -> bytes:
    return authority_note.join(note.sign(text, name or authority_note.authority_name(CHAIN), KEY), body)


def around(body: bytes, act: str) -> bytes:
    """A well-signed grant with any body."""
    return signed(AuthorityNote(CHAIN, act, hashlib.sha256(body).digest(), TIME).text(), body)


@pytest.mark.parametrize("act", [PRUNE, LOSS])
def test_there_and_back(act: acts.Act) -> None:
    record = authority_note.compose(act, TIME, KEY)
    grant = authority_note.verify(record, CHAIN, public(KEY))
    assert grant.act == act and grant.record == record and grant == authority_note.read(record)
    assert grant.note == AuthorityNote(CHAIN, act.ACT, hashlib.sha256(act.encode()).digest(), TIME)


def test_prune_covers_its_runs_alone() -> None:
    assert [s for s in range(50) if not PRUNE.covers(s)] == [42, *range(44, 50)]


def test_by_another_key_or_for_another_chain() -> None:
    record = authority_note.compose(PRUNE, TIME, KEY)
    with pytest.raises(SignatureInvalid):
        authority_note.verify(record, CHAIN, public(signing_key("other")))
    with pytest.raises(Malformed, match="another name"):
        authority_note.verify(record, secret("another chain"), public(KEY))
    text = AuthorityNote(secret("another chain"), "prune", hashlib.sha256(PRUNE.encode()).digest(), TIME).text()
    with pytest.raises(Malformed, match="another chain"):
        authority_note.verify(signed(text, PRUNE.encode()), CHAIN, public(KEY))


def test_signed_under_the_identity_keys_name() -> None:
    text = note.parse(authority_note.split(authority_note.compose(PRUNE, TIME, KEY))[0]).text
    with pytest.raises(Malformed, match="another name"):
        authority_note.verify(signed(text, PRUNE.encode(), lines.identity_name(CHAIN)), CHAIN, public(KEY))


def test_another_body_beside_it() -> None:
    signed_note, body = authority_note.split(authority_note.compose(PRUNE, TIME, KEY))
    for other in (LOSS.encode(), body + b" ", b""):
        with pytest.raises(Malformed, match="not the one that it names"):
            authority_note.verify(authority_note.join(signed_note, other), CHAIN, public(KEY))
    with pytest.raises(Malformed, match="another act"):
        authority_note.verify(around(LOSS.encode(), "prune"), CHAIN, public(KEY))


def test_reserved_and_unknown_acts() -> None:
    assert authority_note.verify(around(b"anything", "successor"), CHAIN, public(KEY)).act is None
    with pytest.raises(Malformed, match="unknown act"):
        AuthorityNote(CHAIN, "forget", secret("body"), TIME)


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\1", b"\0\0\0\0body", b"\0\0\0\x09note", b"\xff\xff\xff\xffnote", bytes(100_000)]
)
def test_cut_short_or_too_long(data: bytes) -> None:
    with pytest.raises(Malformed):
        authority_note.split(data)


def _changed(act: acts.Act, **members: Any) -> bytes:
    value = json.loads(act.encode()) | members
    return json.dumps({name: v for name, v in value.items() if v is not None}).encode()


RUN = {"first": 0, "last": 1, "seal": "ab" * 32}
PLACE = {"segment": 42, "seq": 1_001, "leaf": "ab" * 32}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"format": 1}',
        b'{"format": "sidecar/v1/successor"}',
        _changed(PRUNE, more=1),
        _changed(PRUNE, reason=None),
        _changed(PRUNE, reason=""),
        _changed(PRUNE, reason="two\nlines"),
        _changed(PRUNE, reason="x" * 1_025),
        _changed(PRUNE, chain="AB" * 32),
        _changed(PRUNE, chain=7),
        _changed(PRUNE, segments={}),
        _changed(PRUNE, segments=[]),
        _changed(PRUNE, segments=[RUN] * 2),
        _changed(PRUNE, segments=[{**RUN, "first": n, "last": n} for n in range(257)]),
        _changed(PRUNE, segments=[{**RUN, "first": 2}]),
        _changed(PRUNE, segments=[{**RUN, "first": -1}]),
        _changed(PRUNE, segments=[{**RUN, "first": True}]),
        _changed(PRUNE, segments=[{**RUN, "last": 1.0}]),
        _changed(PRUNE, segments=[{**RUN, "seal": "ab"}]),
        _changed(PRUNE, segments=[{**RUN, "more": 0}]),
        _changed(PRUNE, segments=[7]),
        _changed(LOSS, kept=PLACE, lost=PLACE),
        _changed(LOSS, kept={**PLACE, "seq": 0}),
        _changed(LOSS, lost={**PLACE, "segment": 41}),
        _changed(LOSS, lost={**PLACE, "segment": 43, "seq": 1_000}),
        _changed(LOSS, lost=None),
    ],
)
def test_a_body_that_is_none(body: bytes) -> None:
    with pytest.raises(Malformed):
        acts.parse(body)


def test_a_body_of_two_spellings_of_one_member() -> None:
    with pytest.raises(Malformed, match="twice"):
        acts.parse(PRUNE.encode().replace(b'{"format"', b'{"rea\\u0073on":"x","format"', 1))
