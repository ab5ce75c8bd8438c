"""A sidecar ships to a collector: from decisions to a ledger that ends OK, offline."""

from __future__ import annotations

import json
import queue
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain import note
from tests.anchor.parties import answering
from tests.collecting import Collecting, collecting, status
from tests.collector.test_log import VKEY
from tests.ports import free_address
from tests.program import BIN, Serving, environment, made, serving, sidecar


def decide(server: Serving, number: int) -> None:
    asked = ["--agent", "billing-agent", "--action", "crm.read", "--resource", f"customer:c-{number}"]
    done = sidecar("decide", "--server", server.address, *asked)
    assert done.returncode == 0, done.stderr


def shipped(metrics: str) -> bool:
    """Whether the sidecar says that all but the open segment is anchored."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=20) as page:
        rows = dict(row.rsplit(" ", 1) for row in page.read().decode().splitlines() if not row.startswith("#"))
    assert float(rows["sidecar_ship_refused"]) == 0 and float(rows["sidecar_unshipped_exceeded"]) == 0
    if float(rows["sidecar_unshipped_entries"]) or float(rows["sidecar_unanchored_entries"]) > 2:
        return False
    assert float(rows["sidecar_unanchored_decisions"]) <= float(rows["sidecar_unanchored_entries"])
    assert float(rows["sidecar_shipped_bytes"]) > 0
    assert float(rows["sidecar_acknowledged_entries"]) == float(rows["sidecar_ledger_entries_total"])
    return float(rows["sidecar_unreceipted_age_seconds"]) == 0


def verdict(ledger: Path, trust: Path, *more: str | Path) -> dict[str, Any]:
    return json.loads(sidecar("verify", ledger, "--trust", trust, "--json", *more).stdout)


def test_a_ledger_ends_ok_and_the_collector_holds_all_of_it(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    with collecting(tmp_path / "collector") as collector:
        config = tmp_path / "c.toml"
        metrics = free_address()
        config.write_text(f'segment_entries = 3\nmetrics = "{metrics}"\n' + collector.settings())
        for run in range(2):
            with serving(ledger, "--config", config) as server:
                for number in range(4):
                    decide(server, number)
                until(lambda: shipped(metrics))
                assert server.stop() == 0, run
        trust = collector.trust(tmp_path / "trust.json")
        with urllib.request.urlopen(f"{collector.url}/checkpoint", timeout=20) as answer:
            assert answer.read().startswith(b"sidecar.dev/log\n")
        assert collector.stop() == 0
    report = verdict(ledger, trust, "--custodian-key", key)
    assert report["verdict"] == "OK", report
    said = status(tmp_path / "collector")
    assert [each["seq"] for each in said["chains"]] == [report["entries"] - 1]
    assert said["alarms"] == [] and said["chains"][0]["unanchored_seconds"] is None
    done = sidecar("collector", "verify", "--data-dir", tmp_path / "collector", "--dev", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["chains"][0]["entries"] == report["entries"]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collecting, Path, Path, Path]]:
    """A collector, a ledger that was run twice, a copy from between the runs, and the sidecar's configuration."""
    place = tmp_path_factory.mktemp("lived")
    ledger, _ = made(place)
    with collecting(place / "collector") as collector:
        config = place / "c.toml"
        config.write_text(collector.settings())
        for run in range(2):
            with serving(ledger, "--config", config) as server:
                decide(server, run)
                assert server.stop() == 0
            if run == 0:
                shutil.copytree(ledger, place / "old")
        yield collector, ledger, place / "old", config


def refuses(
    ledger: Path, config: Path, program: Sequence[str | Path] = (BIN / "sidecar",), **more: str
) -> tuple[int, str]:
    command = [*program, "serve", "--data-dir", ledger, "--dev", "--config", config]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment(**more), timeout=120, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    return done.returncode, last


def copied(ledger: Path, place: Path) -> Path:
    return Path(shutil.copytree(ledger, place / "copy"))


def test_attack_7_an_old_copy_does_not_start(lived: tuple[Collecting, Path, Path, Path], tmp_path: Path) -> None:
    collector, _, old, config = lived
    copy = copied(old, tmp_path)
    before = (copy / "ledger.mdb").read_bytes()
    code, said = refuses(copy, config)
    assert code == 1 and "restored from an old copy" in said
    assert (copy / "ledger.mdb").read_bytes() == before
    assert collector.status()["alarms"] == []


@pytest.mark.parametrize("cut", ["old", "sealed tail"])
def test_attacks_3_and_8_an_older_end_beside_newer_receipts(
    lived: tuple[Collecting, Path, Path, Path], tmp_path: Path, cut: str
) -> None:
    collector, ledger, old, _ = lived
    trust = collector.trust(tmp_path / "trust.json")
    assert verdict(ledger, trust)["verdict"] == "OK"
    copy = copied(old, tmp_path)
    assert verdict(copy, trust)["verdict"] == "OK"  # up to the time of its own roll-call, which the report names
    newest = ledger / "receipts" / "roll-call.tlog-proof"
    if cut == "old":
        report = verdict(copy, trust, "--receipt", newest)
    else:
        seal = max((ledger / "receipts").glob("seal-*.tlog-proof"), key=lambda path: int(path.name.split("-")[1]))
        report = verdict(copy, trust, "--receipt", seal)
    assert report["verdict"] == "INCOMPLETE", report


