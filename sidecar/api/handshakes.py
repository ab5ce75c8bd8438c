"""TLS handshakes that failed, counted and recorded. Of gRPC's only its own log tells (`cli/standard_error.py`).

gRPC for Python has no other way: it verifies a client certificate itself, or does not ask for one. What fails there
never was a call of ours; who it was, the log does not say, nor whether it was a client's handshake or the sidecar's own
with its collector. So no more are taken for clients' than clients began in the time that gRPC gives a handshake. A door
that is not gRPC's knows its own (`failed`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from sidecar.decide import DecisionPath, Refusal
from sidecar.errors import LedgerError

PEER: Final = "tls"
DEADLINE: Final = 120.0  # seconds that gRPC gives a handshake
_UNDER_WAY: Final = 4_096  # handshakes
_CAUSES: Final = {
    "no certificate": "the client showed no certificate",
    "expired": "a certificate that had expired",
    "not yet valid": "a certificate that was not yet valid",
    "purpose": "a certificate that was not for clients",
    "authority": "a certificate under no CA that is trusted here",
    "size": "a certificate, or a chain of them, that was too large",
    "no TLS": "what the client spoke was no TLS",
    "alert": "the client broke it off by an alert",
    "unknown": "in words that are not known here",
}
WHYS: Final = frozenset(_CAUSES)
"""What was wrong with a handshake, as metrics say it."""

_SIGNS: Final = (
    (b"PEER_DID_NOT_RETURN_A_CERTIFICATE", "no certificate"),
    (b"certificate has expired", "expired"),
    (b"certificate is not yet valid", "not yet valid"),
    (b"certificate purpose", "purpose"),
    (b"issuer certificate", "authority"),
    (b"self signed", "authority"),
    (b"self-signed", "authority"),
    (b"certificate signature failure", "authority"),
    (b"EXCESSIVE_MESSAGE_SIZE", "size"),
    (b"HTTP_REQUEST", "no TLS"),
    (b"WRONG_VERSION_NUMBER", "no TLS"),
    (b"_ALERT_", "alert"),
)


def why(said: bytes) -> str:
    """The word of :data:`WHYS` for what was said of a handshake; nothing else of it goes any further. ``unknown``: gRPC
    or OpenSSL has other words than those that this version knows."""
    return next((word for sign, word in _SIGNS if sign in said), "unknown")


class FailedHandshakes:
    """Counts and records them, as refusals of one peer, whose budget bounds the entries. Made on the event loop."""

    def __init__(
        self, path: DecisionPath, counted: Callable[[str], object], now: Callable[[], float] = time.monotonic
    ) -> None:
        """``counted`` is called with a word of :data:`WHYS`, on any thread; ``now``: a clock in seconds."""
        self._path, self._counted, self._loop = path, counted, asyncio.get_running_loop()
        self._now, self._begun = now, deque[float](maxlen=_UNDER_WAY)
        self._recording: set[asyncio.Task[None]] = set()

    def begun(self) -> None:
        """A client began one with gRPC. On any thread."""
        self._begun.append(self._now())

    def told(self, said: bytes) -> None:
        """One failed, and gRPC's log said this of it. On one thread, whichever."""
        while self._begun and self._begun[0] < self._now() - DEADLINE:
            self._begun.popleft()
        if not self._begun:
            return
        self._begun.popleft()
        self.failed(said)

    def failed(self, said: bytes) -> None:
        """A client's failed, and this was said of it. On any thread."""
        word = why(said)
        self._counted(word)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is served any more
            self._loop.call_soon_threadsafe(self._refuse, word)

    async def settled(self) -> None:
        """All that was told so far is recorded."""
        await asyncio.sleep(0)  # what other threads handed over begins now
        if self._recording:
            await asyncio.wait(self._recording)

    def _refuse(self, why: str) -> None:
        task = asyncio.create_task(self._record(why))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _record(self, why: str) -> None:
        cause = f"tls: the handshake failed: {_CAUSES[why]}"
        refusal = Refusal("UNAUTHENTICATED", "", cause, why="handshake", call="TLS")
        with contextlib.suppress(LedgerError):  # the ledger tells of that itself
            await self._path.refuse(PEER, refusal)
