"""CrewAI's door: what was decided is what happens, as the files show."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.enforce.frameworks.between import Between
from tests.enforce.frameworks.crews import REPOSITORY, Crews, secret
from tests.enforce.frameworks.doors import AGENT, Call, Desk
from tests.enforce.frameworks.place import AMPLE, Place, placed
from tests.policy.processes import stop
from tests.program import sidecar

REQUIRED, DENIED = ("crewai", "REQUIRE_APPROVAL", ""), ("crewai", "DENY", "")
EXECUTED, FAILED = ("crewai", "ALLOW", "EXECUTED"), ("crewai", "ALLOW", "FAILED")


@pytest.fixture(scope="module")
def crews(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crews]:
    with Crews(tmp_path_factory.mktemp("crews")) as started:
        yield started


@pytest.fixture(scope="module")
def place(crews: Crews, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("crewai")) as served:
        yield served


def calls(*given: tuple[str, str]) -> list[list[Call]]:
    """One call a turn."""
    return [[(tool, {"name": name})] for tool, name in given]


@pytest.mark.parametrize("how", ["sync", "async", "stream"])
def test_only_what_is_allowed_runs_also_a_coroutine_function(place: Place, desk: Desk, crews: Crews, how: str) -> None:
    names = [f"{what}-{how}" for what in ("one", "forbidden", "two")]
    told = crews(desk, calls(("write", names[0]), ("write", names[1]), ("awrite", names[2])), how)
    assert told[0] == f"wrote {names[0]}" and told[2] == f"wrote {names[2]}"
    assert told[1].startswith("Not done: the tool write is denied")
    assert desk.wrote() == sorted([names[0], names[2]])
    assert [place.of(name) for name in names] == [[EXECUTED], [DENIED], [EXECUTED]]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_of_functions_that_a_model_calls_at_once_only_those_that_are_allowed_run(
    place: Place, desk: Desk, crews: Crews, how: str
) -> None:
    names = [f"{what}-at-once-{how}" for what in ("one", "forbidden", "two")]
    told = crews(desk, [[("write", {"name": name}) for name in names]], how, native=True)
    assert (told[0], told[2]) == (f"wrote {names[0]}", f"wrote {names[2]}") and "is denied" in told[1]
    assert desk.wrote() == sorted([names[0], names[2]])
    assert [place.of(name) for name in names] == [[EXECUTED], [DENIED], [EXECUTED]]


@pytest.mark.parametrize(("how", "native"), [("sync", False), ("async", False), ("sync", True)])
def test_once_it_is_approved_the_same_call_is_made_again_and_runs_once(
    place: Place, desk: Desk, crews: Crews, how: str, native: bool
) -> None:
    name = f"ask-{how}-{native}"

    def turns() -> Iterator[list[Call]]:
        (call,) = calls(("write", name))
        yield call
        assert desk.wrote() == []
        place.speak(name)
        yield call
        assert desk.runs(name) == 1
        yield from calls(("write", f"between-{name}"), ("write", name))  # an approval is for one run

    told = crews(desk, turns(), how, native=native)
    waits = "still waits for its approval" if not native else "needs an approval"  # told after all of CrewAI's tries
    assert f"Not done yet: the tool write {waits}: a person decides (asks). Ask an approver" in told[0]
    assert told[1] == f"wrote {name}" and waits in told[3], told
    assert desk.runs(name) == 1 and place.of(name) == [REQUIRED, EXECUTED, REQUIRED]


@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_a_door_that_waits_hears_the_approvers_word(place: Place, desk: Desk, crews: Crews, verdict: str) -> None:
    name = f"ask-{verdict}"
    with ThreadPoolExecutor(1) as other:
        run = other.submit(crews, desk, calls(("write", name)), "sync", wait=AMPLE)
        place.spoken(name, verdict)
        (told,) = run.result(AMPLE)
    if verdict == "approve":
        assert (told, desk.runs(name)) == (f"wrote {name}", 1)
    else:
        assert "was rejected" in told and desk.wrote() == []


def test_each_try_of_crewai_is_a_question_of_its_own(place: Place, desk: Desk, crews: Crews) -> None:
    """It tries a tool that broke up to six times, by itself."""
    told = crews(desk, calls(("flaky", "again"), ("fail", "broken"), ("fail", "once")), "sync", denied_after=2)
    assert told[0] == "wrote again" and place.of("again") == [FAILED, EXECUTED] and desk.runs("again") == 2
    for name, said in (("broken", told[1]), ("once", told[2])):
        assert said.startswith("Not done: the tool fail is denied") and desk.runs(name) == 2
        assert place.of(name) == [FAILED, FAILED, DENIED]
    told = crews(desk, calls(("fail", "always")), "async")
    assert "broke after writing" in told[0]
    assert place.of("always") == [FAILED] * desk.runs("always") and desk.runs("always") > 1
    told = crews(desk, calls(("fail", "native")), "sync", native=True)
    assert "broke after writing" in told[0] and place.of("native") == [FAILED] * desk.runs("native")


def test_a_task_that_crewai_starts_again_asks_again_and_a_refusal_may_end_it(
    place: Place, desk: Desk, crews: Crews
) -> None:
    (call,) = calls(("write", "restarted"))
    assert crews(desk, [call, [], call], "sync", retries=1) == ["wrote restarted"]
    assert desk.runs("restarted") == 2 and place.of("restarted") == [EXECUTED] * 2
    (call,) = calls(("write", "forbidden-restarted"))
    crews(desk, [call] * 3, "sync", native=True, retries=2, on_failure="raise")
    assert "ToolExecutionFailedError" in crews.error and "is denied" in crews.error
    assert desk.wrote() == ["restarted"] and place.of("forbidden-restarted") == [DENIED]


def test_a_tool_that_is_broken_off_has_failed(place: Place, desk: Desk, crews: Crews) -> None:
    crews(desk, calls(("halt", "halted")), "sync")
    assert "stop" in crews.error
    assert desk.runs("halted") == 1 and place.of("halted") == [FAILED]


def test_whatever_becomes_of_crewais_hooks_nothing_unasked_runs(place: Place, desk: Desk, crews: Crews) -> None:
    both = calls(("write", "hooked"), ("write", "forbidden-hooked"))
    told = crews(desk, both, "sync", hooks=["raising"])  # which CrewAI takes for leave
    assert told[0] == "wrote hooked" and "is denied" in told[1] and desk.wrote() == ["hooked"]
    told = crews(desk, calls(("write", "hooked"), ("write", "forbidden-hooked")), "sync", cleared=True)
    assert "is denied" in told[1] and desk.wrote() == ["hooked"]
    (told,) = crews(desk, calls(("write", "changed")), "sync", hooks=["changing", "raising"])  # judged as changed
    assert "is denied" in told and place.of("forbidden-changed") == [DENIED] and place.of("changed") == []
    crews(desk, calls(("write", "blocked")), "sync", hooks=["raising", "blocking"])
    assert place.of("blocked") == [] and desk.wrote() == ["hooked"]


@pytest.mark.parametrize("native", [False, True])
def test_a_hook_of_ours_blocks_what_is_not_guarded_beside_hooks_that_fail(
    place: Place, desk: Desk, crews: Crews, native: bool
) -> None:
    name = f"hook-{native}"
    both = calls(("write", f"bare-{name}"), ("flaky", name), ("flaky", name))
    crews(desk, both, "sync", native=native, bare=True, hooks=["raising", "guarded only", "raising"])
    assert desk.wrote() == [name] and place.of(f"bare-{name}") == []


@pytest.mark.parametrize("native", [False, True])
def test_a_door_whose_own_code_fails_lets_nothing_run(desk: Desk, crews: Crews, native: bool) -> None:
    (told,) = crews(desk, calls(("write", "never")), "sync", native=native, broken_door=True)
    assert "division by zero" in told and desk.wrote() == []


def test_crewais_cache_answers_for_no_guarded_tool(place: Place, desk: Desk, crews: Crews) -> None:
    """A crew's agents share it: what one was allowed to read another would be given unasked."""
    for native in (False, True):
        names = [f"cached-{native}", f"other-{native}", f"cached-{native}"]
        told = crews(desk, calls(*(("write", name) for name in names)), "sync", cache=True, native=native)
        assert told == [f"wrote {name}" for name in names]
        assert desk.runs(names[0]) == 2 and place.of(names[0]) == [EXECUTED] * 2


