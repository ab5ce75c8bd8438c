"""Which of the log's receipts a bundle needs: everything under one checkpoint where that can be (proto/LOG.md).

A receipt of the window's last seal anchors every segment before it. Where the window ends with the chain the roll-call
goes with it, and the consistency files that join the two checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.chain import merkle, note, tlog_proof
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.consistency import Consistency
from sidecar.chain.logged import Logged
from sidecar.chain.rollcall import RollCall
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import Malformed, ProofRejected
from sidecar.evidence.source import Receipt

_MOST_JOINS: Final = 1_000
_MOST_READ: Final = 100_000
_STAMPS: Final = 16


@dataclass(slots=True)
class Needed:
    """What goes into the bundle. ``anchored``: the last segment under a receipt; None: none is. ``left``: what is
    missing, in words."""

    files: list[bytes] = field(default_factory=list)
    anchored: int | None = None
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Proof:
    data: bytes
    size: int
    checkpoint: str
    logged: Logged


def needed(
    receipts: Sequence[Receipt], first: int, last: int, *, to_end: bool, hash_of: Callable[[int], bytes | None]
) -> Needed:
    """Choose for the segments ``first`` to ``last``. ``to_end``: the window ends where the chain does. ``hash_of``: a
    segment's seal, by the hash of its text; None: there is none.

    Proofs are held against their own checkpoints only: whose log that is, a verifier knows.
    """
    found = Needed()
    seals, roll = _read(receipts, first, last, to_end, hash_of)
    if not seals and roll is None:
        found.left.append("no receipt of a log covers any of its segments")
        return found
    best = max(seals, key=lambda each: (each[0], roll is not None and each[1].size == roll.size), default=None)
    sizes: dict[int, str] = {}
    if best is not None:
        found.anchored = best[0]
        _keep(found, best[1], sizes)
    if roll is not None:
        _roll(found, roll, best[1] if best is not None else None, receipts, sizes)
    if found.anchored is not None and found.anchored < last:
        found.left.append(f"no receipt of a log covers segments {found.anchored + 1} to {last}")
    _stamps(found, receipts, sizes)
    return found


def _keep(found: Needed, proof: _Proof, sizes: dict[int, str]) -> None:
    found.files.append(proof.data)
    sizes[proof.size] = proof.checkpoint


def _roll(found: Needed, roll: _Proof, seal: _Proof | None, receipts: Sequence[Receipt], sizes: dict[int, str]) -> None:
    joins = [] if seal is None or seal.size == roll.size else _joins(receipts, seal.size, roll.size)
    if joins is None:
        found.left.append("the last roll-call is left out: no consistency files join its checkpoint to the receipts'")
        return
    found.files += joins
    _keep(found, roll, sizes)
    assert roll.logged.answer is not None
    sealed = roll.logged.answer.standing.sealed
    if sealed is not None and (found.anchored is None or sealed > found.anchored):
        found.anchored = sealed


def _read(
    receipts: Sequence[Receipt], first: int, last: int, to_end: bool, hash_of: Callable[[int], bytes | None]
) -> tuple[list[tuple[int, _Proof]], _Proof | None]:
    """Receipts of the highest seal of the window that has any, and the newest roll-call that names one of its seals."""
    seals: list[tuple[int, _Proof]] = []
    roll: _Proof | None = None
    for receipt in _likely(receipts, first, last)[:_MOST_READ]:
        proof = _proof(receipt.read())
        if proof is None:
            continue
        entry, answer = proof.logged.entry, proof.logged.answer
        if isinstance(entry, Seal) and first <= entry.segment <= last:
            if seal_hash(proof.logged.text) == hash_of(entry.segment) and (not seals or entry.segment >= seals[0][0]):
                seals = [*(each for each in seals if each[0] == entry.segment), (entry.segment, proof)]
        elif answer is not None and to_end and (roll is None or proof.size > roll.size):
            sealed = answer.standing.sealed
            if sealed is not None and first <= sealed <= last and hash_of(sealed) == answer.standing.seal:
                roll = proof
    return seals, roll


def _likely(receipts: Sequence[Receipt], first: int, last: int) -> list[Receipt]:
    """Without those whose names, as the shipper gives them, say that they are of other segments; latest first."""

    def place(receipt: Receipt) -> int | None:
        parts = receipt.name.removesuffix(".tlog-proof").split("-")
        return int(parts[1]) if parts[0] == "seal" and len(parts) == 3 and parts[1].isdigit() else None

    wanted = [(place(each), each) for each in receipts if not each.name.endswith((".tlog-consistency", ".timestamp"))]
    inside = [(at, each) for at, each in wanted if at is None or first <= at <= last]
    newest = max((at for at, _ in inside if at is not None), default=None)
    return [each for at, each in inside if at is None or at == newest]


def _proof(data: bytes) -> _Proof | None:
    """A receipt whose paths lead to its checkpoint's root; None: it is none."""
    try:
        if not data.startswith(tlog_proof.KIND.encode()):
            return None
        proof = TlogProof.parse(data)
        logged = Logged.parse(proof.extra or b"")
        text = note.parse(proof.checkpoint).text
        checkpoint = Checkpoint.parse(text)
        proof.verify(merkle.leaf_hash(logged.text.encode()), checkpoint)
        if isinstance(logged.entry, RollCall) and logged.answer is not None:
            logged.answer.verify(logged.entry)
    except (Malformed, ProofRejected):
        return None
    return _Proof(data, checkpoint.size, text, logged)


def _joins(receipts: Sequence[Receipt], old: int, new: int) -> list[bytes] | None:
    """Consistency files that lead from one size to the other; None: they are not there."""
    by_name = {each.name: each for each in receipts if each.name.endswith(".tlog-consistency")}
    found: list[bytes] = []
    at = new
    while at > old and len(found) < _MOST_JOINS:
        file = by_name.get(f"{at}.tlog-consistency")
        try:
            data = b"" if file is None else file.read()
            at = Consistency.parse(data).old
        except Malformed:
            return None
        found.append(data)
    return found if at == old else None


def _stamps(found: Needed, receipts: Sequence[Receipt], sizes: dict[int, str]) -> None:
    for receipt in receipts:
        if receipt.name.endswith(".timestamp") and receipt.name.partition("-")[0] in map(str, sizes):
            data = receipt.read()
            try:
                good = Timestamp.parse(data).checkpoint in sizes.values()
            except Malformed:
                continue
            if good and len(found.files) < _MOST_JOINS + _STAMPS:
                found.files.append(data)
