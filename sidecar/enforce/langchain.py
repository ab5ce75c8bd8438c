"""The doors of LangChain and LangGraph: a middleware of agents, and a node that runs tools.

    agent = create_agent(model, tools, middleware=[…, GuardedTools(Guard("unix:…", agent="billing-agent", key=key))])
    node = tool_node(tools, guard)

A `Guard` serves `invoke` and `stream`, an `AsyncGuard` `ainvoke` and `astream`. The middleware is the last of the list:
what stands after it could change a call after it was judged, so then nothing runs. Tools of other middleware pass it as
any. An agent that has a tool which runs at a model's vendor is refused: that passes no door. What a node or a tool
calls by itself (`tool.invoke(…)`) passes none either: `Guard.guarded` is for that.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from sidecar.client import Ask, AsyncGuard, Guard
from sidecar.client.wire import encode_object
from sidecar.enforce.tools import TOOL_CALL, Action, Naming, Resource, Tools, itself
from sidecar.errors import RequestError, SidecarError, UsageError

Result = ToolMessage | Command[Any]

_RUNS: Final = "langgraph.prebuilt.tool_node"  # the module whose functions run a tool


class _Failed(Exception):
    """A tool raised, and its node has made a message of that."""

    def __init__(self, result: Result) -> None:
        self.result = result


class GuardedTools(AgentMiddleware[Any, Any, Any]):
    """A tool runs only on ALLOW; else the model is told why, in a message whose status is "error".

    ``action`` and ``resource``: what a call is called; ``wait``: seconds to wait where an approval is required, 0: the
    model is told how to have it, and makes the same call again.
    """

    def __init__(
        self, guard: Guard | AsyncGuard, *, action: Action = TOOL_CALL, resource: Resource = itself, wait: float = 0.0,
        kind: str = "langchain",
    ) -> None:  # fmt: skip
        super().__init__()
        self._guard = guard
        self._tools = Tools(kind, Naming(action, resource, wait))

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]) -> Result:
        """One call, from `invoke` or `stream`. UsageError: an AsyncGuard was given, or another middleware is last."""
        if not isinstance(self._guard, Guard):
            raise UsageError("invoke and stream take a Guard; an AsyncGuard is for ainvoke and astream")
        _check_last(handler)
        try:
            ask, judged = self._asked(request)
            decision = self._tools.decide(self._guard, ask)
        except SidecarError as why:
            return self._refused(request, why)
        try:
            with self._guard.acting(decision):
                return _succeeded(handler(judged))
        except _Failed as failed:
            return failed.result

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """One call, from `ainvoke` or `astream`. UsageError: a Guard was given, or another middleware is last."""
        if not isinstance(self._guard, AsyncGuard):
            raise UsageError("ainvoke and astream take an AsyncGuard; a Guard is for invoke and stream")
        _check_last(handler)
        try:
            ask, judged = self._asked(request)
            decision = await self._tools.decide_async(self._guard, ask)
        except SidecarError as why:
            return self._refused(request, why)
        try:
            async with self._guard.acting(decision):
                return _succeeded(await handler(judged))
        except _Failed as failed:
            return failed.result

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """UsageError: the model was given a tool that runs at its vendor."""
        _check_here(request)
        return handler(request)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """UsageError: the model was given a tool that runs at its vendor."""
        _check_here(request)
        return await handler(request)

    def _asked(self, request: ToolCallRequest) -> tuple[Ask, ToolCallRequest]:
        """The question, and the call with its arguments read from what is judged."""
        call = request.tool_call
        if request.tool is not None and request.tool.name != call["name"]:
            raise RequestError("tool", f"is {call['name']}, and {request.tool.name} would run")
        text = encode_object("arguments", call["args"])
        judged = request.override(tool_call={**call, "args": json.loads(text)})
        return self._tools.question(call["name"], text), judged

    def _refused(self, request: ToolCallRequest, why: Exception) -> ToolMessage:
        call = request.tool_call
        told = self._tools.refusal(call["name"], why)
        return ToolMessage(told, name=call["name"], tool_call_id=call["id"], status="error")


def tool_node(
    tools: Sequence[BaseTool | Callable[..., Any]], guard: Guard | AsyncGuard, *, action: Action = TOOL_CALL,
    resource: Resource = itself, wait: float = 0.0, **more: Any,
) -> ToolNode:  # fmt: skip
    """LangGraph's node that runs tools, guarded as by `GuardedTools`. ``more``: as for `ToolNode`."""
    door = GuardedTools(guard, action=action, resource=resource, wait=wait, kind="langgraph")
    return ToolNode(tools, wrap_tool_call=door.wrap_tool_call, awrap_tool_call=door.awrap_tool_call, **more)


def _check_last(handler: Callable[..., Any]) -> None:
    if handler.__module__ != _RUNS:
        raise UsageError("GuardedTools must be the last of the middleware, so that no other changes what was judged")


def _check_here(request: ModelRequest[Any]) -> None:
    for tool in request.tools:
        if not isinstance(tool, BaseTool):
            name = tool.get("name") or tool.get("type", "?")
            raise UsageError(f"the tool {name} runs at the model's vendor, where it passes no door; give an agent none")


def _succeeded(result: Result) -> Result:
    """The result of a tool that did not fail. A list where it returned several."""
    several = result if isinstance(result, list) else [result]
    if any(isinstance(each, ToolMessage) and each.status == "error" for each in several):
        raise _Failed(result)
    return result
