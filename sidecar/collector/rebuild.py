"""Rebuilding the index from the objects, each held against the signed checkpoints on the way."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.chain import checkpoint, merkle
from sidecar.chain.batch import Batch
from sidecar.chain.epoch import EpochNote
from sidecar.chain.logged import parse_entry
from sidecar.chain.merkle import Tree
from sidecar.chain.note import VerifierKey
from sidecar.chain.rollcall import RollCall, Standing
from sidecar.chain.seal import Seal, seal_hash
from sidecar.collector import objects
from sidecar.collector.index import Index, Tip
from sidecar.collector.roll import read_roll
from sidecar.collector.standings import joined
from sidecar.collector.storage import Storage
from sidecar.errors import LogRefused, Malformed, SignatureInvalid


def reindex(storage: Storage, index: Index, key: VerifierKey, progress: Callable[[int], None] | None = None) -> int:
    """Empty ``index`` and fill it from ``storage``; how many entries the log has. ``progress`` is told them a batch.

    A chain's standing is what its epoch notes, seals and the latest roll-call say of it: a head that was acknowledged
    after that is not in the log. Signatures of notes are not checked again.

    Raises:
        LogRefused: an object is not what the signed checkpoints say.
        StorageError: storage or index cannot be used.
    """
    index.clear()
    tree, standings, number = Tree(), dict[bytes, Standing](), 0
    while (signed := objects.read_checkpoint(storage, number)) is not None:
        held = objects.read_batch(storage, number, key)
        if held is None or (held.number, held.size, held.root) != (number, tree.size, tree.root()):
            raise LogRefused(f"batch {number} is missing or does not follow the one before")
        leaves = [merkle.leaf_hash(each) for each in held.entries()]
        for leaf in leaves:
            tree.append(leaf)
        _check(signed, key, tree, number)
        index.advance(number - 1 if number else None, Tip(number, tree.size, signed), leaves, held.size)
        _follow(storage, held, standings)
        number += 1
        if progress is not None:
            progress(tree.size)
    for standing in standings.values():
        index.stand(standing, 0)
    return tree.size


def last_said(storage: Storage, key: VerifierKey, newest: int) -> list[Standing]:
    """What the log says of each chain up to checkpoint ``newest``: its last roll-call, and the notes after that.

    Raises:
        LogRefused: a batch is missing.
        StorageError: storage cannot be used, or an object is damaged.
    """
    batches: list[Batch] = []
    for number in range(newest, -1, -1):
        held = objects.read_batch(storage, number, key)
        if held is None:
            raise LogRefused(f"batch {number} is missing")
        batches.append(held)
        if any(isinstance(parse_entry(each.decode()), RollCall) for each in held.entries()):
            break
    standings = dict[bytes, Standing]()
    for held in reversed(batches):
        _follow(storage, held, standings)
    return list(standings.values())


def _check(signed: bytes, key: VerifierKey, tree: Tree, number: int) -> None:
    try:
        read, _ = checkpoint.verify(signed, key)
    except (Malformed, SignatureInvalid) as error:
        raise LogRefused(f"checkpoint {number}: {error}") from None
    if (read.size, read.root) != (tree.size, tree.root()):
        raise LogRefused(f"checkpoint {number} is not that of the batches up to it")


def _follow(storage: Storage, held: Batch, standings: dict[bytes, Standing]) -> None:
    for entry in held.entries():
        text = entry.decode()
        read = parse_entry(text)
        if isinstance(read, RollCall):
            for standing in read_roll(storage, read).standings:
                _join(standings, standing)
        elif isinstance(read, EpochNote):
            # Here the chain goes on, whatever was said of it before: something may have been lost.
            sealed, seal = (read.segment - 1, read.seal) if read.segment else (None, None)
            place = _before(read.seq, read.leaf, read.time)
            standings[read.chain_id] = Standing(read.chain_id, read.epoch, sealed, seal, *place)
        else:
            _join(standings, _sealed(read, text))


def _before(seq: int, leaf: bytes, time: int) -> tuple[int | None, bytes | None, int | None]:
    return (seq - 1, leaf, time) if seq else (None, None, None)


def _sealed(seal: Seal, text: str) -> Standing:
    time = seal.time if seal.span is None else seal.span.wall_last
    place = _before(seal.first + seal.count, seal.last, time)
    return Standing(seal.chain_id, seal.epoch, seal.segment, seal_hash(text), *place)


def _join(standings: dict[bytes, Standing], new: Standing) -> None:
    standings[new.chain_id] = joined(standings[new.chain_id], new) if new.chain_id in standings else new
