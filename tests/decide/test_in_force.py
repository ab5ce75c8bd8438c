"""What may decide: only what a POLICY entry has put in force; a change of policy fails and mixes no decision."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.entry import EntryType
from sidecar.chain.request import Option, Request
from sidecar.decide import DecisionPath, InForce, Origin, Settings, Staleness, new_decision_id
from sidecar.errors import EngineUnavailable, NotFound, PolicyNotActive
from sidecar.identity import Shown, Transport
from sidecar.ledger import Ledger, Options, SystemClock
from sidecar.policy import Evaluation, PolicyVersion, Switch
from tests.api.running import found, wrap
from tests.faults.load import recorded

ALTERNATIVE = Option("crm.read", "customer", "c-2", b"{}")
UNPROVED = Shown(Transport("unix:"))
ASKED = Request("billing-agent", Option("crm.read", "customer", "c-1", b"{}"), context=b"", alternatives=(ALTERNATIVE,))
ORIGIN = Origin("directory", "/policies")


class Versioned:
    """An engine of one revision, which every answer names; it answers when its gate is open."""

    def __init__(self, revision: str) -> None:
        self.version = PolicyVersion("wasm", "test", "agents/decision", revision, bundle(revision)[1])
        self.reported = self.version
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.closed = False
        self.up = True

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        assert not self.closed
        self.asked.set()
        await self.open.wait()
        reason = {"code": self.version.revision, "message": "m"}
        return Evaluation({"effect": "ALLOW", "reasons": [reason]}, self.reported)

    async def ready(self) -> None:
        if not self.up:
            raise EngineUnavailable("not yet")

    async def close(self) -> None:
        self.closed = True


def bundle(revision: str) -> tuple[bytes, str]:
    packed = f"bundle of {revision}".encode()
    return packed, hashlib.sha256(packed).hexdigest()


class Place:
    """A ledger, what is in force in it, and the path that decides."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        found(directory)
        self.directory = directory
        self.ledger = Ledger.open(
            directory, wrap=wrap, options=Options(), clock=SystemClock(), on_failure=lambda error: None
        )
        self.switch = Switch("wasm", "agents/decision")
        self.now = 1000.0
        self.in_force = InForce(self.switch, self.ledger, monotonic=lambda: self.now, **settings)
        self.path = DecisionPath(
            self.switch,
            self.in_force,
            self.ledger,
            Settings(development=True, evaluate_timeout=60.0),
            new_id=new_decision_id,
        )

    async def put(self, engine: Versioned) -> None:
        await self.in_force.put_in_force(engine, bundle(engine.version.revision)[0], ORIGIN)

    async def decide(self) -> tuple[str, str, str]:
        """Effect, cause and revision of one decision."""
        judged = (await self.path.decide(ASKED, UNPROVED)).judged
        return judged.verdict.effect, judged.cause, judged.version.revision

    def policies(self) -> list[tuple[str, str]]:
        return [(v["event"], v["revision"]) for h, v in recorded(self.directory) if h.type is EntryType.POLICY]


def run(directory: Path, story: Callable[[Place], Coroutine[Any, Any, None]], **settings: Any) -> Place:
    place: list[Place] = []

    async def whole() -> None:
        place.append(Place(directory / "ledger", **settings))
        try:
            await story(place[0])
        finally:
            place[0].ledger.close()

    asyncio.run(whole())
    return place[0]


