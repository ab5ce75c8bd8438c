"""Calling the roll: what the index says of every chain becomes one entry, its lines one object."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.chain.rollcall import Roll
from sidecar.collector.index import Index
from sidecar.collector.objects import roll_call_name
from sidecar.collector.storage import Storage
from sidecar.collector.storage.port import create_same


def call_roll(storage: Storage, index: Index, origin: str, now: Callable[[], int]) -> Roll:
    """The roll-call, its lines durable; its text is then to be logged. ``now`` (ns) is asked once the lines are read:
    nothing that was acknowledged later is among them.

    Raises:
        StorageError: the index cannot be read, or the lines not stored.
    """
    standings = list(index.standings())
    roll = Roll(origin, now(), standings)
    if roll.standings:
        create_same(storage, roll_call_name(roll.call.root), roll.body())
    return roll
