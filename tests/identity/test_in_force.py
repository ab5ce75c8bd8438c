"""The registry and the policy that came with it: changed together, and no decision is by one of each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.entry import EntryType
from sidecar.decide import Registered
from sidecar.errors import NotPermitted
from sidecar.policy import Evaluation
from tests.api.running import judged
from tests.decide.test_in_force import ORIGIN, Place, Versioned, bundle, run
from tests.faults.load import recorded
from tests.identity.agents import BILLING, registry_of


class Telling(Versioned):
    """Keeps what it was asked."""

    def __init__(self, revision: str) -> None:
        super().__init__(revision)
        self.roles: list[list[str]] = []

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        self.roles.append(document["agent"]["roles"])
        return await super().evaluate(document, timeout)


def of(revision: str, **changed: Any) -> Registered:
    """A registry in which the agent's role is the revision."""
    entry = BILLING.entry(**{"roles": [revision], **changed})
    return Registered(registry_of(entry), "git", "https://example.org/policies", revision)


async def put(place: Place, engine: Versioned, registry: Registered) -> None:
    packed = bundle(engine.version.revision)[0]
    await place.in_force.put_in_force(engine, packed, ORIGIN, registry=registry)


async def changed(
    place: Place, first: Telling, second: Telling, registry: Registered
) -> tuple[asyncio.Task[Any], asyncio.Task[None]]:
    """A decision under way by the first, and the change to the second, whose entries are durable."""
    await put(place, first, of("r1"))
    first.open.clear()
    under_way = asyncio.create_task(place.decide())
    await first.asked.wait()
    changing = asyncio.create_task(put(place, second, registry))
    while place.in_force.current != second.version:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return under_way, changing


def decisions(place: Place) -> list[tuple[str, str, list[str]]]:
    """Policy's revision, registry's revision, and the agent's roles, of each."""
    found = [v for h, v in recorded(place.directory) if h.type is EntryType.DECISION]
    return [(v["policy"]["revision"], v["registry"]["revision"], v["agent"]["roles"]) for v in found]


def sound(place: Place) -> None:
    report = judged(place.directory)
    assert report.verdict.name == "UNANCHORED", report.findings


def test_both_change_in_one_moment(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        first, second = Telling("r1"), Telling("r2")
        under_way, changing = await changed(place, first, second, of("r2"))
        assert await place.decide() == ("ALLOW", "policy", "r2")
        first.open.set()
        assert await under_way == ("ALLOW", "policy", "r1")
        await changing
        assert first.roles == [["r1"], ["r1"]] and second.roles == [["r2"], ["r2"]]

    place = run(tmp_path, story)
    assert sorted(decisions(place)) == [("r1", "r1", ["r1"]), ("r2", "r2", ["r2"])]
    kinds = [h.type for h, _ in recorded(place.directory) if h.type in (EntryType.POLICY, EntryType.REGISTRY)]
    assert kinds == [EntryType.REGISTRY, EntryType.POLICY] * 2
    sound(place)


def test_an_answer_by_the_new_policy_about_the_old_registry_is_asked_again(tmp_path: Path) -> None:
    """An engine that changes its policy in the middle of a question."""

    async def story(place: Place) -> None:
        first, second = Telling("r1"), Telling("r2")
        under_way, changing = await changed(place, first, second, of("r2"))
        first.reported = second.version
        first.open.set()
        assert await under_way == ("ALLOW", "policy", "r2")
        await changing
        assert second.roles == [["r2"], ["r2"]]

    place = run(tmp_path, story)
    assert decisions(place) == [("r2", "r2", ["r2"])]
    sound(place)


def test_who_was_revoked_meanwhile_gets_no_decision_by_the_new_policy(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        first, second = Telling("r1"), Telling("r2")
        under_way, changing = await changed(place, first, second, of("r2", status="revoked"))
        first.reported = second.version
        first.open.set()
        with pytest.raises(NotPermitted):
            await under_way
        await changing

    place = run(tmp_path, story)
    assert decisions(place) == []
    sound(place)


def test_a_question_that_takes_longer_than_two_registries_is_asked_again(tmp_path: Path) -> None:
    """No verifier would know by which registry it was made."""

    async def story(place: Place) -> None:
        engine = Telling("r1")
        await place.put(engine)
        await place.in_force.put_registry(of("one"))
        engine.open.clear()
        under_way = asyncio.create_task(place.decide())
        await engine.asked.wait()
        await place.in_force.put_registry(of("two"))
        await place.in_force.put_registry(of("three"))
        engine.open.set()
        assert await under_way == ("ALLOW", "policy", "r1")

    place = run(tmp_path, story)
    assert decisions(place) == [("r1", "three", ["three"])]
    sound(place)
