"""The door of PydanticAI: a capability that stands between an agent and all its tools.

    agent = Agent(model, tools=[…], capabilities=[GuardedTools(AsyncGuard("unix:…", agent="billing-agent", key=key))])

It wraps the toolset, within every hook of other capabilities, so nothing changes the arguments after they were judged.
MCP servers' tools that run here are among them, and what is added later. An agent that has tools which run at a
model's vendor ("native"), or functions as its output, is refused: those pass no door. Nor do tools that are carried out
outside of the run ("external"): their results come from whoever does that.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from pydantic_ai import RunContext, ToolFailed
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.capabilities.abstract import WrapOutputProcessHandler
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.output import OutputContext
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from sidecar.client import AsyncGuard
from sidecar.enforce.judged import judged
from sidecar.enforce.tools import TOOL_CALL, Action, Naming, Resource, Tools, check_guard, itself
from sidecar.errors import SidecarError, UsageError

KIND = "pydantic-ai"


@dataclass
class GuardedTools(AbstractCapability[Any]):
    """A capability for `Agent(capabilities=[…])`: a tool runs only on ALLOW; else the model is told why, in its result.

    ``action`` and ``resource``: what a call is called; ``wait``: seconds to wait where an approval is required, 0: the
    model is told how to have it, and makes the same call again.
    """

    guard: AsyncGuard = field(repr=False)
    _: KW_ONLY
    action: Action = TOOL_CALL
    resource: Resource = itself
    wait: float = 0.0

    def __post_init__(self) -> None:
        check_guard(self.guard, AsyncGuard)
        self._tools = Tools(KIND, Naming(self.action, self.resource, self.wait))

    def get_ordering(self) -> CapabilityOrdering:
        """Within all others."""
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """The agent's tools, guarded."""
        return _Guarded(toolset, self.guard, self._tools)

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """UsageError: the model was given a tool that runs at its vendor."""
        for tool in request_context.model_request_parameters.native_tools:
            raise UsageError(
                f"the tool {tool.kind} runs at the model's vendor, where it passes no door; give an agent none"
            )
        return request_context

    async def wrap_output_process(
        self, ctx: RunContext[Any], *, output_context: OutputContext, output: Any, handler: WrapOutputProcessHandler
    ) -> Any:
        """UsageError: the output is given to a function, which would run unasked."""
        if output_context.has_function:
            name = output_context.function_name or "of the output"
            raise UsageError(f"the function {name} would get the model's output unasked; make it a tool of the agent")
        return await handler(output)


@dataclass
class _Guarded(WrapperToolset[Any]):
    guard: AsyncGuard
    tools: Tools

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        try:
            validation = tool.args_validator
            text, arguments = judged(tool_args, lambda t: validation.validate_json(t, context=ctx.validation_context))
            decision = await self.tools.decide_async(self.guard, self.tools.question(name, text))
        except SidecarError as why:
            raise ToolFailed(self.tools.refusal(name, why)) from why
        async with self.guard.acting(decision):
            return await self.wrapped.call_tool(name, arguments, ctx, tool)
