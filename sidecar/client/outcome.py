"""What becomes of an allowed action: the permit it runs under, and the outcomes that could not be reported.

An action that ran has run. When its outcome cannot be reported, raising would make the caller do it again (pay twice),
so the result is returned all the same; the loss is logged as a warning, counted, and handed to a callback.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.client.decision import Decision
from sidecar.client.refusals import one_line
from sidecar.client.wire import encode_json
from sidecar.errors import RequestError
from sidecar.v1 import decision_pb2 as pb

NOTHING: Final = object()  # no response was given; None is a response, JSON's null

_log = logging.getLogger("sidecar.client")


class Status(StrEnum):
    """What became of an allowed action. BLOCKED: it was not run. FAILED: it was run and failed."""

    EXECUTED = "EXECUTED"
    BLOCKED = "BLOCKED"
    FAILED = "FAILED"


WIRE_STATUS = {
    Status.EXECUTED: pb.OUTCOME_STATUS_EXECUTED,
    Status.BLOCKED: pb.OUTCOME_STATUS_BLOCKED,
    Status.FAILED: pb.OUTCOME_STATUS_FAILED,
}


@dataclass(frozen=True, slots=True)
class UnreportedOutcome:
    """An outcome the ledger does not hold: the action's decision, what became of it, and why it could not be told."""

    decision_id: str
    status: Status
    cause: str


def outcome_request(agent: str, decision_id: str, status: Status, response: bytes) -> pb.ReportOutcomeRequest:
    """The report to send. ``response``: JSON, or empty."""
    return pb.ReportOutcomeRequest(agent=agent, decision_id=decision_id, status=WIRE_STATUS[status], response=response)


def outcome_of(agent: str, decision_id: str, status: Status, response: object) -> pb.ReportOutcomeRequest:
    """The report to send of an action run elsewhere. RequestError for a response that is not JSON."""
    encoded = b"" if response is NOTHING else encode_json("response", response)
    return outcome_request(agent, decision_id, status, encoded)


class Permit:
    """Leave to run one action once. ``decision`` is the ALLOW it rests on."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self._response = b""
        self._raised = Status.FAILED

    @property
    def raised(self) -> Status:
        """What became of the action where the body that runs under this raises."""
        return self._raised

    @contextmanager
    def not_begun(self) -> Iterator[None]:
        """What raises within is before the action, which so is BLOCKED."""
        self._raised = Status.BLOCKED
        yield
        self._raised = Status.FAILED

    def respond(self, value: object) -> None:
        """Attaches the downstream answer, any JSON value, to the outcome that will be reported.

        Never raises: the action has run. A value that is not JSON is left out, with a warning in the log.
        """
        try:
            self._response = encode_json("response", value)
        except RequestError as error:
            _log.warning("decision %s: the response is left out of the outcome: %s", self.decision.decision_id, error)

    def outcome(self, agent: str, status: Status) -> pb.ReportOutcomeRequest:
        """The report to send."""
        return outcome_request(agent, self.decision.decision_id, status, self._response)


class Unreported:
    """Counts and tells the outcomes that could not be reported."""

    def __init__(self, tell: Callable[[UnreportedOutcome], object] | None) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self.count = 0

    def add(self, decision_id: str, status: Status, error: BaseException) -> None:
        """Never raises an Exception: the action has run and its result must get out."""
        lost = UnreportedOutcome(decision_id, status, one_line(str(error)) or type(error).__name__)
        with self._lock:
            self.count += 1
        _log.warning("decision %s: outcome %s not reported: %s", lost.decision_id, status, lost.cause)
        if self._tell is None:
            return
        try:
            self._tell(lost)
        except Exception:
            _log.exception("decision %s: on_unreported failed", lost.decision_id)

    @contextmanager
    def told(self, decision_id: str, status: Status) -> Iterator[None]:
        """A report is sent within. What it raises is told here; nothing but an interruption gets out."""
        try:
            yield
        except Exception as error:  # whatever it is: the action has run, and its result or its own error must get out
            self.add(decision_id, status, error)
        except BaseException as interrupt:
            self.add(decision_id, status, interrupt)
            raise

    async def sent(self, send: Callable[[], Awaitable[object]], decision_id: str, status: Status) -> None:
        """Awaits ``send``, which may be done twice, as :meth:`told`.

        A first cancellation goes on once that is sent after all: whoever ends a loop cancels what a cancelled action
        still has to do, and this is the last of it.
        """
        cancelled = False
        with self.told(decision_id, status):
            try:
                await send()
            except asyncio.CancelledError:
                cancelled = True
                await send()
        if cancelled:
            raise asyncio.CancelledError
