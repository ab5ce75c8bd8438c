"""The door of the OpenAI Agents SDK: tools as an agent is given them, guarded.

    agent = Agent("Billing", tools=guarded([read_customer, …], AsyncGuard("unix:…", agent="billing-agent", key=key)))

Not a guardrail: that is asked once, before approvals and hooks, and hears nothing of the end. A guarded tool asks when
it is about to run, with the very text that it is then run with.

    Runner.run(agent, "…", hooks=GuardedOnly())

refuses all else that an agent may have been given: tools that run at OpenAI ("hosted") or are added later, tools of
`Agent(mcp_servers=…)`, for which there is `sidecar mcp`, tools of an agent that is handed to, and handoffs that take
arguments. An agent that is a tool is a run of its own: `agent.as_tool(…, hooks=GuardedOnly())`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Final

from agents import Agent, FunctionTool, Handoff, RunHooks, Tool
from agents.tool import with_function_tool_failure_error_handler
from agents.tool_context import ToolContext

from sidecar.client import AsyncGuard
from sidecar.enforce.tools import TOOL_CALL, Action, Naming, Resource, Tools, check_guard, itself
from sidecar.errors import SidecarError, UsageError

KIND: Final = "openai-agents"
_MARK: Final = "_sidecar_guarded"  # an attribute of a guarded tool, which the SDK's copies have too


def guarded(
    tools: Iterable[Tool], guard: AsyncGuard, *, action: Action = TOOL_CALL, resource: Resource = itself,
    wait: float = 0.0,
) -> list[Tool]:  # fmt: skip
    """The same tools; each runs only on ALLOW, else the model is told why, as its result.

    ``action`` and ``resource``: what a call is called; ``wait``: seconds to wait where an approval is required, 0: the
    model is told how to have it, and makes the same call again. UsageError for a tool that is not run here.
    """
    check_guard(guard, AsyncGuard)
    asking = Tools(KIND, Naming(action, resource, wait))
    return [_guarded(tool, guard, asking) for tool in tools]


def _guarded(tool: Tool, guard: AsyncGuard, asking: Tools) -> FunctionTool:
    if not isinstance(tool, FunctionTool):
        raise UsageError(f"{type(tool).__name__} {tool.name}: cannot be guarded: it does not run here")
    bare = _raising(tool)

    async def ask_and_run(context: ToolContext[Any], text: str) -> Any:
        text = text or "{}"  # what the SDK makes of it
        try:
            decision = await asking.decide_async(guard, asking.question(tool.name, text.encode(errors="surrogatepass")))
        except SidecarError as why:
            return asking.refusal(tool.name, why)
        async with guard.acting(decision):
            return await bare.on_invoke_tool(context, text)

    if prepare := getattr(tool.on_invoke_tool, "prepare_arguments", None):  # by which the SDK's own approvals look
        ask_and_run.__agents_prepare_arguments__ = prepare  # type: ignore[attr-defined]
    same = copy.copy(tool)
    handling = with_function_tool_failure_error_handler(ask_and_run, lambda *_: None)
    same.on_invoke_tool = handling.__agents_bind_function_tool__(same)  # type: ignore[attr-defined]
    setattr(same, _MARK, True)
    return same


class GuardedOnly(RunHooks[Any]):
    """Hooks of a run: it ends with UsageError before what is not guarded is shown to a model, or runs here."""

    async def on_llm_start(self, context: Any, agent: Agent[Any], *_: Any) -> None:
        """Before each question to a model."""
        for tool in agent.tools:
            _check_guarded(tool)
        for server in agent.mcp_servers:
            raise UsageError(f"the MCP server {server.name}: its tools pass no door; `sidecar mcp` is for that")
        for handoff in agent.handoffs:
            if isinstance(handoff, Handoff) and _takes_arguments(handoff):
                raise UsageError(f"{handoff.tool_name} hands arguments to a function, which would run unasked")

    async def on_tool_start(self, context: Any, agent: Any, tool: Tool) -> None:
        """Before each run of a tool. The SDK makes a UserError of it."""
        _check_guarded(tool)


def _takes_arguments(handoff: Handoff[Any, Any]) -> bool:
    schema = handoff.input_json_schema
    return bool(schema) and (schema.get("type") != "object" or bool(schema.get("properties")))


def _check_guarded(tool: Tool) -> None:
    if not getattr(tool, _MARK, False):
        raise UsageError(f"the tool {tool.name} is not guarded: it passes no door")


def _raising(tool: FunctionTool) -> FunctionTool:
    """The tool, which raises what goes wrong: the SDK makes a text of it within the tool, unseen from outside."""
    bare = copy.copy(tool)
    if not hasattr(bare, "_failure_error_function") or not hasattr(bare, "_use_default_failure_error_function"):
        raise UsageError("this version of the OpenAI Agents SDK is not known; failures could not be told from results")
    bare._failure_error_function = None
    bare._use_default_failure_error_function = False
    return bare
