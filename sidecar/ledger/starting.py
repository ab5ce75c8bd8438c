"""How a ledger that is there goes on: what the last epoch left is looked at, and the next one begun."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from sidecar.chain.authority_note import Grant
from sidecar.errors import LedgerError
from sidecar.ledger.batch import Batch, NoteKind
from sidecar.ledger.clock import Clock
from sidecar.ledger.directory import load_identity
from sidecar.ledger.epoch import Entropy, WrapSeed, begin
from sidecar.ledger.grants import Grants
from sidecar.ledger.memory import Memory
from sidecar.ledger.options import Options, Room
from sidecar.ledger.port import Store
from sidecar.ledger.recovery import find_end, read_chain
from sidecar.ledger.shipping import Left
from sidecar.ledger.writer import OnCommit, Position, Writer

Confirm = Callable[[Left], bool | Grant]
"""Looks at a ledger before its next epoch begins: True, or False where nobody could say whether it is the newest, or
the grant by which it goes on though the collector had more of it."""


def start(
    directory: Path, store: Store, wrap: WrapSeed, options: Options, clock: Clock, entropy: Entropy,
    on_failure: Callable[[LedgerError], None], on_commit: OnCommit, confirm: Confirm,
) -> tuple[Writer, Room, Memory, Grants, Left]:  # fmt: skip
    """Close what a crash left and begin the next epoch, durable in one commit.

    Raises:
        LedgerDamaged, LedgerFull, LedgerError, or what ``wrap`` or ``confirm`` raises: nothing was changed, and why.
    """
    chain = read_chain(store)
    identity = load_identity(directory, chain.identity)
    left = Left(chain, identity, store)
    word = confirm(left)
    loss = word if isinstance(word, Grant) else None
    room, memory = Room(directory, store, options), Memory(identity)
    if room.left() < 0:
        raise room.refusal()
    now = clock.now()
    ended = find_end(store, chain, identity, now.wall_ns)
    following = dataclasses.replace(
        ended.start, software=options.software, development=options.development, config=options.config,
        unconfirmed=word is False, accepted_loss=None if loss is None else loss.hash,
    )  # fmt: skip
    batch = Batch()
    if loss is not None:
        batch.allow(hashlib.sha256(loss.record).digest(), loss.record)
    if ended.crashed:
        batch.seal(following.segment - 1, ended.seal)
        if (last_head := store.head()) is not None:
            batch.note(following.segment - 1, NoteKind.HEAD, last_head)
        for decision, seq in ended.late:
            batch.decision(decision, seq)
    epoch, last = begin(chain, following, identity=identity, wrap=wrap, entropy=entropy, now=now, batch=batch)
    head = epoch.open.head(last)
    batch.head = head
    store.commit(batch)
    position = Position(chain.chain_id, following.epoch, epoch.open.next_seq, following.segment, head, ended.seal)
    writer = Writer(epoch, store, room, options, clock, position, memory, on_failure, on_commit)
    writer.start()
    return writer, room, memory, Grants(chain.chain_id, identity), left
