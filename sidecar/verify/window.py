"""What comes before a window of a chain: genesis, epoch note, OPEN, registries, the seals of the epoch up to there.

proto/EVIDENCE.md, "Stream". Signing keys are followed from the identity key, seal by seal. What breaks that ends the
judgement of the stream: whatever follows hangs in the air.
"""

from __future__ import annotations

from typing import Final

from sidecar.chain import lines, merkle, payload, seeds
from sidecar.chain.entry import EntryType
from sidecar.chain.epoch import EpochNote
from sidecar.chain.limits import ZERO32
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.stream import Kind
from sidecar.errors import Malformed
from sidecar.verify.epochs import Epochs
from sidecar.verify.report import Verdict
from sidecar.verify.signed import is_signed, signer
from sidecar.verify.state import State

_BEFORE: Final = {
    Kind.GENESIS: (None,),
    Kind.EPOCH: (Kind.GENESIS,),
    Kind.OPEN: (Kind.EPOCH,),
    Kind.REGISTRY_BEFORE: (Kind.EPOCH, Kind.OPEN, Kind.REGISTRY_BEFORE),
    Kind.CONTEXT_SEAL: (Kind.EPOCH, Kind.OPEN, Kind.REGISTRY_BEFORE, Kind.CONTEXT_SEAL),
}
"""What may stand right before each kind."""

IN_CONTEXT: Final = frozenset({*_BEFORE, Kind.SEAL_BEFORE})

_MOST_REGISTRIES: Final = 2

Pairs = dict[str, tuple[object, object]]
"""What was found beside what is due, by name."""


class Broken(Exception):
    """Why the stream is not judged any further, when that is said already."""


class Window:
    """Follows the context of a stream of a bundle."""

    def __init__(self, state: State, epochs: Epochs) -> None:
        self._s, self._epochs = state, epochs
        self._last: Kind | None = None
        self._note: EpochNote | None = None
        self._opening: bytes | None = None
        self._registries = 0
        self._before: Seal | None = None

    def feed(self, kind: Kind, body: bytes) -> None:
        """One context record.

        Raises:
            Malformed: it cannot be read, or does not stand here.
            Broken: it does not hold.
        """
        if self._last not in _BEFORE.get(kind, ()):
            raise Malformed(f"context record {kind.name} is out of order, or one is missing before it")
        self._last = kind
        if kind is Kind.GENESIS:
            self._s.coverage.whole = False
            self._genesis(body)
        elif kind is Kind.EPOCH:
            self._epoch(body)
        elif kind is Kind.OPEN:
            self._opening = body
        elif kind is Kind.REGISTRY_BEFORE:
            self._registry(body)
        else:
            self._seal(body)

    def _genesis(self, body: bytes) -> None:
        value = payload.parse(EntryType.GENESIS, body)
        seeds.custody_of(value)
        self._epochs.learn_chain(ZERO32, body)
        self._epochs.genesis(value)
        self._epochs.after_genesis()

    def _epoch(self, body: bytes) -> None:
        s = self._s
        self._note = EpochNote.parse(signer(body)[0])
        s.begin_epoch(self._note.epoch)
        if not self._epochs.of_window(body):
            raise Broken
        s.segment, s.seq, s.leaf, s.seal = self._note.segment, self._note.seq, self._note.leaf, self._note.seal
        s.key = self._note.key

    def _registry(self, body: bytes) -> None:
        self._registries += 1
        if self._registries > _MOST_REGISTRIES:
            raise Malformed("more than two context registries")
        self._s.principals.before(body)

    def _seal(self, body: bytes) -> None:
        first = self._before is None and self._note is not None and self._note.segment > 0
        due = self._s.segment - first
        try:
            text = signer(body)[0]
            seal = Seal.parse(text)
        except Malformed as error:
            self._refuse(Verdict.MALFORMED, due, str(error))
        if first:
            self._of_epoch_before(seal, text, due)
        else:
            self._of_this_epoch(seal, text, body, due)
        if seal.span is not None:
            self._s.clock.resume(seal.span)
        if first:
            self._s.clock.mono = -1
        self._before = seal
        self._s.policy, self._s.registry = seal.policy, seal.registry
        self._s.anchors.before(seal)

    def _refuse(self, verdict: Verdict, segment: int, reason: str) -> None:
        self._s.findings.add(verdict, segment, None, f"context seal: {reason}")
        raise Broken

    def _of_epoch_before(self, seal: Seal, text: str, due: int) -> None:
        note = self._note
        assert note is not None
        pairs: Pairs = {
            "hash": (seal_hash(text), note.seal),
            "chain": (seal.chain_id, note.chain_id),
            "segment": (seal.segment, due),
            "epoch": (seal.epoch, note.epoch - 1),
            "count": (seal.first + seal.count, note.seq),
            "last": (seal.last, note.leaf),
            "reason": (seal.next, None),
            "recovered": (due if seal.reason == "crash" else None, note.recovered),
        }
        self._hold(pairs, due)

    def _of_this_epoch(self, seal: Seal, text: str, body: bytes, due: int) -> None:
        s, note = self._s, self._note
        assert note is not None
        try:
            signed = is_signed(body, lines.segment_name(note.chain_id, due), s.key)
        except Malformed as error:
            self._refuse(Verdict.MALFORMED, due, str(error))
        pairs: Pairs = {
            "signature": (signed, True),
            "chain": (seal.chain_id, note.chain_id),
            "segment": (seal.segment, due),
            "epoch": (seal.epoch, note.epoch),
            "first": (seal.first, s.seq),
            "prev": (seal.prev, s.seal),
            "reason": (seal.next is None, False),
            "root": (seal.root if seal.count == 0 else merkle.EMPTY_ROOT, merkle.EMPTY_ROOT),
            "last": (seal.last if seal.count == 0 else s.leaf, s.leaf),
        }
        self._hold(pairs, due)
        s.coverage.notes_signed += 1
        s.segment, s.seq, s.leaf = due + 1, seal.first + seal.count, seal.last
        s.seal, s.key = seal_hash(text), seal.next

    def _hold(self, pairs: Pairs, due: int) -> None:
        wrong = [name for name, (found, expected) in pairs.items() if found != expected]
        if wrong:
            self._refuse(Verdict.TAMPERED, due, f"{', '.join(wrong)} not as what goes before and after")

    def end(self) -> None:
        """The context is over: the segment after the last seal begins.

        Raises:
            Malformed: it has no seal, or it gives OPEN where the segment has its own, or does not where it has not.
            Broken: OPEN does not hold.
        """
        s, note = self._s, self._note
        if note is None or self._before is None or (self._opening is None) != (s.segment == note.segment):
            raise Malformed("the context ends without its seals, or OPEN is missing from it, or should not be in it")
        said, key = s.findings.total, s.key
        if self._opening is None:
            s.clock.begin_epoch()
        else:
            s.due = None
            s.coverage.leave("wall clock against the start of the epoch: it lies before the window")
        s.begin_segment(s.segment, key)
        if self._opening is not None:
            self._epochs.opening(payload.parse(EntryType.OPEN, self._opening), None)
        if s.findings.total > said:
            raise Broken
        s.unread.before(s.seq)
        s.context, s.opened_at = None, self._before.time
