"""The Workers of the page: what they help with changes no verdict, and one that dies ends the verification visibly."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from playwright.sync_api import Browser

from tests.needs import needs_program
from tests.page import bundles
from tests.page.browser import PATIENCE, Opened, opened

NODE = Path(__file__).resolve().parent.parent / "conformance" / "verify_html.mjs"

# What happens to the one that judges once it tells how far it is, and to others instead of their answer.
_JUDGING = "const say = postMessage; self.postMessage = told => {{ say(told); if (told.progress) {{ {fault} }} }};"
_HELPING = (
    "const say = MessagePort.prototype.postMessage; MessagePort.prototype.postMessage = function (told, handed) {{"
    'if ("answer" in told) {{ {fault} }} else say.call(this, told, handed); }};'
)
_SAYS_WHAT_IT_HELPS = (
    "const say = MessagePort.prototype.postMessage; MessagePort.prototype.postMessage = function (told, handed) {"
    "if (told.answer?.where) console.log(`read ahead: ${told.answer.where.filter(Boolean).length > 0}`);"
    "say.call(this, told, handed); };"
)
_DUE = ("verdict", "findings", "findings_total", "checked", "not_checked", "notes", "entries", "segments", "claim")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle that is worth more Workers, and its trust file."""
    return bundles.long(tmp_path_factory.mktemp("long"), 12_000)


def _alone(bundle: Path, trust: Path) -> dict[str, Any]:
    """The report of the page's script without a page, and without Workers."""
    run = subprocess.run(
        [needs_program("node"), NODE, "verify", bundle, "--trust", trust, "--json"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def _shown(it: Opened) -> dict[str, Any]:
    """The report that the page shows, as the protocol has it."""
    found: dict[str, Any] = it.page.evaluate(
        """() => {
          const { report } = state, name = (verdict) => Object.keys(MEANING)[verdict];
          const findings = report.findings.map((each) => ({ ...each, verdict: name(each.verdict) }));
          return {
            ...report, verdict: name(report.verdict), findings, findings_total: report.total,
            not_checked: report.notChecked,
          };
        }"""
    )
    return found


def test_what_other_workers_help_with_is_held_against_the_bundle(
    browser: Browser, long: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of a long file: a stream and a document with a byte that is another, each named at its place."""
    bundle, trust = long
    data = bytearray(bundle.read_bytes())
    with ZipFile(bundle) as read:
        for name in ("stream.sdcseg", "events.ocsf.jsonl"):
            member = next(each for each in read.infolist() if each.filename.endswith(name))
            data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 1
    (tmp_path / "other.zip").write_bytes(data)
    alone = subprocess.run(
        [needs_program("node"), NODE, "verify", tmp_path / "other.zip", "--trust", trust, "--json"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    due = [each["reason"] for each in json.loads(alone.stdout)["findings"]]
    with opened(browser) as it:
        workers: list[str] = []
        it.page.on("worker", lambda worker: workers.append(worker.url))
        assert it.verify(bundle, trust) == "OK"
        assert len(workers) == 1 + 2  # one takes digests, the others read entries ahead
        it.page.click("#again")
        assert it.verify(tmp_path / "other.zip", trust) == "MALFORMED"
        findings = it.text("#findings")
        assert due and all(reason in findings for reason in due)
        assert re.search(r"stream\.sdcseg: its CRC-32 is not the one that is given", findings)
        assert re.search(r"events\.ocsf\.jsonl: its (deflated data is damaged|CRC-32 is not)", findings)
        it.quiet()


@pytest.mark.parametrize("decisions", [1_200, pytest.param(8_000, marks=pytest.mark.soak)])
def test_a_long_signed_bundle_is_judged_with_help_as_without(browser: Browser, tmp_path: Path, decisions: int) -> None:
    bundle, trust = bundles.signed(tmp_path, decisions)
    due, each = _alone(bundle, trust), decisions // 400
    assert due["verdict"] == "TAMPERED" and due["findings_total"] == 2 * each
    with opened(browser) as it:
        it.workers_begin_with(_SAYS_WHAT_IT_HELPS)
        assert it.verify(bundle, trust) == "TAMPERED"
        shown = _shown(it)
        assert {name: shown[name] for name in _DUE} == {name: due[name] for name in _DUE}
        assert shown["chains"][0]["decisions"]["signed"] == decisions - each  # who signed over something else
        assert "read ahead: true" in it.complaints  # they did help


@pytest.mark.parametrize(
    ("who", "fault", "told"),
    [
        (_JUDGING, "self.close()", "the browser ended a part of this page, perhaps for want of memory"),
        (_HELPING, "self.close()", "the browser ended a part of this page, perhaps for want of memory"),
        (_HELPING, "throw new RangeError('too large')", "a part of this page stopped (Uncaught RangeError: too large)"),
    ],
    ids=["the one that judges", "one that helps", "an error in one that helps"],
)
def test_a_worker_that_dies_ends_the_verification(
    browser: Browser, long: tuple[Path, Path], who: str, fault: str, told: str
) -> None:
    with opened(browser) as it:
        it.workers_begin_with(who.format(fault=fault))
        assert it.verify(*long) == f"Verification broke off: {told}. This is no verdict."
        assert it.page.is_hidden("#result") and it.page.is_hidden("#work") and it.page.is_enabled("#start")
        assert it.page.title() == "Decision Sidecar – evidence verifier"


def test_a_worker_that_hangs_is_given_up_after_five_minutes(browser: Browser, long: tuple[Path, Path]) -> None:
    """By the page's own clock, which the test puts forward; no lock tells, since it lives."""
    with opened(browser) as it:
        it.page.clock.install()
        it.page.reload()
        it.workers_begin_with(_JUDGING.format(fault="for (;;);"))
        for slot, path in zip(("#bundle", "#trust"), long, strict=True):
            it.page.set_input_files(slot, path)
        it.page.click("#start")
        it.page.wait_for_selector("#work-told:not(:empty)", timeout=PATIENCE)
        it.page.clock.run_for(295_000)
        assert it.page.is_visible("#work")
        it.page.clock.run_for(10_000)
        assert it.text("#trouble").startswith("Verification broke off:")


def test_entries_that_can_be_read_no_more(browser: Browser, tmp_path: Path) -> None:
    """The Worker dies once the verdict is there: the verdict stays, and what is asked for is not waited for."""
    bundle, trust = bundles.hostile(tmp_path)
    with opened(browser) as it:
        assert it.verify(bundle, trust) == "OK"
        it.page.workers[0].evaluate("self.close()")
        it.page.wait_for_selector("#gone:not(:empty)", timeout=PATIENCE)
        assert it.text("#gone").startswith("Entries can be read no more: the browser ended a part of this page")
        before = it.rows()
        it.page.click("#entries tbody tr button.link")
        it.page.click("#kinds input[value=ALLOW]")
        assert it.rows() == before and it.text("#word .verdict-word") == "OK"
        assert it.page.get_attribute("#entries tbody tr button.link", "aria-expanded") == "false"
        it.quiet()
