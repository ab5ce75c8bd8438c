"""One epoch being written: segments one after the other, the keys that lead from one to the next, the clock rule.

No I/O. What is to be stored goes into a :class:`Batch`; whoever holds it must store it before answering anything.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import epoch as notes
from sidecar.chain import lines, note, ratchet, seeds
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import CLOCK_STEP_NS, ZERO32
from sidecar.chain.seal import seal_hash
from sidecar.chain.seeds import Custody, SealedShare
from sidecar.errors import CustodyError
from sidecar.ledger.batch import Batch, NoteKind
from sidecar.ledger.clock import Moment
from sidecar.ledger.draft import Prepared, own
from sidecar.ledger.segment import Made, OpenSegment, Place

Entropy = Callable[[int], bytes]

_SALTS_AT_ONCE = 64  # each draw from the system gives up the interpreter lock
WrapSeed = Callable[[Custody, bytes, int, bytes], list[SealedShare]]
"""Seals an epoch's seed for its custodians: (custody, chain id, epoch, seed) to one share for each."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What GENESIS fixes for good."""

    chain_id: bytes
    identity: bytes
    custody: Custody
    log: str | None
    authority: bytes | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Where an epoch begins, and what it says of itself.

    ``wall_before``: wall_ns of the last entry before it. ``recovered``: the segment closed by a recovery seal with it.
    ``unconfirmed``: no collector said that the ledger is the newest. ``accepted_loss``: the hash of the authority note
    by which it goes on though the collector had more.
    """

    epoch: int = 0
    segment: int = 0
    seq: int = 0
    leaf: bytes = ZERO32
    seal: bytes = ZERO32
    policy: bytes = ZERO32
    registry: bytes = ZERO32
    wall_before: int | None = None
    recovered: int | None = None
    software: str = ""
    development: bool = False
    config: bytes = ZERO32
    unconfirmed: bool = False
    accepted_loss: bytes | None = None


@dataclass(slots=True)
class Epoch:
    """Makes entries, rolls segments, destroys keys. ``base``: wall minus boot-time clock, as entries last vouched."""

    open: OpenSegment
    _ratchet: ratchet.Ratchet
    _entropy: Entropy
    _base: int | None = field(default=None)
    _mono: int = field(default=-1)
    _salts: list[bytes] = field(default_factory=list)

    def write(self, entry: Prepared, now: Moment) -> Made:
        """Make an entry. The boot-time clock is pushed on by 1 ns where it stood still."""
        self._mono = max(now.mono_ns, self._mono + 1)
        departure = now.wall_ns - self._mono
        if self._base is None or entry.type is EntryType.CLOCK:
            self._base = departure
        return self.open.add(entry, self._salt(), Moment(now.wall_ns, self._mono, now.error_ms))

    def _salt(self) -> bytes:
        """32 random bytes, each used once; drawn for many entries at a time."""
        if not self._salts:
            drawn = self._entropy(32 * _SALTS_AT_ONCE)
            self._salts.extend(drawn[at : at + 32] for at in range(0, len(drawn), 32))
        return self._salts.pop()

    def step(self, now: Moment) -> int:
        """By how many ns the wall clock departed from the boot-time clock; 0 up to a second."""
        if self._base is None:
            return 0
        departed = now.wall_ns - max(now.mono_ns, self._mono + 1) - self._base
        return departed if abs(departed) > CLOCK_STEP_NS else 0

    def roll(self, reason: str, now: Moment, batch: Batch) -> bytes:
        """Seal the open segment and open the next; gives the signed seal. The sealed one is the caller's to wipe."""
        signer = draw_signer(self._entropy)
        place, signed = self._seal(reason, signer.public_key().public_bytes_raw(), now, batch)
        self.open = OpenSegment(place, self._ratchet.advance(), signer)
        return signed

    def finish(self, now: Moment, batch: Batch) -> bytes:
        """Seal the open segment for good, and give the signed seal. Its last entry must be CLOSE."""
        return self._seal("close", None, now, batch)[1]

    def _seal(self, reason: str, next_key: bytes | None, now: Moment, batch: Batch) -> tuple[Place, bytes]:
        signed, text = self.open.seal(reason, next_key, max(0, now.wall_ns))
        batch.seal(self.open.segment, signed)
        batch.head = b""
        return self.open.following(seal_hash(text)), signed

    def wipe(self) -> None:
        """Forget every key."""
        self.open.wipe()
        self._ratchet.wipe()


def begin(
    chain: Chain, start: Start, *, identity: Ed25519PrivateKey, wrap: WrapSeed, entropy: Entropy, now: Moment,
    batch: Batch, genesis: bytes | None = None,
) -> tuple[Epoch, Made]:  # fmt: skip
    """Start an epoch: its note, GENESIS in epoch 0, OPEN, CLOCK if the wall clock fell; all into ``batch``.

    Gives the epoch and its last entry. The seed lives in this function alone.
    """
    seed, signer = entropy(32), draw_signer(entropy)
    shares = wrap(chain.custody, chain.chain_id, start.epoch, seed)
    if len(shares) != len(chain.custody.custodians):
        raise CustodyError("the seed was not wrapped for each custodian; nothing is written")
    text = notes.EpochNote(
        chain.chain_id, start.epoch, start.segment, start.seq, start.leaf, start.seal, start.recovered,
        chain.custody.digest(), seeds.seeds_digest(shares), ratchet.seed_commit(chain.chain_id, start.epoch, seed),
        signer.public_key().public_bytes_raw(), start.config, chain.log, max(0, now.wall_ns),
    ).text()  # fmt: skip
    batch.note(start.segment, NoteKind.EPOCH, note.sign(text, lines.identity_name(chain.chain_id), identity))
    keys = ratchet.Ratchet(chain.chain_id, start.epoch, seed, start.segment)
    place = Place(
        chain.chain_id, start.epoch, start.segment, start.seq, start.leaf, start.seal, start.policy, start.registry
    )
    epoch = Epoch(OpenSegment(place, keys.advance(), signer), keys, entropy)
    entries = [] if genesis is None else [Prepared(EntryType.GENESIS, genesis)]
    entries.append(own(EntryType.OPEN, _opening(start, notes.epoch_hash(text), shares)))
    if start.wall_before is not None and now.wall_ns < start.wall_before - CLOCK_STEP_NS:
        entries.append(clock_entry(now.wall_ns - start.wall_before))
    made = [epoch.write(entry, now) for entry in entries]
    for each in made:
        batch.entry(each.seq, each.body)
    return epoch, made[-1]


def clock_entry(step_ns: int) -> Prepared:
    """A CLOCK entry: the wall clock departed by so many ns."""
    return own(EntryType.CLOCK, {"step_ns": str(step_ns)})


def close_entry() -> Prepared:
    """A CLOSE entry."""
    return own(EntryType.CLOSE, {"reason": "shutdown"})


def draw_signer(entropy: Entropy) -> Ed25519PrivateKey:
    """A new signing key."""
    return Ed25519PrivateKey.from_private_bytes(entropy(32))


def _opening(start: Start, epoch_note: bytes, shares: list[SealedShare]) -> dict[str, Any]:
    return {
        "epoch_note": epoch_note.hex(),
        "seeds": [{"commit": s.commit.hex(), "sealed": base64.b64encode(s.sealed).decode()} for s in shares],
        "software": start.software,
        "development": start.development,
        **({"unconfirmed": True} if start.unconfirmed else {}),
        **({"accepted_loss": start.accepted_loss.hex()} if start.accepted_loss else {}),
    }
