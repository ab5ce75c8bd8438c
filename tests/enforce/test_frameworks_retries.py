"""What is tried again, broken off or cancelled, and answers that are lost: each run has a decision and an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.enforce.frameworks.between import Between
from tests.enforce.frameworks.doors import DOORS, Call, Desk, langgraph, pydantic_ai
from tests.enforce.frameworks.place import AMPLE, Place, placed
from tests.program import sidecar

WAYS = [(kind, how) for kind in DOORS for how in ("sync", "async")]


def breaking(desk: Desk, error: Callable[[], BaseException]) -> Callable[..., str]:
    """A tool that breaks after its first run."""

    def write(name: str) -> str:
        """Write a file."""
        desk.run(name)
        if desk.runs(name) == 1:
            raise error()
        return f"wrote {name}"

    return write


def tried_again(kind: str, desk: Desk, name: str, how: str, **options: Any) -> list[str]:
    """The framework's own way of trying again: by itself, or by having its model call again."""
    from langchain.agents.middleware import ToolRetryMiddleware
    from langgraph.types import RetryPolicy
    from pydantic_ai import ModelRetry

    call: Call = ("write", {"name": name})
    error = (lambda: ModelRetry("once more")) if kind == "pydantic-ai" else (lambda: ValueError("broke"))
    by_itself = {
        "langchain": {"before": [ToolRetryMiddleware(max_retries=3, initial_delay=0.0, on_failure="error")]},
        "langgraph": {"retry": RetryPolicy(initial_interval=0.0, max_attempts=4, retry_on=ValueError)},
    }
    turns = [[call]] if kind in by_itself else [[call], [call]]
    more = {**by_itself.get(kind, {}), **options}
    said: list[str] = DOORS[kind](desk, turns, how, tools=[breaking(desk, error)], **more)
    return said


@pytest.mark.parametrize(("kind", "how"), WAYS)
def test_a_retried_tool_is_decided_on_again(place: Place, desk: Desk, kind: str, how: str) -> None:
    name = f"again-{kind}-{how}"
    assert tried_again(kind, desk, name, how)[-1] == f"wrote {name}"
    assert desk.runs(name) == 2
    assert place.of(name) == [(kind, "ALLOW", "FAILED"), (kind, "ALLOW", "EXECUTED")]


@pytest.mark.parametrize(("kind", "how"), WAYS)
def test_a_retry_that_is_denied_does_not_run_and_is_not_tried_into_an_allow(
    place: Place, desk: Desk, kind: str, how: str
) -> None:
    name = f"denied-{kind}-{how}"

    def action(tool: str, arguments: Mapping[str, Any]) -> str:
        return "tool.call" if not desk.runs(name) else "tool.call.again"  # no rule grants this

    assert "is denied" in tried_again(kind, desk, name, how, action=action)[-1]
    assert desk.runs(name) == 1
    assert place.of(name) == [(kind, "ALLOW", "FAILED"), (kind, "DENY", "")]


def test_a_node_of_langgraph_that_is_run_again_does_not_run_what_was_approved_once(place: Place, desk: Desk) -> None:
    from langgraph.types import RetryPolicy

    write, _, _ = desk.tools()
    broken = breaking(desk, lambda: ValueError("broke"))
    broken.__name__ = "flaky"

    def turns() -> Iterator[list[Call]]:
        yield [("write", {"name": "ask-node"})]
        place.speak("ask-node")
        yield [("write", {"name": "ask-node"}), ("flaky", {"name": "node"})]

    told = langgraph(
        desk, turns(), "sync", tools=[write, broken], retry=RetryPolicy(initial_interval=0.0, retry_on=ValueError)
    )
    assert "needs an approval" in told[0] and "needs an approval" in told[1] and told[2] == "wrote node"
    assert (desk.runs("ask-node"), desk.runs("node")) == (1, 2)
    required = ("langgraph", "REQUIRE_APPROVAL", "")
    assert place.of("ask-node") == [required, ("langgraph", "ALLOW", "EXECUTED"), required]


@pytest.mark.parametrize("kind", DOORS)
def test_of_calls_made_at_once_under_one_approval_one_runs(place: Place, desk: Desk, kind: str) -> None:
    name = f"ask-twice-{kind}"

    def turns() -> Iterator[list[Call]]:
        yield [("write", {"name": name})]
        place.speak(name)
        yield [("write", {"name": name})] * 2

    told = DOORS[kind](desk, turns(), "async")
    assert sorted(each == f"wrote {name}" for each in told) == [False, False, True]
    assert desk.runs(name) == 1
    assert [each[1] for each in place.of(name)].count("ALLOW") == 1


@pytest.mark.parametrize("how", ["sync", "async"])
def test_an_agent_of_langchain_that_is_run_again_or_in_a_batch_asks_for_each_run(
    place: Place, desk: Desk, how: str
) -> None:
    from langchain.agents import create_agent

    from sidecar.enforce.langchain import GuardedTools

    write, _, fail = desk.tools()
    names = [f"{what}-{how}" for what in ("batch-1", "forbidden-batch", "batch-2")]

    def agent(guard: Any, tool: str) -> Any:
        return create_agent(obedient(tool), [write, fail], middleware=[GuardedTools(guard)])

    def again(guard: Any) -> Any:
        return agent(guard, "fail").with_retry(stop_after_attempt=2, wait_exponential_jitter=False)

    async def asynchronous() -> None:
        async with desk.async_guard() as guard:
            with pytest.raises(ValueError, match="broke"):
                await again(guard).ainvoke(said(f"whole-{how}"))
            await agent(guard, "write").abatch([said(name) for name in names])

    if how == "async":
        asyncio.run(asynchronous())
    else:
        with desk.guard() as guard:
            with pytest.raises(ValueError, match="broke"):
                again(guard).invoke(said(f"whole-{how}"))
            agent(guard, "write").batch([said(name) for name in names])
    assert desk.runs(f"whole-{how}") == 2
    assert place.of(f"whole-{how}") == [("langchain", "ALLOW", "FAILED")] * 2
    assert [desk.runs(name) for name in names] == [1, 0, 1]
    assert place.of(names[0]) == place.of(names[2]) == [("langchain", "ALLOW", "EXECUTED")]


