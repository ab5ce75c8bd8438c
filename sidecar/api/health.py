"""Whether the sidecar is live and ready, and why not (proto/HEALTH.md)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import grpc.aio
from grpc_health.v1 import health, health_pb2

LIVENESS: Final = "liveness"
READINESS: Final = "readiness"
HEALTHZ, READYZ = "/healthz", "/readyz"
FORGOTTEN: Final = 15.0  # seconds without a look
SAY_AGAIN: Final = 60.0  # seconds
_CAUSE_FIELD: Final = 1000
_LONGEST: Final = 512  # bytes of a cause


class Health:
    """What was last found when somebody looked. ``now``: a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._looked: float | None = None
        self._found, self._besides, self._said = "it starts", "", 0.0

    def starts(self, what: str) -> None:
        """``what`` is being done, however long it takes, before anybody can look."""
        self._looked, self._found = None, f"it starts: {what}"

    def found(self, cause: str, besides: str = "") -> bool:
        """Somebody looked: ``cause`` why no decision can be made, "" where one can; ``besides``: what is wrong all
        the same. Whether that is to be logged: it is new, or was said a while ago.
        """
        now = self._now()
        another = (cause, besides) != (self._found, self._besides)
        news = bool(cause or besides) and (another or now - self._said >= SAY_AGAIN)
        self._looked, self._found, self._besides = now, cause, besides
        self._said = now if news else self._said
        return news

    @property
    def cause(self) -> str:
        """Why it is not ready, in one printable line; "" when it is ready."""
        silent = 0.0 if self._looked is None else self._now() - self._looked
        if silent > FORGOTTEN:
            return f"nobody has looked for {silent:.0f} s: it hangs, at its ledger's disk perhaps"
        return _line(self._found)

    @property
    def besides(self) -> str:
        """What is wrong while it is ready, in one printable line; "" where nothing is."""
        return "" if self.cause else _line(self._besides)

    def page(self, path: str) -> tuple[int, bytes] | None:
        """Status and body of `/healthz` and `/readyz`; None for another path."""
        if path == HEALTHZ:
            return 200, b"live\n"
        if path != READYZ:
            return None
        cause = self.cause
        if cause:
            return 503, f"not ready: {cause}\n".encode()
        return 200, f"ready, but {self.besides}\n".encode() if self.besides else b"ready\n"


class HealthService(health.aio.HealthServicer):
    """`grpc.health.v1.Health` that says why. ``services``: names that serve when the sidecar is ready."""

    def __init__(self, told: Health, services: tuple[str, ...]) -> None:
        super().__init__()
        self._told, self._names = told, ("", READINESS, *services)

    async def show(self) -> None:
        """Tell those who watch; before anybody has looked too."""
        await self.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        state = _state(self._told.cause)
        for name in self._names:
            await self.set(name, state)

    async def Check(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
    ) -> health_pb2.HealthCheckResponse:
        """As of now, with the cause."""
        if request.service not in self._names:
            return await super().Check(request, context)
        cause = self._told.cause
        answer = health_pb2.HealthCheckResponse(status=_state(cause))
        if said := cause or self._told.besides:
            answer.MergeFromString(_cause_field(said))
        return answer


def _state(cause: str) -> int:
    return health_pb2.HealthCheckResponse.NOT_SERVING if cause else health_pb2.HealthCheckResponse.SERVING


def _cause_field(cause: str) -> bytes:
    """The field as protobuf has it: tag and length as varints, the text."""
    text = cause.encode()
    return _varint(_CAUSE_FIELD << 3 | 2) + _varint(len(text)) + text


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _line(text: str) -> str:
    """One printable line of at most so many bytes."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean.encode()[:_LONGEST].decode(errors="ignore")
