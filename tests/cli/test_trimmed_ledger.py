"""What each command says of a ledger that let go of its start: all that is kept, and plainly that it is not whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from sidecar.chain import note
from sidecar.chain.payload import policy_time
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind, records
from sidecar.cli.outcomes import KINDS
from sidecar.client import Status
from sidecar.errors import UsageError
from sidecar.evidence import Order, Records, Source, export, verify
from sidecar.ledger import ledger_stream
from tests.cli.test_policy_in_force import PERIOD, until, write
from tests.collecting import collecting
from tests.collector.test_shipping import until as until_true
from tests.collector.test_trimmed import let_go
from tests.evidence.commands import here
from tests.needs import needs_program
from tests.ports import free_address
from tests.program import made, serving, sidecar

PERSONAL = """
[personal]
subject = "/arguments/customer_id"
fields = ["/arguments/email"]
"""


@dataclass(frozen=True)
class Trimmed:
    """A ledger that let go of its start while its one policy was in force; ``old``, ``fresh``: ids of decisions.
    ``open``: how many that are kept have no outcome."""

    place: Path
    ledger: Path
    key: Path
    trust: Path
    config: Path
    policy: Path
    old: str
    fresh: str
    entries: list[dict[str, Any]]
    open: int


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Trimmed:
    needs_program("opa")
    place = tmp_path_factory.mktemp("trimmed")
    ledger, key = made(place)
    policy, config, metrics = write(place / "policy"), place / "c.toml", free_address()
    with collecting(place / "collector") as collector:
        config.write_text("segment_entries = 3\nledger_keep_seconds = 0.001\n" + collector.settings() + PERSONAL)
        flags = ("--config", config, "--policy", policy, "--metrics", metrics)
        with serving(ledger, *flags, **PERIOD) as server:
            until(server, "crm.read", ("ALLOW", "reader"))
            with server.guard() as guard:
                person = {"customer_id": "4711", "email": "ann@example.org"}
                old = [guard.ask("crm.read", ("customer", f"c-{n}"), person) for n in range(9)]
                until_true(lambda: let_go(metrics) >= 8)
                fresh = [guard.ask("crm.read", ("customer", f"c-{n}"), {}) for n in range(4)]
                guard.report(fresh[-1].decision_id, Status.EXECUTED)
            assert server.stop() == 0
        trust = collector.trust(place / "trust.json")
    entries = [json.loads(line) for line in here("show", ledger, "--json").stdout.splitlines()]
    decisions = sum(each["payload"]["type"] == "DECISION" for each in entries)
    return Trimmed(
        place, ledger, key, trust, config, policy, old[0].decision_id, fresh[-1].decision_id, entries, decisions - 1
    )


def sealed_at(kept: Trimmed, segment: int) -> int:
    """When a segment was sealed, in ns; also one that is no longer kept."""
    with ledger_stream(kept.ledger, rare=True) as read:
        seals = [Seal.parse(note.parse(body).text) for kind, body in records(read) if kind is Kind.SEAL]
    return seals[segment].time


def exported(kept: Trimmed, out: Path, start: int, *more: str | Path) -> dict[str, Any]:
    """The verdict of an export of all up to the last entry's time."""
    window = ("--from", policy_time(start), "--to", policy_time(int(kept.entries[-1]["wall_ns"])))
    done = here("evidence", "export", kept.ledger, *window, "--trust", kept.trust, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(here("verify", out, "--trust", kept.trust, "--json").stdout)
    return report


def test_a_window_within_what_is_kept_is_exported_whole(kept: Trimmed, tmp_path: Path) -> None:
    out = tmp_path / "case.zip"
    before = sealed_at(kept, kept.entries[0]["segment"] - 1)
    report = exported(kept, out, before + 1_000, "--custodian-key", kept.key)
    assert report["verdict"] == "OK", report["findings"]
    assert report["entries"] == len(kept.entries)
    names = ZipFile(out).namelist()
    assert any(each.endswith("/disclosure.json") for each in names)
    assert any(each.startswith("data/policies/") for each in names), "the policy was put in force before what is kept"
    assert here("replay", out).returncode == 0
    assert second(out, kept.trust) == 0


def second(bundle: Path, trust: Path) -> int:
    """The exit code of the second verifier."""
    program = Path(verify.__file__)
    return subprocess.run([sys.executable, program, "verify", bundle, "--trust", trust], check=False).returncode


def test_a_window_that_begins_before_is_incomplete_and_says_so(kept: Trimmed, tmp_path: Path) -> None:
    out = tmp_path / "case.zip"
    report = exported(kept, out, 0)
    first = kept.entries[0]["segment"]
    bad = [(each["verdict"], each["segment"]) for each in report["findings"] if each["verdict"] != "UNANCHORED"]
    assert (report["verdict"], bad) == ("INCOMPLETE", [("INCOMPLETE", first - 1)])
    case = json.loads(ZipFile(out).read("data/case.json"))
    assert case["chains"][0]["first_segment"] == first
    assert any("export from the collector" in each["text"] for each in case["statements"])


def test_a_window_of_which_nothing_is_kept_is_refused(kept: Trimmed, tmp_path: Path) -> None:
    window = ("--from", "2020-01-01", "--to", policy_time(sealed_at(kept, 0) + 1_000))
    with pytest.raises(UsageError, match="no longer kept here; export from the collector"):
        here("evidence", "export", kept.ledger, *window, "--out", tmp_path / "case.zip")
    assert not list(tmp_path.iterdir())


def test_what_goes_while_it_is_exported_is_not_passed_over(kept: Trimmed) -> None:
    """The segments are chosen, and then the ledger lets go of them."""

    @contextmanager
    def stream(_: int = 0, *, rare: bool = False) -> Iterator[Records]:
        with ledger_stream(kept.ledger, rare=rare) as read:
            yield records(read)

    source = Source(stream, partial(stream, rare=True), first=0)
    with pytest.raises(UsageError, match="let go of some of the window meanwhile; export from the collector"):
        export(Order(0, 2**62, 2**62, "a test", ("ledger", "/")), [source], BytesIO())


def test_keys_are_disclosed_of_what_is_kept_and_of_what_is_not(kept: Trimmed, tmp_path: Path) -> None:
    segment = kept.entries[0]["segment"]
    for each in (segment, segment - 1):
        out = tmp_path / f"{each}.json"
        done = here("keys", "disclose", kept.ledger, "--custodian-key", kept.key, "--segment", str(each), "--out", out)
        assert done.returncode == 0, done.stderr
    report = json.loads(here("verify", kept.ledger, "--disclosure", tmp_path / f"{segment}.json", "--json").stdout)
    assert "HMAC tags of the entries of 1 segment (disclosed keys)" in report["checked"], report["checked"]
    bundle, window = tmp_path / "case.zip", ("--from", "2020-01-01", "--to", "2100-01-01")
    given = ("--disclosure", tmp_path / f"{segment - 1}.json", "--trust", kept.trust)
    done = here("evidence", "export", kept.place / "collector", *window, *given, "--out", bundle)
    assert done.returncode == 0 and "HMAC tags of the entries of 1 segment (disclosed keys)" in done.stdout


def test_what_is_shown_says_what_is_missing(kept: Trimmed) -> None:
    gone = f"before segment {kept.entries[0]['segment']} is no longer kept here; the collector has it"
    assert kept.entries[0]["seq"] > 3
    for asked in ((), ("--decision", kept.fresh), ("--outcomes",)):
        done = here("show", kept.ledger, *asked)
        assert done.returncode == 0 and gone in done.stderr, asked
    assert f"{KINDS[0]}: {kept.open}," in done.stdout
    old = sidecar("show", kept.ledger, "--decision", kept.old)
    assert old.returncode == 1 and "no such entry" in old.stderr and gone in old.stderr
    told = json.loads(here("timeline", kept.ledger, "--agent", "billing-agent", "--format", "json").stdout)
    assert told["rows"][0]["kind"] == "outside"
    assert sum(each["kind"] == "decision" for each in told["rows"]) == kept.open + 1


def test_a_re_run_of_what_is_kept_is_none_of_all(kept: Trimmed) -> None:
    """Not of what was asked for, unless no more was."""
    again = here("replay", kept.ledger)
    assert again.returncode == 3 and again.stdout.startswith(f"{kept.open + 1} decisions: {kept.open + 1} came out")
    assert (
        "those before what this ledger keeps are not here: export" in again.stdout and "no longer kept" in again.stderr
    )
    last = sealed_at(kept, kept.entries[0]["segment"] - 1)
    for start, code in ((last - 1_000, 3), (last + 1_000, 0)):
        within = here("replay", kept.ledger, "--from", policy_time(start), "--json")
        assert (within.returncode, json.loads(within.stdout)["let_go"]) == (code, code == 3), within.stdout


def test_policies_put_in_force_before_are_known(kept: Trimmed) -> None:
    assert all(each["payload"]["type"] != "POLICY" for each in kept.entries)
    found = json.loads(here("policy", "show", kept.ledger, "--json").stdout)
    assert found["active"]["event"] == "activated" and found["active"]["seq"] < kept.entries[0]["seq"]
    assert len(found["history"]) == 1
    other = write(kept.place / "other", action="crm.write")
    done = here("policy", "diff", found["active"]["revision"], other, "--ledger", kept.ledger)
    assert done.returncode == 1 and f"compared; otherwise: {kept.open + 1}" in done.stdout, done.stdout
    assert "no longer kept here" in done.stderr


def test_data_subjects_are_listed(kept: Trimmed) -> None:
    found = here("subjects", "list", "--config", kept.config, "--data-dir", kept.ledger, "--json").stdout
    assert [json.loads(each)["who"] for each in found.splitlines()] == ["4711"]


def test_the_policy_is_resumed_whose_entry_is_older(kept: Trimmed, tmp_path: Path) -> None:
    """Also where what stood beside its entry is gone."""
    ledger = tmp_path / "ledger"
    shutil.copytree(kept.ledger, ledger)
    with serving(ledger, "--policy", kept.policy) as server:
        with server.guard() as guard:
            assert guard.check("crm.read", ("customer", "acme-42")).policy.revision
        assert server.stop() == 0
    assert not any("not resumed" in line for line in server.said), server.said
    history = json.loads(here("policy", "show", ledger, "--json").stdout)["history"]
    assert [each["event"] for each in history] == ["activated", "resumed"]
    assert history[0]["bundle_digest"] == history[1]["bundle_digest"]
