"""The door of CrewAI: tools as an agent is given them, guarded.

    agent = Agent(role=…, tools=guarded([read_customer], Guard("unix:…", agent="billing-agent", key=key)))

Not CrewAI's `before_tool_call` hook: a hook that raises lets the call pass. A guarded tool is another tool, which asks
and then runs the first, whatever hooks there are. Its results are not kept in CrewAI's cache, which a crew's agents
share: whoever wants one asks. Tools that CrewAI gives an agent by itself (`mcps`, `apps`, delegation, memory, code)
pass no door;

    register_before_tool_call_hook(guarded_only)

blocks these, as long as nobody clears CrewAI's hooks.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterable
from typing import Any, Final

from crewai.tools import BaseTool
from crewai.tools.tool_failure import ToolFailure
from pydantic import PrivateAttr

from sidecar.client import ApprovalRequired, Guard, NotApproved
from sidecar.enforce.judged import judged
from sidecar.enforce.tools import TOOL_CALL, Action, Naming, Resource, Tools, check_guard, itself
from sidecar.errors import SidecarError

KIND: Final = "crewai"


def guarded(
    tools: Iterable[BaseTool], guard: Guard, *, action: Action = TOOL_CALL, resource: Resource = itself,
    wait: float = 0.0,
) -> list[BaseTool]:  # fmt: skip
    """The same tools; each runs only on ALLOW, else the model is told why, as a failure of the tool.

    ``action`` and ``resource``: what a call is called; ``wait``: seconds to wait where an approval is required, 0: the
    model is told how to have it, and makes the same call again.
    """
    check_guard(guard, Guard)
    asking = Tools(KIND, Naming(action, resource, wait))
    return [_of(tool, guard, asking, again=not wait) for tool in tools]


def guarded_only(context: Any) -> bool | None:
    """A hook before each call of a tool: False, which blocks it, where the tool is not guarded. Raises nothing."""
    try:
        return None if isinstance(context.tool._original_tool, _Guarded) else False
    except Exception:
        return False


class _NotYet(Exception):
    """Raised, since CrewAI lets no call be made again that has returned: it looks a few times more, then tells it."""


class _Guarded(BaseTool):
    _bare: BaseTool = PrivateAttr()
    _guard: Guard = PrivateAttr()
    _asking: Tools = PrivateAttr()
    _again: bool = PrivateAttr()

    def _run(self, **given: Any) -> Any:
        try:
            text, arguments = judged(given, self._read)
            decision = self._asking.decide(self._guard, self._asking.question(self.name, text))
        except SidecarError as why:
            told = self._asking.refusal(self.name, why)
            if self._again and _pending(why):
                raise _NotYet(told) from why
            return ToolFailure(message=told)
        with self._guard.acting(decision):
            result = self._bare._run(**arguments)
            return asyncio.run(result) if inspect.iscoroutine(result) else result

    async def _arun(self, **given: Any) -> Any:
        return await asyncio.to_thread(self._run, **given)

    def _read(self, text: bytes) -> dict[str, Any]:
        """As CrewAI reads a model's arguments."""
        if not self.args_schema.model_fields:
            read: dict[str, Any] = json.loads(text)
        else:
            read = self.args_schema.model_validate_json(text).model_dump()
        return read


def _pending(why: SidecarError) -> bool:
    return isinstance(why, ApprovalRequired) or (isinstance(why, NotApproved) and why.state == "pending")


def _of(tool: BaseTool, guard: Guard, asking: Tools, *, again: bool) -> _Guarded:
    fields = {name: getattr(tool, name) for name in BaseTool.model_fields}
    same = _Guarded(**{**fields, "cache_function": _never})
    same._bare, same._guard, same._asking, same._again = tool, guard, asking, again
    return same


def _never(*_: Any) -> bool:
    return False
