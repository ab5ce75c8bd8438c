"""The frameworks as an agent uses them, each with a model that calls what a test says, turn by turn, and then ends.

A door returns what the model was told, in the order of the calls. ``how``: "sync", "async", "stream" or "astream".
``turns``: what is called at once in each turn; a generator acts between two of them. Streamed arguments come in pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.client import AgentKey, AsyncGuard, Guard
from tests.people import key

AGENT = "billing-agent"
Call = tuple[str, dict[str, Any]]
Turns = Iterable[Sequence[Call]]


@dataclass(frozen=True)
class Desk:
    """Where the sidecar is, and where tools write. ``options``: the door's."""

    address: str
    place: Path
    timeout: float = 30.0
    attempts: int = 4

    def guard(self) -> Guard:
        return Guard(self.address, agent=AGENT, key=AgentKey(key(AGENT)), timeout=self.timeout, attempts=self.attempts)

    def async_guard(self) -> AsyncGuard:
        how: dict[str, Any] = {"timeout": self.timeout, "attempts": self.attempts}
        return AsyncGuard(self.address, agent=AGENT, key=AgentKey(key(AGENT)), **how)

    def tools(self) -> tuple[Callable[..., Any], ...]:
        """``write`` leaves a file and ends, ``fail`` leaves one and raises; ``awrite`` is a coroutine function."""

        def write(name: str) -> str:
            """Write a file."""
            self.run(name)
            return f"wrote {name}"

        async def awrite(name: str) -> str:
            """Write a file."""
            return write(name)

        def fail(name: str) -> str:
            """Write a file and break."""
            write(name)
            raise ValueError("broke after writing")

        return write, awrite, fail

    def run(self, name: str) -> None:
        """What each run of a tool leaves behind: one byte more."""
        with (self.place / name).open("a") as file:
            file.write(".")

    def runs(self, name: str) -> int:
        return (self.place / name).stat().st_size if (self.place / name).exists() else 0

    def wrote(self) -> list[str]:
        return sorted(path.name for path in self.place.iterdir())


Run = Callable[..., list[str]]


def _pieces(arguments: dict[str, Any]) -> list[str]:
    text = json.dumps(arguments)
    return [text[at : at + 5] for at in range(0, len(text), 5)]


class Script:
    """What the model does next: calls, each with an id in order; None: it ends."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self._made = iter(turns), 0

    def next(self) -> list[tuple[str, dict[str, Any], str]] | None:
        turn = next(self._turns, None)
        if turn is None:
            return None
        self._made += 100
        return [(tool, arguments, str(self._made + n)) for n, (tool, arguments) in enumerate(turn)]


@contextlib.contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop for what a framework runs by itself."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield loop
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


# --- PydanticAI


def pydantic_ai(
    desk: Desk, turns: Turns, how: str, *, capabilities: Any = (), tools: Any = None, agent: Any = None, **options: Any
) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import DeltaToolCall, FunctionModel

    from sidecar.enforce.pydantic_ai import GuardedTools

    script = Script(turns)

    def say(messages: list[Any], info: Any) -> ModelResponse:
        if (calls := script.next()) is None:
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart(tool, given, tool_call_id=name) for tool, given, name in calls])

    async def stream(messages: list[Any], info: Any) -> AsyncIterator[Any]:
        if (calls := script.next()) is None:
            yield "done"
        for n, (tool, given, name) in enumerate(calls or ()):
            yield {n: DeltaToolCall(tool, "", tool_call_id=name)}
            for piece in _pieces(given):
                yield {n: DeltaToolCall(json_args=piece)}

    def told(result: Any) -> list[str]:
        parts = [part for message in result.all_messages() for part in message.parts]
        said = [part for part in parts if isinstance(part, ToolReturnPart | RetryPromptPart)]
        return [str(part.content) for part in sorted(said, key=lambda part: part.tool_call_id)]

    def made(guard: AsyncGuard) -> Any:
        model = FunctionModel(say, stream_function=stream)
        door = [GuardedTools(guard, **options), *capabilities]
        return Agent(model, tools=tools or desk.tools(), capabilities=door, **(agent or {}))

    async def run() -> list[str]:
        async with desk.async_guard() as guard:
            if how == "async":
                return told(await made(guard).run("go"))
            async with made(guard).run_stream("go") as streamed:
                await streamed.get_output()
                return told(streamed)

    if how != "sync":
        return asyncio.run(run())
    with _loop() as loop:
        guard = desk.async_guard()
        try:
            return told(made(guard).run_sync("go"))
        finally:
            loop.run_until_complete(guard.close())


# --- LangChain and LangGraph


def _said(messages: Sequence[Any]) -> list[str]:
    from langchain_core.messages import ToolMessage

    said = [message for message in messages if isinstance(message, ToolMessage)]
    return [str(message.content) for message in sorted(said, key=lambda message: message.tool_call_id)]


def _messages(turns: Turns) -> Iterator[Any]:
    from langchain_core.messages import AIMessage

    script = Script(turns)
    while (calls := script.next()) is not None:
        made = [{"name": tool, "args": given, "id": name, "type": "tool_call"} for tool, given, name in calls]
        yield AIMessage("", tool_calls=made)
    yield AIMessage("done")


def _driven(desk: Desk, build: Callable[[Any], Any], how: str) -> list[str]:
    """A graph, run to its end."""
    start = {"messages": [{"role": "user", "content": "go"}]}

    modes: Any = ["messages", "values"]

    async def run() -> list[str]:
        async with desk.async_guard() as guard:
            if how == "async":
                return _said((await build(guard).ainvoke(start))["messages"])
            values = [value async for mode, value in build(guard).astream(start, stream_mode=modes) if mode == "values"]
            return _said(values[-1]["messages"])

    if how in ("async", "astream"):
        return asyncio.run(run())
    with desk.guard() as guard:
        if how == "sync":
            return _said(build(guard).invoke(start)["messages"])
        values = [value for mode, value in build(guard).stream(start, stream_mode=modes) if mode == "values"]
        return _said(values[-1]["messages"])


def langchain_model(turns: Turns) -> Any:
    """LangChain's model for tests, which takes tools, and streams its calls."""
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessageChunk
    from langchain_core.outputs import ChatGenerationChunk

    class Model(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **_: Any) -> Any:
            return self

        def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
            message: Any = next(self.messages)
            yield ChatGenerationChunk(message=AIMessageChunk(message.content))
            for n, call in enumerate(message.tool_calls):
                named: Any = {"name": call["name"], "id": call["id"], "args": "", "index": n}
                for part in [
                    named,
                    *({"name": None, "id": None, "args": p, "index": n} for p in _pieces(call["args"])),
                ]:
                    yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[part]))

    return Model(messages=_messages(turns))


