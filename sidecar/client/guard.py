"""The guard for agents that call: asks, runs the action only on ALLOW, reports what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Unpack

import grpc

from sidecar.client.answer import read_answer, read_batch
from sidecar.client.calls import Calls
from sidecar.client.decision import Decision, Effect, Obligation
from sidecar.client.guarded import Guarded
from sidecar.client.obligations import check_known, take, unmet
from sidecar.client.outcome import NOTHING, Permit, Status, Unreported, UnreportedOutcome, outcome_of
from sidecar.client.question import Arguments, Question, Resource
from sidecar.client.receipts import LastReceipt
from sidecar.client.refusals import ApprovalRequired, NoDecision, raise_unless_permitted
from sidecar.client.retry import ATTEMPTS, REAL, Pace, Patience
from sidecar.client.signing import Signer, Signing
from sidecar.client.target import check_address, check_timeout
from sidecar.client.tls import Tls
from sidecar.client.waiting import Wait, again
from sidecar.client.wire import About, Ask, Asked, asked, batch
from sidecar.v1 import decision_pb2 as pb

Handler = Callable[[Obligation, Decision], object]


class Guard:
    """Stands between an agent and what it does.

    ``address`` is `unix:/path`, `host:port`, or an open channel, which stays the caller's to close. ``timeout`` is in
    seconds, above 0, for each question and each report. ``obligations`` maps a kind to what meets it before the action
    runs, called with the obligation and the decision; one that raises has not met it. ``on_unreported`` is called with
    each outcome that could not be reported, ``unreported`` counts them: the action has run, so its result is returned
    all the same.

    ``attempts``, 1 to 100, is how often one question is sent within ``timeout``; it is decided once however often. 1
    means that a sidecar that is away fails at once, else it is waited for. A report is repeated too, and recorded once.

    ``shadow`` is for adopting policies: where the sidecar is configured for shadow enforcement too, an action runs
    whatever the effect, and the decision says ``enforced`` False. Where the sidecar enforces, or gives no decision,
    nothing changes. The obligations of an ALLOW are met as ever.

    ``tls``, for `host:port`, is what the guard shows and how it knows the sidecar: TlsFiles or TlsSpiffe.

    ``key`` signs each request and report: `AgentKey.from_file(path)`, or anything that has ``spki`` and ``sign``. A
    sidecar without --dev asks for it. ``chain``: hex id of the chain to sign for; None: the first that answers.

    One guard serves many threads. UsageError for a bad address, timeout, number of attempts or ``tls``.
    """

    def __init__(
        self,
        address: str | grpc.Channel,
        *,
        agent: str,
        timeout: float = 2.0,
        attempts: int = ATTEMPTS,
        obligations: Mapping[str, Handler] | None = None,
        on_unreported: Callable[[UnreportedOutcome], object] | None = None,
        shadow: bool = False,
        key: Signer | None = None,
        chain: str | None = None,
        tls: Tls | None = None,
        pace: Pace = REAL,
    ) -> None:
        where = check_address(address) if isinstance(address, str) else "the channel given"
        self._patience = Patience(where, check_timeout(timeout), attempts, pace)
        signing = None if key is None else Signing(agent, key, chain)
        self._calls = Calls(self._patience, None if isinstance(address, str) else address, signing, tls)
        self._agent = agent
        self._handlers = dict(obligations or {})
        self._shadow = shadow
        self._unreported = Unreported(on_unreported)
        self._last = LastReceipt()

    @property
    def unreported(self) -> int:
        """How many outcomes could not be reported."""
        return self._unreported.count

    def close(self) -> None:
        """Closes the channel this guard opened. Questions asked afterwards raise NoDecision."""
        self._calls.close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(
        self, action: str, resource: Resource, arguments: Arguments | None = None, **about: Unpack[About]
    ) -> Decision:
        """Asks; returns the decision only when it is ALLOW and its obligations are met.

        The caller runs the action, and no outcome is reported: `guarded` does both. Raises Denied, ApprovalRequired or
        UnmetObligation (all Refused), NoDecision when no usable answer came, RequestError when the question cannot be
        sent.
        """
        return self._permitted(self.ask(action, resource, arguments, **about))

    def _permitted(self, decision: Decision) -> Decision:
        raise_unless_permitted(decision, shadow=self._shadow)
        if decision.effect is Effect.ALLOW:
            self._meet(decision)
        return decision

    def ask(
        self, action: str, resource: Resource, arguments: Arguments | None = None, **about: Unpack[About]
    ) -> Decision:
        """Asks; returns whatever was decided, also a DENY. It permits nothing: look at ``effect`` and ``obligations``.

        Raises NoDecision when no usable answer came, RequestError when the question cannot be sent.
        """
        return self._decided(asked(self._agent, self._last.receipt, Ask(action, resource, arguments, **about)))

    def _decided(self, question: Asked) -> Decision:
        decision = read_answer(self._calls.decide(question), question)
        self._last.take(decision.receipt)
        return decision

    def ask_many(self, questions: Sequence[Ask]) -> list[Decision | NoDecision]:
        """Asks up to 64 questions in one call; each gets its decision, or why it has none, in their order.

        As with `ask`, nothing is permitted yet. Raises NoDecision when no answers came, RequestError when one cannot
        be sent.
        """
        last = self._last.receipt
        whole = [asked(self._agent, last, question) for question in questions]
        if not whole:
            return []
        answers = read_batch(self._calls.decide_batch(batch(whole), last), whole, self._patience)
        self._last.take_all(answers)
        return answers

    def wait_for_approval(self, what: ApprovalRequired | Decision, timeout: float) -> Decision:
        """Waits until it is approved, asks again under the approvals, and returns what `check` would.

        ``what`` is what this guard raised or returned; ``timeout``: seconds to wait for approvers. The policy has the
        last word, so it raises as `check` does; NotApproved when it was rejected, has expired, or nobody came in time.
        Asked again for the same decision, also by another process of the agent, it gets the same answer until an
        outcome is recorded; then NoDecision.
        """
        wait = Wait(what, check_timeout(timeout), self._patience)
        same = again(what)
        self._calls.wait(self._agent, wait)
        return self._permitted(self._decided(asked(self._agent, b"", same)))

    def report(self, decision_id: str, status: Status, response: object = NOTHING) -> int:
        """Reports what became of an action that was run elsewhere; returns the seq of its OUTCOME entry.

        `guarded` reports by itself. ``response`` is any JSON value. Raises NoDecision when the report was not taken:
        then no OUTCOME entry is known to exist; RequestError for a response that is not JSON.
        """
        return self._send(outcome_of(self._agent, decision_id, status, response))

    def _send(self, report: pb.ReportOutcomeRequest) -> int:
        taken = self._calls.report(report)
        self._last.take(taken.receipt)
        return int(taken.seq)

    def guarded(
        self,
        action: str,
        resource: Resource | Callable[..., Resource],
        arguments: Arguments | Callable[..., Arguments] | None = None,
        **about: Unpack[About],
    ) -> Guarded:
        """A context manager and decorator: the body runs only on ALLOW, and its outcome is reported.

        As a decorator, ``resource`` and ``arguments`` may be functions of the action's own arguments; without
        ``arguments``, the action's arguments by name are what the policy sees (without `self`). Raises as `check`
        does; RequestError too where an argument was changed meanwhile: then nothing runs, and BLOCKED is reported.
        EXECUTED is reported when the body ends, FAILED when it raises; the exception goes on. Where the question names
        an executor nothing is reported: the executor does, with `permit.decision.permit`.

        What is awaited, `AsyncGuard` guards: UsageError where a coroutine function is decorated, and where a function
        returns an awaitable, which cannot be told before: it is closed or cancelled, and FAILED is reported.
        """
        return Guarded(self, Question(action, resource, arguments, about))

    @contextmanager
    def permitted(self, resource: Resource, arguments: Arguments, asked: Question) -> Iterator[Permit]:
        """One run of a guarded body."""
        with self.acting(self.check(asked.action, resource, arguments, **asked.about)) as permit:
            yield permit

    @contextmanager
    def acting(self, decision: Decision) -> Iterator[Permit]:
        """Runs the body as what was permitted, once, and reports what became of it.

        EXECUTED when it ends, FAILED when it raises. The obligations of a decision that was only asked for (`ask`) are
        met first, as by `check`. Raises Denied, ApprovalRequired or UnmetObligation for a decision that permits
        nothing, UsageError for one that was acted on before, or blocked.
        """
        raise_unless_permitted(decision, shadow=self._shadow)
        take(decision)
        if decision.effect is Effect.ALLOW:
            self._meet(decision)
        permit = Permit(decision)
        try:
            yield permit
        except BaseException:  # an interrupted action has run in part: FAILED, whatever stopped it
            self._report(permit, permit.raised)
            raise
        self._report(permit, Status.EXECUTED)

    def _meet(self, decision: Decision) -> None:
        if decision.leave.met:
            return
        try:
            check_known(decision, self._handlers)
            for obligation in decision.obligations:
                with unmet(decision, obligation):
                    self._handlers[obligation.kind](obligation, decision)
        except BaseException:  # also an interrupt while meeting one: the action will not run
            decision.leave.take()
            self._report(Permit(decision), Status.BLOCKED)
            raise
        decision.leave.met = True

    def _report(self, permit: Permit, status: Status) -> None:
        if permit.decision.permit:
            return  # its executor reports
        with self._unreported.told(permit.decision.decision_id, status):
            self._send(permit.outcome(self._agent, status))
