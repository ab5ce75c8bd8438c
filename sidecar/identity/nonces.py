"""Nonces that were seen, for as long as their statement could be taken again, within fixed bounds of memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sidecar.errors import CallerUnproved

PER_PRINCIPAL: Final = 250_000
IN_ALL: Final = 1_000_000


class Nonces:
    """Nonces by key, in periods as long as the window: what is older than the window goes with its period.

    ``window_ns``: how far a statement's time may be from the clock, either way. A clock that is put back does not bring
    back what was forgotten: times of a period that is gone are refused for good.
    """

    def __init__(self, window_ns: int, *, per_principal: int = PER_PRINCIPAL, in_all: int = IN_ALL) -> None:
        self._window, self._per_principal, self._in_all = window_ns, per_principal, in_all
        self._periods: dict[int, dict[str, set[bytes]]] = {}
        self._gone = -1
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def check(self, key: str, nonce: bytes, time: int, now: int, keys: Collection[str]) -> None:
        """Return if a statement of this time may still be taken. Times in ns since 1970. ``keys``: all of its signer's,
        which share a bound: whoever has several must not have all the room.

        Raises:
            CallerUnproved: outside of the window, or its nonce was seen with this key, or there is no room for it.
        """
        if abs(now - time) > self._window:
            raise CallerUnproved(_LATE.format(abs(now - time) / 1e9, self._window / 1e9), "window")
        self._forget((now - self._window) // self._window)
        period = time // self._window
        if period <= self._gone:
            raise CallerUnproved("signature: the sidecar's clock was put back; wait, and sign anew", "window")
        if nonce in self._periods.get(period, {}).get(key, ()):
            raise CallerUnproved("signature: its nonce was used before; sign anew, with a random one", "replayed")
        taken = sum(len(period.get(each, ())) for period in self._periods.values() for each in keys)
        if taken >= self._per_principal or self._count >= self._in_all:
            raise CallerUnproved("signature: too many were taken within the window; ask less often", "too many")

    def take(self, key: str, nonce: bytes, time: int) -> None:
        """Remember one that :meth:`check` passed and whose signature is right."""
        self._periods.setdefault(time // self._window, {}).setdefault(key, set()).add(nonce)
        self._count += 1

    def _forget(self, before: int) -> None:
        if before - 1 <= self._gone:
            return
        self._gone = before - 1
        for period in [p for p in self._periods if p <= self._gone]:
            self._count -= sum(map(len, self._periods.pop(period).values()))


_LATE: Final = (
    "signature: its time is {:.0f} s from the sidecar's clock, {:.0f} s are allowed; set the clock, and sign anew"
)
