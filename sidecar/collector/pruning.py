"""Pruning what a collector holds, and what forbids it: holds, and retention profiles (proto/SHIPPING.md, "Pruning")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sidecar.chain import authority_note, note, strictjson
from sidecar.chain.acts import Prune
from sidecar.chain.authority_note import Grant
from sidecar.chain.parcel import Record, pack
from sidecar.chain.pruning import bared
from sidecar.chain.retention import least_ns
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.stream import Kind
from sidecar.collector.runs import Chain, Run, Runs
from sidecar.errors import Malformed, SignatureInvalid, StorageError, UsageError

CASE: Final = re.compile(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Hold:
    """The last word on a case. ``chains``: whose payloads stay, empty: all; ``time``: ns."""

    case: str
    held: bool
    chains: tuple[bytes, ...]
    reason: str
    time: int

    def encode(self) -> bytes:
        """As it is stored."""
        chains = [chain.hex() for chain in self.chains]
        value = {"case": self.case, "held": self.held, "chains": chains, "reason": self.reason, "time": str(self.time)}
        return strictjson.dumps(value)

    @classmethod
    def decode(cls, data: bytes) -> Hold:
        """Read it. Raises StorageError: the object is damaged."""
        try:
            value = strictjson.parse_object(data)
            chains = tuple(bytes.fromhex(chain) for chain in value["chains"])
            made = cls(value["case"], value["held"], chains, value["reason"], int(value["time"]))
            if made.encode() != data:
                raise Malformed("not as it was written")
        except (Malformed, KeyError, TypeError, ValueError):
            raise StorageError("a stored hold is damaged: nothing can be pruned before that is mended") from None
        return made

    def covers(self, chain_id: bytes) -> bool:
        """Whether nothing of this chain may be pruned because of it."""
        return self.held and (not self.chains or chain_id in self.chains)


def holds(runs: Runs) -> list[Hold]:
    """The last word on each case. Raises StorageError."""
    return [Hold.decode(data) for data in runs.holds().values()]


def kept_longer(chain: Chain, now: int, until: int | None) -> int | None:
    """Until when what a chain recorded is kept, POSIX seconds: ``until``, or as long as its retention profile says."""
    least = (least_ns(chain.retention) or 0) // 10**9
    return max(now + least, until or 0) if least else until


def refuse_unauthorised(chain: Chain, grant: Grant) -> None:
    """Raises UsageError where the note is not by the authority of this chain."""
    if chain.authority is None:
        raise UsageError("nothing is pruned: the chain names no authority")
    try:
        authority_note.verify(grant.record, chain.chain_id, chain.authority)
    except SignatureInvalid:
        raise UsageError("nothing is pruned: the chain's authority did not sign it") from None
    except Malformed as error:
        raise UsageError(f"nothing is pruned: {error}") from None


def refuse_held(runs: Runs, chain_id: bytes) -> None:
    """Raises UsageError where a legal hold covers the chain."""
    cases = [hold.case for hold in holds(runs) if hold.covers(chain_id)]
    if cases:
        raise UsageError(f"nothing is pruned: chain {chain_id.hex()} is under legal hold ({', '.join(cases)})")


def refuse_early(runs: Runs, chain: Chain, act: Prune, grant: Grant, now: int) -> None:
    """Raises UsageError where the chain's retention profile does not allow it yet; ``now`` in ns."""
    least = least_ns(chain.retention)
    if least is None:
        raise UsageError(f"nothing is pruned: this version does not know the retention profile {chain.retention!r}")
    if grant.note.time > now:
        raise UsageError("nothing is pruned: the authority's note is signed in the future; look at the clocks")
    for run in act.runs:
        sealed = _sealed(runs, chain, run.last)
        if sealed is None or seal_hash(sealed.text()) != run.seal:
            raise UsageError(f"nothing is pruned: segment {run.last} is not held with the seal that the note names")
        if min(now, grant.note.time) < sealed.time + least:
            days = (sealed.time + least - now) / 86_400e9
            raise UsageError(
                f"nothing is pruned: profile {chain.retention} keeps segment {run.last} for {days:.1f} more days"
            )


def _sealed(runs: Runs, chain: Chain, segment: int) -> Seal | None:
    found: Seal | None = None
    for run in runs.all(chain):
        for kind, body in runs.records(run):
            if kind is Kind.SEAL:
                seal = Seal.parse(note.parse(body).text)
                found = seal if seal.segment == segment else found  # after a loss there may be another one
    return found


@dataclass(frozen=True, slots=True)
class Pruned:
    """``payloads`` that went, and ``size``: bytes of what is stored."""

    payloads: int
    size: int


def carry_out(runs: Runs, chain: Chain, grant: Grant, act: Prune) -> Pruned:
    """Prune what ``act`` covers. Done again it does what was left. Whether it may be done was found out before.

    Raises:
        StorageError: not all of it: do it again.
    """
    runs.allow(chain.chain_id, grant.record)
    payloads = size = 0
    for run in runs.all(chain):
        before = runs.records(run)
        after = [bared(each, [act]) for each in before]
        cut = sum(a is not b for a, b in zip(before, after, strict=True))
        if cut:
            parcel = pack(after)
            runs.replace(Run(run.before, run.signature, parcel, run.digest or sha256(run.parcel).digest()))
            payloads += cut
            size += _bytes(before) - _bytes(after)
    return Pruned(payloads, size)


def _bytes(records: Sequence[Record]) -> int:
    return sum(len(body) for _, body in records)
