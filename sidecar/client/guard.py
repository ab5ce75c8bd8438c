"""The guard for agents that call: asks, runs the action only on ALLOW, reports what became of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Final, ParamSpec, TypeVar, Unpack

import grpc

from sidecar.client.decision import Decision, Obligation
from sidecar.client.obligations import check_known, unmet
from sidecar.client.outcome import Permit, Status, Unreported, UnreportedOutcome, outcome_request
from sidecar.client.question import Arguments, Question, Resource
from sidecar.client.refusals import raise_unless_allowed
from sidecar.client.target import CHANNEL_OPTIONS, check_address, check_timeout
from sidecar.client.wire import About, encode_json, no_decision, question, read_answer
from sidecar.errors import UsageError
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc

P = ParamSpec("P")
R = TypeVar("R")

NOTHING: Final = object()  # no response was given; None is a response, JSON's null

Handler = Callable[[Obligation, Decision], object]


class Guard:
    """Stands between an agent and what it does.

    ``address`` is `unix:/path`, `host:port`, or an open channel, which stays the caller's to close. ``timeout`` is in
    seconds, above 0, for each question and each report. ``obligations`` maps a kind to what meets it before the action
    runs, called with the obligation and the decision; one that raises has not met it. ``on_unreported`` is called with
    each outcome that could not be reported, ``unreported`` counts them: the action has run, so its result is returned
    all the same.

    One guard serves many threads. Nothing is tried twice. UsageError for a bad address or timeout.
    """

    def __init__(
        self,
        address: str | grpc.Channel,
        *,
        agent: str,
        timeout: float = 2.0,
        obligations: Mapping[str, Handler] | None = None,
        on_unreported: Callable[[UnreportedOutcome], object] | None = None,
    ) -> None:
        self._timeout = check_timeout(timeout)
        self._agent = agent
        self._handlers = dict(obligations or {})
        self._unreported = Unreported(on_unreported)
        self._last_receipt = b""
        self._own_channel: grpc.Channel | None = None
        if isinstance(address, str):
            self._address = check_address(address)
            channel = self._own_channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            self._address, channel = "the channel given", address
        self._stub = decision_pb2_grpc.DecisionServiceStub(channel)

    @property
    def unreported(self) -> int:
        """How many outcomes could not be reported."""
        return self._unreported.count

    def close(self) -> None:
        """Closes the channel this guard opened. Questions asked afterwards raise NoDecision."""
        if self._own_channel is not None:
            self._own_channel.close()

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
        decision = self.ask(action, resource, arguments, **about)
        raise_unless_allowed(decision)
        self._meet(decision)
        return decision

    def ask(
        self, action: str, resource: Resource, arguments: Arguments | None = None, **about: Unpack[About]
    ) -> Decision:
        """Asks; returns whatever was decided, also a DENY. It permits nothing: look at ``effect`` and ``obligations``.

        Raises NoDecision when no usable answer came, RequestError when the question cannot be sent.
        """
        request = question(
            self._agent, self._last_receipt, action, resource, {} if arguments is None else arguments, **about
        )
        try:
            response = self._stub.Decide(request, timeout=self._timeout)
        except Exception as error:  # gRPC's errors, and ValueError from a closed channel
            raise no_decision(error, self._address, self._timeout) from error
        decision = read_answer(response, action, about.get("alternatives", ()))
        self._last_receipt = decision.receipt
        return decision

    def report(self, decision_id: str, status: Status, response: object = NOTHING) -> int:
        """Reports what became of an action that was run elsewhere; returns the seq of its OUTCOME entry.

        `guarded` reports by itself. ``response`` is any JSON value. Raises NoDecision when the report was not taken:
        then no OUTCOME entry is known to exist; RequestError for a response that is not JSON.
        """
        encoded = b"" if response is NOTHING else encode_json("response", response)
        return self._send(outcome_request(self._agent, decision_id, status, encoded))

    def _send(self, report: pb.ReportOutcomeRequest) -> int:
        try:
            answer = self._stub.ReportOutcome(report, timeout=self._timeout)
        except Exception as error:
            raise no_decision(error, self._address, self._timeout) from error
        self._last_receipt = answer.receipt or self._last_receipt
        return int(answer.seq)

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
        does.
        EXECUTED is reported when the body ends, FAILED when it raises; the exception goes on.
        """
        return Guarded(self, Question(action, resource, arguments, about))

    @contextmanager
    def permitted(self, resource: Resource, arguments: Arguments, asked: Question) -> Iterator[Permit]:
        """One run of a guarded body."""
        permit = Permit(self.check(asked.action, resource, arguments, **asked.about))
        try:
            yield permit
        except BaseException:  # an interrupted action has run in part: FAILED, whatever stopped it
            self._report(permit, Status.FAILED)
            raise
        self._report(permit, Status.EXECUTED)

    def _meet(self, decision: Decision) -> None:
        try:
            check_known(decision, self._handlers)
            for obligation in decision.obligations:
                with unmet(decision, obligation):
                    self._handlers[obligation.kind](obligation, decision)
        except BaseException:  # also an interrupt while meeting one: the action will not run
            self._report(Permit(decision), Status.BLOCKED)
            raise

    def _report(self, permit: Permit, status: Status) -> None:
        try:
            self._send(permit.outcome(self._agent, status))
        except Exception as error:  # whatever it is: the action has run, and its result or its own error must get out
            self._unreported.add(permit, status, error)
        except BaseException as interrupt:
            self._unreported.add(permit, status, interrupt)
            raise


class Guarded:
    """What `Guard.guarded` returns: enter it once, or decorate with it."""

    def __init__(self, guard: Guard, asked: Question) -> None:
        self._guard = guard
        self._asked = asked
        self._run: AbstractContextManager[Permit] | None = None

    def __enter__(self) -> Permit:
        if self._run is not None:
            raise UsageError(f"guarded {self._asked.action}: a permit is for one run; call guarded() for each `with`")
        self._run = self._guard.permitted(*self._asked.plain(), self._asked)
        return self._run.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._run is not None
        return self._run.__exit__(kind, error, trace)

    def __call__(self, action: Callable[P, R]) -> Callable[P, R]:
        signature = self._asked.check_decorates(action, asynchronous=False)

        @functools.wraps(action)
        def guarded_action(*args: P.args, **kwargs: P.kwargs) -> R:
            resource, arguments = self._asked.of_call(signature, args, kwargs)
            with self._guard.permitted(resource, arguments, self._asked):
                result = action(*args, **kwargs)
                if inspect.iscoroutine(result):  # a coroutine function in disguise: nothing has run
                    result.close()
                    raise UsageError(f"guarded {self._asked.action}: a coroutine function is guarded by AsyncGuard")
                return result

        return guarded_action