def test_a_sidecar_that_is_killed_between_question_and_answer_or_gone_lets_nothing_run(
    tmp_path: Path, crews: Crews
) -> None:
    (tmp_path / "work").mkdir()
    with placed(tmp_path) as place, Between(tmp_path / "between.sock", place.server.socket) as between:
        once = Desk(between.address, tmp_path / "work", timeout=AMPLE, attempts=1)

        def turns() -> Iterator[list[Call]]:
            yield from calls(("write", "before"))
            between.hold()
            yield from calls(("write", "killed"))

        with ThreadPoolExecutor(1) as other:
            run = other.submit(crews, once, turns(), "sync")
            place.until_asked("killed")
            place.server.stop(signal.SIGKILL)
            between.lose()
            told = run.result(AMPLE)
        assert told[0] == "wrote before" and "did not run, because no decision was given" in told[1]
        assert place.of("killed") == [("crewai", "ALLOW", "")]
        for how, native in (("async", False), ("sync", True)):
            (told,) = crews(replace(once, timeout=2.0), calls(("write", "down")), how, native=native)
            assert "did not run, because no decision was given" in told and once.wrote() == ["before"]
        report = json.loads(sidecar("verify", place.ledger, "--custodian-key", place.auditor, "--json").stdout)
        assert report["verdict"] == "UNANCHORED", report["findings"]


def test_a_sidecar_that_is_slow_lets_nothing_run(place: Place, desk: Desk, crews: Crews) -> None:
    stop(place.server.process.pid)
    try:
        (told,) = crews(replace(desk, timeout=0.5), calls(("write", "slow")), "sync")
    finally:
        place.server.process.send_signal(signal.SIGCONT)
    assert "none within 0.5 s" in told and desk.wrote() == []


def test_its_example_runs_and_the_ledger_tells_its_door(place: Place, crews: Crews, tmp_path: Path) -> None:
    secret(tmp_path)
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "sidecar.sock").symlink_to(place.server.socket)
    assert crews.example(REPOSITORY / "docs" / "frameworks" / "with_crewai.py", tmp_path) == "acme-42: Acme GmbH\n"
    timeline = sidecar("timeline", place.ledger, "--agent", AGENT)
    assert timeline.returncode == 0 and "crewai" in timeline.stdout
    report = json.loads(sidecar("verify", place.ledger, "--custodian-key", place.auditor, "--json").stdout)
    assert report["verdict"] == "UNANCHORED", report["findings"]
