"""Crews of CrewAI before a sidecar, in CrewAI's own environment: `crew.py KEY`.

Each line that comes in is a story, a JSON object; what is written out begins with "@". The test is the model: "@turn"
asks for its next calls, a JSON list; an empty one: it breaks, null: it ends. "@end" and JSON: what the model was told,
and the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from crewai import Agent, BaseLLM, Crew, Task
from crewai.hooks import clear_all_tool_call_hooks, register_before_tool_call_hook
from crewai.tools import tool

from sidecar.client import AgentKey, Guard
from sidecar.enforce.crewai import guarded, guarded_only


class Model(BaseLLM):
    """What the test says. ``native``: it calls functions, several at once; else it writes "Action: …"."""

    native: bool = False
    told: list[str] = []  # noqa: RUF012

    def call(self, messages: Any, *_: Any, **__: Any) -> Any:
        said = [each for each in messages if isinstance(each, dict)]
        if self.native:
            self.told[:] = [str(each["content"]) for each in said if each["role"] == "tool"]
        else:
            wrote = [str(each["content"]) for each in said if each["role"] == "assistant"]
            results = [text.partition("Observation:")[2] for text in wrote if "Observation:" in text]
            self.told[:] = [text.partition("\n\n")[0].strip() for text in results]
        print("@turn", flush=True)
        calls = json.loads(sys.stdin.readline())
        if calls == []:
            raise RuntimeError("the model broke")
        if calls is None:
            return "Thought: I now know the final answer\nFinal Answer: done"
        if self.native:
            texts = [(name, json.dumps(arguments)) for name, arguments in calls]
            return [
                {"id": str(n), "type": "function", "function": {"name": name, "arguments": text}}
                for n, (name, text) in enumerate(texts)
            ]
        ((name, arguments),) = calls
        return f"Thought: I should act\nAction: {name}\nAction Input: {json.dumps(arguments)}"

    async def acall(self, *given: Any, **named: Any) -> Any:
        return await asyncio.to_thread(self.call, *given, **named)

    def supports_function_calling(self) -> bool:
        return self.native


class Halt(BaseException):
    """Not an Exception."""


def tools(place: Path) -> list[Any]:
    """Each leaves a byte more in its file for each run."""

    def run(name: str) -> int:
        with (place / name).open("a") as file:
            file.write(".")
        return (place / name).stat().st_size

    @tool
    def write(name: str) -> str:
        """Write a file."""
        run(name)
        return f"wrote {name}"

    @tool
    async def awrite(name: str) -> str:
        """Write a file."""
        run(name)
        return f"wrote {name}"

    @tool
    def fail(name: str) -> str:
        """Write a file and break."""
        run(name)
        raise ValueError("broke after writing")

    @tool
    def flaky(name: str) -> str:
        """Write a file and break the first time."""
        if run(name) == 1:
            raise ValueError("broke after writing")
        return f"wrote {name}"

    @tool
    def halt(name: str) -> str:
        """Write a file and stop all."""
        run(name)
        raise Halt("stop")

    return [write, awrite, fail, flaky, halt]


def hook(fault: str) -> Any:
    """A hook of CrewAI before each call."""

    def raising(context: Any) -> None:
        raise ZeroDivisionError("what CrewAI lets pass")

    def changing(context: Any) -> None:
        context.tool_input["name"] = "forbidden-" + context.tool_input["name"]

    known = {"raising": raising, "changing": changing, "blocking": lambda _: False, "guarded only": guarded_only}
    return known[fault]


def play(story: dict[str, Any], key: AgentKey) -> list[str]:
    """One agent with one task."""
    how, place = story["how"], Path(story["place"])
    for fault in story.get("hooks", ()):
        register_before_tool_call_hook(hook(fault))
    if story.get("cleared"):
        clear_all_tool_call_hooks()
    naming: dict[str, Any] = {"wait": story.get("wait", 0.0)}
    if story.get("broken_door"):
        naming["resource"] = lambda *_: 1 / 0
    if denied_after := story.get("denied_after"):
        runs = lambda name: (place / name).stat().st_size if (place / name).exists() else 0  # noqa: E731
        naming["action"] = lambda _, given: "tool.call" if runs(given["name"]) < denied_after else "tool.call.again"
    model = Model(model="here", native=story.get("native", False), told=[])
    options = {"timeout": story["timeout"], "attempts": story["attempts"]}
    with Guard(story["address"], agent="billing-agent", key=key, **options) as guard:
        cached = story.get("cache", False)
        given = guarded(tools(place), guard, **naming)
        if story.get("bare"):
            given[0] = tools(place)[0]  # `write`, as if CrewAI had brought it
        agent = Agent(
            role="clerk", goal="write", backstory="none", llm=model, tools=given, cache=cached, max_iter=20,
            max_retry_limit=story.get("retries", 0), tool_failure_policy=story.get("on_failure"),
        )  # fmt: skip
        task = Task(description="write", expected_output="done", agent=agent)
        crew = Crew(agents=[agent], tasks=[task], cache=cached, stream=how == "stream")
        try:
            if how == "async":
                asyncio.run(crew.akickoff())
            elif how == "stream":
                for _ in crew.kickoff():
                    pass
            else:
                crew.kickoff()
        finally:
            clear_all_tool_call_hooks()
    return list(model.told)


def example(story: dict[str, Any]) -> str:
    """What a script writes."""
    with contextlib.chdir(story["directory"]), contextlib.redirect_stdout(io.StringIO()) as written:
        runpy.run_path(story["example"], run_name="__main__")
    return written.getvalue()


def main(key: AgentKey) -> None:
    while line := sys.stdin.readline():
        told: list[str] | str = []
        error = ""
        story = json.loads(line)
        try:
            told = example(story) if "example" in story else play(story, key)
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
        print("@end " + json.dumps([told, error]), flush=True)


if __name__ == "__main__":
    main(AgentKey.from_file(sys.argv[1]))
