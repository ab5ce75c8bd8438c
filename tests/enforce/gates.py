"""A sidecar whose policy a test scripts, `sidecar mcp` before a server, and a real MCP client that starts it."""

from __future__ import annotations

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
        self, *more: str, program: Sequence[str] | None = None, server: str | None = None, **how: Any
    ) -> AsyncIterator[Client]:
        """The official SDK's client, which has started the gateway."""
        command, *arguments = self.command(*more, program=program, server=server)
        parameters = StdioServerParameters(command=command, args=arguments, env=environment())
        with self.log.open("a") as errors:
            async with Client(stdio_client(parameters, errlog=errors), **how) as client:
                yield client

    def wrote(self, name: str) -> bool:
        return (self.place / name).exists()

    def outcomes(self) -> list[dict[str, Any]]:
        """Each decision that has an outcome: action, effect, and what was told of it."""
        decided = {entry["decision_id"]: entry for entry in self.desk.entries("DECISION")}
        told = []
        for entry in self.desk.entries("OUTCOME"):
            asked = decided[entry["decision_id"]]["request"]
            told.append({"action": asked["action"], "status": entry["status"], **json.loads(entry["response"])})
        return told

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


def words(result: Any) -> str:
    """The text of a tool's result."""
    return " ".join(part.text for part in result.content)
