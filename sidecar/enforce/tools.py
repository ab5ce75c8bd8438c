"""A framework's call of a tool, asked about: what the doors of all frameworks share (DOORS.md, "Frameworks").

Rules: one question for each time that a tool would run. Refusals are `SidecarError` and told to the model in words;
what a tool itself raises goes on as its framework does it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sidecar.client import ApprovalRequired, Ask, AsyncGuard, Decision, Guard, NoDecision, NotApproved, Refused
from sidecar.enforce.words import told
from sidecar.errors import RequestError, UsageError

Action = str | Callable[[str, Mapping[str, Any]], str]
"""An action's name, or a function of the tool's name and its arguments that says it."""

Resource = Callable[[str, Mapping[str, Any]], tuple[str, str]]
"""What a call is done to, as type and id: a function of the tool's name and its arguments."""

TOOL_CALL: Final = "tool.call"
_LOOK: Final = 0.5  # seconds to see whether what was asked before is approved by now
_MOST_WAITING: Final = 256


def itself(tool: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
    """The tool as the resource."""
    return "tool", tool


def check_guard(given: object, kind: type[Guard] | type[AsyncGuard]) -> None:
    """UsageError for a guard of the other kind: its question would be decided, and its answer never seen."""
    if not isinstance(given, kind):
        raise UsageError(f"this door takes a guard of the kind {kind.__name__}, not {type(given).__name__}")


@dataclass(frozen=True, slots=True)
class Naming:
    """How calls are named in questions. ``wait``: seconds to wait for an approval; 0: the same call is made again."""

    action: Action = TOOL_CALL
    resource: Resource = itself
    wait: float = 0.0


class Tools:
    """The calls of one door; ``kind`` is its name. Serves many threads and tasks."""

    def __init__(self, kind: str, naming: Naming) -> None:
        self._kind, self._naming = kind, naming
        self._waiting: dict[tuple[object, ...], Decision] = {}
        self._lock = threading.Lock()

    def question(self, tool: str, arguments: bytes) -> Ask:
        """The question about one call. ``arguments``: the JSON text that the tool gets. RequestError: it is none."""
        try:
            read = json.loads(arguments)
        except (ValueError, RecursionError):
            read = None
        if not isinstance(read, dict):
            raise RequestError("arguments", "must be a JSON object")
        action = self._naming.action
        named = action if isinstance(action, str) else action(tool, read)
        door = {"kind": self._kind, "tool": tool}
        return Ask(named, self._naming.resource(tool, read), arguments, {"door": door})

    def refusal(self, tool: str, why: Exception) -> str:
        """What the model is told in the place of a result."""
        return told(f"the tool {tool}", "did not run", "this agent", why)

    def decide(self, guard: Guard, ask: Ask) -> Decision:
        """Leave to run the tool once, under `guard.acting`. Raises SidecarError where it must not run."""
        before = self._before(ask)
        if before is None:
            try:
                return guard.check(ask.action, ask.resource, ask.arguments, context=ask.context or {})
            except ApprovalRequired as required:
                before = self._required(ask, required)
        with self._settled(ask, before):
            return guard.wait_for_approval(before, max(self._naming.wait, _LOOK))

    async def decide_async(self, guard: AsyncGuard, ask: Ask) -> Decision:
        """As `decide`, for asyncio."""
        before = self._before(ask)
        if before is None:
            try:
                return await guard.check(ask.action, ask.resource, ask.arguments, context=ask.context or {})
            except ApprovalRequired as required:
                before = self._required(ask, required)
        with self._settled(ask, before):
            return await guard.wait_for_approval(before, max(self._naming.wait, _LOOK))

    def _before(self, ask: Ask) -> Decision | None:
        """The decision on this very call that waits for an approval; whoever gets it uses it up."""
        with self._lock:
            return self._waiting.pop(_key(ask), None)

    def _required(self, ask: Ask, required: ApprovalRequired) -> Decision:
        """The decision to wait for. Raises ApprovalRequired where nobody is to wait."""
        if self._naming.wait:
            return required.decision
        self._keep(ask, required.decision)
        raise required

    @contextmanager
    def _settled(self, ask: Ask, before: Decision) -> Iterator[None]:
        """A wait that ended without an answer is gone on with when the same call is made again. What was refused would
        be again: that call asks anew."""
        try:
            yield
        except BaseException as error:
            over = isinstance(error, Refused) or (isinstance(error, NoDecision) and error.cause == "refused")
            if not over or (isinstance(error, NotApproved) and error.state == "pending"):
                self._keep(ask, before)
            raise

    def _keep(self, ask: Ask, decision: Decision) -> None:
        with self._lock:
            while len(self._waiting) >= _MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[_key(ask)] = decision


def _key(ask: Ask) -> tuple[object, ...]:
    return ask.action, ask.resource, ask.arguments, repr(ask.context)