def said(name: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": name}]}


def obedient(tool: str) -> Any:
    """A model that calls the tool with what its user says, however many speak at once."""
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    class Obedient(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "obedient"

        def bind_tools(self, tools: Any, **_: Any) -> Any:
            return self

        def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
            told = messages[-1]
            call = {"name": tool, "args": {"name": told.content}, "id": "1", "type": "tool_call"}
            answer = AIMessage("", tool_calls=[call] if told.type == "human" else [])
            return ChatResult(generations=[ChatGeneration(message=answer)])

    return Obedient()


class Halt(BaseException):
    """Not an Exception: what handles errors does not handle it."""


@pytest.mark.parametrize(("kind", "how"), WAYS)
def test_a_tool_that_is_broken_off_has_failed(place: Place, desk: Desk, kind: str, how: str) -> None:
    name = f"halt-{kind}-{how}"
    with pytest.raises(BaseException, match="stop"):
        DOORS[kind](desk, [[("write", {"name": name})]], how, tools=[breaking(desk, lambda: Halt("stop"))])
    assert desk.runs(name) == 1
    assert place.of(name) == [(kind, "ALLOW", "FAILED")]


@pytest.mark.parametrize("kind", DOORS)
def test_a_run_that_is_cancelled_in_a_tool_has_failed(place: Place, desk: Desk, kind: str) -> None:
    async def hang(name: str) -> str:
        """Write a file and never end."""
        desk.run(name)
        for task in asyncio.all_tasks():
            made: Any = task.get_coro()
            if made.cr_code.co_filename.endswith("doors.py"):  # the whole run
                task.cancel()
        await asyncio.Event().wait()
        return "never"

    with pytest.raises(asyncio.CancelledError):
        DOORS[kind](desk, [[("hang", {"name": f"cancelled-{kind}"})]], "async", tools=[hang])
    assert desk.runs(f"cancelled-{kind}") == 1
    assert place.of(f"cancelled-{kind}") == [(kind, "ALLOW", "FAILED")]


def test_a_tool_that_pydantic_ai_gives_up_on_has_failed(place: Place, desk: Desk) -> None:
    """Its time begins when the tool does; where the SDK of OpenAI gives up, it cancels as above."""
    from pydantic_ai import Tool

    async def hang(name: str) -> str:
        """Write a file and never end."""
        desk.run(name)
        await asyncio.Event().wait()
        return "never"

    (told,) = pydantic_ai(desk, [[("hang", {"name": "late"})]], "async", tools=[Tool(hang, timeout=0.2)])
    assert "Timed out" in told
    assert place.of("late") == [("pydantic-ai", "ALLOW", "FAILED")]


def test_an_answer_lost_is_asked_for_again_and_from_a_killed_sidecar_nothing_runs(tmp_path: Path) -> None:
    """All doors at once: each has asked, each was allowed as the ledger says, and none has heard of it."""
    (tmp_path / "work").mkdir()
    with placed(tmp_path) as place, Between(tmp_path / "between.sock", place.server.socket) as between:
        desk = Desk(between.address, tmp_path / "work", timeout=AMPLE)
        with unheard(place, between, desk, "lost") as runs:
            assert not [name for name in desk.wrote() if name.startswith("lost")]
            between.lose()
        for (kind, how), run in runs.items():
            assert run.result()[1] == f"wrote lost-{kind}-{how}" and desk.runs(f"lost-{kind}-{how}") == 1
            assert place.of(f"lost-{kind}-{how}") == [(kind, "ALLOW", "EXECUTED")]
        with unheard(place, between, replace(desk, attempts=1), "killed") as runs:
            place.server.stop(signal.SIGKILL)
            between.lose()
        for (kind, how), run in runs.items():
            assert "did not run, because no decision was given" in run.result()[1]
            assert desk.runs(f"killed-{kind}-{how}") == 0
            assert place.of(f"killed-{kind}-{how}") == [(kind, "ALLOW", "")]
        report = json.loads(sidecar("verify", place.ledger, "--custodian-key", place.auditor, "--json").stdout)
        assert report["verdict"] == "UNANCHORED", report["findings"]


@contextlib.contextmanager
def unheard(
    place: Place, between: Between, desk: Desk, what: str
) -> Iterator[dict[tuple[str, str], Future[list[str]]]]:
    """Every door's run at the point where it was decided and has not heard of that; at the end all have ended."""
    all_ready = threading.Barrier(len(WAYS), between.hold)

    def turns(kind: str, how: str) -> Iterator[list[Call]]:
        yield [("write", {"name": f"before-{what}-{kind}-{how}"})]
        all_ready.wait(AMPLE)
        yield [("write", {"name": f"{what}-{kind}-{how}"})]

    with ThreadPoolExecutor(len(WAYS)) as threads:
        runs = {(kind, how): threads.submit(DOORS[kind], desk, turns(kind, how), how) for kind, how in WAYS}
        place.until_asked(*(f"{what}-{kind}-{how}" for kind, how in WAYS))
        yield runs