def test_without_a_policy_everything_is_denied(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        assert await place.decide() == ("DENY", "engine_unavailable", "")

    run(tmp_path, story)


def test_a_change_lets_a_decision_under_way_end_by_the_old_policy(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        old, new = Versioned("r1"), Versioned("r2")
        await place.put(old)
        old.open.clear()
        under_way = asyncio.create_task(place.decide())
        await old.asked.wait()
        changing = asyncio.create_task(place.put(new))
        while place.switch.engine is not new:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0)
        assert not old.closed
        assert await place.decide() == ("ALLOW", "policy", "r2")
        old.open.set()
        assert await under_way == ("ALLOW", "policy", "r1")
        await changing
        assert old.closed and not new.closed

    place = run(tmp_path, story)
    assert place.policies() == [("activated", "r1"), ("activated", "r2")]


def test_the_bundle_is_durable_before_the_engine_is_asked(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        with pytest.raises(NotFound):
            place.ledger.attachment(bytes.fromhex(bundle("r1")[1]))
        await place.put(Versioned("r1"))
        assert place.ledger.attachment(bytes.fromhex(bundle("r1")[1])) == bundle("r1")[0]

    run(tmp_path, story)


def test_a_revision_that_nothing_put_in_force_is_a_deny(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        engine = Versioned("r1")
        await place.put(engine)
        engine.reported = PolicyVersion("wasm", "test", "agents/decision", "sneaked in", bundle("r1")[1])
        assert await place.decide() == ("DENY", "policy_not_active", "sneaked in")
        engine.reported = PolicyVersion("wasm", "test", "agents/decision", "r1", "ab" * 32)
        assert (await place.decide())[:2] == ("DENY", "policy_not_active")

    run(tmp_path, story)


def test_a_policy_out_of_force_is_a_deny(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        old = Versioned("r1")
        await place.put(old)
        await place.put(Versioned("r2"))
        with pytest.raises(PolicyNotActive):
            await place.in_force.check(old.version)

    run(tmp_path, story)


def test_an_engine_that_does_not_come_up_changes_nothing(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        await place.put(Versioned("r1"))
        broken = Versioned("r2")
        broken.up = False
        with pytest.raises(EngineUnavailable):
            await place.in_force.put_in_force(broken, bundle("r2")[0], ORIGIN, within=0.05)
        assert broken.closed
        assert await place.decide() == ("ALLOW", "policy", "r1")

    place = run(tmp_path, story)
    assert place.policies() == [("activated", "r1")]


def test_alternatives_are_judged_by_one_policy(tmp_path: Path) -> None:
    """The first option is answered by r1, then the policy changes: both are judged again, by r2."""

    class Changing(Versioned):
        async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
            if document["resource"]["id"] == "c-2":
                await asyncio.sleep(0)
                self.reported = r2.version
            return await super().evaluate(document, timeout)

    r2 = Versioned("r2")

    async def story(place: Place) -> None:
        await place.put(Versioned("r2"))
        changing = Changing("r1")
        task = asyncio.create_task(place.put(changing))
        await task
        place.in_force._admitted[("wasm", "agents/decision", "r2", bundle("r2")[1])] = ()  # in the midst of a change
        answer = await place.path.decide(ASKED, UNPROVED)
        assert answer.judged.version == answer.alternatives[0].version == r2.version

    run(tmp_path, story)


def test_what_others_feed_is_recorded_before_it_decides(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        engine = Versioned("r1")
        engine.reported = PolicyVersion("opa", "1", "agents/decision", "r1", "")
        place.switch.put(engine)
        assert await place.decide() == ("ALLOW", "policy", "r1")
        engine.reported = PolicyVersion("opa", "1", "agents/decision", "r2", "")
        assert await place.decide() == ("ALLOW", "policy", "r2")
        assert await place.decide() == ("ALLOW", "policy", "r2")

    place = run(tmp_path, story, observing=Origin("opa", "unix:/opa.sock"))
    kinds = [
        (h.type.name, v.get("revision", v.get("policy", {}).get("revision"))) for h, v in recorded(place.directory)
    ]
    assert [k for k in kinds if k[0] in ("POLICY", "DECISION")] == [
        ("POLICY", "r1"), ("DECISION", "r1"), ("POLICY", "r2"), ("DECISION", "r2"), ("DECISION", "r2"),
    ]  # fmt: skip
    assert place.policies() == [("observed", "r1"), ("observed", "r2")]


def test_what_others_feed_must_name_its_revision(tmp_path: Path) -> None:
    """A policy put into OPA by itself carries none: it could change without anybody's noticing."""

    async def story(place: Place) -> None:
        engine = Versioned("r1")
        engine.reported = PolicyVersion("opa", "1", "agents/decision", "", "")
        place.switch.put(engine)
        assert await place.decide() == ("DENY", "policy_not_active", "")
        with pytest.raises(PolicyNotActive, match="names no revision"):
            await place.in_force.observe(engine.reported)

    assert run(tmp_path, story, observing=Origin("opa", "unix:/opa.sock")).policies() == []


def test_the_age_of_the_last_look_outlives_a_restart(tmp_path: Path) -> None:
    looked: list[float] = []

    async def story(place: Place) -> None:
        await place.put(Versioned("r1"))
        assert await place.decide() == ("DENY", "policy_stale", "r1")
        place.in_force.synced()
        assert await place.decide() == ("ALLOW", "policy", "r1") and looked == [1]

    run(tmp_path, story, staleness=Staleness(60, deny=True), age=61.0, on_sync=lambda: looked.append(1))


def test_decisions_by_an_impure_policy_say_so(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        await place.put(Versioned("r1"))
        await place.decide()
        impure = Origin("directory", "/policies", impure_builtins=("rand.intn", "time.now_ns"))
        await place.in_force.put_in_force(Versioned("r2"), bundle("r2")[0], impure)
        await place.decide()

    place = run(tmp_path, story)
    marks = [v.get("impure_builtins") for h, v in recorded(place.directory) if h.type is EntryType.DECISION]
    assert marks == [None, ["rand.intn", "time.now_ns"]]


@pytest.mark.parametrize(("deny", "then"), [(True, ("DENY", "policy_stale", "r1")), (False, ("ALLOW", "policy", "r1"))])
def test_a_source_out_of_reach_for_too_long(tmp_path: Path, deny: bool, then: tuple[str, str, str]) -> None:
    async def story(place: Place) -> None:
        await place.put(Versioned("r1"))
        place.now += 59
        assert await place.decide() == ("ALLOW", "policy", "r1") and not place.in_force.stale
        place.now += 2
        assert await place.decide() == then and place.in_force.stale
        place.in_force.synced()
        assert await place.decide() == ("ALLOW", "policy", "r1")

    run(tmp_path, story, staleness=Staleness(60, deny))
