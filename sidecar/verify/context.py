"""What a segment file says of the chain before it: genesis, epoch note, wrapped seeds, the seal before.

Only what hangs from something else is checked here: the chain id from the genesis payload, the epoch note from the
identity key in it, the seeds from the epoch note. The seal before is signed by a key that the file does not name.
"""

from __future__ import annotations

from sidecar.chain import lines, payload
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import ZERO32
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.stream import Kind
from sidecar.errors import Malformed
from sidecar.verify.epochs import Epochs
from sidecar.verify.report import Verdict
from sidecar.verify.signed import is_signed, signer
from sidecar.verify.state import Phase, State

_ORDER = (Kind.GENESIS, Kind.EPOCH, Kind.OPEN, Kind.SEAL_BEFORE)


class Context:
    """Collects the context records and starts the segment with them."""

    def __init__(self, state: State, epochs: Epochs) -> None:
        self._s = state
        self._epochs = epochs
        self._records: dict[Kind, bytes] = {}

    def feed(self, kind: Kind, body: bytes) -> None:
        """One record before the first entry of a segment file.

        Raises:
            Malformed: out of order, twice, or one that must come before it is missing.
        """
        s = self._s
        s.phase, s.coverage.whole, s.coverage.single = Phase.CONTEXT, False, True
        place = _ORDER.index(kind) if kind in _ORDER else -1
        due = {each for each in _ORDER[: max(place, 0)] if each is not Kind.OPEN}
        if not due <= self._records.keys() <= {*_ORDER[: max(place, 0)]}:
            raise Malformed(f"context record {kind.name} is out of order, or one before it is missing")
        self._records[kind] = body
        if kind is Kind.SEAL_BEFORE:
            self._start()

    def _start(self) -> None:
        self._genesis(self._records[Kind.GENESIS])
        seal = self._seal_before(self._records[Kind.SEAL_BEFORE])
        s = self._s
        s.segment, s.seq, s.leaf = seal.segment + 1, seal.first + seal.count, seal.last
        s.unread.before(s.seq)
        s.epoch = seal.epoch
        s.seal, s.policy = seal_hash(signer(self._records[Kind.SEAL_BEFORE])[0]), seal.policy
        s.registry = seal.registry
        s.recovered = seal.segment if seal.reason == "crash" else -1
        if seal.next is None:
            self._first_of_epoch(seal)
        else:
            self._within_epoch(seal)
        s.coverage.leave(f"that segment {s.segment} follows the chain's segments before: only its context says so")

    def _genesis(self, body: bytes) -> None:
        value = payload.parse(EntryType.GENESIS, body)
        self._epochs.learn_chain(ZERO32, body)
        self._epochs.genesis(value)
        self._epochs.after_genesis()

    def _seal_before(self, body: bytes) -> Seal:
        s = self._s
        text, name = signer(body)
        seal = Seal.parse(text)
        crash = seal.reason == "crash"
        due = (
            lines.identity_name(s.chain_id or ZERO32)
            if crash
            else lines.segment_name(s.chain_id or ZERO32, seal.segment)
        )
        if name != due:
            raise Malformed("the seal before is not signed under the name of its key")
        s.segment = seal.segment + 1
        if seal.chain_id != s.chain_id or (crash and is_signed(body, due, s.identity) is False):
            s.say(Verdict.TAMPERED, None, "the seal before is of another chain or not signed by the identity key")
        return seal

    def _first_of_epoch(self, seal: Seal) -> None:
        """The segment holds its own OPEN; the epoch note must continue the seal before."""
        s = self._s
        if Kind.OPEN in self._records:
            raise Malformed("context gives the wrapped seeds of a segment that holds them itself")
        s.phase = Phase.EPOCH_DUE
        s.clock.resume(seal.span)
        self._epochs.feed(self._records[Kind.EPOCH])

    def _within_epoch(self, seal: Seal) -> None:
        s = self._s
        if Kind.OPEN not in self._records:
            raise Malformed("context does not give the wrapped seeds of the epoch")
        s.begin_epoch(seal.epoch)
        s.due = None
        self._epochs.context(self._records[Kind.EPOCH], seal)
        s.clock.resume(seal.span)
        s.begin_segment(seal.segment + 1, seal.next)
        value = payload.parse(EntryType.OPEN, self._records[Kind.OPEN])
        self._epochs.opening(value, s.seq)
        s.coverage.unvouched = True
        s.coverage.leave(f"the signing key of segment {s.segment}: only its context names it")
        s.coverage.leave("wall clock against the start of the epoch: the file does not hold it")
