"""Agents of four frameworks before one sidecar: what was decided is what happens, as the files show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from sidecar.client import Denied
from sidecar.errors import UsageError
from tests.enforce.frameworks.doors import AGENT, DOORS, Call, Desk, langchain, langgraph, openai_agents, pydantic_ai
from tests.enforce.frameworks.place import AMPLE, Place, placed
from tests.policy.processes import stop
from tests.program import sidecar

WAYS = [(kind, how) for kind in DOORS for how in ("sync", "async", "stream")]
WAYS += [("langchain", "astream"), ("langgraph", "astream")]
ID = r"Decision [0-9a-f-]{36}, policy sha256:[0-9a-f]{64}"


def name_of(what: str, *about: str) -> str:
    """A name that no other test uses: the ledger is one."""
    return "-".join([what, *about])


def write(name: str) -> Call:
    return "write", {"name": name}


@pytest.mark.parametrize(("kind", "how"), WAYS)
def test_of_calls_made_at_once_only_those_that_are_allowed_run(place: Place, desk: Desk, kind: str, how: str) -> None:
    names = [name_of(what, kind, how) for what in ("one", "forbidden", "two")]
    told = DOORS[kind](desk, [[write(name) for name in names]], how)
    assert told[0] == f"wrote {names[0]}" and told[2] == f"wrote {names[2]}"
    refused = f"Not done: the tool write is denied: no rule allows this \\(not_granted\\)\\. .*{ID}"
    assert re.match(refused, told[1]), told[1]
    assert desk.wrote() == sorted([names[0], names[2]])
    assert [place.of(name) for name in names] == [
        [(kind, "ALLOW", "EXECUTED")],
        [(kind, "DENY", "")],
        [(kind, "ALLOW", "EXECUTED")],
    ]


@pytest.mark.parametrize("kind", DOORS)
def test_a_coroutine_function_is_a_tool_as_any(place: Place, desk: Desk, kind: str) -> None:
    calls = [("awrite", {"name": name_of(what, kind, "awaited")}) for what in ("one", "forbidden")]
    told = DOORS[kind](desk, [calls], "async")
    assert told[0].startswith("wrote") and "is denied" in told[1]
    assert desk.wrote() == [name_of("one", kind, "awaited")]


@pytest.mark.parametrize(("kind", "how"), WAYS)
def test_a_tool_that_raises_has_failed_and_its_framework_goes_on_as_ever(
    place: Place, desk: Desk, kind: str, how: str
) -> None:
    name = name_of("broken", kind, how)
    calls = [("fail", {"name": name})]
    if kind == "openai-agents":  # its default is to tell the model
        assert "An error occurred while running the tool" in DOORS[kind](desk, [calls], how)[0]
    else:
        with pytest.raises(ValueError, match="broke after writing"):
            DOORS[kind](desk, [calls], how)
    assert desk.wrote() == [name]
    assert place.of(name) == [(kind, "ALLOW", "FAILED")]


def test_where_a_framework_is_set_to_do_otherwise_it_does(place: Place, desk: Desk) -> None:
    with pytest.raises(Exception, match="broke after writing"):
        openai_agents(desk, [[("fail", {"name": "raising"})]], "async", raising=True)
    assert place.of("raising") == [("openai-agents", "ALLOW", "FAILED")]
    (told,) = langgraph(desk, [[("fail", {"name": "handled"})]], "sync", handle_tool_errors=True)
    assert "broke after writing" in told
    (told,) = langgraph(desk, [[("fail", {"name": "handled"})]], "async", handle_tool_errors=True)
    assert "broke after writing" in told
    assert place.of("handled") == [("langgraph", "ALLOW", "FAILED")] * 2


@pytest.mark.parametrize("kind", DOORS)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_once_it_is_approved_the_same_call_is_made_again_and_runs_once(
    place: Place, desk: Desk, kind: str, how: str
) -> None:
    name = name_of("ask", kind, how)
    approved: list[str] = []

    def turns() -> Iterator[list[Call]]:
        yield [write(name)]
        assert desk.wrote() == []
        yield [write(name), write(name_of("ask", kind, how, "other"))]  # nobody has come yet
        assert desk.wrote() == []
        approved.append(place.speak(name))
        yield [write(name)]
        assert desk.wrote() == [name]
        (desk.place / name).unlink()
        yield [write(name)]  # an approval is for one run

    told = DOORS[kind](desk, turns(), how)
    assert "Not done yet: the tool write needs an approval: a person decides (asks). Ask an approver" in told[0]
    assert f"`sidecar approvals approve {approved[0]}`" in told[0]
    assert "still waits for its approval" in told[1] and "needs an approval" in told[2]
    assert told[3] == f"wrote {name}" and "needs an approval" in told[4]
    assert desk.wrote() == []
    required, allowed = (kind, "REQUIRE_APPROVAL", ""), (kind, "ALLOW", "EXECUTED")
    assert place.of(name) == [required, allowed, required]


@pytest.mark.parametrize("kind", DOORS)
@pytest.mark.parametrize(("how", "verdict"), [("sync", "approve"), ("async", "reject")])
def test_a_door_that_waits_hears_the_approvers_word(
    place: Place, desk: Desk, kind: str, how: str, verdict: str
) -> None:
    name = name_of("ask", kind, how, verdict)
    with ThreadPoolExecutor(1) as other:
        run = other.submit(DOORS[kind], desk, [[write(name)]], how, wait=AMPLE)
        place.spoken(name, verdict)
        (told,) = run.result(AMPLE)
    if verdict == "approve":
        assert (told, desk.wrote()) == (f"wrote {name}", [name])
    else:
        assert "Not done: the tool write was rejected" in told and desk.wrote() == []


@pytest.mark.parametrize("kind", DOORS)
def test_an_allow_on_a_condition_that_nobody_here_meets_is_none(place: Place, desk: Desk, kind: str) -> None:
    name = name_of("obliged", kind)
    (told,) = DOORS[kind](desk, [[write(name)]], "async")
    assert "is allowed only on a condition that this agent cannot meet" in told and desk.wrote() == []
    assert place.of(name) == [(kind, "ALLOW", "BLOCKED")]


def test_what_a_call_is_called_is_the_users_to_say(place: Place, desk: Desk) -> None:
    for kind, door in DOORS.items():
        resource = lambda tool, arguments: ("customer", arguments["name"])  # noqa: E731
        told = door(desk, [[write(name_of("named", kind))]], "async", action=lambda *_: "crm.read", resource=resource)
        assert told == [f"wrote {name_of('named', kind)}"]
    asked = [each["request"] for each in place.entries("DECISION") if each["request"]["action"] == "crm.read"]
    assert [each["resource"] for each in asked] == [{"type": "customer", "id": name_of("named", k)} for k in DOORS]


@pytest.mark.parametrize("kind", DOORS)
def test_a_door_whose_own_code_fails_lets_nothing_run(desk: Desk, kind: str) -> None:
    def broken(tool: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
        raise ZeroDivisionError("a mapping with a fault")

    with contextlib.suppress(Exception):  # how it is told is the framework's affair
        DOORS[kind](desk, [[write("never")]], "async", resource=broken)
    assert desk.wrote() == []


@pytest.mark.parametrize("kind", ["langchain", "langgraph"])
def test_arguments_that_json_cannot_hold_are_not_run(desk: Desk, kind: str) -> None:
    (told,) = DOORS[kind](desk, [[write("lone \ud800 surrogate")]], "async")
    assert "it cannot be decided: arguments: cannot be written as JSON" in told and desk.wrote() == []


def test_values_of_pydantic_ai_run_as_they_were_judged_or_not_at_all(place: Place, desk: Desk) -> None:
    def on(day: date, name: str) -> str:
        """Write a day."""
        (desk.place / name).write_text(f"{day:%d.%m.%Y}")
        return "on"

    def twice(name: Annotated[str, AfterValidator(lambda text: text * 2)]) -> str:
        """Read from its own JSON it is another."""
        (desk.place / name).write_text("")
        return "twice"

    calls = [("on", {"day": "2026-11-26", "name": "day"}), ("twice", {"name": "ab"})]
    told = pydantic_ai(desk, [calls], "async", tools=[on, twice])
    assert told[0] == "on" and (desk.place / "day").read_text() == "26.11.2026"
    assert "read back from JSON they are others" in told[1] and desk.wrote() == ["day"]
    (asked,) = place.asked("day")
    assert json.loads(asked["request"]["arguments"]) == {"day": "2026-11-26", "name": "day"}


def test_a_hook_of_pydantic_ai_that_changes_arguments_is_judged_by_what_it_made_of_them(
    place: Place, desk: Desk
) -> None:
    from pydantic_ai.capabilities import Hooks

    async def change(ctx: Any, *, call: Any, tool_def: Any, args: dict[str, Any]) -> dict[str, Any]:
        return {"name": "forbidden-" + args["name"]}

    (told,) = pydantic_ai(desk, [[write("changed")]], "async", capabilities=[Hooks(before_tool_execute=change)])
    assert "is denied" in told and desk.wrote() == []
    assert place.of("forbidden-changed") == [("pydantic-ai", "DENY", "")] and place.of("changed") == []


def test_a_middleware_of_langchain_after_the_guard_stops_everything(place: Place, desk: Desk) -> None:
    from langchain.agents.middleware import wrap_tool_call

    @wrap_tool_call
    def change(request: Any, handler: Any) -> Any:
        call = {**request.tool_call, "args": {"name": "forbidden-" + request.tool_call["args"]["name"]}}
        return handler(request.override(tool_call=call))

    with pytest.raises(UsageError, match="must be the last of the middleware"):
        langchain(desk, [[write("after")]], "sync", after=[change])
    (told,) = langchain(desk, [[write("before")]], "sync", before=[change])
    assert "is denied" in told and desk.wrote() == []
    assert place.of("forbidden-before") == [("langchain", "DENY", "")]


def test_a_guard_of_the_other_kind_is_a_mistake_not_a_way_in(place: Place, desk: Desk) -> None:
    from sidecar.enforce import openai_agents as door_of_openai
    from sidecar.enforce import pydantic_ai as door_of_pydantic
    from sidecar.enforce.langchain import tool_node

    with desk.guard() as guard, pytest.raises(UsageError, match="AsyncGuard, not Guard"):
        door_of_pydantic.GuardedTools(guard)  # type: ignore[arg-type]
    with desk.guard() as guard, pytest.raises(UsageError, match="AsyncGuard, not Guard"):
        door_of_openai.guarded([], guard)  # type: ignore[arg-type]

    def write_file(name: str) -> str:
        """Write."""
        return desk.tools()[0](name)

    with desk.guard() as guard, pytest.raises(UsageError, match="take an AsyncGuard"):
        asyncio.run(_one_call(tool_node([write_file], guard)))
    assert desk.wrote() == []


async def _one_call(node: Any) -> None:
    from langchain_core.messages import AIMessage
    from langgraph.graph import START, MessagesState, StateGraph

    call = {"name": "write_file", "args": {"name": "x"}, "id": "1", "type": "tool_call"}
    graph = StateGraph(MessagesState).add_node("tools", node).add_edge(START, "tools").compile()
    await graph.ainvoke({"messages": [AIMessage("", tool_calls=[call])]})


def test_a_tool_that_runs_elsewhere_cannot_be_guarded(desk: Desk) -> None:
    from agents import WebSearchTool

    from sidecar.enforce.openai_agents import guarded

    with pytest.raises(UsageError, match="does not run here"):
        guarded([WebSearchTool()], desk.async_guard())


def test_a_function_of_any_other_framework_tells_its_door_too(place: Place, desk: Desk) -> None:
    door = {"door": {"kind": "homemade", "tool": "write"}}
    with desk.guard() as guard:
        guarded = guard.guarded("tool.call", ("tool", "write"), context=door)(desk.tools()[0])
        assert guarded("decorated") == "wrote decorated"
        with pytest.raises(Denied):
            guarded("forbidden-decorated")
    assert desk.wrote() == ["decorated"]
    assert place.of("decorated") == [("homemade", "ALLOW", "EXECUTED")]


def test_a_sidecar_that_is_slow_or_gone_lets_nothing_run(tmp_path: Path) -> None:
    """One that is killed meanwhile is in `test_frameworks_retries.py`."""
    (tmp_path / "work").mkdir()
    with placed(tmp_path) as place:
        desk = Desk(place.server.address, tmp_path / "work")
        for kind, door in DOORS.items():
            assert door(desk, [[write(name_of("before", kind))]], "async") == [f"wrote {name_of('before', kind)}"]
        before = desk.wrote()
        stop(place.server.process.pid)
        for kind, door in DOORS.items():
            for how in ("sync", "async"):
                (told,) = door(replace(desk, timeout=0.5), [[write(name_of("slow", kind))]], how)
                assert "Not done" in told and "none within 0.5 s" in told
        place.server.stop(signal.SIGKILL)
        for kind, door in DOORS.items():
            for how in ("sync", "async", "stream"):
                (told,) = door(replace(desk, timeout=2.0, attempts=1), [[write(name_of("down", kind))]], how)
                assert "Not done: the tool write did not run, because no decision was given" in told
    assert desk.wrote() == before


def test_one_ledger_holds_them_all_and_verifies(place: Place, desk: Desk) -> None:
    for kind, door in DOORS.items():
        door(desk, [[write(name_of("seen", kind))]], "async")
    timeline = sidecar("timeline", place.ledger, "--agent", AGENT)
    assert timeline.returncode == 0
    for kind in DOORS:
        assert kind in timeline.stdout
    report = json.loads(sidecar("verify", place.ledger, "--custodian-key", place.auditor, "--json").stdout)
    assert report["verdict"] == "UNANCHORED", report["findings"]
