"""Cosignatures by a real witness (torchwood's litewitness), and what is refused of one that lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.anchor import Ahead, Door, Witness
from sidecar.chain import checkpoint, cosignature, merkle, note
from sidecar.chain.consistency import Consistency
from sidecar.chain.note import SignedNote
from sidecar.collector import FleetLog
from sidecar.collector.index import open_sqlite
from sidecar.errors import AnchorRefused, AnchorUnavailable
from tests.anchor.parties import WITNESS_NAME, answering, litewitness, witness_vkey
from tests.collector.memory import MemoryStorage
from tests.collector.test_log import KEY, ORIGIN, VKEY, notes
from tests.scribe import signing_key

WITNESS = signing_key("real witness")
WKEY = witness_vkey(WITNESS)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FleetLog]:
    index = open_sqlite(tmp_path / "index.db")
    yield FleetLog(MemoryStorage(), index, ORIGIN, KEY)
    index.close()


def cosigned(signed: bytes, line: note.Signature) -> int | None:
    parsed = note.parse(signed)
    return cosignature.verify(SignedNote(parsed.text, (*parsed.signatures, line)), WKEY)


def test_a_real_witness_follows_the_log(tmp_path: Path, log: FleetLog) -> None:
    log.append(notes(3))
    with litewitness(tmp_path, WITNESS, VKEY) as url:
        witness = Witness(WKEY, Door(url), log.consistency)
        assert cosigned(log.signed, witness.vouch(log.signed))
        assert cosigned(log.signed, witness.vouch(log.signed))  # the same one again
        older = log.signed
        log.append(notes(300, 3))
        assert cosigned(log.signed, witness.vouch(log.signed))
        # One that knows nothing of what the witness has seen is told, and goes on from there.
        log.append(notes(30, 303))
        fresh = Witness(WKEY, Door(url), log.consistency)
        assert cosigned(log.signed, fresh.vouch(log.signed))
        with pytest.raises(Ahead, match="old copy") as ahead:
            Witness(WKEY, Door(url), log.consistency).vouch(older)
        assert ahead.value.size == 333


def test_a_real_witness_refuses_a_fork_and_a_foreign_log(tmp_path: Path, log: FleetLog) -> None:
    log.append(notes(3))
    index = open_sqlite(tmp_path / "fork.db")
    fork = FleetLog(MemoryStorage(), index, ORIGIN, KEY)
    fork.append(notes(5, 100))
    with litewitness(tmp_path, WITNESS, VKEY) as url:
        Witness(WKEY, Door(url), log.consistency).vouch(log.signed)
        with pytest.raises(AnchorRefused, match="422"):
            Witness(WKEY, Door(url), fork.consistency).vouch(fork.signed)
        foreign = checkpoint.sign(log.tip, signing_key("other"))
        wrong = Witness(WKEY, Door(url), lambda old, signed: Consistency(old, (), foreign).encode())
        with pytest.raises(AnchorRefused, match=r"40[34]"):
            wrong.vouch(foreign)
    index.close()


def line(text: str, key=WITNESS, name: str = WITNESS_NAME) -> bytes:  # type: ignore[no-untyped-def]
    signed = note.encode(SignedNote(text, (cosignature.cosign(text, name, key, 1_700_000_000),)))
    return signed[len(text.encode()) + 1 :]


def test_a_witness_that_answers_with_something_else(log: FleetLog) -> None:
    """Someone else's cosignature, one on another checkpoint, none, or rubbish."""
    log.append(notes(3))
    text = log.tip.text()
    other = checkpoint.Checkpoint(ORIGIN, 4, merkle.leaf_hash(b"x")).text()
    mallory = signing_key("mallory")
    answers = [
        line(text, mallory, "mallory.example"),
        line(text, mallory),
        line(other),
        note.sign(text, WITNESS_NAME, WITNESS)[len(text.encode()) + 1 :],
        b"",
        b"rubbish",
        b"\n" + line(text),
        b"another text\n\n" + line(text),
        line(text)[:-1],
        line(text).replace(b"\n", b"\n\n"),
    ]
    for each in answers:
        with answering(lambda path, body, each=each: (200, each)) as url, pytest.raises(AnchorRefused):
            Witness(WKEY, Door(url), log.consistency).vouch(log.signed)
    # A stranger's line beside the right one is left out.
    both = line(text, mallory, "mallory.example") + line(text)
    with answering(lambda path, body: (200, both)) as url:
        found = Witness(WKEY, Door(url), log.consistency).vouch(log.signed)
    assert found.name == WITNESS_NAME and cosigned(log.signed, found)


@pytest.mark.parametrize(
    ("status", "body"), [(500, b""), (409, b"many\n"), (409, b""), (302, b""), (200, b"x" * 70_000)]
)
def test_a_witness_that_does_not_answer_as_it_should(log: FleetLog, status: int, body: bytes) -> None:
    log.append(notes(3))
    with answering(lambda path, asked: (status, body)) as url, pytest.raises(AnchorUnavailable):
        Witness(WKEY, Door(url), log.consistency).vouch(log.signed)


def test_a_witness_that_contradicts_itself_without_end(log: FleetLog) -> None:
    log.append(notes(3))
    with answering(lambda path, asked: (409, b"2\n")) as url, pytest.raises(AnchorUnavailable, match="409"):
        Witness(WKEY, Door(url), log.consistency).vouch(log.signed)
