"""The client's requests: decided, passed on, answered once; and what became of each, told to the sidecar."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.client import Decision, Status
from sidecar.enforce.mcp import verdicts
from sidecar.enforce.mcp.catalog import Catalog, Listed
from sidecar.enforce.mcp.deciding import Asking, Waiter
from sidecar.enforce.mcp.frame import INVALID_PARAMS, BadFrame, Frame, Id, check_case, members, notification, read
from sidecar.enforce.mcp.inputs import Inputs
from sidecar.enforce.mcp.kinds import RESOURCE
from sidecar.enforce.mcp.methods import CALL, Rule
from sidecar.enforce.mcp.pages import Listings
from sidecar.enforce.mcp.ports import Between
from sidecar.errors import Malformed, SidecarError

UNLISTED: Final = Listed("", "unlisted")
"""A resource that the server does not list: one of a template, or that a tool named. It has no description."""

_MOST: Final = 256  # requests under way
_MOST_BYTES: Final = 32 << 20  # of all of them
_REMEMBERED: Final = 1024  # answered ones, to know a second answer
LATE: Final = 5.0  # seconds
_DEEPEST: Final = 60  # of a result that is recorded
_STEP: Final = 1e-6  # of our own words about progress: below any that the server counts


@dataclass(frozen=True, slots=True)
class Limits:
    """``call``: seconds for an answer. ``late``: the same once cancelled. ``body``: bytes of a result to record."""

    call: float = 600.0
    late: float = LATE
    body: int = 0


@dataclass(slots=True, eq=False)
class Under:
    """A request under way. ``decision``: what it was passed on under, None where nothing had to be decided.

    ``gone`` is set once nobody waits for its answer.
    """

    frame: Frame
    rule: Rule
    decision: Decision | None = None
    passed: bool = False
    answered: bool = False
    unanswered: bool = False
    timer: asyncio.TimerHandle | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for its answer any more."""
        return self.gone.is_set()


