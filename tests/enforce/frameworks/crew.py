"""A crew of CrewAI before a sidecar, in CrewAI's own environment: `crew.py ADDRESS KEY PLACE STORY`; prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from crewai import Agent, BaseLLM, Crew, Task
from crewai.hooks import register_before_tool_call_hook
from crewai.tools import tool
from pydantic import Field

from sidecar.client import AgentKey, Guard
from sidecar.enforce.crewai import guarded


class Scripted(BaseLLM):
    """Calls one tool after another, then ends; all that it was told is kept."""

    steps: list[tuple[str, dict[str, Any]]] = Field(default_factory=list)
    heard: list[str] = Field(default_factory=list)

    def call(self, messages: Any, *_: Any, **__: Any) -> str:
        said = [messages] if isinstance(messages, str) else [str(each["content"]) for each in messages]
        self.heard[:] = said
        if not self.steps:
            return "Thought: I now know the final answer\nFinal Answer: done"
        name, arguments = self.steps.pop(0)
        return f"Thought: I should act\nAction: {name}\nAction Input: {json.dumps(arguments)}"

    def supports_function_calling(self) -> bool:
        return False


def broken_hook(context: Any) -> None:
    """What CrewAI lets pass."""
    raise ZeroDivisionError


def main(address: str, key: str, place: Path, story: str) -> None:
    """One agent with one task; ``story``: JSON, the calls and the guard's timeout."""
    told = json.loads(story)

    @tool
    def write(name: str) -> str:
        """Write a file."""
        (place / name).write_text("")
        return f"wrote {name}"

    @tool
    async def awrite(name: str) -> str:
        """Write a file."""
        (place / name).write_text("")
        return f"wrote {name}"

    @tool
    def fail(name: str) -> str:
        """Write a file and break."""
        (place / name).write_text("")
        raise ValueError("broke after writing")

    register_before_tool_call_hook(broken_hook)
    model = Scripted(model="scripted", steps=[tuple(step) for step in told["calls"]])
    options = {"timeout": told.get("timeout", 30.0), "attempts": 1}
    with Guard(address, agent="billing-agent", key=AgentKey.from_file(key), **options) as guard:
        tools = guarded([write, awrite, fail], guard)
        agent = Agent(role="clerk", goal="write", backstory="none", llm=model, tools=tools, cache=False, max_iter=20)
        task = Task(description="write", expected_output="done", agent=agent)
        Crew(agents=[agent], tasks=[task], cache=False).kickoff()
    print("HEARD " + json.dumps(model.heard))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
