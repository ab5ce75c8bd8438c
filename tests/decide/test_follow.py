"""Following a source: what it holds comes into force or is refused, on record either way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.chain.entry import EntryType
from sidecar.decide import Follower, Period
from sidecar.errors import PolicyLoadError, PolicySourceError
from sidecar.policy import BuiltPolicy, Candidate, Commit, Engine, Examined, Finding, Refused
from tests.decide.test_in_force import Place, Versioned, run
from tests.faults.load import recorded

COMMIT = Commit("c" * 40, "A <a@x>", "B <b@x>", "2026-11-24T00:00:00Z", "2026-11-24T00:00:01Z", "tighten", b"raw")
PASSED = [{"step": "check", "outcome": "passed", "note": "strict", "findings": []}]
FAILED = [
    {"step": "tests", "outcome": "failed", "note": "", "findings": [{"file": "p.rego", "line": 3, "message": "fails"}]}
]


class Given:
    """A source that holds what the test puts there: a revision, or an exception to raise."""

    place = "file:///policies"

    def __init__(self) -> None:
        self.holds: str | Exception = "r1"
        self.asked: list[tuple[str, str]] = []

    def look(self, seen: str, active: str) -> Candidate | None:
        self.asked.append((seen, active))
        if isinstance(self.holds, Exception):
            raise self.holds
        return None if self.holds == seen else Candidate(self.holds, {"p.rego": b""}, commit=COMMIT)


class Counts:
    def __init__(self) -> None:
        self.events: list[str] = []

    def policy_event(self, event: str) -> None:
        self.events.append(event)


async def examined(candidate: Candidate) -> Examined:
    if candidate.revision.startswith("bad"):
        return Examined(None, None, FAILED)
    return Examined(BuiltPolicy.of(f"bundle of {candidate.revision}".encode()), None, PASSED)


def built(bundle: BuiltPolicy) -> Engine:
    revision = bundle.packed.decode().removeprefix("bundle of ")
    if revision == "r-broken":
        raise PolicyLoadError("it does not load")
    return Versioned(revision)


def follower(place: Place, source: Given, counts: Counts, **clockwork: Callable[..., object]) -> Follower:
    return Follower(source, "git", examined, built, place.in_force, counts, Period(10, 0.5), **clockwork)  # type: ignore[arg-type]


def test_a_new_revision_comes_into_force_and_its_entry_says_from_where(tmp_path: Path) -> None:
    counts, source = Counts(), Given()

    async def story(place: Place) -> None:
        following = follower(place, source, counts)
        assert await following.look()
        source.holds = "r2"
        assert await following.look() and await following.look()
        assert await place.decide() == ("ALLOW", "policy", "r2")
        assert source.asked == [("", ""), ("r1", "r1"), ("r2", "r2")]

    place = run(tmp_path, story)
    assert counts.events == ["activated", "activated"]
    entry = next(v for h, v in recorded(place.directory) if h.type is EntryType.POLICY and v["revision"] == "r2")
    assert entry["from"]["revision"] == "r1" and entry["source"] == {"kind": "git", "place": "file:///policies"}
    assert entry["commit"] == {
        "id": "c" * 40, "author": "A <a@x>", "committer": "B <b@x>", "authored": "2026-11-24T00:00:00Z",
        "committed": "2026-11-24T00:00:01Z", "subject": "tighten",
    }  # fmt: skip
    assert entry["gate"] == PASSED and entry["signer"] is None


def test_a_refused_revision_is_on_record_once_and_changes_nothing(tmp_path: Path) -> None:
    counts, source = Counts(), Given()

    async def story(place: Place) -> None:
        following = follower(place, source, counts)
        await following.look()
        source.holds = "bad1"
        assert not await following.look() and not await following.look()
        assert following.cause == "revision bad1: tests: p.rego:3: fails"
        assert await place.decide() == ("ALLOW", "policy", "r1")
        source.holds = Refused(Finding("x", 0, "a link leads out"), revision="bad2")
        assert not await following.look() and not await following.look()
        source.holds = "r1"
        assert await following.look()

    place = run(tmp_path, story)
    assert counts.events == ["activated", "refused", "refused"]
    assert place.policies() == [("activated", "r1"), ("refused", "bad1"), ("refused", "bad2")]
    refused = [v for h, v in recorded(place.directory) if h.type is EntryType.POLICY and v["event"] == "refused"]
    assert refused[0]["gate"] == FAILED and refused[0]["bundle_digest"] == ""
    assert refused[1]["gate"][0]["step"] == "source"


def test_what_was_refused_is_examined_again_now_and_then(tmp_path: Path) -> None:
    """The fault may have been this machine's. It is on record once, also where two of them take turns."""
    counts, source, judged = Counts(), Given(), [0]

    async def on_a_full_disk(candidate: Candidate) -> Examined:
        judged.append(len(source.asked))
        return Examined(None, None, FAILED) if len(judged) <= 9 else await examined(candidate)

    async def story(place: Place) -> None:
        following = Follower(source, "git", on_a_full_disk, built, place.in_force, counts)
        while not await following.look():
            pass
        assert await place.decide() == ("ALLOW", "policy", "r1")
        following = follower(place, source, counts)
        for holds in ("bad1", "bad2", "bad1", "r1", "bad2", "bad1"):
            source.holds = holds
            assert await following.look() is (holds == "r1")

    place = run(tmp_path, story)
    assert [after - before for before, after in itertools.pairwise(judged)] == [1, 1, 2, 4, 8, 16, 32, 64, 64]
    assert place.policies() == [("refused", "r1"), ("activated", "r1"), ("refused", "bad1"), ("refused", "bad2")]
    assert counts.events == ["refused", "activated", "refused", "refused"]