class Requests:
    """All of them, by id. ``listings``: of the server, for ``catalog``."""

    def __init__(self, between: Between, catalog: Catalog, listings: Listings, limits: Limits) -> None:
        self._name, self._client, self._server = between.name, between.client, between.server
        self._deciding, self._say, self._start = between.deciding, between.say, between.start
        self._catalog, self._listings, self._limits = catalog, listings, limits
        self._inputs = Inputs(between.name, between.deciding)
        self._under: dict[Id, Under] = {}
        self._answered: OrderedDict[Id, tuple[str, bool]] = OrderedDict()  # decision, and whether it had no answer

    async def take(self, frame: Frame, rule: Rule) -> None:
        """A request of the client's. Raises BadFrame where it is not passed on, whatever would be decided."""
        assert frame.id is not None
        if frame.id in self._under:
            raise BadFrame("its id is that of a request under way", id_text=frame.id_text)
        held = sum(len(under.frame.raw) for under in self._under.values())
        if len(self._under) >= _MOST or held > _MOST_BYTES:
            raise BadFrame("too many requests are under way", id_text=frame.id_text)
        under = self._under[frame.id] = Under(frame, rule)
        try:
            asking = None if rule.action is None else self._asking(frame, rule, rule.action)
        except BadFrame as bad:
            del self._under[frame.id]
            raise BadFrame(str(bad), bad.code, frame.id_text) from None
        if asking is None:
            await self._pass(under)
        else:
            self._start(self._decide(under, asking))

    def _asking(self, frame: Frame, rule: Rule, action: str) -> Asking:
        params = frame.params
        check_case(params)
        arguments = frame.params_text
        if rule is CALL:
            arguments = _arguments(frame)
        resource = rule.resource(self._name, params)
        return Asking(action, resource, arguments.encode(), frame.method, params, {})

    async def _decide(self, under: Under, asking: Asking) -> None:
        pin, decision = "pinned", None
        try:
            before = await self._pin(under)
            if before is not None:
                digest = {under.rule.pins.word: before.digest} if under.rule.pins and before.digest else {}
                asking = dataclasses.replace(asking, door={"pin": before.pin, **digest})
            decision = await self._deciding.permit(asking, Waiter(self._teller(under), under.gone))
            known = before is not None and before.pin == "unknown"  # another look would take as long
            now = before if known else await self._pin(under)  # it may have taken its time
            if now is not None:
                pin = now.pin if now == before else "changed" if now.pin == "pinned" else now.pin
        except Exception as error:  # whatever it is: without an ALLOW nothing is passed on
            if not isinstance(error, SidecarError):
                error = SidecarError(f"a defect of this gateway ({type(error).__name__})")
            if decision is not None:
                self._deciding.report(decision.decision_id, Status.BLOCKED, {"end": "not pinned", "pin": "unknown"})
            await self._close(under, verdicts.refusal(under.frame, self._name, error))
            return
        if pin not in ("pinned", "unlisted"):
            self._deciding.report(decision.decision_id, Status.BLOCKED, {"end": "not pinned", "pin": pin})
            assert under.rule.pins is not None
            await self._close(under, verdicts.unpinned(under.frame, self._name, under.rule.pins, decision, pin))
        elif under.cancelled:
            self._deciding.report(decision.decision_id, Status.BLOCKED, {"end": "cancelled before it was passed on"})
            await self._close(under, None)
        else:
            under.decision = decision
            await self._pass(under)

    async def _pin(self, under: Under) -> Listed | None:
        """How the server lists what this is about; None where that is nothing it lists."""
        kind = under.rule.pins
        if kind is None:
            return None
        listed = await self._catalog.find(kind, under.frame.params[kind.name], self._listings)
        return UNLISTED if kind is RESOURCE and listed.pin == "gone" else listed

    async def _pass(self, under: Under) -> None:
        under.passed = True
        if not under.rule.endless:
            under.timer = asyncio.get_running_loop().call_later(self._limits.call, self._late, under)
        try:
            await self._server.send(under.frame)
        except OSError:
            await self.fail(under, "the server is gone", "not sent")

    async def answer(self, frame: Frame) -> Under | None:
        """A response of the server's; gives the request where its answer is for others to finish (`finish`)."""
        assert frame.id is not None
        under = self._under.get(frame.id)
        if under is None or not under.passed:
            self._unasked(frame)
            return None
        if under.answered:  # that answer is still being looked at
            self._say(f"{self._name} answers twice; the second answer is dropped")
            return None
        under.answered = True
        if under.cancelled:
            await self.finish(under, frame, None)
        elif self._inputs.asks(frame):
            self._start(self._input(under, frame))
        elif under.rule.action is None or under.rule.lists is not None:
            return under
        else:
            await self.finish(under, frame, frame.raw)
        return None

    async def finish(self, under: Under, frame: Frame, message: bytes | None) -> None:
        """It is answered with ``message``, unless it was given up meanwhile."""
        if self._under.get(_key(under)) is not under:
            return
        await self._close(under, message)
        if under.decision is not None:
            end = "answered after it was cancelled" if under.cancelled else "answered"
            said = {"end": end, **await _outcome(frame, self._limits.body)}
            status = Status.FAILED if said["is_error"] else Status.EXECUTED
            self._deciding.report(under.decision.decision_id, status, said)

    async def _input(self, under: Under, frame: Frame) -> None:
        """The server wants something of the client before it goes on (2026-07-28): decided like any such request."""
        refused = await self._inputs.decide(frame)
        if refused is None:
            await self.finish(under, frame, frame.raw)
            return
        if self._under.get(_key(under)) is not under:
            return
        await self._close(under, verdicts.refusal(under.frame, self._name, refused))
        if under.decision is not None:
            self._deciding.report(
                under.decision.decision_id, Status.FAILED, {"end": "what the server asked for is refused"}
            )

    async def fail(self, under: Under, what: str, end: str, **more: Any) -> None:
        """It was passed on and gets no answer that can be handed back. ``end``: for the record."""
        if self._under.get(_key(under)) is not under:
            return
        under.unanswered = True
        answer = None if under.cancelled else verdicts.unanswered(under.frame, under.decision, what)
        await self._close(under, answer)
        if under.decision is not None:
            end = f"cancelled; {end}" if under.cancelled else end
            meant = under.cancelled and under.rule.endless  # how such a request ends
            self._deciding.report(
                under.decision.decision_id, Status.EXECUTED if meant else Status.FAILED, {"end": end, **more}
            )

    async def fail_id(self, key: Id, what: str, end: str, **more: Any) -> bool:
        """The same, by id; False where no such request was passed on."""
        under = self._under.get(key)
        if under is None or not under.passed:
            return False
        await self.fail(under, what, end, **more)
        return True

    async def fail_all(self, what: str, end: str) -> None:
        """The server is gone."""
        for under in list(self._under.values()):
            if under.passed:
                await self.fail(under, what, end)

    def settle(self) -> None:
        """The client is gone: what is still being decided is not passed on."""
        for under in self._under.values():
            if not under.passed:
                under.gone.set()

    def cancel(self, key: Id | None) -> bool:
        """The client does not wait any more. Whether the server must be told."""
        under = self._under.get(key) if key is not None else None
        if under is None or under.cancelled or under.frame.method == "initialize":
            return False
        under.gone.set()
        if not under.passed:
            return False
        self._timed(under, self._limits.late)
        return True

    def passed(self, key: Id | None) -> Frame | None:
        """The request of this id that was passed on."""
        under = self._under.get(key) if key is not None else None
        return under.frame if under is not None and under.passed else None

    def told_of(self, token: Any) -> Id | None:
        """The request that this progress is of; the first, where a client uses a token twice."""
        of = (key for key, under in self._under.items() if _same(_token(under.frame), token))
        return next(of, None) if isinstance(token, str | int) else None

    def _timed(self, under: Under, seconds: float) -> None:
        if under.timer is not None:
            under.timer.cancel()
        under.timer = asyncio.get_running_loop().call_later(seconds, self._late, under)

    def _late(self, under: Under) -> None:
        if under.cancelled:
            self._start(self.fail(under, "", "no answer"))
        else:
            self._start(self._give_up(under))

    async def _give_up(self, under: Under) -> None:
        what = f"none within {self._limits.call:g} s"
        await self.fail(under, what, "no answer in time")
        reason = {"requestId": under.frame.members["id"].value, "reason": what}
        try:
            await self._server.send(read(notification("notifications/cancelled", reason), strict=False))
            await self._server.forget(under.frame)
        except OSError:
            return

    async def _close(self, under: Under, message: bytes | None) -> None:
        if under.timer is not None:
            under.timer.cancel()
        key = _key(under)
        self._under.pop(key, None)
        if under.decision is not None:
            self._answered[key] = under.decision.decision_id, under.unanswered
            if len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
        if message is not None and not under.cancelled:
            await self._client.respond(key, message)

    def _unasked(self, frame: Frame) -> None:
        """A second answer goes nowhere; that there was one goes on record, beside the outcome that stands."""
        assert frame.id is not None
        if frame.id not in self._answered:
            self._say(f"{self._name} answers what nobody asked; dropped")
            return
        decision_id, unanswered = self._answered.pop(frame.id)
        how = "answered after its outcome was told" if unanswered else "answered twice"
        self._say(f"decision {decision_id}: {self._name} {how}; that answer is dropped")
        self._deciding.report(decision_id, Status.FAILED, {"end": how})

    def _teller(self, under: Under) -> Callable[[str], Coroutine[Any, Any, None]] | None:
        """Words about a wait, where the client asked for progress."""
        token = _token(under.frame)
        if token is None:
            return None
        steps = 0

        async def tell(words: str) -> None:
            nonlocal steps
            steps += 1
            said: Mapping[str, Any] = {"progressToken": token, "progress": steps * _STEP, "message": words}
            await self._client.send(notification("notifications/progress", said), under.frame.id)

        return tell


