"""The open segment: from a draft to an entry, from entries to heads and a seal. No I/O; time and salt are arguments."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import lines, note, personal, ratchet
from sidecar.chain.entry import EntryType as Type
from sidecar.chain.entry import Header, leaf, payload_commit, store
from sidecar.chain.head import Decided, Head
from sidecar.chain.limits import ZERO16, ZERO32
from sidecar.chain.merkle import Tree
from sidecar.chain.seal import Seal, Span
from sidecar.ledger.clock import Moment
from sidecar.ledger.draft import Prepared


@dataclass(frozen=True, slots=True)
class Place:
    """Where a segment begins: its numbers, the leaf and the seal's hash before it, policy and registry in force."""

    chain_id: bytes
    epoch: int
    segment: int
    first: int
    leaf: bytes
    seal: bytes
    policy: bytes
    registry: bytes


@dataclass(frozen=True, slots=True)
class Made:
    """An entry that is made but not yet written."""

    seq: int
    segment: int
    leaf: bytes
    wall_ns: int
    body: bytes
    decided: Decided | None


class OpenSegment:
    """Takes entries until it is sealed. Each key is replaced by the next as it is used; K_i itself is not kept."""

    def __init__(self, place: Place, keys: ratchet.SegmentKeys, signer: Ed25519PrivateKey) -> None:
        self._place = place
        self._mac_commit = ratchet.mac_key_commit(keys.mac_key)
        self._tag_commit = ratchet.tag_key_commit(keys.tag_key)
        self._key, self._tag_key = keys.mac_key, keys.tag_key
        name = lines.segment_name(place.chain_id, place.segment)
        self._signer: note.Signer | None = note.Signer(name, signer)
        self._tree = Tree()
        self._leaf, self._policy, self._registry = place.leaf, place.policy, place.registry
        self._span: Span | None = None

    @property
    def segment(self) -> int:
        """Its number."""
        return self._place.segment

    @property
    def count(self) -> int:
        """How many entries it has."""
        return self._tree.size

    @property
    def next_seq(self) -> int:
        """The number of the entry to come."""
        return self._place.first + self._tree.size

    def add(self, entry: Prepared, salt: bytes, now: Moment) -> Made:
        """Make the next entry. ``now.mono_ns`` must be above that of the entry before."""
        seq = self.next_seq
        payload = personal.bind(entry.payload, self._place.chain_id, seq, entry.parts) if entry.parts else entry.payload
        commit = payload_commit(salt, payload)
        tagged = ZERO16 if entry.agent is None else ratchet.agent_tag(self._tag_key, seq, entry.agent)
        header = Header(
            entry.type, self._place.epoch, seq, self._place.segment, self._place.chain_id, self._leaf, commit,
            len(payload), now.wall_ns, now.mono_ns, now.error_ms, entry.ref_seq, tagged, len(entry.parts),
        ).encode()  # fmt: skip
        tag, self._key = ratchet.tag_and_next(self._key, header)
        self._leaf = leaf(header, tag)
        self._tree.append(self._leaf)
        first = self._span
        self._span = Span(
            now.wall_ns if first is None else first.wall_first, now.wall_ns,
            now.mono_ns if first is None else first.mono_first, now.mono_ns,
        )  # fmt: skip
        if entry.type is Type.POLICY:
            self._policy = commit
        elif entry.type is Type.REGISTRY:
            self._registry = commit
        body = store(header, tag, salt, payload)
        return Made(seq, self._place.segment, self._leaf, now.wall_ns, body, entry.decided)

    def head(self, made: Made) -> bytes:
        """The signed head about one of its entries; it names the decision where the entry is one."""
        place = self._place
        head = Head(place.chain_id, place.epoch, place.segment, made.seq, made.leaf, made.wall_ns, made.decided)
        return self._sign(head.text())

    def seal(self, reason: str, next_key: bytes | None, time: int) -> tuple[bytes, str]:
        """The signed seal, and its text. ``next_key``: the segment's after it; None with reason close."""
        place = self._place
        text = Seal(
            place.chain_id, place.epoch, place.segment, place.first, self._tree.size, self._tree.root(), self._leaf,
            place.seal, self._span, self._mac_commit, self._tag_commit, next_key, self._policy, self._registry, None,
            reason, time,
        ).text()  # fmt: skip
        return self._sign(text), text

    def following(self, seal: bytes) -> Place:
        """Where the segment after it begins, given the hash of its own seal."""
        place = self._place
        in_force = self._policy, self._registry
        return Place(place.chain_id, place.epoch, place.segment + 1, self.next_seq, self._leaf, seal, *in_force)

    def wipe(self) -> None:
        """Forget every key. Python cannot promise that no copy survives in memory; none is kept."""
        self._key = self._tag_key = ZERO32
        self._signer = None

    def _sign(self, text: str) -> bytes:
        if self._signer is None:
            raise RuntimeError("the segment's key is already destroyed")
        return self._signer.sign(text)
