"""The fleet log's formats (proto/LOG.md): there and back, what is refused, what verifies and what does not."""

from __future__ import annotations

import dataclasses
from base64 import b64encode
from typing import Any

import pytest

from sidecar.chain import checkpoint, cosignature, hash_lines, merkle, note, rollcall
from sidecar.chain.ack import Ack
from sidecar.chain.batch import Batch
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.consistency import Consistency
from sidecar.chain.cosignature import Cosignature
from sidecar.chain.logged import Logged, entry_of, parse_entry
from sidecar.chain.note import SignedNote, VerifierKey
from sidecar.chain.rollcall import Answer, RollCall, Standing
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import Malformed, ProofRejected, SignatureInvalid
from tests.scribe import public, signing_key, story

ORIGIN = "log.example.org/fleet"
LOG = signing_key("log")
LOG_KEY = VerifierKey(ORIGIN, public(LOG))
WITNESS = signing_key("witness")
WITNESS_KEY = VerifierKey("witness.example", public(WITNESS), cosignature.COSIGNATURE)
STORY = story()
SEALS = [STORY.seals[i] for i in sorted(STORY.seals)]
SIGNED = [STORY.notes[0], *SEALS]
TREE = [merkle.leaf_hash(entry_of(each)) for each in SIGNED]
TIP = Checkpoint(ORIGIN, len(TREE), merkle.consistency_proof(TREE, 1) and merkle._root_of(TREE, 0, len(TREE)))
CHECKPOINT = checkpoint.sign(TIP, LOG)


def d(byte: int) -> bytes:
    return bytes((byte,)) * 32


STANDINGS = [
    Standing(d(1), 0, None, None, None, None, None),
    Standing(d(2), 3, 41, d(9), 90211, d(0xAB), -5),
    Standing(d(3), 1, 0, d(7), None, None, None),
]
ROLL = rollcall.Roll(ORIGIN, 1767225600, STANDINGS)
CALL = ROLL.call
ACK = Ack(d(1), 3, 41, 90211, d(2), 1767225600)


def cosigned(*more: note.Signature) -> SignedNote:
    parsed = note.parse(CHECKPOINT)
    return SignedNote(parsed.text, (*parsed.signatures, *more))


# --- checkpoints and cosignatures


def test_a_checkpoint_there_and_back() -> None:
    read, signed = checkpoint.verify(CHECKPOINT, LOG_KEY)
    assert read == TIP and Checkpoint.parse(TIP.text()) == TIP and signed.text == TIP.text()


def test_the_example_of_the_format() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert Checkpoint.parse(text).size == 20852163 and Checkpoint.parse(text).text() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n1\n" + b64encode(d(1)).decode() + "\n",
        f"{ORIGIN}\n01\n{b64encode(d(1)).decode()}\n",
        f"{ORIGIN}\n-1\n{b64encode(d(1)).decode()}\n",
        f"{ORIGIN}\n{2**63}\n{b64encode(d(1)).decode()}\n",
        f"{ORIGIN}\n0\n{b64encode(d(1)).decode()}\n",
        f"{ORIGIN}\n1\n{b64encode(d(1)[:31]).decode()}\n",
        f"{ORIGIN}\n1\n{b64encode(d(1)).decode()}\nextension\n",
        f"{ORIGIN}\n1\n{b64encode(d(1)).decode()}",
        f"two words\n1\n{b64encode(d(1)).decode()}\n",
    ],
)
def test_no_checkpoint(text: str) -> None:
    with pytest.raises(Malformed):
        Checkpoint.parse(text)


def test_whose_checkpoint_it_is() -> None:
    with pytest.raises(Malformed, match="another log"):
        checkpoint.verify(CHECKPOINT, VerifierKey("log.example.org", public(LOG)))
    with pytest.raises(SignatureInvalid, match="not signed"):
        checkpoint.verify(CHECKPOINT, VerifierKey(ORIGIN, public(WITNESS)))
    signature = note.parse(CHECKPOINT).signatures[0]
    wrong = dataclasses.replace(signature, signature=bytes(64))
    for signatures in ((wrong,), (signature, wrong)):
        with pytest.raises(SignatureInvalid, match="does not verify"):
            checkpoint.verify(note.encode(SignedNote(TIP.text(), signatures)), LOG_KEY)


def test_a_cosignature() -> None:
    line = cosignature.cosign(TIP.text(), WITNESS_KEY.name, WITNESS, 1_700_000_000)
    assert cosignature.verify(cosigned(line), WITNESS_KEY) == 1_700_000_000
    assert cosignature.witness_key(str(WITNESS_KEY)) == WITNESS_KEY
    later = cosignature.cosign(TIP.text(), WITNESS_KEY.name, WITNESS, 1_700_000_009)
    assert cosignature.verify(cosigned(line, later), WITNESS_KEY) == 1_700_000_009
    assert cosignature.verify(cosigned(), WITNESS_KEY) is None
    # The log's own key counts for no witness, nor the witness's for the log.
    assert cosignature.verify(cosigned(line), dataclasses.replace(WITNESS_KEY, public_key=public(LOG))) is None
    with pytest.raises(Malformed):
        cosignature.witness_key(str(LOG_KEY))
    with pytest.raises(Malformed):
        note.parse_vkey(str(WITNESS_KEY))


