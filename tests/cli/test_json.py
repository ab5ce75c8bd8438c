"""docs/JSON.md names every command that prints JSON, and the members that it then has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import cli
from tests.needs import needs_program
from tests.people import person, registry_text
from tests.program import made, serving, sidecar
from tests.test_drift import REPOSITORY, commands

PAGE = (REPOSITORY / "docs/JSON.md").read_text()
ROW = re.compile(r"^\| ((?:`[a-z ]+`(?:, )?)+) \| (.*) \|$", re.MULTILINE)
MEMBER = re.compile(r"`([a-z_]+)(\[\])?`(?: \(((?:`[a-z_]+`(?:, )?)+)\))?")
POLICY = 'package agents\n\ndefault decision := {"effect": "ALLOW", "reasons": []}\n'


def said(text: str) -> dict[str, frozenset[str]]:
    """The members that a row names, each with those of its objects."""
    before_of_a_bundle = text.partition("; of a bundle")[0]
    return {name: frozenset(re.findall(r"`([a-z_]+)`", inner)) for name, _, inner in MEMBER.findall(before_of_a_bundle)}


ROWS = {name: said(text) for names, text in ROW.findall(PAGE) for name in re.findall("`([^`]+)`", names)}


def hold(command: str, printed: dict[str, Any]) -> None:
    due = ROWS[command]
    assert set(printed) == set(due), command
    for name, members in due.items():
        for each in printed[name] if members else ():
            assert set(each) == members, (command, name)


def test_each_command_that_prints_json_has_a_row() -> None:
    with_json = [path for path, command in commands(cli) if any("--json" in each.opts for each in command.params)]
    assert sorted(path.removeprefix("sidecar ") for path in with_json) == sorted(ROWS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with a decision in it, and its registry."""
    place = tmp_path_factory.mktemp("json")
    ledger, _ = made(place)
    (place / "registry.json").write_bytes(registry_text(person("billing-agent", "agent", "billing")))
    with serving(ledger) as server:
        asked = ("--agent", "billing-agent", "--action", "crm.read", "--resource", "customer:c")
        done = sidecar("decide", "--server", server.address, *asked, "--json")
        (place / "decided").write_text(done.stdout)
        assert server.stop() == 0
    return place


def printed(place: Path) -> Iterator[tuple[str, str]]:
    ledger = place / "ledger"
    yield "decide", (place / "decided").read_text()
    for command, *more in (
        ("init", "--data-dir", place / "new"),
        ("agents list", "--registry", place / "registry.json"),
        ("doctor", "--data-dir", ledger),
        ("policy show", ledger),
        ("replay", ledger),
        ("verify", ledger),
        ("verify", place / "registry.json"),
        ("show", ledger, "--seq", "0"),
    ):
        yield command, sidecar(*command.split(), *more, "--json").stdout


def test_the_members_are_those_of_the_page(place: Path) -> None:
    for command, text in printed(place):
        hold(command, json.loads(text))


def test_a_policys_members_are_those_of_the_page(tmp_path: Path) -> None:
    needs_program("opa")
    (tmp_path / "decision.rego").write_text(POLICY)
    hold("policy test", json.loads(sidecar("policy", "test", tmp_path, "--json").stdout))