def test_a_collector_out_of_reach(lived: tuple[Collecting, Path, Path, Path], tmp_path: Path) -> None:
    collector, ledger, _, config = lived
    copy = copied(ledger, tmp_path)
    nowhere = {"SIDECAR_COLLECTOR_ADDRESS": free_address()}
    code, said = refuses(copy, config, **nowhere)
    assert code == 2 and "collector.unconfirmed_start" in said
    more = {**nowhere, "SIDECAR_COLLECTOR_UNCONFIRMED_START": "true", "SIDECAR_COLLECTOR_LINGER": "0"}
    with serving(copy, "--config", config, **more) as server:
        decide(server, 7)
        assert server.stop() == 0
    shown = sidecar("show", copy, "--json").stdout.splitlines()
    openings = [entry for line in shown if (entry := json.loads(line)["payload"])["type"] == "OPEN"]
    assert [each.get("unconfirmed") for each in openings] == [None, None, None, True]
    assert json.loads(sidecar("verify", copy, "--json").stdout)["verdict"] == "UNANCHORED"
    other = {"SIDECAR_COLLECTOR_LOG_KEY": str(VKEY)}
    code, said = refuses(copied(ledger, tmp_path / "x"), config, **other)
    assert code == 2 and "not the collector of the pinned log" in said
    assert collector.status()["alarms"] == []


def test_attack_7_clones_that_both_run(lived: tuple[Collecting, Path, Path, Path], tmp_path: Path) -> None:
    """Both start while the collector is away; who is heard first goes on, the other ends, and an alarm says so."""
    _, _, _, config = lived
    ledger, _ = made(tmp_path)
    address = free_address()
    with collecting(tmp_path / "collector", listen=address) as collector:
        config = tmp_path / "c.toml"
        config.write_text(collector.settings("unconfirmed_start = true", "linger = 0"))
        with serving(ledger, "--config", config) as server:
            assert server.stop() == 0
        assert collector.stop() == 0
    clone = copied(ledger, tmp_path)
    with serving(ledger, "--config", config) as one, serving(clone, "--config", config) as two:
        decide(one, 1)
        decide(two, 2)
        with collecting(tmp_path / "collector", listen=address) as collector:
            until(lambda: any(each.process.poll() is not None for each in (one, two)))
            (left,) = [each for each in (one, two) if each.process.poll() is None]
            assert {one.process.poll(), two.process.poll()} == {None, 1}
            decide(left, 3)
            assert {each["kind"] for each in collector.status()["alarms"]} == {"ROLLBACK"}
            left.stop(signal.SIGKILL)


@pytest.mark.parametrize("bound", ["max_unshipped_entries = 3", "max_unshipped_mib = 0.005"])
def test_what_is_unshipped_is_bounded(tmp_path: Path, bound: str) -> None:
    ledger, _ = made(tmp_path)
    address = free_address()
    with collecting(tmp_path / "collector", listen=address) as collector:
        config = tmp_path / "c.toml"
        bounds = [bound, 'unshipped = "deny"', "linger = 0"]
        config.write_text(collector.settings(*bounds))
        with serving(ledger, "--config", config) as server, server.guard() as guard:

            def asked() -> tuple[str, list[str]]:
                decision = guard.ask("crm.read", ("customer", "c-1"), {})
                return decision.effect.value, [reason.code for reason in decision.reasons]

            assert asked()[0] == "ALLOW"
            collector.stop(signal.SIGKILL)
            effects = [asked() for _ in range(6)]
            assert effects[0][0] == "ALLOW" and effects[-1] == ("DENY", ["unshipped"])
            with collecting(tmp_path / "collector", listen=address):
                until(lambda: asked()[0] == "ALLOW")
                assert server.stop() == 0


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_token_lets_one_chain_in_once(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    ledgers = [made(tmp_path / name)[0] for name in ("one", "two")]
    own = tmp_path / "collector.toml"
    own.write_text('origin = "log.example.org/fleet"\nroll_call_seconds = 0.2\n')
    with collecting(tmp_path / "collector", "--config", own) as collector:
        token = tmp_path / "token"
        flags = ["--data-dir", collector.place, "--config", own]
        assert sidecar("collector", "register", *flags, "--out", token).returncode == 0
        config = tmp_path / "c.toml"
        config.write_text(collector.settings())
        code, said = refuses(ledgers[0], config)
        assert code == 2 and "NOT_ALLOWED" in said
        config.write_text(collector.settings(f'token_file = "{token}"'))
        for _ in range(2):
            with serving(ledgers[0], "--config", config) as server:
                assert server.stop() == 0
        code, said = refuses(ledgers[1], config)
        assert code == 2 and "spent by another chain" in said


def test_silence_and_its_webhook(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    got: queue.Queue[bytes] = queue.Queue()

    def answer(path: str, body: bytes) -> tuple[int, bytes]:
        got.put(body)
        return (503 if got.qsize() == 1 else 200), b""

    with answering(answer) as url:
        more = {"COLLECTOR_SILENCE_SECONDS": "5", "COLLECTOR_WEBHOOK": url}
        with collecting(tmp_path / "collector", **more) as collector:
            config = tmp_path / "c.toml"
            # A seal five times a second: while it lives it is heard, decisions or not.
            config.write_text("segment_seconds = 0.2\n" + collector.settings("linger = 0"))
            with serving(ledger, "--config", config) as server:
                decide(server, 1)
                server.stop(signal.SIGKILL)
            first, again = got.get(timeout=60), got.get(timeout=60)
            key = note.parse_vkey(collector.key)
            text = note.verify_single(again, key.name, key.public_key)
            assert first == again and text.startswith("sidecar/v1/alarm\nchain ") and "\nkind SILENT\n" in text
            alarms = collector.status()["alarms"]  # two where the machine was too slow to be heard before the kill
            assert {each["kind"] for each in alarms} == {"SILENT"}
            with urllib.request.urlopen(f"{collector.url}/metrics", timeout=20) as page:
                assert f'collector_alarms_total{{kind="SILENT"}} {len(alarms)}\n'.encode() in page.read()
