"""Where an epoch begins: its note, GENESIS, OPEN and the seeds they carry (LEDGER.md rules 3, 7 and "Trust file")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.chain import lines, payload, seeds
from sidecar.chain.epoch import EpochNote, epoch_hash
from sidecar.chain.limits import ZERO32
from sidecar.chain.seal import Seal
from sidecar.chain.seeds import seeds_digest
from sidecar.errors import Malformed
from sidecar.verify.report import Verdict
from sidecar.verify.signed import is_signed, signer
from sidecar.verify.state import Phase, State


class Epochs:
    """Judges epoch notes and what GENESIS and OPEN say."""

    def __init__(self, state: State) -> None:
        self._s = state
        self._unjudged: tuple[bytes, str, EpochNote] | None = None

    def feed(self, data: bytes) -> None:
        """One epoch note in its place; entries before it are settled."""
        s = self._s
        first = s.phase is Phase.START
        try:
            text, _ = signer(data)
            read = EpochNote.parse(text)
        except Malformed as error:
            s.say(Verdict.MALFORMED, s.seq, f"epoch note: {error}")
            self._unsealed(s.seq)
            s.begin_epoch(0 if first else s.epoch + 1)
            s.begin_segment(s.segment, None)
            return
        known = self._unsealed(read.seq)
        s.begin_epoch(0 if first else s.epoch + 1)
        if first:
            # Its key is in GENESIS, which is the entry that follows.
            self._unjudged = (data, text, read)
            s.begin_segment(0, None)
        else:
            self._judge(data, text, read, continues=known)
            if s.note is not None:
                s.go_to(read.seq)
                s.epoch, s.segment, s.leaf = read.epoch, read.segment, read.leaf
            s.begin_segment(s.segment, s.note.key if s.note is not None else None)

    def _unsealed(self, seq: int) -> bool:
        """Whether the note, which starts at ``seq``, follows the end of an epoch, as it must; else says so."""
        s = self._s
        if s.phase not in (Phase.SEGMENT, Phase.HEADED):
            return True
        s.miss(seq, "another epoch follows, and no seal ends the one before")
        s.leave_unsealed()
        s.segment += 1
        s.seal = None
        return False

    def of_window(self, data: bytes) -> bool:
        """The epoch note that a window of a chain starts with; whether it holds by itself. Raises Malformed."""
        text = signer(data)[0]
        return self._judge(data, text, EpochNote.parse(text), continues=False)

    def context(self, data: bytes, before: Seal) -> None:
        """The epoch note of a segment file whose segment is not its epoch's first.

        Raises:
            Malformed: no epoch note, or not signed under the identity key's name.
        """
        s = self._s
        text, _ = signer(data)
        read = EpochNote.parse(text)
        self._judge(data, text, read, continues=False)
        if s.note is not None and (read.epoch != before.epoch or read.segment > before.segment):
            s.say(Verdict.TAMPERED, s.seq, "epoch note: not that of the seal before")
            s.note = None

    def _judge(self, data: bytes, text: str, read: EpochNote, *, continues: bool) -> bool:
        """Signature and lines of a note, whether all are right; one that is signed well becomes the epoch's."""
        s = self._s
        try:
            signed = is_signed(data, lines.identity_name(s.chain_id or ZERO32), s.identity)
        except Malformed as error:
            s.say(Verdict.MALFORMED, s.seq, f"epoch note: {error}")
            return False
        if signed is None:
            s.coverage.leave(f"signature of the note of epoch {read.epoch}: GENESIS gives no usable identity key")
            return False
        if not signed:
            s.say(Verdict.TAMPERED, s.seq, "epoch note: not signed by the identity key of GENESIS")
            return False
        s.coverage.notes_signed += 1
        wrong = [
            name for name, (found, due) in self._lines(read, continues).items() if due is not None and found != due
        ]
        if wrong:
            s.say(Verdict.TAMPERED, s.seq, f"epoch note: {', '.join(wrong)} not as what went before")
        s.note, s.note_hash = read, epoch_hash(text)
        s.anchors.epoch(read.epoch, read.segment, text)
        return not wrong

    def _lines(self, read: EpochNote, continues: bool) -> dict[str, tuple[Any, Any]]:
        s = self._s
        own = {
            "chain": (read.chain_id, s.chain_id),
            "custodians": (read.custodians, None if s.custody is None else s.custody.digest()),
            "log": (read.log or "", s.log or ""),
        }
        if not continues:
            return own
        return own | {
            "epoch": (read.epoch, s.epoch),
            "segment": (read.segment, s.segment),
            "seq": (read.seq, s.seq),
            "leaf": (read.leaf, s.leaf),
            "seal": (read.seal, s.seal),
            "recovered": (-1 if read.recovered is None else read.recovered, s.recovered),
        }

    def learn_chain(self, named: bytes, data: bytes | None) -> None:
        """The first entry tells the chain: by its payload if that is what it commits to, else by its header."""
        s = self._s
        s.chain_id = named if data is None else payload.chain_id(data)
        s.receipts.belong(s.chain_id)
        s.anchors.belong(s.chain_id)
        s.personal.belong(s.chain_id)
        s.keys.begin_segment(s.chain_id, s.segment)

    def genesis(self, value: Mapping[str, Any]) -> None:
        """A GENESIS payload that fits its commitment and its table, as entry 0 or as context."""
        s = self._s
        s.identity = bytes.fromhex(value["identity"])
        s.log = value["log"]
        s.personal.genesis(value)
        if s.chain_id is not None:
            key = None if value["authority"] is None else bytes.fromhex(value["authority"])
            s.authority.known(s.chain_id, key, value["retention"])
        try:
            s.custody = seeds.custody_of(value)
        except Malformed as error:
            s.findings.add(Verdict.MALFORMED, 0, 0, f"GENESIS: {error}")

    def after_genesis(self) -> None:
        """Entry 0 was read, whether it could be used or not: the pinned chain, and the note that came before it."""
        s = self._s
        trust = s.evidence.trust
        objection = None if trust is None or s.chain_id is None else trust.objection(s.chain_id, s.identity)
        if objection is not None:
            s.findings.add(Verdict.TAMPERED, 0, 0, objection)
        stranger = None if trust is None or s.custody is None else trust.stranger(s.custody)
        if stranger is not None:
            s.findings.add(Verdict.TAMPERED, 0, 0, f"the custodian {stranger} is not in the trust file")
        if self._unjudged is None:
            return
        data, text, read = self._unjudged
        self._unjudged = None
        self._judge_first(data, text, read)
        s.use_key(None if s.note is None else s.note.key)

    def _judge_first(self, data: bytes, text: str, read: EpochNote) -> None:
        s = self._s
        place, (s.segment, s.seq) = (s.segment, s.seq), (0, 0)
        self._judge(data, text, read, continues=False)
        s.segment, s.seq = place
        start = (read.epoch, read.segment, read.seq, read.leaf, read.seal, read.recovered)
        if s.note is not None and start != (0, 0, 0, ZERO32, ZERO32, None):
            s.findings.add(Verdict.TAMPERED, 0, 0, "epoch note: not that of a chain's start")

    def opening(self, value: Mapping[str, Any], seq: int | None) -> None:
        """An OPEN payload, from its entry or from context: hold it against the epoch note, open the seed."""
        s = self._s
        if seq is not None:
            s.authority.opened(value, s.segment, seq, s.note)
        if s.note is None or s.custody is None:
            s.coverage.leave(f"seeds of epoch {s.epoch}: no epoch note or custodian set to hold them against")
            return
        shares = seeds.shares_of(value)
        if bytes.fromhex(value["epoch_note"]) != s.note_hash:
            s.say(Verdict.TAMPERED, seq, "OPEN names another epoch note")
        elif seeds_digest(shares) != s.note.seeds:
            s.say(Verdict.TAMPERED, seq, "the wrapped seeds are not those the epoch note names")
        elif len(shares) != len(s.custody.custodians):
            s.say(Verdict.TAMPERED, seq, "OPEN does not carry one wrapped seed for each custodian")
        else:
            s.keys.open_epoch(s.custody, s.note, shares, s.segment, seq)

    def finish(self) -> None:
        """The stream is at its end; a note whose identity key never came was not checked."""
        if self._unjudged is not None:
            self._s.coverage.leave("signature of the first epoch note: GENESIS, which names its key, was not found")
