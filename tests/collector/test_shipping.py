"""A sidecar ships to a collector: from decisions to a ledger that ends OK, offline."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from tests.collecting import collecting, status
from tests.program import made, serving, sidecar


def decide(server: object, number: int) -> None:
    asked = ["--agent", "billing-agent", "--action", "crm.read", "--resource", f"customer:c-{number}"]
    done = sidecar("decide", "--server", server.address, *asked)  # type: ignore[attr-defined]
    assert done.returncode == 0, done.stderr


def verdict(ledger: Path, trust: Path, *more: str | Path) -> dict:
    return json.loads(sidecar("verify", ledger, "--trust", trust, "--json", *more).stdout)


def test_a_ledger_ends_ok_and_the_collector_holds_all_of_it(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    with collecting(tmp_path / "collector") as collector:
        config = tmp_path / "c.toml"
        config.write_text("segment_entries = 3\n" + collector.settings())
        for run in range(2):
            with serving(ledger, "--config", config) as server:
                for number in range(4):
                    decide(server, number)
                assert server.stop() == 0, run
        trust = collector.trust(tmp_path / "trust.json")
        with urllib.request.urlopen(f"{collector.url}/checkpoint", timeout=20) as answer:
            assert answer.read().startswith(b"sidecar.dev/log\n")
        assert collector.stop() == 0
    report = verdict(ledger, trust, "--custodian-key", key)
    assert report["verdict"] == "OK", report
    said = status(tmp_path / "collector")
    assert [each["seq"] for each in said["chains"]] == [report["entries"] - 1]
    assert said["alarms"] == []
    done = sidecar("collector", "verify", "--data-dir", tmp_path / "collector", "--dev", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["chains"][0]["entries"] == report["entries"]