def test_a_cosignature_that_is_another_one() -> None:
    other = Checkpoint(ORIGIN, 1, TREE[0]).text()
    good = Cosignature.parse(cosignature.cosign(TIP.text(), WITNESS_KEY.name, WITNESS, 5).signature)
    wrong = [
        cosignature.cosign(other, WITNESS_KEY.name, WITNESS, 5).signature,
        dataclasses.replace(good, time=6).encode(),
        WITNESS.sign(TIP.text().encode()) + bytes(8),
    ]
    for raw in wrong:
        with pytest.raises((SignatureInvalid, Malformed)):  # a signature's first bytes may be no time at all
            cosignature.verify(cosigned(note.Signature(WITNESS_KEY.name, WITNESS_KEY.hash, raw)), WITNESS_KEY)
    for raw in (bytes(71), bytes(73), b"\xff" * 72):
        with pytest.raises(Malformed):
            cosignature.verify(cosigned(note.Signature(WITNESS_KEY.name, WITNESS_KEY.hash, raw)), WITNESS_KEY)


# --- proofs


def proof(index: int, extra: bytes | None) -> TlogProof:
    return TlogProof(extra, index, tuple(merkle.inclusion_path(TREE, index)), CHECKPOINT)


@pytest.mark.parametrize("index", range(len(TREE)))
@pytest.mark.parametrize("extra", [None, b"what was logged"])
def test_a_proof_there_and_back(index: int, extra: bytes | None) -> None:
    made = proof(index, extra)
    read = TlogProof.parse(made.encode())
    assert read == made and read.encode() == made.encode()
    read.verify(TREE[index], TIP)
    with pytest.raises(ProofRejected):
        read.verify(TREE[index - 1], TIP)


GOOD = proof(1, b"x").encode().decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.replace("@v1", "@v2"),
        GOOD.replace("extra ", "extra  "),
        GOOD.replace("extra eA==", "extra "),
        GOOD.replace("extra eA==", "extra eA"),
        GOOD.replace("extra eA==", "extra eB=="),
        GOOD.replace("index 1", "index 01"),
        GOOD.replace("index 1", "index -1"),
        GOOD.replace("index 1", f"index {2**63}"),
        GOOD.replace("index 1\n", ""),
        GOOD.replace("extra eA==\nindex 1", "index 1\nextra eA=="),
        GOOD.replace("\n\n", "\n", 1),
        GOOD.replace("\n\n", "\nAAAA\n\n", 1),
        GOOD.replace("\n\n", "\n" + (b64encode(d(1)).decode() + "\n") * 64 + "\n", 1),
        GOOD.replace("\n", "\r\n"),
        GOOD + "x" * 70_000,
    ],
)
def test_no_proof(text: str) -> None:
    with pytest.raises(Malformed):
        read = TlogProof.parse(text.encode())
        # What the form allows and no checkpoint is, is found there.
        note.parse(read.checkpoint)
        assert text == ""


def test_a_proof_that_is_no_text() -> None:
    with pytest.raises(Malformed, match="UTF-8"):
        TlogProof.parse(GOOD.encode() + b"\xff")


@pytest.mark.parametrize("size", range(1, len(TREE)))
def test_a_consistency_file_there_and_back(size: int) -> None:
    made = Consistency(size, tuple(merkle.consistency_proof(TREE, size)), CHECKPOINT)
    assert Consistency.parse(made.encode()) == made
    for bad in (b"", made.encode().replace(b"old", b"Old"), made.encode().replace(b"\n\n", b"\n")):
        with pytest.raises(Malformed):
            Consistency.parse(bad)


# --- what is logged


@pytest.mark.parametrize("signed", SIGNED)
def test_an_entry_is_the_text_of_its_note(signed: bytes) -> None:
    entry = entry_of(signed)
    assert signed.startswith(entry) and signed[len(entry) :].startswith("\n\u2014 ".encode())
    read = Logged.parse(entry)
    assert read.extra() == entry and read.chain_id == STORY.chain_id and read.entry == parse_entry(entry.decode())


def test_a_roll_call_is_its_own_text() -> None:
    entry = CALL.text().encode()
    assert entry_of(entry) == entry and RollCall.parse(CALL.text()) == CALL
    signed = note.sign(CALL.text(), ORIGIN, LOG)
    with pytest.raises(Malformed, match="a roll-call none"):
        entry_of(signed)


@pytest.mark.parametrize(
    "signed",
    [b"", b"text\n", STORY.receipt(5), CHECKPOINT, entry_of(SEALS[0]), CALL.text().encode()[:-1], b"\xff\n", b"\n\n\n"],
)
def test_what_the_log_does_not_take(signed: bytes) -> None:
    with pytest.raises(Malformed):
        entry_of(signed)


