"""A ledger that lost its end: the authority accepts it, the sidecar goes on, and everybody sees it ever after."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from sidecar import config as configuration
from sidecar.chain.acts import AcceptLoss, Position, Prune
from sidecar.chain.stream import Kind
from sidecar.founding import options_of, wrap_seed
from sidecar.ledger import Ledger, Left, SystemClock
from sidecar.shipping import Shipping
from tests.collecting import collecting, status
from tests.collector.test_ingest import Sender
from tests.collector.test_retention import chain, founded, signed
from tests.collector.test_shipping import decide, refuses, verdict
from tests.program import BIN, serving, sidecar
from tests.scribe import Record, Scribe, secret, signing_key

RECOVER = Path(__file__).parents[2] / "docs/RECOVER.md"


def test_an_accepted_loss_from_refusal_to_verdict(tmp_path: Path) -> None:
    ledger, config = founded(tmp_path), tmp_path / "c.toml"
    note, request = tmp_path / "loss.note", tmp_path / "loss.json"
    with collecting(tmp_path / "collector") as collector:
        config.write_text("segment_entries = 3\n" + collector.settings())
        for number in range(3):
            with serving(ledger, "--config", config) as server:
                decide(server, number)
                decide(server, number)
                assert server.stop() == 0
            if number == 0:
                shutil.copytree(ledger, tmp_path / "old")
        lost = tmp_path / "lost"
        ledger.rename(lost)
        (tmp_path / "old").rename(ledger)
        code, said = refuses(ledger, config)
        assert code == 1 and "sidecar loss" in said
        asked = sidecar("loss", "--config", config, "--data-dir", ledger, "--reason", "disk", "--request", "-")
        assert asked.returncode == 0, asked.stderr
        # As docs/RECOVER.md does with the log of a pod, which has both streams.
        (line,) = [each for each in (asked.stderr + asked.stdout).splitlines() if each.startswith("{")]
        request.write_text(line + "\n")
        act = json.loads(request.read_bytes())
        assert act["format"] == "sidecar/v1/accept-loss" and act["kept"]["seq"] < act["lost"]["seq"]
        (sign,) = re.findall(r"^sidecar (authority sign .*)$", RECOVER.read_text(), re.MULTILINE)
        done = subprocess.run([BIN / "sidecar", *shlex.split(sign)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        config.write_text("segment_entries = 3\n" + collector.settings(f'accept_loss_file = "{note}"'))
        shutil.copytree(lost / "receipts", ledger / "receipts", dirs_exist_ok=True)  # they were somewhere else
        dies_before_the_epoch(config, ledger)
        others = [each.name for each in (ledger / "receipts").glob("seal-*")]
        assert others and all(int(each.split("-")[1]) < act["kept"]["segment"] for each in others)
        assert list((ledger / "receipts").glob("lost-seal-*"))
        for number in range(2):  # the note stays configured, and says nothing any more
            with serving(ledger, "--config", config) as server:
                decide(server, number)
                assert server.stop() == 0
        trust = collector.trust(tmp_path / "trust.json")
        alarms = [
            (each["kind"], "the authority accepted it: disk" in each["detail"]) for each in collector.status()["alarms"]
        ]
        assert alarms == [("LOSS", True)]
        checked = sidecar("collector", "verify", "--data-dir", collector.place, "--dev", "--json", "--workers", "1")
        (found,) = json.loads(checked.stdout)["chains"]
        assert checked.returncode == 0 and found["verdict"] == "INCOMPLETE", found
        assert "which the authority accepted: disk" in found["accepted"][0]
        again = sidecar("loss", "--config", config, "--data-dir", ledger, "--reason", "x", "--request", tmp_path / "x")
        assert again.returncode == 2 and "nothing that this ledger does not" in again.stderr
        assert collector.stop() == 0
    report = verdict(ledger, trust)
    bad = [f for f in report["findings"] if f["verdict"] not in ("OK", "UNANCHORED")]
    assert report["verdict"] == "INCOMPLETE" and [f["seq"] for f in bad] == [act["kept"]["seq"]], report
    assert "the authority accepted: disk" in bad[0]["reason"]
    newest = ledger / "receipts" / "roll-call.tlog-proof"
    old = verdict(lost, trust, "--receipt", newest)
    assert old["verdict"] in ("TAMPERED", "FORK"), old  # what was lost is not the chain any more
    standing = json.loads(
        sidecar("collector", "status", "--data-dir", tmp_path / "collector", "--dev", "--json").stdout
    )
    assert standing["chains"][0]["seq"] == report["entries"] - 1
    done = sidecar("collector", "reindex", "--data-dir", tmp_path / "collector", "--dev")
    assert done.returncode == 0, done.stderr
    assert status(tmp_path / "collector")["chains"][0]["seq"] == report["entries"] - 1
    assert status(tmp_path / "collector")["chains"][0]["alarms"] == {"LOSS": 1}


class Died(Exception):
    """The sidecar, once the collector had its word."""


def dies_before_the_epoch(config: Path, ledger: Path) -> None:
    """A start that tells the collector of the accepted loss, and then comes no further."""
    settings = configuration.load(config, {}, {"data_dir": str(ledger)})[0]
    shipping = Shipping(settings)

    def confirm(left: Left) -> bool:
        shipping.confirm(left)
        raise Died

    with pytest.raises(Died):
        Ledger.open(
            ledger, wrap=wrap_seed, options=options_of(settings), clock=SystemClock(),
            on_failure=lambda _: None, confirm=confirm,
        )  # fmt: skip
    shipping.let_go()


def loss(s: Scribe, kept: Position, lost: Position | None = None) -> AcceptLoss:
    return AcceptLoss(s.chain_id, kept, lost or Position(s.segment, s.seq, s.leaf), "lost")


def test_a_loss_that_is_not_so_is_not_taken(tmp_path: Path) -> None:
    """By another key, of another place, or of what the collector does not hold: refused, and nothing moves."""
    s = chain("not-lost")
    assert s.authority is not None
    with collecting(tmp_path / "collector") as collector:
        sender = Sender(s, collector)
        sender.ship(s.records)
        here, good = Position(s.segment, s.seq, s.leaf), Position(1, 5, s.leaf_of(4))
        tries = [
            (loss(s, good), signing_key("mallory"), "WRONG_KEY"),
            (loss(s, good), s.identity, "WRONG_KEY"),
            (loss(s, good._replace(leaf=secret("another"))), s.authority, "NOT_ALLOWED"),
            (loss(s, Position(2, 5, s.leaf_of(4))), s.authority, "NOT_ALLOWED"),
            (loss(s, good, here._replace(leaf=secret("another"))), s.authority, "NOT_ALLOWED"),
            (loss(s, good, here._replace(seq=here.seq - 1)), s.authority, "NOT_ALLOWED"),
        ]
        for act, key, code in tries:
            record = signed(tmp_path, act, key).read_bytes()
            assert sender.refused([Record(Kind.AUTHORITY, record, 0)]) == code, (act, code)
        assert sender.refused([Record(Kind.AUTHORITY, b"\0\0\0\1no note", 0)]) == "MALFORMED"
        prune = signed(tmp_path, Prune(s.chain_id, (s.run(0, 1),), "x"), s.authority)
        assert sender.refused([Record(Kind.AUTHORITY, prune.read_bytes(), 0)]) == "MALFORMED"
        assert sender.held().leaf == s.leaf and sender.alarms() == []
        # and one that is so: twice, then the chain goes on from there, by a recovery seal
        record = signed(tmp_path, loss(s, good), s.authority).read_bytes()
        for _ in range(2):
            assert sender.ship([Record(Kind.AUTHORITY, record, 0)]).seq == 5
        assert sender.alarms() == ["LOSS"]
