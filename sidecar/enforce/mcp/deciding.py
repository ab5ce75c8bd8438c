"""What a gateway asks its sidecar: one question for each thing done, an approval waited for, the outcome told."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.client import ApprovalRequired, Ask, AsyncGuard, Decision, Effect, NoDecision, NotApproved, Status
from sidecar.enforce.mcp.methods import Resource
from sidecar.errors import SidecarError

KIND: Final = "mcp"
Tell = Callable[[str], Awaitable[None]]
"""Tells the client how a wait goes."""

_LOOK: Final = 0.5  # seconds to see whether what was asked before is approved by now
_QUIET: Final = 0.01  # seconds without a question, until outcomes are told
_HELD: Final = 0.05  # seconds that they wait for that at most
_TELL: Final = 5.0  # seconds between two words about a wait
_MOST_WAITING: Final = 64
_NOT_JUDGED: Final = frozenset({"progressToken", "traceparent", "tracestate"})  # the message's own, and new each time
_TRACE: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class GivenUp(SidecarError):
    """Whoever asked does not wait any more; the approval is not used up."""

    def __init__(self) -> None:
        super().__init__("it was cancelled while it waited for an approval")


@dataclass(frozen=True, slots=True)
class Waiter:
    """Who waits for an approval. ``tell`` hears how it goes; ``gone`` is set once nobody waits."""

    tell: Tell | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Asking:
    """A question. ``arguments`` and ``params``: JSON of what is passed on if it is allowed. ``door``: more about it."""

    action: str
    resource: Resource
    arguments: bytes
    method: str
    params: Mapping[str, Any]
    door: Mapping[str, str]

    def key(self, server: str) -> bytes:
        """What an approval is for."""
        whole = repr((self.action, self.resource, self.arguments, self.context(server)))
        return hashlib.sha256(whole.encode(errors="backslashreplace")).digest()

    def context(self, server: str) -> dict[str, Any]:
        """What the policy sees besides: the door, and whatever else of the parameters is passed on."""
        door = {"kind": KIND, "server": server, "method": self.method, **self.door}
        meta = {name: value for name, value in _meta(self.params).items() if name not in _NOT_JUDGED}
        rest = {name: value for name, value in self.params.items() if name not in ("_meta", "name", "arguments")}
        more = {**({"_meta": meta} if meta else {}), **(rest if self.method == "tools/call" else {})}
        return {"door": door, **({"mcp": more} if more else {})}

    def trace(self) -> str:
        """W3C Trace Context `traceparent`, where the message carries one that is right."""
        given = _meta(self.params).get("traceparent")
        return given if isinstance(given, str) and _TRACE.fullmatch(given) else ""


def _meta(params: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = params.get("_meta")
    return meta if isinstance(meta, dict) else {}


class Deciding:
    """The agent's guard, for one server. ``wait``: seconds to wait for an approval; 0: none, the caller asks again.

    ``say``: for the operator. ``policies``: counts up when another policy answers than before.
    """

    def __init__(self, guard: AsyncGuard, server: str, wait: float, say: Callable[[str], object]) -> None:
        self._guard, self._server, self._wait, self._say = guard, server, wait, say
        self._policy: tuple[str, str] | None = None
        self._waiting: dict[bytes, Decision] = {}
        self._reports: set[asyncio.Task[None]] = set()
        self._last: dict[str, asyncio.Task[None]] = {}  # of each decision that is being told of
        self._held: list[Callable[[], object]] = []
        self._asked_at = 0.0
        self.policies = 0

    async def permit(self, asking: Asking, waiter: Waiter | None = None) -> Decision:
        """The ALLOW, for exactly this. Raises SidecarError where there is none, and says why.

        What waits for an approval is taken by one call at a time: an approval is for one. A call that is given up
        before it was asked about under the approval leaves it to the next.
        """
        waiter = waiter or Waiter()
        key = asking.key(self._server)
        before = self._waiting.pop(key, None)
        try:
            if before is not None:
                return await self._again(before, waiter)
            return self._seen(await self._asked(asking))
        except ApprovalRequired as required:
            waits = self._seen(required.decision)
            if not self._wait:
                self._keep(key, waits)
                raise
        except (NoDecision, GivenUp):
            if before is not None:
                self._keep(key, before)
            raise
        except NotApproved as refused:
            if refused.state == "pending":
                self._keep(key, refused.decision)
            raise
        return await self._approved(key, waits, waiter)

    async def _asked(self, asking: Asking) -> Decision:
        self._asked_at = asyncio.get_running_loop().time()
        return await self._guard.check(
            asking.action,
            asking.resource,
            asking.arguments,
            context=asking.context(self._server),
            trace_parent=asking.trace(),
        )

    async def _again(self, before: Decision, waiter: Waiter) -> Decision:
        """The same was asked before, and an approval was needed."""
        try:
            return self._seen(await self._waited(before, max(self._wait, _LOOK), waiter))
        except NotApproved as refused:
            if refused.state != "expired" or before.asked is None:
                raise
        asked = before.asked
        return self._seen(
            await self._guard.check(
                asked.action,
                asked.resource,
                asked.arguments,
                context=asked.context or {},
                trace_parent=asked.trace_parent,
            )
        )

    async def _approved(self, key: bytes, waits: Decision, waiter: Waiter) -> Decision:
        try:
            return self._seen(await self._waited(waits, self._wait, waiter))
        except (NoDecision, GivenUp, NotApproved) as refused:
            if not isinstance(refused, NotApproved) or refused.state == "pending":
                self._keep(key, waits)
            raise

    async def _waited(self, decision: Decision, seconds: float, waiter: Waiter) -> Decision:
        tell = waiter.tell if self._wait else None
        watching = asyncio.create_task(self._guard.approved(decision, seconds))
        beside = [asyncio.create_task(waiter.gone.wait())]
        telling = [] if tell is None else [asyncio.create_task(_telling(tell, decision))]
        try:
            await asyncio.wait([watching, *beside], return_when=asyncio.FIRST_COMPLETED)
            if waiter.gone.is_set():
                raise GivenUp
            await watching
        finally:
            for task in (watching, *beside, *telling):
                task.cancel()
            await asyncio.gather(watching, *beside, *telling, return_exceptions=True)
        return await self._guard.under_approval(decision)

    def _keep(self, key: bytes, decision: Decision) -> None:
        while len(self._waiting) >= _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[key] = decision

    async def each(self, questions: Sequence[Asking]) -> list[Decision | NoDecision]:
        """What was decided of each, whatever it was. Raises SidecarError where nothing was."""
        answers: list[Decision | NoDecision] = []
        for start in range(0, len(questions), 64):
            asks = [
                Ask(q.action, q.resource, q.arguments, q.context(self._server)) for q in questions[start : start + 64]
            ]
            answers += await self._guard.ask_many(asks)
        for answer in answers:
            if isinstance(answer, Decision):
                self._seen(answer)
        return answers

    def report(self, decision_id: str, status: Status, response: Mapping[str, Any]) -> None:
        """Tell what became of it, while the caller goes on. What cannot be told is said to the operator."""
        self._hold(lambda: self._tell(decision_id, status, response))

    def _tell(self, name: str, status: Status, response: Mapping[str, Any]) -> None:
        task = self._last[name] = self._started(self._told(self._last.get(name), name, status, response))
        task.add_done_callback(lambda done: self._last.pop(name) if self._last.get(name) is done else None)

    async def _told(
        self, before: asyncio.Task[None] | None, decision_id: str, status: Status, response: Mapping[str, Any]
    ) -> None:
        if before is not None:  # the first word stands: the next must not overtake it
            await asyncio.wait({before})
        await self._report(decision_id, status, response)

    def report_all(self, decisions: Sequence[Decision], status: Status, response: Mapping[str, Any]) -> None:
        """The same of each, one after another."""

        async def told() -> None:
            for decision in decisions:
                await self._report(decision.decision_id, status, response)

        self._hold(lambda: self._started(told()))

    def _hold(self, start: Callable[[], object]) -> None:
        """For a moment: a call must not wait for the record of the one before, and many outcomes share a commit."""
        loop = asyncio.get_running_loop()
        if not self._held:
            loop.call_later(_QUIET, self._when_quiet, loop.time() + _HELD)
        self._held.append(start)

    def _when_quiet(self, latest: float) -> None:
        loop = asyncio.get_running_loop()
        if self._held and self._asked_at + _QUIET > loop.time() < latest:
            loop.call_later(_QUIET, self._when_quiet, latest)
        else:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for start in held:
            start()

    async def finish(self, seconds: float) -> None:
        """Wait until all is told, at most so long."""
        self._let_go()
        if self._reports:
            await asyncio.wait(self._reports, timeout=seconds)
        for left in self._reports:
            left.cancel()
        await self._guard.close()

    def _started(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
        return task

    async def _report(self, decision_id: str, status: Status, response: Mapping[str, Any]) -> None:
        try:
            await self._guard.report(decision_id, status, response)
        except SidecarError as error:
            self._say(f"decision {decision_id}: outcome {status} not reported: {error}")

    def _seen(self, decision: Decision) -> Decision:
        policy = decision.policy.revision, decision.policy.bundle_digest
        if self._policy not in (None, policy):
            self.policies += 1
        self._policy = policy
        return decision


def allows(decision: Decision | NoDecision) -> bool:
    """Whether it is an ALLOW without conditions."""
    return isinstance(decision, Decision) and decision.effect is Effect.ALLOW and not decision.obligations


async def _telling(tell: Tell, decision: Decision) -> None:
    while True:
        with contextlib.suppress(OSError):
            await tell(f"waits for an approval of decision {decision.decision_id}")
        await asyncio.sleep(_TELL)
