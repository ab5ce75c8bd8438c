"""What receipts beside a chain say that others hold of it: logs, witnesses, timestamps.

Taken apart, not verified, but for the time of a timestamp: that is told only where ``check`` vouches for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sidecar.chain import note, tlog_proof
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.logged import Logged
from sidecar.chain.rollcall import RollCall
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import AnchorRefused, Malformed

from . import rows


@dataclass(slots=True)
class _Log:
    key: str
    receipts: int = 0
    size: int = -1
    root: str = ""
    roll_call: int | None = None
    cosigned_by: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Received:
    """Takes the files of `receipts/`. ``check``: as `Evidence.check_timestamp`, POSIX seconds."""

    check: Callable[[Timestamp], int] | None = None
    logs: dict[str, _Log] = field(default_factory=dict)
    stamps: list[dict[str, Any]] = field(default_factory=list)

    def take(self, files: Iterable[bytes]) -> Received:
        """All of them; one that is none of the log's is passed over, as `verify` reports it."""
        for data in files:
            try:
                if data.startswith(b"{"):
                    self._stamp(Timestamp.parse(data))
                elif data.startswith(tlog_proof.KIND.encode()):
                    self._proof(TlogProof.parse(data))
            except Malformed:
                continue
        return self

    def _stamp(self, stamp: Timestamp) -> None:
        checkpoint = Checkpoint.parse(stamp.checkpoint)
        time = None
        if self.check is not None:
            try:
                time = rows.at(self.check(stamp) * 1_000_000_000)
            except AnchorRefused:
                time = None
        self.stamps.append({"log": checkpoint.origin, "size": checkpoint.size, "time": time})

    def _proof(self, proof: TlogProof) -> None:
        signed = note.parse(proof.checkpoint)
        checkpoint = Checkpoint.parse(signed.text)
        own = [each for each in signed.signatures if each.name == checkpoint.origin]
        log = self.logs.setdefault(checkpoint.origin, _Log(own[0].key_hash.hex() if own else ""))
        log.receipts += 1
        log.cosigned_by |= {each.name for each in signed.signatures if each.name != checkpoint.origin}
        if checkpoint.size > log.size:
            log.size, log.root = checkpoint.size, note.to_base64(checkpoint.root)
        entry = None if proof.extra is None else Logged.parse(proof.extra).entry
        if isinstance(entry, RollCall):
            log.roll_call = entry.time if log.roll_call is None else max(log.roll_call, entry.time)

    def to_json(self) -> dict[str, Any]:
        """Members ``received`` and ``timestamped`` of a chain in a certificate."""
        received = [
            {
                "log": origin,
                "key": log.key,
                "receipts": log.receipts,
                "size": log.size,
                "root": log.root,
                "roll_call": None if log.roll_call is None else rows.at(log.roll_call),
                "cosigned_by": sorted(log.cosigned_by),
            }
            for origin, log in sorted(self.logs.items())
        ]
        return {"received": received, "timestamped": self.stamps}
