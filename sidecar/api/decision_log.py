"""The log of what was answered: ids, fixed words and durations, never what a caller or a policy wrote.

A decision is one line at `debug`: the ledger is the record, and a busy agent makes thousands. Whatever gave no
permission for another reason than the policy is a line at `warning`, at most one a second of each kind, with how many
it stands for. Who wants to know more finds the entry by the decision id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.decide import APPROVAL_CAUSES, Answer, Observer, Stages

log = logging.getLogger("sidecar.decisions")

EVERY: Final = 1.0  # seconds between two lines of one kind


@dataclass(slots=True)
class _Kind:
    """One kind of trouble: when a line of it was last written, and what happened since."""

    written: float
    count: int = 0
    last: dict[str, Any] = field(default_factory=dict)


class DecisionLog:
    """An `Observer` that writes lines and tells ``then`` the same. ``now``: a monotonic clock in seconds.

    ``trace_id``: of what is under way, "" where nothing is traced.
    """

    def __init__(
        self,
        then: Observer,
        now: Callable[[], float] = time.monotonic,
        trace_id: Callable[[], str] = lambda: "",
    ) -> None:
        self._then, self._now, self.trace_id = then, now, trace_id
        self._kinds: dict[tuple[str, str, str], _Kind] = {}

    def decided(self, answer: Answer, took: Stages) -> None:
        """As `Observer.decided`."""
        self._then.decided(answer, took)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("decided", extra=_members(**self._about(answer), duration_ms=round(took.total * 1000, 3)))
        failed = next((j for j in (answer.judged, *answer.alternatives) if j.cause != "policy"), None)
        if failed is not None:
            about = {"decision_id": answer.decision_id, "seq": answer.recorded.seq, "cause": failed.cause}
            about |= self._traced()
            self._trouble("denied for want of a policy decision", failed.cause, "", about)

    def repeated(self, answer: Answer) -> None:
        """As `Observer.repeated`."""
        self._then.repeated(answer)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("answered again", extra=_members(**self._about(answer)))

    def refused(self, code: str, field: str, why: str = "") -> None:
        """As `Observer.refused`."""
        self._then.refused(code, field, why)
        self._trouble("refused", code, why, {"code": code, "field": field, "why": why})

    def outcome_refused(self, why: str) -> None:
        """As `Observer.outcome_refused`."""
        self._then.outcome_refused(why)
        self._trouble("outcome refused", why, "", {"why": why})

    def approval(self, what: str) -> None:
        """As `Observer.approval`. What was taken or used has a line of its own: an approver's hand is behind each."""
        self._then.approval(what)
        if what in APPROVAL_CAUSES:
            self._trouble("approval refused", what, "", {"why": what})
        else:
            log.info("approval: %s", what)

    def unanswered(self, method: str, code: str, fault: str = "") -> None:
        """As `Observer.unanswered`. A caller that went away is a line at `debug`."""
        self._then.unanswered(method, code, fault)
        about = {"method": method, "code": code, "fault": fault}
        if code == "CANCELLED":
            log.debug("nobody waits any more", extra=_members(**about))
        else:
            self._trouble("answered with an error", method, code, about)

    def settle(self, *, everything: bool = False) -> None:
        """Write the lines that were held back and are due, or all of them."""
        for (message, *_), kind in self._kinds.items():
            if kind.count and (everything or self._now() - kind.written >= EVERY):
                self._write(message, kind)

    def _about(self, answer: Answer) -> dict[str, Any]:
        return {
            "decision_id": answer.decision_id,
            "seq": answer.recorded.seq,
            "effect": answer.judged.verdict.effect,
            "cause": answer.judged.cause,
            **self._traced(),
        }

    def _traced(self) -> dict[str, Any]:
        trace = self.trace_id()
        return {"trace_id": trace} if trace else {}

    def _trouble(self, message: str, word: str, more: str, about: dict[str, Any]) -> None:
        kind = self._kinds.setdefault((message, word, more), _Kind(self._now() - EVERY))
        kind.count += 1
        kind.last = about
        if self._now() - kind.written >= EVERY:
            self._write(message, kind)

    def _write(self, message: str, kind: _Kind) -> None:
        log.warning(message, extra=_members(**kind.last, count=kind.count))
        kind.written, kind.count = self._now(), 0


def _members(**members: Any) -> dict[str, Any]:
    """What a formatter writes beside the message (`extra` of a log record)."""
    return {"members": members}
