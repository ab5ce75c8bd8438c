"""The door itself: a PEP's evaluations through the one path. No rules here, and nothing of HTTP but its statuses.

Whatever goes wrong is an error, or false, and is counted; what is the PEP's fault is recorded besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain.digests import Outcome, arguments_digest
from sidecar.chain.request import Request
from sidecar.decide import FAILED, Answer, DecisionPath, Observer, Unobserved, refusal_of
from sidecar.enforce.authzen import answers
from sidecar.enforce.authzen.answers import Told
from sidecar.enforce.authzen.asked import APPROVAL_OF, BODY, Asked, asked_of, request_of
from sidecar.enforce.authzen.settings import AuthZenSettings
from sidecar.enforce.refused import fault_of
from sidecar.errors import CallerUnproved, RequestError, SidecarError
from sidecar.identity import Shown, Transport, Voucher

EVALUATION: Final = "Evaluation"
EVALUATIONS: Final = "Evaluations"
HTTP: Final = "AuthZen"
"""What calls are named in entries and metrics; the last: what was no call at all."""

ENCODING: Final = "content-encoding"
_STATUSES: Final[Mapping[str, int]] = {BODY: 413, ENCODING: 415}
"""By field, where it is not 400."""


@dataclass(frozen=True, slots=True)
class Head:
    """What counts of a request's headers. ``content_type``, ``encoding``, ``approval_of``: all values that came."""

    content_type: tuple[str, ...]
    encoding: tuple[str, ...] = ()
    approval_of: tuple[str, ...] = ()
    trace: str = ""


class AuthZenDoor:
    """The door over one path. ``transport``: what it proves of a connection, or raises CallerUnproved; ``peer``: where
    a connection comes from."""

    def __init__(
        self,
        path: DecisionPath,
        settings: AuthZenSettings,
        transport: Callable[[Any], Transport],
        peer: Callable[[Any], str],
        observer: Observer | None = None,
    ) -> None:
        self._path, self.settings = path, settings
        self._transport, self._peer = transport, peer
        self._observer: Observer = observer or Unobserved()

    async def answered(self, call: str, head: Head, read: Callable[[], Awaitable[bytes]], connection: Any) -> Told:
        """One message, answered. ``call``: `EVALUATION` or `EVALUATIONS`; ``read``: gives its body, or raises
        RequestError."""
        try:
            return await self._answered(call, head, read, connection)
        except asyncio.CancelledError:
            self._observer.unanswered(call, "CANCELLED")
            raise
        except Exception as error:
            status, message = await self._refused(error, call, connection)
            kind = {answers.UNDECIDED: "undecided", 500: "failed"}.get(status, "refused")
            return answers.error(status, kind, message)

    def unanswered(self, code: str, fault: str = "") -> None:
        """Count what was no call: another path or method."""
        self._observer.unanswered(HTTP, code, fault)

    async def _answered(self, call: str, head: Head, read: Callable[[], Awaitable[bytes]], connection: Any) -> Told:
        voucher = Voucher(self.settings.gateway, self.settings.proof)
        shown = Shown(self._transport(connection), voucher=voucher)
        # Before anything is read; and again by `decide`, since the registry may change meanwhile.
        if self.settings.agent:
            self._path.known(self.settings.agent, shown)
        else:
            self._path.gateway(shown)
        _check(head)
        asked = asked_of(await read(), batch=call == EVALUATIONS, max_bytes=self.settings.max_bytes)
        if asked.batch:
            return Told(200, {"evaluations": await self._all(asked, head, shown, call, connection)})
        request = request_of(asked.items[0], self.settings, "".join(head.approval_of), head.trace)
        return answers.evaluated(await self._decided(request, shown), context=self.settings.context)

    async def _decided(self, request: Request, shown: Shown) -> Answer:
        """Where obligations cannot be said, the PEP is not allowed to go on: that is the outcome."""
        answer = await self._path.decide(request, shown)
        if answers.withheld(answer, context=self.settings.context):
            outcome = Outcome(
                self.settings.gateway, answer.decision_id, "blocked", permit=answer.permit,
                arguments_digest=arguments_digest(request.wanted.arguments),
                downstream_status="obligations could not be said",
            )  # fmt: skip
            await self._path.report(outcome, shown)
        return answer

    async def _all(self, asked: Asked, head: Head, shown: Shown, call: str, connection: Any) -> list[dict[str, Any]]:
        if head.approval_of:
            raise RequestError(APPROVAL_OF, "goes with a single evaluation")

        def one(item: Mapping[str, Any] | None) -> Awaitable[dict[str, Any]]:
            return self._one(item, head, shown, call, connection)

        if asked.stops_at is None:
            return list(await asyncio.gather(*map(one, asked.items)))
        found: list[dict[str, Any]] = []
        for item in asked.items:
            found.append(await one(item))
            if found[-1]["decision"] is asked.stops_at:
                break
        return found

    async def _one(
        self, item: Mapping[str, Any] | None, head: Head, shown: Shown, call: str, connection: Any
    ) -> dict[str, Any]:
        """One of several: its error is its own."""
        try:
            request = request_of(item, self.settings, trace=head.trace)
            return answers.decision(await self._decided(request, shown), context=self.settings.context)
        except Exception as error:
            return answers.failed(*await self._refused(error, call, connection))

    async def _refused(self, error: Exception, call: str, connection: Any) -> tuple[int, str]:
        """The status and a message, whatever went wrong; recorded where it is the caller's fault."""
        try:
            theirs = fault_of(error)
            if theirs is not None and isinstance(error, SidecarError):
                code, status = theirs
                await self._path.refuse(self._peer(connection), refusal_of(error, code, call))
                self._observer.unanswered(call, code)
                return _status(error, status), str(error)
        except Exception as worse:
            error = worse
        fault = "" if isinstance(error, SidecarError) else type(error).__name__
        self._observer.unanswered(call, "INTERNAL" if fault else "UNAVAILABLE", fault)
        return (500, FAILED) if fault else (answers.UNDECIDED, str(error))


def _status(error: SidecarError, status: int) -> int:
    """401 is the PEP's own proof; whom it asks for is another thing."""
    if isinstance(error, CallerUnproved) and error.why in ("gateway", "certificate", "no certificate"):
        return 401
    return _STATUSES.get(error.field, status) if isinstance(error, RequestError) else status


def _check(head: Head) -> None:
    """Raises RequestError for what is no JSON that could be read as it is."""
    if len(head.content_type) != 1 or not _is_json(head.content_type[0]):
        raise RequestError("content-type", "is not application/json")
    if any(each.strip().lower() != "identity" for each in head.encoding):
        raise RequestError(ENCODING, "is not taken; send the body as it is")
    if len(head.approval_of) > 1:
        raise RequestError(APPROVAL_OF, "occurs twice")


def _is_json(value: str) -> bool:
    kind, _, parameters = value.partition(";")
    charset = parameters.strip().lower()
    return kind.strip().lower() == "application/json" and charset in ("", "charset=utf-8", 'charset="utf-8"')