def langchain(
    desk: Desk, turns: Turns, how: str, *, before: Any = (), after: Any = (), tools: Any = None, **options: Any
) -> Any:
    from langchain.agents import create_agent

    from sidecar.enforce.langchain import GuardedTools

    def build(guard: Any) -> Any:
        write, awrite, fail = desk.tools()
        given = tools or [write, fail, *([awrite] if isinstance(guard, AsyncGuard) else [])]
        return create_agent(langchain_model(turns), given, middleware=[*before, GuardedTools(guard, **options), *after])

    return _driven(desk, build, how)


def langgraph(desk: Desk, turns: Turns, how: str, *, retry: Any = None, tools: Any = None, **options: Any) -> Any:
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import tools_condition

    from sidecar.enforce.langchain import tool_node

    said = _messages(turns)

    def build(guard: Any) -> Any:
        write, awrite, fail = desk.tools()
        given = tools or [write, fail, *([awrite] if isinstance(guard, AsyncGuard) else [])]
        graph = StateGraph(MessagesState)
        graph.add_node("model", lambda _: {"messages": [next(said)]})
        graph.add_node("tools", tool_node(given, guard, **options), retry_policy=retry)
        graph.add_edge(START, "model")
        graph.add_conditional_edges("model", tools_condition)
        graph.add_edge("tools", "model")
        return graph.compile()

    return _driven(desk, build, how)


# --- OpenAI Agents


def openai_agents(
    desk: Desk, turns: Turns, how: str, *, raising: bool = False, tools: Any = None, **options: Any
) -> Any:
    from agents import Agent, RunConfig, Runner, function_tool
    from agents.testing import ScriptedModel, assistant_message, function_call

    from sidecar.enforce.openai_agents import guarded

    def told(result: Any) -> list[str]:
        said = [item.raw_item for item in result.new_items if item.type == "tool_call_output_item"]
        return [str(raw["output"]) for raw in sorted(said, key=lambda raw: raw["call_id"])]

    def steps() -> Iterator[Any]:
        script = Script(turns)
        while (calls := script.next()) is not None:
            yield [function_call(tool, given, call_id=name) for tool, given, name in calls]
        yield [assistant_message("done")]

    said = steps()

    class Model(ScriptedModel):
        async def get_response(self, *given: Any, **named: Any) -> Any:
            self.enqueue(next(said))
            return await super().get_response(*given, **named)

        def stream_response(self, *given: Any, **named: Any) -> Any:
            self.enqueue(next(said))
            return super().stream_response(*given, **named)

    def agent(guard: AsyncGuard) -> Any:
        how_fails = {"failure_error_function": None} if raising else {}
        plain: Any = [function_tool(tool, **how_fails) for tool in tools or desk.tools()]  # type: ignore[call-overload]
        return Agent("billing", model=Model(), tools=guarded(plain, guard, **options))

    quiet = RunConfig(tracing_disabled=True)

    async def run() -> list[str]:
        async with desk.async_guard() as guard:
            if how == "async":
                return told(await Runner.run(agent(guard), "go", run_config=quiet))
            streamed = Runner.run_streamed(agent(guard), "go", run_config=quiet)
            async for _ in streamed.stream_events():
                pass
            return told(streamed)

    if how != "sync":
        return asyncio.run(run())
    with _loop() as loop:
        guard = desk.async_guard()
        try:
            return told(Runner.run_sync(agent(guard), "go", run_config=quiet))
        finally:
            loop.run_until_complete(guard.close())


DOORS: dict[str, Run] = {
    "pydantic-ai": pydantic_ai,
    "langchain": langchain,
    "langgraph": langgraph,
    "openai-agents": openai_agents,
}
