"""One action that an executor carries out under a permit, and what will be reported of it."""

from __future__ import annotations

import hashlib
import logging
import time

from sidecar.chain.permit import Permit
from sidecar.client.outcome import WIRE_STATUS, Status
from sidecar.client.wire import encode_json
from sidecar.errors import RequestError
from sidecar.v1 import decision_pb2 as pb

_log = logging.getLogger("sidecar.client")


class Act:
    """Begun when it is made, unless ``began`` is False: then it was not begun at all."""

    def __init__(self, permit: Permit, *, began: bool = True) -> None:
        self.permit = permit
        self._started = time.time_ns() if began else 0
        self._since = time.monotonic_ns()
        self._took = 0
        self._response = self._digest = b""
        self._status = ""

    def respond(self, value: object, *, status: str = "", digest_only: bool = False) -> None:
        """Attaches the downstream answer, any JSON value, and its status (as "200"; at most 256 characters).

        ``digest_only``: the SHA-256 of its JSON is reported in its place, where the ledger must not hold it. Never
        raises: the action has run. What is not JSON is left out, with a warning in the log.
        """
        self._status = status[:256]
        try:
            text = encode_json("response", value)
        except RequestError as error:
            _log.warning("decision %s: the response is left out: %s", self.permit.decision_id, error)
            return
        self._response, self._digest = (b"", hashlib.sha256(text).digest()) if digest_only else (text, b"")

    def end(self) -> None:
        """It has ended; its duration is measured up to the first call."""
        if self._started and not self._took:
            self._took = max(1, time.monotonic_ns() - self._since)

    def report(self, executor: str, status: Status) -> pb.ReportOutcomeRequest:
        """What is reported of it, without a signature."""
        permit = self.permit
        return pb.ReportOutcomeRequest(
            agent=executor,
            decision_id=permit.decision_id,
            status=WIRE_STATUS[status],
            response=self._response,
            response_digest=self._digest,
            permit=permit.note,
            arguments_digest=permit.arguments,
            downstream_status=self._status,
            started_ns=self._started,
            duration_ns=self._took,
        )
