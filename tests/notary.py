"""A fleet log in memory, independent of `sidecar.collector`: entries, receipts and roll-calls under chosen keys.

Everything a log's operator and its witnesses know is at hand, so that tests can lie with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import checkpoint, cosignature, merkle, note
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.consistency import Consistency
from sidecar.chain.cosignature import COSIGNATURE
from sidecar.chain.logged import Logged, parse_entry
from sidecar.chain.merkle import Tree
from sidecar.chain.note import SignedNote, VerifierKey
from sidecar.chain.rollcall import Roll, Standing
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.tlog_proof import TlogProof
from sidecar.verify import Trust
from sidecar.verify.policy import Policy
from tests.scribe import START, Scribe, public, secret, signing_key

ORIGIN = "log.example.org/fleet"
TIME = START // 10**9 + 600


class Notary:
    """A log that takes whatever it is given. ``key`` may be a thief's."""

    def __init__(self, key: Ed25519PrivateKey | None = None, origin: str = ORIGIN, witnesses: int = 0) -> None:
        self.key, self.origin = key or signing_key("log"), origin
        self.witnesses = [signing_key("witness", i) for i in range(witnesses)]
        self.entries: list[str] = []

    def take(self, scribe: Scribe, *, segments: Sequence[int] | None = None) -> None:
        """Log a chain's epoch notes and seals, or only the seals of some segments."""
        if segments is None:
            self.entries += [note.parse(each).text for each in scribe.notes.values()]
        chosen = scribe.seals if segments is None else segments
        self.entries += [note.parse(scribe.seals[each]).text for each in chosen]

    def call_roll(self, standing: Standing, time: int = TIME) -> Roll:
        """Log a roll-call with this chain's line among others."""
        others = [Standing(secret("other", i), 0, None, None, None, None, None) for i in range(5)]
        roll = Roll(self.origin, time * 10**9, sorted([standing, *others], key=lambda s: s.chain_id))
        self.entries.append(roll.call.text())
        return roll

    def hashes(self, size: int | None = None) -> list[bytes]:
        return [merkle.leaf_hash(each.encode()) for each in self.entries[:size]]

    def tip(self, size: int | None = None) -> Checkpoint:
        tree = Tree()
        for each in self.hashes(size):
            tree.append(each)
        return Checkpoint(self.origin, tree.size, tree.root())

    def signed(self, size: int | None = None, by: Sequence[int] | None = None) -> bytes:
        """The checkpoint of a size, cosigned by all witnesses or those of these numbers."""
        parsed = note.parse(checkpoint.sign(self.tip(size), self.key))
        chosen = range(len(self.witnesses)) if by is None else by
        lines = [cosignature.cosign(parsed.text, f"w{i}.example", self.witnesses[i], TIME + i) for i in chosen]
        return note.encode(SignedNote(parsed.text, (*parsed.signatures, *lines)))

    def receipt(self, text: str, size: int | None = None, by: Sequence[int] | None = None) -> bytes:
        """The receipt of an entry."""
        return self.proof(text, Logged(parse_entry(text), text).extra(), size, by)

    def of_seal(self, scribe: Scribe, segment: int, size: int | None = None) -> bytes:
        return self.receipt(note.parse(scribe.seals[segment]).text, size)

    def answer(self, roll: Roll, chain_id: bytes, size: int | None = None) -> bytes:
        """The receipt of a chain's line in a roll-call."""
        at = [s.chain_id for s in roll.standings].index(chain_id)
        text = roll.call.text()
        return self.proof(text, Logged(roll.call, text, roll.answer(at)).extra(), size)

    def proof(self, text: str, extra: bytes, size: int | None = None, by: Sequence[int] | None = None) -> bytes:
        at = self.entries.index(text)
        path = tuple(merkle.inclusion_path(self.hashes(size), at))
        return TlogProof(extra, at, path, self.signed(size, by)).encode()

    def consistency(self, old: int, size: int | None = None) -> bytes:
        return Consistency(old, tuple(merkle.consistency_proof(self.hashes(size), old)), self.signed(size)).encode()

    def policy(self, quorum: str | None = None) -> str:
        """The policy that an auditor has; ``quorum`` of the group of all witnesses: all, any, a number."""
        rows = [f"log {VerifierKey(self.origin, public(self.key))}"]
        for i, each in enumerate(self.witnesses):
            rows.append(f"witness w{i} {VerifierKey(f'w{i}.example', public(each), COSIGNATURE)}")
        if self.witnesses:
            rows.append(f"group them {quorum or 'all'} " + " ".join(f"w{i}" for i in range(len(self.witnesses))))
        rows.append(f"quorum {'them' if self.witnesses else 'none'}")
        return "".join(f"{row}\n" for row in rows)

    def trust(self, scribe: Scribe, quorum: str | None = None) -> Trust:
        return Trust({scribe.chain_id: public(signing_key(scribe.name, "identity"))}, Policy.parse(self.policy(quorum)))


def standing(scribe: Scribe, segment: int | None = None, seq: int | None = None) -> Standing:
    """Where a chain stands at the seal of ``segment`` (its last) and the entry ``seq`` (that segment's last)."""
    segment = max(scribe.seals) if segment is None else segment
    text = note.parse(scribe.seals[segment]).text
    seal = Seal.parse(text)
    seq = seal.first + seal.count - 1 if seq is None else seq
    wall = scribe.headers[seq].wall_ns
    return Standing(scribe.chain_id, seal.epoch, segment, seal_hash(text), seq, scribe.leaf_of(seq), wall)


def ended() -> Scribe:
    """Two epochs that ended in order: segments 0 to 3, the last but one empty."""
    s = Scribe()
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    s.decision("DENY")
    s.close()
    s.open()
    s.seal("time")
    s.decision()
    s.close()
    return s
