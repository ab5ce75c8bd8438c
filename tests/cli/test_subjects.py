"""Personal fields as an operator and an authority see them: sealed, opened, erased, with the real programs.

The last word is a search of every byte that sidecar and collector keep, for the values in every spelling.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sidecar.cli import cli
from sidecar.cli.policy_diff import Inputs
from sidecar.cli.sealed import read_openings
from sidecar.client import NoDecision, Status
from sidecar.ledger import ledger_stream
from tests.collecting import collecting
from tests.program import environment, serving, sidecar
from tests.traces import traces

EMAIL, NAME, CITY, BOBS = "ann.quux@example.org", "Ann Quux-Sörensen", "Sörby-under-Test", "bob.quux@example.org"
PAGE = (Path(__file__).parents[2] / "docs/PERSONAL.md").read_text()
(ERASING,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SETTINGS = """
[personal]
subject = "/arguments/customer_id"
fields = ["/arguments/email", "/context/name", "/response/address"]
"""


def founded(place: Path, *more: str) -> Path:
    """A ledger with a custodian and an authority, and a configuration beside it."""
    here("keys", "custodian", "--out", place / "auditor.pem")
    here("keys", "authority", "--out", place / "authority.pem")
    named = ("--custodian", place / "auditor.pub.pem", "--authority", place / "authority.pub.pem")
    here("init", "--data-dir", place / "ledger", *named, *more)
    return place / "ledger"


def configured(place: Path, more: str = "") -> Path:
    (place / "sidecar.toml").write_text('data_dir = "ledger"\n' + more + SETTINGS)
    return place / "sidecar.toml"


def act(server: Any, customer: object, email: str = EMAIL, **context: Any) -> dict[str, Any]:
    """One decision about a customer and what came of it; what the caller was told."""
    arguments = {"customer_id": customer, "email": email, "note": f"mail {email}"}
    with server.guard() as guard:
        told = guard.check("crm.read", ("customer", "record"), arguments, context={"name": NAME} | context)
        guard.report(told.decision_id, Status.EXECUTED, response={"address": {"city": CITY}, "mailed": email})
    return {"decision": told.decision_id, "seq": told.seq}


def here(*arguments: str | Path, code: int = 0) -> str:
    """A command in this process, which takes a tenth of the time; what it printed."""
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == code, (done.output, done.exception)
    return done.stdout


def verified(ledger: Path, *more: str | Path, code: int) -> dict[str, Any]:
    key = ("--custodian-key", ledger.parent / "auditor.pem")
    report: dict[str, Any] = json.loads(here("verify", ledger, *key, "--json", *more, code=code))
    return report


def listed(config: Path, ledger: Path) -> dict[object, str]:
    lines = here("subjects", "list", "--config", config, "--data-dir", ledger, "--json").splitlines()
    return {each["who"]: each["subject"] for each in map(json.loads, lines)}


def shown(ledger: Path, decision: str, *more: str | Path) -> str:
    return here("show", ledger, "--decision", decision, *more)


def test_sealed_opened_erased(tmp_path: Path) -> None:
    """From the first decision to the erasure of both people it was about: one beside a running sidecar and a collector,
    the other when no sidecar runs. What is left anywhere is searched again and again."""
    ledger = founded(tmp_path)
    with collecting(tmp_path / "collector") as collector:
        config = configured(tmp_path, collector.settings())
        where, keys, openings = ("--config", config, "--data-dir", ledger), ledger / "subjects", tmp_path / "openings"
        with serving(ledger, "--config", config) as server:
            told, other = act(server, 4711), act(server, "bob", email=BOBS)
            who = listed(config, ledger)
            assert set(who) == {4711, "bob"}
            assert traces(tmp_path, EMAIL, NAME, CITY, BOBS) == []
            here("subjects", "openings", ledger, "--keys", keys, "--out", openings)
            assert verified(ledger, "--openings", openings, code=4)["verdict"] == "UNANCHORED"
            assert EMAIL in shown(ledger, told["decision"], "--openings", openings)
            assert "arguments.email: sealed" in shown(ledger, told["decision"])
            with ledger_stream(ledger) as read:
                assert not list((inputs := Inputs()).recorded(read)) and inputs.sealed == 2
            with ledger_stream(ledger) as read:
                asked = list(Inputs(openings=read_openings(openings)).recorded(read))
            assert [each[3]["arguments"]["email"] for each in asked] == [EMAIL, BOBS]

            for profile, said in (
                ("full", "- openings of 14 sealed personal fields"),
                ("external", "14 personal fields are sealed, and not all openings are here: the profile is external"),
            ):
                assert said in exported(ledger, tmp_path / "case.zip", keys, profile)
                with zipfile.ZipFile(tmp_path / "case.zip") as bundle:
                    assert ("data/openings.json" in bundle.namelist()) is (profile == "full")
                    assert not [name for name in bundle.namelist() if EMAIL.encode() in bundle.read(name)]
                account = here("timeline", tmp_path / "case.zip", "--agent", "billing-agent")
                assert (EMAIL in account) is (profile == "full")
                (tmp_path / "case.zip").unlink()

            request, note = tmp_path / "erase.json", tmp_path / "erase.note"
            asked = here("subjects", "erase", "4711", *where, "--reason", "ticket 12", "--request", request)
            assert who[4711] in asked
            here("keys", "authority", "--out", tmp_path / "mallory.pem")
            sign(request, tmp_path / "mallory.pem", tmp_path / "forged.note")
            refused = sidecar("subjects", "erase", *where, "--note", tmp_path / "forged.note")
            assert refused.returncode == 1 and "did not sign this" in refused.stderr, refused.stderr
            assert set(listed(config, ledger)) == {4711, "bob"}
            sign(request, tmp_path / "authority.pem", note)
            done = sidecar("subjects", "erase", *where, "--note", note)
            assert done.returncode == 0 and "TOMBSTONE at entry" in done.stdout, done.stderr
            assert sidecar("subjects", "erase", *where, "--note", note).stdout == done.stdout  # again: nothing changes
            act(server, 4711)  # who comes back is somebody new
            assert listed(config, ledger)[4711] != who[4711]
            assert server.stop() == 0
        place, key = done.stdout.split()[-1], ("--authority-key", tmp_path / "authority.pem")
        request.unlink()
        note.unlink()
        said = subprocess.run(
            ["bash", "-ec", ERASING], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
        )
        assert said.returncode == 0, said.stderr
        assert set(listed(config, ledger)) == {4711}
        copy, before = tmp_path / "elsewhere", listed(config, ledger)
        for _ in range(2):  # the second takes the first one's place
            here("subjects", "export", *where, "--out", copy)
        shutil.rmtree(keys)
        here("subjects", "restore", copy, *where, "--custodian-key", tmp_path / "auditor.pem")
        assert listed(config, ledger) == before
        again = sidecar("subjects", "erase", "bob", *where, "--reason", "ticket 13", *key)
        assert again.returncode == 1 and "no such data subject" in again.stderr
        trust = collector.trust(tmp_path / "trust.json")

    openings.unlink()
    here("subjects", "openings", ledger, "--keys", keys, "--out", openings)
    for given in ((), ("--openings", openings)):
        report = verified(ledger, "--trust", trust, *given, code=0)
        assert report["verdict"] == "REDACTED", report["findings"]
        assert [str(f["seq"]) for f in report["findings"]] == [place, said.stdout.split()[-1]]
    assert f"erased (TOMBSTONE {place})" in shown(ledger, told["decision"], "--openings", openings)
    assert "arguments.email: erased" in shown(ledger, other["decision"], "--openings", openings)
    openings.unlink()
    later = exported(ledger, tmp_path / "later.zip", keys, "full", "--trust", trust)
    assert later.count("REDACTED") == 4 and "INCOMPLETE" not in later  # two people, in the export and in its check
    assert traces(tmp_path, EMAIL, NAME, CITY, BOBS) == []


def test_the_keys_outlive_the_pod_and_what_is_erased_does_not(tmp_path: Path) -> None:
    """A copy on another volume follows the keys; an erasure is done when the copy, too, is one without it."""
    ledger, volume = founded(tmp_path), tmp_path / "volume"
    volume.mkdir()
    config, note = configured(tmp_path), tmp_path / "erase.note"
    config.write_text(config.read_text() + f'copy_file = "{volume}/keys"\n')
    where, erase = ("--config", config, "--data-dir", ledger), ("subjects", "erase", "--config", config)
    with serving(ledger, "--config", config) as server:
        act(server, 4711)
        assert after_the_pod(ledger, volume / "keys") == listed(config, ledger)  # as soon as it was answered
        shutil.move(volume, tmp_path / "unmounted")
        with (
            server.guard(attempts=1) as guard,
            pytest.raises(NoDecision),
        ):  # there would be no key if the pod died
            guard.check("crm.read", ("customer", "record"), {"customer_id": "bob", "email": BOBS})
        act(server, 4711)
        shutil.move(tmp_path / "unmounted", volume)
        act(server, "bob", email=BOBS)
        assert set(after_the_pod(ledger, volume / "keys")) == {4711, "bob"}
        assert server.stop() == 0
    who, request = listed(config, ledger), tmp_path / "erase.json"
    here(*erase, "--data-dir", ledger, "bob", "--reason", "ticket 13", "--request", request)
    sign(request, tmp_path / "authority.pem", note)
    here("keys", "authority", "--out", tmp_path / "other.pem")
    sign(request, tmp_path / "other.pem", tmp_path / "forged.note")
    refused = sidecar(*erase, "--data-dir", ledger, "--note", tmp_path / "forged.note")
    assert refused.returncode == 1 and (volume / "keys").exists(), refused.stderr  # and the copy is up to date now
    old = tmp_path / "old"
    old.hardlink_to(volume / "keys")
    before = old.read_bytes()

    shutil.move(volume, tmp_path / "unmounted")
    failed = sidecar(*erase, "--data-dir", ledger, "--note", note)
    assert failed.returncode == 1 and str(volume / "keys") in failed.stderr, failed.stderr
    shutil.move(tmp_path / "unmounted", volume)
    with serving(ledger, "--config", config) as server:  # what is left to be done it does
        done = sidecar(*erase, "--data-dir", ledger, "--note", note)
        assert done.returncode == 0 and "TOMBSTONE" in done.stdout, done.stderr
        assert server.stop() == 0
    assert old.read_bytes() != before and len(old.read_bytes()) == len(before)

    shutil.rmtree(ledger / "subjects")
    here("subjects", "restore", volume / "keys", *where, "--custodian-key", tmp_path / "auditor.pem")
    assert listed(config, ledger) == {4711: who[4711]}


def after_the_pod(ledger: Path, copy: Path) -> dict[object, str]:
    """Who has a key where only the copy is left."""
    place = ledger.parent / "after"
    config = ledger.parent / "after.toml"
    config.write_text(f'[personal]\nsubject = "/arguments/customer_id"\nkeys_dir = "{place}"\n')
    where = ("--config", config, "--data-dir", ledger)
    here("subjects", "restore", copy, *where, "--custodian-key", ledger.parent / "auditor.pem")
    found = listed(config, ledger)
    shutil.rmtree(place)
    return found


def exported(ledger: Path, out: Path, keys: Path, profile: str, *more: str | Path) -> str:
    """A bundle of all there is, and of what is to come; what its export and its verification said."""
    window = ("--from", "2020-01-01", "--to", "2100-01-01", "--profile", profile, "--subject-keys", keys)
    said = here("evidence", "export", ledger, *window, *more, "--out", out)
    return said + here("verify", out, *more, code=4)


def sign(request: Path, key: Path, note: Path) -> None:
    here("authority", "sign", request, "--key", key, "--out", note, "--yes")


def test_nothing_is_erased_under_a_retention_profile_that_keeps_everything(tmp_path: Path) -> None:
    ledger, where = founded(tmp_path, "--retention", "sec-17a-4"), ("--data-dir", tmp_path / "ledger")
    for way in (("--authority-key", tmp_path / "authority.pem"), ("--request", tmp_path / "request.json")):
        refused = sidecar("subjects", "erase", "4711", *where, "--reason", "x", *way)
        assert refused.returncode == 2 and "sec-17a-4" in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "request.json").exists() and not (ledger / "subjects").exists()


def test_settings_that_make_no_sense_make_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[personal]\nsubject = "customer_id"\n')
    done = sidecar("serve", "--config", tmp_path / "c.toml", "--data-dir", tmp_path / "ledger", "--init", "--dev")
    assert done.returncode == 2 and "RFC 6901" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "ledger").exists()