def _key(under: Under) -> Id:
    assert under.frame.id is not None
    return under.frame.id


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _token(frame: Frame) -> Any:
    """What a request wants to hear of its progress under; None: it does not."""
    meta = frame.params.get("_meta")
    return meta.get("progressToken") if isinstance(meta, dict) else None


def _arguments(frame: Frame) -> str:
    """The text of a call's arguments. BadFrame where they are no object."""
    given = members(frame.params_text).get("arguments")
    if given is None:
        return "{}"
    if not isinstance(given.value, dict):
        raise BadFrame("params: arguments must be an object", INVALID_PARAMS)
    return given.text


def _recordable(raw: bytes) -> bool:
    """Whether the ledger takes it: JSON may hold what RFC 7493 forbids."""
    try:
        strictjson.parse(raw, max_depth=_DEEPEST)
    except Malformed:
        return False
    return True


async def _outcome(frame: Frame, most: int) -> dict[str, Any]:
    """What is recorded of an answer: whether it is an error, its size and digest; itself where it is small enough."""
    failed = "error" in frame.members
    member = frame.members["error" if failed else "result"]
    raw = member.text.encode()
    digest = hashlib.sha256(raw) if len(raw) < 1 << 20 else await asyncio.to_thread(hashlib.sha256, raw)
    is_error = failed or (isinstance(member.value, dict) and member.value.get("isError") is True)
    kept = {"error" if failed else "result": member.value} if len(raw) <= most and _recordable(raw) else {}
    return {"is_error": is_error, "bytes": len(raw), "sha256": digest.hexdigest(), **kept}
