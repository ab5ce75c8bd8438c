"""What receipts beside a chain say that others hold of it: logs, witnesses, timestamps. Taken apart, not verified."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sidecar.chain import note, tlog_proof
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.logged import Logged
from sidecar.chain.rollcall import RollCall
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import Malformed

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
    """Takes the files of `receipts/`."""

    logs: dict[str, _Log] = field(default_factory=dict)
    timestamps: int = 0
    unreadable: int = 0

    def take(self, files: Iterable[bytes]) -> Received:
        """All of them; one that is none of the log's is counted and passed over."""
        for data in files:
            try:
                if data.startswith(b"{"):
                    self.timestamps += 1
                elif data.startswith(tlog_proof.KIND.encode()):
                    self._proof(TlogProof.parse(data))
            except Malformed:
                self.unreadable += 1
        return self

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
        return {"received": received, "timestamped": self.timestamps}
