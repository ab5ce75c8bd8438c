"""`sidecar evidence export` of a real ledger and a real collector, and `sidecar verify` of what comes out."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.anchor.parties import OpensslAuthority, answering
from tests.collecting import collecting
from tests.collector.test_shipping import until
from tests.program import serving, sidecar

ALL = ("--from", "2020-01-01")


class Kept:
    """What `sidecar demo --keep` leaves: a ledger that ended, its collector, trust file and custodian's key."""

    def __init__(self, place: Path) -> None:
        self.ledger, self.collector = place / "ledger", place / "collector"
        self.trust, self.key = place / "trust.json", place / "auditor.pem"
        shown = sidecar("show", self.ledger, "--json").stdout.splitlines()
        wall = int(json.loads(shown[-1])["wall_ns"])
        self.entries = len(shown)
        self.until = f"{(wall // 10**6 + 1) / 1000:.3f}"  # POSIX seconds, just after the last entry

    def to(self) -> str:
        return datetime.fromtimestamp(float(self.until), UTC).isoformat()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    place = tmp_path_factory.mktemp("evidence") / "demo"
    done = sidecar("demo", "--keep", place)
    assert done.returncode == 0, done.stderr
    return Kept(place)


def verdict(bundle: Path, *more: str | Path) -> tuple[int, dict[str, object]]:
    done = sidecar("verify", bundle, "--json", *more)
    return done.returncode, json.loads(done.stdout)


