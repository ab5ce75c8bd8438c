"""Calling the roll: what is known of every chain becomes one entry, its lines one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sidecar.chain.rollcall import Roll, Standing
from sidecar.collector.objects import roll_call_name
from sidecar.collector.storage import Storage
from sidecar.collector.storage.port import create_same


def call_roll(
    storage: Storage,
    standings: Callable[[], Iterable[Standing]],
    origin: str,
    now: Callable[[], int],
    keep_until: int | None = None,
) -> Roll:
    """The roll-call, its lines durable; its text is then to be logged. ``now`` (ns) is asked once the lines are read:
    nothing that was acknowledged later is among them. ``keep_until``: POSIX seconds, or None.

    Raises:
        StorageError: the lines cannot be had, or not stored.
    """
    lines = list(standings())
    roll = Roll(origin, now(), lines)
    if roll.standings:
        create_same(storage, roll_call_name(roll.call.root), roll.body(), keep_until=keep_until)
    return roll
