"""The sidecar that the frameworks' agents are before, and what its ledger tells of them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind, records
from sidecar.client import AgentKey, Approver, Pending
from sidecar.ledger import ledger_stream
from tests.enforce.frameworks.doors import AGENT
from tests.needs import needs_program
from tests.people import key, person, registry_text
from tests.program import Serving, made, serving

AMPLE = 90.0
POLICY = Path(__file__).parents[1] / "tools.rego"


@dataclass
class Place:
    """One sidecar for all of these tests, and its ledger."""

    ledger: Path
    auditor: Path
    server: Serving

    def until_asked(self, *names: str) -> None:
        """Returns once it is on record that each of these was decided."""
        end = time.monotonic() + AMPLE
        while not all(about(name, entries) for entries in [self.entries("DECISION")] for name in names):
            assert time.monotonic() < end
            time.sleep(0.02)

    def spoken(self, name: str, verdict: str) -> None:
        """An approver's word, once the call waits for it."""
        end = time.monotonic() + AMPLE
        with self.approver() as approver:
            while not waiting(approver, name):
                assert time.monotonic() < end
                time.sleep(0.02)
        self.speak(name, verdict)

    def entries(self, *kinds: str) -> list[dict[str, Any]]:
        with ledger_stream(self.ledger) as read:
            payloads = [entry(body)[1] for what, body in records(read) if what is Kind.ENTRY]
        return [payload for payload in payloads if payload["type"] in kinds]

    def of(self, name: str) -> list[tuple[str, str, str]]:
        """What was decided about a file's name, at which door, and what was reported of it; oldest first."""
        entries = self.entries("DECISION", "OUTCOME")
        told = {each["decision_id"]: each["status"].upper() for each in entries if each["type"] == "OUTCOME"}
        return [
            (
                json.loads(each["request"]["context"])["door"]["kind"],
                each["effect"],
                told.get(each["decision_id"], "").upper(),
            )
            for each in about(name, entries)
        ]

    def asked(self, name: str) -> list[dict[str, Any]]:
        return about(name, self.entries("DECISION"))

    def speak(self, name: str, verdict: str = "approve") -> str:
        """An approver's signed word about the call that waits for one; returns the decision's id."""
        with self.approver() as approver:
            (pending,) = waiting(approver, name)
            (approver.approve if verdict == "approve" else approver.reject)(pending)
        return pending.decision_id

    def approver(self) -> Approver:
        return Approver(self.server.address, by="ann", key=AgentKey(key("ann")))


def about(name: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The decisions on a file's name."""
    decisions = [each for each in entries if each["type"] == "DECISION"]
    return [each for each in decisions if json.loads(each["request"]["arguments"]).get("name") == name]


def waiting(approver: Approver, name: str) -> list[Pending]:
    return [each for each in approver.list()[0] if json.loads(each.arguments) == {"name": name}]


def started(directory: Path) -> tuple[Path, Path, dict[str, str]]:
    needs_program("opa")
    ledger, auditor = made(directory)
    (directory / "policy").mkdir()
    (directory / "policy" / "tools.rego").write_text(POLICY.read_text())
    registry = directory / "registry.json"
    registry.write_bytes(registry_text(person(AGENT, "agent", "billing"), person("ann", "approver", "lead")))
    settings = {
        "SIDECAR_REGISTRY": str(registry),
        "SIDECAR_POLICY_GATE_EXPECTATIONS": "false",
        "SIDECAR_POLICY_GATE_MIN_COVERAGE": "0",
    }
    return ledger, auditor, settings


@contextlib.contextmanager
def placed(directory: Path) -> Iterator[Place]:
    """The same, served."""
    ledger, auditor, settings = started(directory)
    with serving(ledger, "--policy", directory / "policy", dev=False, **settings) as server:
        yield Place(ledger, auditor, server)
