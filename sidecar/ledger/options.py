"""The writer's settings, and the room that is left on the disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sidecar.chain.limits import SEGMENT_ENTRIES, SEGMENT_NS, ZERO32
from sidecar.errors import LedgerFull, UsageError
from sidecar.ledger.draft import Prepared
from sidecar.ledger.port import Store
from sidecar.ledger.trimming import Keep

MIB: Final = 1024 * 1024
_PAGE: Final = 4096
_PLENTY: Final = 64 * MIB  # more than any group takes
_LOOK_NS: Final = 250_000_000
_GROUP_BYTES: Final = 64 * 1024  # what a commit takes besides its entries: tree pages, notes, two metas


@dataclass(frozen=True, slots=True)
class Options:
    """How to write. Sizes in bytes, ``segment_ns`` in ns; ``batch``: the most entries of one commit.

    ``reserve_bytes`` is kept free, of ``max_bytes`` and of the disk: seals and CLOSE must still fit when entries
    no longer do. ``remember_ns``: how long a repeat key is recalled. ``software``, ``development`` and ``config`` are
    recorded at each start. ``keep``: how much stays here of what a log receipted.

    Raises:
        UsageError: a value out of its range.
    """

    segment_entries: int = SEGMENT_ENTRIES
    segment_ns: int = SEGMENT_NS
    max_bytes: int = 10_240 * MIB
    reserve_bytes: int = 4 * MIB
    queue_limit: int = 4096
    batch: int = 256
    remember_ns: int = 24 * 3600 * 1_000_000_000
    software: str = "decision-sidecar"
    development: bool = False
    config: bytes = ZERO32
    keep: Keep = field(default_factory=Keep)

    def __post_init__(self) -> None:
        _range("segment_entries", self.segment_entries, 1, SEGMENT_ENTRIES)
        _range("segment_ns", self.segment_ns, 1, SEGMENT_NS)
        _range("reserve_bytes", self.reserve_bytes, MIB // 2, 2**40)
        _range("max_bytes", self.max_bytes, 2 * self.reserve_bytes, 2**46)
        _range("queue_limit", self.queue_limit, 1, 2**20)
        _range("batch", self.batch, 1, 4096)
        _range("remember_ns", self.remember_ns, 1, 2**62)
        if len(self.config) != 32:
            raise UsageError("config must be a digest of 32 bytes")


class Room:
    """How much may still be written: within the ledger's greatest size, and on its disk."""

    def __init__(self, directory: Path, store: Store, options: Options) -> None:
        self._directory, self._store = directory, store
        self._limit, self._reserve = options.max_bytes, options.reserve_bytes
        self._lately, self._until, self._spare = 0, 0, 0

    def left(self, enough: int | None = None) -> int:
        """Bytes for entries, the reserve not counted; negative once it is touched.

        Where it is ``enough``, it may be more than is said: freed pages are looked for only where it is less.
        """
        kept = self._reserve + _GROUP_BYTES
        rough = 0 if enough is None else self._limit - kept - enough
        return min(self._limit - self._store.used(rough), self.on_disk()) - kept

    def lately(self, now: int, taking: int) -> int:
        """As :meth:`left`, before ``taking`` bytes are taken at ``now``, boot-time clock in ns.

        Where plenty is left it is looked up again only after a quarter of a second, or of the reserve.
        """
        if now >= self._until or taking > self._spare:
            self._lately, self._until, self._spare = self.left(_PLENTY), now, 0
            if self._lately >= _PLENTY:
                self._until, self._spare = now + _LOOK_NS, self._reserve // 4
                self._store.reach()
        self._spare -= taking
        return self._lately

    def on_disk(self) -> int:
        """Bytes free on the disk."""
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize

    def exhausted(self, left: int) -> bool:
        """Whether with so much :meth:`left` half of the reserve is gone: time to close in order."""
        return left < -self._reserve // 2

    def refusal(self) -> LedgerFull:
        """What to tell a caller whose entry does not fit."""
        if self.on_disk() < self._limit - self._store.used():
            return LedgerFull("the disk is nearly full; make room on it")
        return LedgerFull("the ledger is near its greatest size; raise ledger_max_mib and start again")


def cost(entry: Prepared) -> int:
    """The most bytes an entry takes in the store."""
    attached = len(entry.attachment[1]) if entry.attachment else 0
    return (len(entry.payload) + attached) // _PAGE * _PAGE + 2 * _PAGE


def _range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} must be from {low} to {high}")
