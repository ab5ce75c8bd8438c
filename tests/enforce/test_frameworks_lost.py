"""A question is decided, and its answer is lost on the way: the tool does not run, or once, under that decision."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tests.enforce.frameworks.between import Between
from tests.enforce.frameworks.doors import DOORS, Call, Desk
from tests.enforce.frameworks.place import AMPLE, placed
from tests.program import sidecar

WAYS = [(kind, how) for kind in DOORS for how in ("sync", "async")]


def test_a_sidecar_killed_between_question_and_answer_lets_nothing_run(tmp_path: Path) -> None:
    """All doors at once: each has asked, each was allowed as the ledger says, and none has heard of it."""
    (tmp_path / "work").mkdir()
    with placed(tmp_path) as place, Between(tmp_path / "between.sock", place.server.socket) as between:
        desk = Desk(between.address, tmp_path / "work", timeout=AMPLE, attempts=1)
        all_ready = threading.Barrier(len(WAYS), between.hold)

        def turns(kind: str, how: str) -> Iterator[list[Call]]:
            yield [("write", {"name": f"before-{kind}-{how}"})]
            all_ready.wait(AMPLE)
            yield [("write", {"name": f"killed-{kind}-{how}"})]

        with ThreadPoolExecutor(len(WAYS)) as threads:
            runs = {(kind, how): threads.submit(DOORS[kind], desk, turns(kind, how), how) for kind, how in WAYS}
            for kind, how in WAYS:
                place.until_asked(f"killed-{kind}-{how}")
            place.server.stop(signal.SIGKILL)
            between.lose()
            told = {way: run.result(AMPLE) for way, run in runs.items()}
        for kind, how in WAYS:
            assert told[kind, how][0] == f"wrote before-{kind}-{how}"
            assert "did not run, because no decision was given" in told[kind, how][1]
            assert place.of(f"killed-{kind}-{how}") == [(kind, "ALLOW", "")]
        assert desk.wrote() == sorted(f"before-{kind}-{how}" for kind, how in WAYS)
        report = json.loads(sidecar("verify", place.ledger, "--custodian-key", place.auditor, "--json").stdout)
        assert report["verdict"] == "UNANCHORED", report["findings"]


def test_a_lost_answer_is_asked_for_again_and_the_tool_runs_once_under_one_decision(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with placed(tmp_path) as place, Between(tmp_path / "between.sock", place.server.socket) as between:
        desk = replace(Desk(between.address, tmp_path / "work"), timeout=AMPLE)
        all_ready = threading.Barrier(len(WAYS), between.hold)

        def turns(kind: str, how: str) -> Iterator[list[Call]]:
            yield [("write", {"name": f"before-{kind}-{how}"})]
            all_ready.wait(AMPLE)
            yield [("write", {"name": f"lost-{kind}-{how}"})]

        with ThreadPoolExecutor(len(WAYS)) as threads:
            runs = {(kind, how): threads.submit(DOORS[kind], desk, turns(kind, how), how) for kind, how in WAYS}
            for kind, how in WAYS:
                place.until_asked(f"lost-{kind}-{how}")
            assert not [name for name in desk.wrote() if name.startswith("lost")]
            between.lose()
            for (kind, how), run in runs.items():
                assert run.result(AMPLE)[1] == f"wrote lost-{kind}-{how}"
        for kind, how in WAYS:
            assert place.of(f"lost-{kind}-{how}") == [(kind, "ALLOW", "EXECUTED")]
            assert desk.runs(f"lost-{kind}-{how}") == 1