def test_after_a_restart_the_source_is_asked_what_follows_the_last_one(tmp_path: Path) -> None:
    source = Given()

    async def story(place: Place) -> None:
        following = Follower(source, "git", examined, built, place.in_force, Counts(), before="r0")
        await following.look()
        await following.look()

    run(tmp_path, story)
    assert source.asked == [("", "r0"), ("r1", "r1")]


def test_what_cannot_be_reached_or_loaded_is_tried_again(tmp_path: Path) -> None:
    counts, source = Counts(), Given()

    async def story(place: Place) -> None:
        following = follower(place, source, counts)
        source.holds = PolicySourceError("no route")
        with pytest.raises(PolicySourceError):
            await following.look()
        assert await place.decide() == ("DENY", "engine_unavailable", "")
        source.holds = "r1"
        assert await following.look()
        place.now += 100
        source.holds = "r-broken"
        for _ in range(2):
            with pytest.raises(PolicyLoadError):
                await following.look()
        assert place.in_force.age == 100
        assert await place.decide() == ("ALLOW", "policy", "r1")
        source.holds = "r2"
        assert await following.look() and place.in_force.age == 0

    run(tmp_path, story)
    assert counts.events == ["unreachable", "activated", "failed", "failed", "activated"]


def test_it_looks_again_after_every_failure_with_jitter(tmp_path: Path) -> None:
    counts, source, paused = Counts(), Given(), []
    holds: list[str | Exception] = [PolicySourceError("x"), RuntimeError("y"), "r-broken", "bad", "r1"]
    chances = iter([0.0, 0.5, 1.0, 0.25, 0.75, 0.5])

    async def sleep(seconds: float) -> None:
        paused.append(seconds)
        if not holds:
            raise asyncio.CancelledError
        source.holds = holds.pop(0)

    async def story(place: Place) -> None:
        following = follower(place, source, counts, sleep=sleep, chance=lambda: next(chances))
        with pytest.raises(asyncio.CancelledError):
            await following.follow()
        assert await place.decide() == ("ALLOW", "policy", "r1")

    run(tmp_path, story)
    assert paused == [5.0, 10.0, 15.0, 7.5, 12.5, 10.0]
    assert counts.events == ["unreachable", "failed", "failed", "refused", "activated"]
