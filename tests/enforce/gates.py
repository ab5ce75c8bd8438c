"""A sidecar whose policy a test scripts, `sidecar mcp` before a server, and a real MCP client that starts it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mcp import StdioServerParameters, stdio_client
from mcp.client import Client

from sidecar.client import AgentKey, AsyncApprover
from tests import people
from tests.api.desks import Desk, desk
from tests.program import BIN, environment

SERVERS = Path(__file__).parent / "servers"
OFFICIAL = SERVERS / "official.py"
RAW = SERVERS / "raw.py"


@dataclass
class Rules:
    """The policy: what it answers for each action, ALLOW where it does not say; ``seen``: what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, document: dict[str, Any]) -> object:
        self.seen.append(document)
        answer = self.answers.get(document["action"], "ALLOW")
        if callable(answer):
            answer = answer(document)
        if answer == "REQUIRE_APPROVAL" and document["approvals"]:
            answer = "ALLOW"
        if isinstance(answer, dict):
            return answer
        reasons = [{"code": "scripted", "message": f"the rules say {answer}"}]
        return {"effect": answer, "reasons": reasons, **({"approval": {}} if answer == "REQUIRE_APPROVAL" else {})}

    def of(self, action: str) -> list[dict[str, Any]]:
        return [document for document in self.seen if document["action"] == action]


@dataclass
class Gate:
    """What a test has at hand. ``place``: where the server's tools write."""

    desk: Desk
    rules: Rules
    place: Path
    key: Path
    pins: Path
    log: Path

    def options(self, *more: str, server: str | None = None) -> list[str]:
        """The arguments of `sidecar mcp` up to its command."""
        where = ["--server", server or self.desk.up.address, "--agent", "billing-agent", "--key", str(self.key)]
        return ["mcp", *where, "--pins", str(self.pins), "--name", "files", "--trust-first", *more, "--"]

    def command(self, *more: str, program: Sequence[str] | None = None, server: str | None = None) -> list[str]:
        """The whole command line."""
        behind = program or [sys.executable, str(OFFICIAL), str(self.place)]
        return [str(BIN / "sidecar"), *self.options(*more, server=server), *behind]

    @contextlib.asynccontextmanager
    async def client(
        self,
        *more: str,
        program: Sequence[str] | None = None,
        server: str | None = None,
        upstream: str | None = None,
        **how: Any,
    ) -> AsyncIterator[Client]:
        """The official SDK's client, which has started the gateway."""
        command, *arguments = self.command(*more, program=program, server=server)
        if upstream is not None:
            arguments = [*self.options("--upstream", upstream, *more, server=server)[:-1]]
        parameters = StdioServerParameters(command=command, args=arguments, env=environment())
        with self.log.open("a") as errors:
            async with Client(stdio_client(parameters, errlog=errors), **how) as client:
                yield client

    def wrote(self, name: str) -> bool:
        return (self.place / name).exists()

    async def until(self, so: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not so():  # noqa: ASYNC110  # other processes make it so
                await asyncio.sleep(0.01)

    async def speak(self, decision_id: str, verdict: str) -> None:
        """An approver's signed word about what waits."""
        key = AgentKey(people.key("ann"))
        async with AsyncApprover(self.desk.up.address, by="ann", key=key) as approver:
            (pending,) = [each for each in (await approver.list())[0] if each.decision_id == decision_id]
            await (approver.approve if verdict == "approve" else approver.reject)(pending)

    def outcomes(self) -> list[dict[str, Any]]:
        """Each decision that has an outcome, in their order: action, effect, and what was told of it."""
        decided = {entry["decision_id"]: entry for entry in self.desk.entries("DECISION")}
        told = []
        for entry in sorted(self.desk.entries("OUTCOME"), key=lambda outcome: int(outcome["decision_seq"])):
            asked = decided[entry["decision_id"]]["request"]
            told.append({"action": asked["action"], "status": entry["status"], **json.loads(entry["response"])})
        return told

    def note(self, line: str) -> None:
        """What a gateway in this process says to its operator."""
        with self.log.open("a") as log:
            log.write(line + "\n")

    def said(self) -> str:
        """What gateways wrote to standard error."""
        return self.log.read_text() if self.log.exists() else ""


@contextlib.asynccontextmanager
async def gate(place: Path, **answers: str | Callable[[dict[str, Any]], object]) -> AsyncIterator[Gate]:
    """``answers``: by the last word of the action, as `call="DENY"`; else by its whole name."""
    rules = Rules({ACTIONS.get(name, name): answer for name, answer in answers.items()})
    key = place / "agent.pem"
    key.write_bytes(people.key("billing-agent").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    work = place / "work"
    work.mkdir()
    async with desk(place, rules) as d:  # type: ignore[arg-type]
        yield Gate(d, rules, work, key, place / "files.pins.json", place / "gateway.log")


ACTIONS = {
    "call": "mcp.tool.call",
    "show": "mcp.tool.list",
    "read": "mcp.resource.read",
    "elicit": "mcp.elicitation",
    "sample": "mcp.sampling",
}


_POLICY = """package agents

default decision := {"effect": "DENY", "reasons": [{"code": "not_granted", "message": "no rule allows this"}]}

decision := {"effect": "ALLOW", "reasons": [{"code": "tool", "message": "a tool of this agent"}]} if {
	input.context.door.kind == "mcp"
	input.action in {"mcp.tool.list", "mcp.tool.call"}
	input.resource.id in {%s}
}
"""
_POLICY_TEST = """package agents_test

import data.agents

test_others if agents.decision.effect == "DENY" with input as {"action": "mcp.tool.call"}

test_tools if {
	agents.decision.effect == "ALLOW" with input as {
		"action": "mcp.tool.call", "context": {"door": {"kind": "mcp"}}, "resource": {"id": %s},
	}
}
"""
_EXPECTED = """expectations:
  - name: a tool of its own
    input:
      agent: {id: a}
      action: mcp.tool.call
      resource: {type: mcp.tool, id: %s}
      context: {door: {kind: mcp}}
      time: 2026-11-23T12:00:00Z
    expect: {effect: ALLOW, reasons: [tool]}
  - name: no tool of its own
    input: {agent: {id: a}, action: mcp.tool.call, resource: {type: mcp.tool, id: x/y}, time: 2026-11-23T12:00:00Z}
    expect: {effect: DENY, reasons: [not_granted]}
"""


def tool_policy(directory: Path, *tools: str) -> Path:
    """A policy that shows and allows these tools of the server `files`."""
    directory.mkdir()
    listed = [json.dumps(f"files/{tool}") for tool in tools]
    texts = {
        "p.rego": _POLICY % ", ".join(listed), "p_test.rego": _POLICY_TEST % listed[0],
        "expectations.yaml": _EXPECTED % listed[0],
    }  # fmt: skip
    for name, text in texts.items():
        (directory / name).write_text(text)
    return directory


def words(result: Any) -> str:
    """The text of a tool's result."""
    return " ".join(part.text for part in result.content)