def test_export_of_a_ledger(kept: Kept, tmp_path: Path) -> None:
    out = tmp_path / "case.zip"
    asked = (*ALL, "--to", kept.to(), "--trust", kept.trust, "--custodian-key", kept.key, "--case", "2026-017")
    done = sidecar("evidence", "export", kept.ledger, *asked, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("OK\n") and done.stderr == f"{out}\n"
    assert "decisions are of agents whose names nobody proved" in done.stdout
    code, found = verdict(out, "--trust", kept.trust)
    assert (code, found["verdict"], found["entries"]) == (0, "OK", kept.entries)
    assert not set(tmp_path.iterdir()) - {out}

    # Without a pinned log nothing is OK, nor by the bundle's own copy, and that is said where nobody overlooks it.
    assert verdict(out)[0] == 4
    own = sidecar("verify", out, "--trust-bundle", "--json")
    assert own.returncode == 4 and "THE TRUST FILE IS THE BUNDLE'S OWN" in own.stderr
    assert json.loads(own.stdout)["findings"][0]["reason"].startswith("the trust file is the bundle's own")
    assert sidecar("verify", out, "--trust-bundle", "--trust", kept.trust).returncode == 2
    assert sidecar("verify", kept.ledger, "--trust-bundle").returncode == 2

    _by_hand(out, tmp_path / "unpacked")
    shown = sidecar("show", out)
    assert shown.stdout == sidecar("show", kept.ledger).stdout and shown.returncode == 0

    again = sidecar("evidence", "export", kept.ledger, *asked, "--out", out)
    assert again.returncode == 2 and "exists; choose another --out" in again.stderr


def _by_hand(bundle: Path, into: Path) -> None:
    """What the page in the bundle tells to do without any of our programs."""
    with ZipFile(bundle) as read:
        read.extractall(into)
        names = read.namelist()
    page = (into / "data" / "HOW-TO-VERIFY.txt").read_text()
    command = re.search(r"sha256sum -c --strict .*", page)
    assert command is not None and len(page.splitlines()) < 60
    done = subprocess.run(command[0].split(), cwd=into, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(names) - 1
    assert "openssl ts -verify -data checkpoint.txt -in response.tsr" in page


def test_a_window_that_ends_now_is_not_called_complete(kept: Kept, tmp_path: Path) -> None:
    out = tmp_path / "case.zip"
    done = sidecar("evidence", "export", kept.ledger, *ALL, "--to", "2100-01-01", "--trust", kept.trust, "--out", out)
    assert done.returncode == 0 and done.stdout.startswith("UNANCHORED\n")
    assert "no seal shows what the chain wrote after" in done.stdout
    assert "no custodian's key and no disclosure was given" in done.stdout
    assert verdict(out, "--trust", kept.trust)[0] == 4


@pytest.mark.parametrize("index", ["whole", "poisoned"])
def test_export_of_a_collector_finds_everything_whatever_its_index_says(kept: Kept, tmp_path: Path, index: str) -> None:
    """Attack 15: objects are read, an index is not asked."""
    place = tmp_path / "collector"
    shutil.copytree(kept.collector, place)
    if index == "poisoned":
        (place / "index.db").write_bytes(b"there is no such entry" * 1_000)
    out, writing = tmp_path / "case.zip", place / "store" / "writing" / "half"
    writing.write_bytes(b"what a collector that runs is about to create")
    done = sidecar("evidence", "export", place, *ALL, "--to", kept.to(), "--trust", kept.trust, "--out", out)
    assert done.returncode == 0, done.stderr
    assert writing.exists()
    code, found = verdict(out, "--trust", kept.trust)
    assert (code, found["verdict"], found["entries"]) == (0, "OK", kept.entries)


def test_export_of_a_collector_brings_the_timestamps(kept: Kept, tmp_path: Path) -> None:
    """From its objects: the seal under the checkpoint that was stamped, the roll-call under a newer one, joined."""
    place, authority = tmp_path / "collector", OpensslAuthority.make(tmp_path / "tsa")
    shutil.copytree(kept.collector, place)
    objects, until_now = place / "store" / "objects" / "log", datetime.now(UTC).isoformat()
    with answering(lambda path, body: (200, authority.reply(body))) as url:
        (tmp_path / "c.toml").write_text(
            f'dev = true\nroll_call_seconds = 0.2\ntimestamp_urls = ["{url}"]\n'
            f'timestamp_roots = ["{tmp_path}/tsa/root.pem"]\n'
        )
        with collecting(place, "--config", tmp_path / "c.toml") as collector:
            until(lambda: files(objects / "stamped") == 1)
            signed = files(objects / "checkpoint")
            until(lambda: files(objects / "checkpoint") > signed + 1)
            assert collector.stop() == 0
    assert files(objects / "stamped") == 1  # one a minute, however many were asked for
    trust, out = tmp_path / "trust.json", tmp_path / "case.zip"
    roots = [base64.b64encode(authority.root).decode()]
    trust.write_text(json.dumps({**json.loads(kept.trust.read_text()), "tsa_roots": roots}))
    done = sidecar("evidence", "export", place, *ALL, "--to", until_now, "--trust", trust, "--out", out)
    assert done.returncode == 0, done.stderr
    with ZipFile(out) as bundle:
        kinds = [name.rpartition(".")[2] for name in bundle.namelist() if "/receipts/" in name]
    assert sorted(kinds) == ["timestamp", "tlog-consistency", "tlog-proof", "tlog-proof"]
    code, found = verdict(out, "--trust", trust)
    assert (code, found["verdict"]) == (0, "OK"), found
    assert any("timestamp authority saw" in line for line in found["notes"])  # type: ignore[attr-defined]


def files(place: Path) -> int:
    return sum(path.is_file() for path in place.rglob("*"))


def test_a_collector_that_lost_a_run_is_refused(kept: Kept, tmp_path: Path) -> None:
    place = tmp_path / "collector"
    shutil.copytree(kept.collector, place)
    run = sorted(p for p in (place / "store" / "objects" / "chain").rglob("*") if p.is_file())[1]
    run.chmod(0o600)
    run.write_bytes(run.read_bytes()[:-1])
    done = sidecar("evidence", "export", place, *ALL, "--to", kept.to(), "--out", tmp_path / "case.zip")
    assert done.returncode != 0 and "is damaged" in done.stderr and not (tmp_path / "case.zip").exists()


def test_what_cannot_be_asked(kept: Kept, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "case.zip")
    for wrong, said in (
        (("--from", "2026-01-02", "--to", "2026-01-01"), "--from is before --to"),
        (("--from", "yesterday", "--to", "2026-01-01"), "give a time such as"),
        (("--from", "2026-01-01T10:00:00", "--to", "2100-01-01"), "say in which zone"),
        (("--from", "2020-01-01", "--to", "2020-01-02"), "no chain recorded anything"),
        ((*ALL, "--to", "2100-01-01", "--case", "x" * 201), "at most 200 characters"),
        ((*ALL, "--to", "2100-01-01", "--custodian-key", kept.key, "--disclosure", kept.trust), "give one of them"),
    ):
        done = sidecar("evidence", "export", kept.ledger, *wrong, *out)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    nothing = sidecar("evidence", "export", tmp_path, *ALL, "--to", "2100-01-01", *out)
    assert nothing.returncode == 2 and "no ledger and no collector" in nothing.stderr
    assert list(tmp_path.iterdir()) == []


def test_export_while_the_sidecar_goes_on(tmp_path: Path) -> None:
    ledger, out = tmp_path / "ledger", tmp_path / "case.zip"
    with serving(ledger, "--init") as running, running.guard() as guard:
        for number in range(3):
            guard.check("crm.read", ("customer", f"c-{number}"))
        done = sidecar("evidence", "export", ledger, *ALL, "--to", "2100-01-01", "--out", out)
        guard.check("crm.read", ("customer", "c-9"))
    assert done.returncode == 0, done.stderr
    assert "in a segment that is not sealed" in done.stdout
    assert verdict(out)[1]["verdict"] == "UNANCHORED"
