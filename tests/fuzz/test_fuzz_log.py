"""The fleet log's formats: what parses is written back as the same bytes; only Malformed is raised."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import cosignature, note, tile
from sidecar.chain.ack import Ack
from sidecar.chain.batch import Batch
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.consistency import Consistency
from sidecar.chain.cosignature import Cosignature
from sidecar.chain.logged import Logged, entry_of, text_of
from sidecar.chain.rollcall import Answer, RollCall, Standing
from sidecar.chain.tile import Tile
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import Malformed
from sidecar.verify import Evidence, Verdict
from sidecar.verify.policy import Policy
from tests.chain import test_log_formats as made
from tests.fuzz.examples import fuzz, hostile
from tests.notary import Notary, ended, standing
from tests.scribe import judge
from tests.verify.test_policy import EXAMPLE


def _as_text(parse: Callable[[str], object], write: Callable[[object], str]) -> Callable[[bytes], bytes]:
    """Reads and writes a text, which its note or file has decoded before."""
    return lambda data: write(parse(text_of(data))).encode()


def _signed(body: bytes) -> bytes:
    """As the log itself would sign whatever this is."""
    return made.LOG.sign(b"sidecar/v1/batch\0" + body)


ANSWER = made.ROLL.answer(1)
FORMATS: dict[str, tuple[list[bytes], Callable[[bytes], bytes]]] = {
    "checkpoint": ([made.TIP.text().encode()], _as_text(Checkpoint.parse, lambda c: c.text())),  # type: ignore[attr-defined]
    "roll-call": ([made.CALL.text().encode()], _as_text(RollCall.parse, lambda c: c.text())),  # type: ignore[attr-defined]
    "line": ([s.line().encode() for s in made.STANDINGS], _as_text(Standing.parse, lambda s: s.line())),  # type: ignore[attr-defined]
    "answer": ([ANSWER.text().encode()], _as_text(Answer.parse, lambda a: a.text())),  # type: ignore[attr-defined]
    "ack": ([made.ACK.text().encode()], _as_text(Ack.parse, lambda a: a.text())),  # type: ignore[attr-defined]
    "path": ([b"tile/0/x001/x234/067.p/12", b"tile/entries/000"], _as_text(Tile.parse, lambda t: t.path())),  # type: ignore[attr-defined]
    "witness key": ([str(made.WITNESS_KEY).encode()], _as_text(cosignature.witness_key, str)),
    "cosignature": ([bytes(72)], lambda data: Cosignature.parse(data).encode()),
    "proof": ([made.GOOD.encode()], lambda data: TlogProof.parse(data).encode()),
    "consistency": (
        [Consistency(2, (made.d(1), made.d(2)), made.CHECKPOINT).encode()],
        lambda data: Consistency.parse(data).encode(),
    ),
    "batch": (
        [made.BODY],
        lambda data: Batch.parse(data + _signed(data), made.public(made.LOG)).encode(made.LOG)[:-64],
    ),
    "bundle": ([tile.join_entries(made.BATCH.entries())], lambda data: tile.join_entries(tile.split_entries(data))),
    "extra": (
        [Logged(made.CALL, made.CALL.text(), ANSWER).extra(), entry_of(made.SEALS[0])],
        lambda data: Logged.parse(data).extra(),
    ),
    "entry": (made.SIGNED, lambda data: entry_of(data) + data[len(entry_of(data)) :]),
}


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@fuzz(200)
def test_what_parses_is_written_back_as_it_was(name: str, data: st.DataObject) -> None:
    originals, there_and_back = FORMATS[name]
    assert all(there_and_back(each) == each for each in originals)
    changed = data.draw(hostile(originals))
    try:
        written = there_and_back(changed)
    except Malformed:
        return
    assert written == changed


LEDGER, NOTARY = ended(), Notary(witnesses=2)
NOTARY.take(LEDGER)
ANSWERED = NOTARY.answer(NOTARY.call_roll(standing(LEDGER)), LEDGER.chain_id)
RECEIPTS = [ANSWERED, *(NOTARY.of_seal(LEDGER, i) for i in range(4))]
FILES = [NOTARY.consistency(size) for size in (1, 3, 5)]
STAMPS = [Timestamp(NOTARY.tip().text(), 8154, b"response").encode()]


@given(receipt=hostile(RECEIPTS), file=hostile(FILES), stamp=hostile(STAMPS))
@fuzz(150)
def test_hostile_receipts_never_make_a_ledger_ok(receipt: bytes, file: bytes, stamp: bytes) -> None:
    trust = NOTARY.trust(LEDGER)
    assert judge(LEDGER.records, Evidence(trust=trust, logged=[ANSWERED])).verdict is Verdict.OK
    report = judge(LEDGER.records, Evidence(trust=trust, logged=[receipt]))
    if report.verdict is Verdict.OK:  # what may differ is a line by nobody that is listed
        read, good = TlogProof.parse(receipt), TlogProof.parse(ANSWERED)
        assert dataclasses.replace(read, checkpoint=b"") == dataclasses.replace(good, checkpoint=b"")
        assert note.parse(read.checkpoint).text == note.parse(good.checkpoint).text
    judge(LEDGER.records, Evidence(trust=trust, logged=[ANSWERED, receipt], consistency=[file], timestamps=[stamp]))


@given(hostile([NOTARY.policy().encode(), EXAMPLE.encode()]))
@fuzz(500)
def test_a_policy_is_read_or_refused(data: bytes) -> None:
    try:
        policy = Policy.parse(data.decode("utf-8", "replace"))
    except Malformed:
        return
    assert policy.reached(dict.fromkeys(policy.witnesses, 0))


@given(hostile([made.CHECKPOINT]))
@fuzz(300)
def test_no_other_checkpoint_verifies(data: bytes) -> None:
    try:
        read, signed = made.checkpoint.verify(data, made.LOG_KEY)
    except (Malformed, made.SignatureInvalid):
        return
    assert read == made.TIP and signed.text == note.parse(made.CHECKPOINT).text
