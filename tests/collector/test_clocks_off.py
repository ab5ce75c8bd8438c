"""Wall clocks that are hours off, of sidecars and of the collector: nothing is lost, nobody is accused, and the report
says what time is evidence of.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.collecting import collecting
from tests.collector.test_shipping import decide, verdict
from tests.faults.clocks import off_by
from tests.program import made, serving, sidecar

HOUR = 3_600


def test_clocks_that_are_hours_off(tmp_path: Path) -> None:
    """The collector is an hour ahead; one sidecar two hours behind it, one an hour before it."""
    ledgers = {}
    with collecting(tmp_path / "collector", COLLECTOR_SILENCE_SECONDS="30", **off_by(1, tmp_path)) as collector:
        config = tmp_path / "c.toml"
        config.write_text("segment_entries = 2\n" + collector.settings())
        for hours in (-1, 2):
            place = tmp_path / str(hours)
            place.mkdir()
            ledgers[hours], _ = made(place)
            with serving(ledgers[hours], "--config", config, **off_by(hours, tmp_path)) as server:
                decide(server, 1)
                assert server.stop() == 0
        said = collector.status()
        trust = collector.trust(tmp_path / "trust.json")
        assert collector.stop() == 0
    assert said["alarms"] == [] and all(each["lag_seconds"] >= 0 for each in said["chains"])
    for hours, ledger in ledgers.items():
        report = verdict(ledger, trust)
        assert report["verdict"] == "OK", report
        last = json.loads(sidecar("show", ledger, "--json").stdout.splitlines()[-1])
        assert abs(int(last["wall_ns"]) / 1e9 - time.time() - hours * HOUR) < HOUR / 2  # the clock was really off
        stepped = [row for row in report["notes"] if "the wall clock stepped by -3" in row]
        assert len(stepped) == (hours < 0), report["notes"]  # back, from where GENESIS was made; said, and no crime
