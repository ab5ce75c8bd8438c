"""Calling the roll: what is known of every chain becomes one entry, its lines one object; and reading it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sidecar.chain.rollcall import Roll, RollCall, Standing
from sidecar.collector.objects import roll_call_name
from sidecar.collector.storage import Storage
from sidecar.collector.storage.port import create_same
from sidecar.errors import Malformed, StorageError

_BODY_BYTES = 1 << 30


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


def read_roll(storage: Storage, call: RollCall) -> Roll:
    """The roll-call with its lines. Raises StorageError: they are missing, or not those that it was called with."""
    name = roll_call_name(call.root)
    body = (storage.read(name, _BODY_BYTES) if call.chains else b"") or b""
    try:
        roll = Roll(call.log, call.time, [Standing.parse(row) for row in body.decode().split("\n")[:-1]])
        if roll.call != call:
            raise Malformed("its lines do not lead to its root")
    except (Malformed, UnicodeDecodeError) as error:
        raise StorageError(f"{name} is missing or damaged: {error}") from None
    return roll