def test_two_signatures_are_not_taken() -> None:
    parsed = note.parse(SEALS[0])
    with pytest.raises(Malformed):
        entry_of(note.encode(SignedNote(parsed.text, parsed.signatures * 2)))


@pytest.mark.parametrize("index", range(3))
def test_an_answer_of_a_roll_call(index: int) -> None:
    made = ROLL.answer(index)
    assert Answer.parse(made.text()) == made
    made.verify(CALL)
    logged = Logged(CALL, CALL.text(), made)
    assert Logged.parse(logged.extra()) == logged and logged.chain_id == STANDINGS[index].chain_id
    for other in (dataclasses.replace(CALL, root=d(5)), dataclasses.replace(CALL, chains=9)):
        with pytest.raises((ProofRejected, Malformed)):
            made.verify(other)
    moved = dataclasses.replace(made, standing=STANDINGS[index - 1])
    with pytest.raises(ProofRejected):
        moved.verify(CALL)


def test_a_roll_call_of_nobody() -> None:
    assert rollcall.Roll(ORIGIN, 1, []).call.root == merkle.EMPTY_ROOT


@pytest.mark.parametrize("standings", [[STANDINGS[1], STANDINGS[0]], [STANDINGS[0], STANDINGS[0]]])
def test_a_roll_call_has_each_chain_once_and_in_order(standings: list[Standing]) -> None:
    with pytest.raises(Malformed, match="rising order"):
        rollcall.Roll(ORIGIN, 1, standings)


LINE = STANDINGS[1].line()


@pytest.mark.parametrize("standing", STANDINGS)
def test_a_line_there_and_back(standing: Standing) -> None:
    assert Standing.parse(standing.line()) == standing


@pytest.mark.parametrize(
    "line",
    [
        "",
        LINE + " ",
        LINE.replace(" ", "  "),
        LINE.replace(" 41 ", " - "),
        LINE.replace(" -5", " -"),
        LINE.replace(" 90211 ", " - "),
        LINE.replace(" 3 ", f" {2**32} "),
        LINE.replace(" 3 ", " 03 "),
        LINE.upper(),
        LINE + " 1",
    ],
)
def test_no_line(line: str) -> None:
    with pytest.raises(Malformed):
        Standing.parse(line)


def test_an_answer_goes_with_a_roll_call() -> None:
    answer = ROLL.answer(0)
    seal = entry_of(SEALS[0]).decode()
    for extra in (CALL.text(), seal + "\n" + answer.text(), CALL.text() + "\n", seal + "\n\n"):
        with pytest.raises(Malformed):
            Logged.parse(extra.encode())


# --- acknowledgements, batches


@pytest.mark.parametrize("ack", [ACK, dataclasses.replace(ACK, seq=None, leaf=None)])
def test_an_acknowledgement_there_and_back(ack: Ack) -> None:
    assert Ack.parse(ack.text()) == ack


def test_an_acknowledgement_in_part() -> None:
    for text in (ACK.text().replace("seq 90211", "seq -"), ACK.text() + "more 1\n", ACK.text()[:-1]):
        with pytest.raises(Malformed):
            Ack.parse(text)


BATCH = Batch(7, 3, d(1), tuple(SIGNED))
BODY = BATCH.encode(LOG)[:-64]


def test_a_batch_there_and_back() -> None:
    assert Batch.parse(BATCH.encode(LOG), public(LOG)) == BATCH
    assert BATCH.entries() == [entry_of(each) for each in SIGNED]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BODY[:56],
        BODY[:-1],
        BODY + b"\0",
        BODY + b"\0\0",
        BODY.replace(b"SDCBAT", b"SDCBAD"),
        BODY[:8] + b"\xff" * 8 + BODY[16:],
    ],
)
def test_no_batch_though_signed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Batch.parse(data + LOG.sign(b"sidecar/v1/batch\0" + data), public(LOG))


@pytest.mark.parametrize(
    "data", [BODY + bytes(64), BODY + LOG.sign(BODY), BATCH.encode(WITNESS), b"x" + BATCH.encode(LOG)]
)
def test_a_batch_that_the_log_did_not_sign(data: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        Batch.parse(data, public(LOG))
    for short in (b"", BATCH.encode(LOG)[:100]):
        with pytest.raises(Malformed):
            Batch.parse(short, public(LOG))


@pytest.mark.parametrize(
    "changed", [{"notes": ()}, {"root": b""}, {"notes": (b"x",) * 4097}, {"notes": (b"x" * 17_000,)}]
)
def test_a_batch_out_of_bounds(changed: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        dataclasses.replace(BATCH, **changed).encode(LOG)


def test_hash_lines_are_bounded() -> None:
    assert len(hash_lines.split([b64encode(d(1)).decode()] * 63)) == 63
    with pytest.raises(Malformed):
        hash_lines.split([b64encode(d(1)).decode()] * 64)
