"""The page as an auditor meets it: good, tampered, withheld, hostile and long bundles in a real Chromium."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.conformance.cases import CASES, TRUST
from tests.evidence.bundled import bundle
from tests.languages.building import node_modules
from tests.page import bundles
from tests.page.browser import PATIENCE, opened
from tests.page.core import PAGE
from tests.scribe import Scribe

HERE = Path(__file__).resolve().parent
_NEVER = re.compile(
    r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|\bimport\b|https?://(?!www\.w3\.org/2000/svg)"
)
_COUNT_FRAMES = """() => {
  window.frames_seen = 0;
  const tick = () => { window.frames_seen++; requestAnimationFrame(tick); };
  tick();
}"""
_LACKING = (  # what a browser may lack
    "crypto.subtle.generateKey = () => Promise.reject(new Error());"
    "delete self.WebAssembly; delete WorkerNavigator.prototype.locks;"
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published bundles and trust files, by name."""
    place = tmp_path_factory.mktemp("given")
    for name in ("good-whole", "good-agent", "good-two-chains", "01-flip-payload"):
        (place / f"{name}.zip").write_bytes(CASES[name].make())
    for name, content in TRUST.items():
        (place / name).write_bytes(content())
    return place


def test_the_page_lets_in_nothing_but_itself() -> None:
    """Its policy names the hashes of its own scripts and style, and no source beside them."""
    text = PAGE.read_text()
    parts = re.findall(r"<(?:script id=\"\w+\"|style)>(.*?)</(?:script|style)>", text, re.DOTALL)
    assert len(parts) == 3
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(p.encode()).digest()).decode()}'" for p in parts]
    style, core, page = hashes
    assert (
        f"default-src 'none'; script-src {core} {page} 'wasm-unsafe-eval'; style-src {style}; worker-src blob:; "
        "base-uri 'none'; form-action 'none'" in text
    ), f"put these into the policy of verify.html: script-src {core} {page}, style-src {style}"
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|\bimport\b|https?://(?!www\.w3\.org/2000/svg)",
        "".join(parts),
    )


def test_good(browser: Browser, given: Path) -> None:
    with opened(browser) as it:
        assert it.verify(given / "good-whole.zip", given / "trust.json") == "OK"
        assert it.page.evaluate("document.activeElement.id") == "verdict"
        assert "OK." in it.text("#live")
        assert it.page.is_hidden("#own") and it.page.is_visible("#no-findings")
        assert "receipts of the pinned log" in it.text("#checked")
        assert "asserted agent names" in it.text("#unchecked")
        rows = it.rows()
        assert any(
            "billing-agent (who signed it) asked to refund invoice inv-1. Allowed: below the limit" in r for r in rows
        )
        assert any("payments-gateway reported that entry" in r and "was executed" in r for r in rows)
        assert any("travel-agent (proved in transit)" in r and "Denied" in r for r in rows)
        assert any("Segment 0 was sealed over" in r for r in rows)
        it.quiet()


def test_tampered_leads_to_the_place(browser: Browser, given: Path) -> None:
    with opened(browser) as it:
        assert it.verify(given / "01-flip-payload.zip", given / "trust.json") == "TAMPERED"
        it.page.click("#meaning button")
        it.until("document.activeElement.getAttribute('aria-label')?.startsWith('Details of entry')")
        row = it.page.evaluate("document.activeElement.closest('tr').innerText")
        assert "TAMPERED" in row and "cannot be read" in row
        it.page.keyboard.press("Enter")
        it.page.wait_for_selector(".detail")
        assert "payload commitment" in it.text(".detail")
        it.page.keyboard.press("Enter")
        it.page.wait_for_selector(".detail", state="detached")
        it.quiet()


def test_what_is_withheld_is_said(browser: Browser, given: Path) -> None:
    with opened(browser) as it:
        assert it.verify(given / "good-agent.zip", given / "trust.json") == "OK"
        assert any("whose content is not in this bundle" in row for row in it.rows())
        assert "billing-agent" in it.text("#facts") and "withheld entries" in it.text("#unchecked")
        assert "of others are withheld" in it.text("#stated")
        it.quiet()


def test_an_opened_decision_tells_how_it_came_and_a_print_which_page_it_is(browser: Browser, tmp_path: Path) -> None:
    s = Scribe()
    s.open()
    asked = s.decision_value("ALLOW")["request"]
    asked |= {"context": '{"door":{"kind":"mcp","server":"files"}}', "arguments": '{"path":"/etc/motd"}'}
    seq = s.decision(request=asked)
    for _ in range(60):
        s.outcome(s.decision())
    s.seal("close")
    (tmp_path / "case.zip").write_bytes(bundle(s))
    with opened(browser) as it:
        it.verify(tmp_path / "case.zip")
        it.page.click(f"tr[data-place='0/{seq}'] button.link")
        it.page.wait_for_selector(".detail")
        told = it.text(".detail dl")
        assert 'mcp {"server":"files"}' in told and '{"path":"/etc/motd"}' in told
        it.page.emulate_media(media="print")
        assert "Page 1 of 3" in it.text("nav.pages") and it.page.is_hidden("#after") and it.page.is_hidden("#rerun-box")
        it.quiet()


def test_of_which_chain_an_entry_is(browser: Browser, given: Path) -> None:
    with opened(browser) as it:
        assert it.verify(given / "good-two-chains.zip", given / CASES["good-two-chains"].trust) == "OK"
        assert "2 chains" in it.text("#facts")
        chains = {re.search(r" ([0-9a-f]{8})… ", row)[1] for row in it.rows()}  # type: ignore[index]
        assert len(chains) == 2
        it.quiet()


def test_what_was_erased_is_said_and_what_was_not_is_shown(browser: Browser, tmp_path: Path) -> None:
    bundle, trust = bundles.erased(tmp_path)
    with opened(browser) as it:
        assert it.verify(bundle, trust) == "REDACTED"
        assert "Personal fields were erased" in it.text("#meaning")
        rows = it.rows()
        assert sum("personal fields are sealed." in row for row in rows) == 2  # of the one who was erased
        assert any("erased by the authority's word" in row for row in rows)
        assert any("Allowed: (sealed)." in row for row in rows) and not any("(nothing)" in row for row in rows)
        calm = it.page.evaluate("getComputedStyle(document.querySelector('tr.finding td')).backgroundColor")
        assert calm == "rgb(233, 244, 238)"  # what was erased by right is no alarm
        assert "openings of" in it.text("#checked") and "there is no opening" in it.text("#unchecked")
        it.page.click("tr[data-place='0/6'] button.link")
        it.page.wait_for_selector(".detail pre")
        assert "@example.org" in it.text(".detail pre")  # put back, once it was held against its commitment
        it.quiet()


def test_the_keyboard_alone_is_enough(browser: Browser, given: Path) -> None:
    """Where it is after each step; and a print tells which file was verified when."""
    size = f"{(given / 'good-whole.zip').stat().st_size:,} bytes"
    with opened(browser) as it:
        it.page.set_input_files("#bundle", str(given / "good-whole.zip"))
        it.page.set_input_files("#trust", str(given / "trust.json"))
        _tab_to(it.page, "start")
        it.page.keyboard.press("Enter")
        it.page.wait_for_selector("#entries tbody tr", timeout=PATIENCE)
        assert it.page.evaluate("document.activeElement.id") == "verdict"
        facts = it.text("#facts")
        assert f"good-whole.zip, {size}" in facts and re.search(
            r"Verified\n2\d{3}-.* UTC by this computer's clock", facts
        )
        _tab_to(it.page, "again")
        it.page.keyboard.press("Enter")
        assert it.page.evaluate("document.activeElement.id") == "bundle"
        assert it.page.title() == "Decision Sidecar – evidence verifier"
        it.quiet()


def _tab_to(page: Page, wanted: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == wanted:
            return
    raise AssertionError(f"the keyboard does not come to {wanted}")


def test_a_trust_file_is_asked_for_loudly(browser: Browser, given: Path, tmp_path: Path) -> None:
    bundle, trust = bundles.hostile(tmp_path)
    with opened(browser) as it:
        assert it.verify(bundle) == "UNANCHORED"
        assert it.text("#own").startswith("No trust file was given")
        it.page.click("#again")
        assert "no trust file of its own" in it.verify(bundle, own=True)
        assert it.page.evaluate("document.activeElement.id") == "start"
        it.page.set_input_files("#trust", str(given / "trust.json"))
        assert it.page.is_disabled("#start-own")
        assert it.verify(bundle, given / "trust.json") == "TAMPERED"  # of another chain than the trust file knows
        it.page.click("#again")
        (tmp_path / "broken.json").write_text("{")
        assert "not well-formed" in it.verify(bundle, tmp_path / "broken.json")
        assert it.verify(bundle, trust) == "OK"
        it.quiet()


def test_the_bundles_own_trust_file_is_never_taken_quietly(browser: Browser, tmp_path: Path) -> None:
    bundle, trust = bundles.hostile(tmp_path)
    own = tmp_path / "own.zip"
    own.write_bytes(_with_trust(bundle.read_bytes(), trust.read_bytes()))
    with opened(browser) as it:
        assert it.verify(own, own=True) == "UNANCHORED"
        assert "bundle's own trust file" in it.text("#own") and it.page.is_visible("#own")
        assert "the bundle's own copy" in it.text("#facts")
        it.page.click("#again")
        assert it.verify(own) == "UNANCHORED"
        assert it.text("#own").startswith("No trust file was given")
        it.quiet()


def _with_trust(bundle: bytes, trust: bytes) -> bytes:
    from tests.conformance.packing import bagged, packed, unpacked

    return packed(bagged({**unpacked(bundle), "data/trust.json": trust}))


def test_hostile_texts_stay_texts(browser: Browser, tmp_path: Path) -> None:
    bundle, trust = bundles.hostile(tmp_path)
    with opened(browser) as it:
        assert it.verify(bundle, trust) == "OK"
        rows = it.rows()
        assert any("<img src=x onerror=alert(1)>" in row for row in rows)
        assert any("a\\u{202e}gnitrevni\\u{202c} b" in row for row in rows)
        assert not any(c in row for row in rows for c in "\u202e\u0000\u001b\u200b\U000e0041")
        assert all(len(row) < 4_000 for row in rows)
        for button in it.page.query_selector_all("#entries tbody tr > td > button.link")[:12]:
            button.click()
        it.until("document.querySelectorAll('.detail').length === 12")
        strange = it.page.evaluate(
            "[...document.querySelectorAll('main img, main script, main iframe, main object')].length"
        )
        assert strange == 0
        shown = it.page.evaluate("document.body.innerText")
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\u0007]", shown) and len(shown) < 1_000_000
        wide = it.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0  # nothing makes the page scroll sideways
        it.quiet()


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_long_ledger(browser: Browser, tmp_path: Path, count: int) -> None:
    pages = -(-(count // 300) // 50)  # of the entries that deny, of which there is one in 300
    bundle, trust = bundles.long(tmp_path, count)
    with opened(browser) as it:
        it.page.evaluate(_COUNT_FRAMES)
        before = it.page.evaluate("window.frames_seen")
        assert it.verify(bundle, trust) == "OK"
        assert it.page.evaluate("window.frames_seen") > before + 5  # it went on painting while it verified
        assert f"{count:,} in {count // 10_000} segments" in it.text("#facts")
        assert len(it.rows()) == 50 and it.page.evaluate("document.querySelectorAll('*').length") < 3_000
        it.page.click("#last")
        it.until(f"document.getElementById('page-told').textContent.startsWith('Page {count // 50 + 1:,} ')")
        assert any("The sidecar ended in order." in row for row in it.rows())
        it.page.fill("#goto", "14321")
        it.page.press("#goto", "Enter")
        it.page.wait_for_selector("tr[data-place='0/14321']")
        it.page.check("#kinds input[value=DENY]")
        it.until(f"document.getElementById('page-told').textContent.startsWith('Page 1 of {pages} ·')")
        assert all("Denied" in row for row in it.rows())
        it.page.fill("#agent", "nobody at all")
        it.until("document.getElementById('page-told').textContent === 'Nothing of this kind'")
        it.quiet()


@pytest.mark.parametrize("altered", [None, 3])
def test_decisions_are_run_again_in_the_page(browser: Browser, tmp_path: Path, altered: int | None) -> None:
    stream = bundles.decided(tmp_path, altered=altered)
    with opened(browser) as it:
        assert it.verify(stream) == "UNANCHORED"
        it.page.click("#rerun")
        it.page.wait_for_selector("#rerun-stop", state="hidden", timeout=PATIENCE)
        it.until("[...document.querySelectorAll('#entries tbody tr')].some(r => r.innerText.includes('run again'))")
        told = it.text("#rerun-told")
        marks = [row for row in it.rows() if "run again: match" in row]
        if altered is None:
            assert told == "All 7 decisions that could be run again came out as recorded." and len(marks) == 7
        else:
            assert told.startswith("1 decision came out otherwise") and len(marks) == 6
            assert "effect differ" in it.text("#rerun-mismatches")
        it.quiet()


def test_a_policy_without_wasm_is_not_run_again(browser: Browser, given: Path) -> None:
    with opened(browser) as it:
        assert it.verify(given / "good-whole.zip", given / "trust.json") == "OK"
        it.page.click("#rerun")
        it.page.wait_for_selector("#rerun-stop", state="hidden", timeout=PATIENCE)
        assert it.text("#rerun-told").startswith("No decision could be run again")
        assert "Not re-runnable" in it.text("#rerun-counts")
        it.quiet()


def test_what_a_browser_lacks_the_page_does_by_itself(browser: Browser, given: Path) -> None:
    """One without Ed25519, WebAssembly and locks: the same verdict, by the page's own code."""
    with opened(browser) as it:
        it.workers_begin_with(_LACKING)
        assert it.verify(given / "good-whole.zip", given / "trust.json") == "OK"
        it.page.click("#again")
        assert it.verify(given / "01-flip-payload.zip", given / "trust.json") == "TAMPERED"
        assert it.page.workers[0].evaluate("compressAll === inScript")
        it.quiet()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_from_using_it(browser: Browser, given: Path, scheme: str) -> None:
    """axe-core finds nothing: before, in a good and in a bad report, wide and narrow."""
    axe = (node_modules(HERE / "package.json") / "axe-core" / "axe.min.js").read_text()
    settings: dict[str, Any] = {"color_scheme": scheme, "reduced_motion": "reduce"}
    with opened(browser, **settings) as it:
        it.page.evaluate(axe)
        assert _violations(it.page) == []
        it.verify(given / "good-whole.zip", given / "trust.json")
        it.page.click("#entries tbody tr button.link")
        it.page.wait_for_selector(".detail")
        assert _violations(it.page) == []
        it.page.click("#again")
        it.page.set_viewport_size({"width": 390, "height": 844})
        it.verify(given / "01-flip-payload.zip", given / "trust.json")
        assert _violations(it.page) == []


def _violations(page: Page) -> list[str]:
    found: list[str] = page.evaluate(
        "async () => (await axe.run(document)).violations.map(v => `${v.id}: ${v.nodes.map(n => n.target).join(' ')}`)"
    )
    return found


def test_it_prints_without_its_controls(browser: Browser, given: Path) -> None:
    with opened(browser, color_scheme="dark") as it:
        it.verify(given / "good-whole.zip", given / "trust.json")
        it.page.emulate_media(media="print")
        assert it.page.is_visible("#verdict") and it.page.is_visible("#entries")
        for control in ("#again", "#filters", "#after", "#rerun"):
            assert it.page.is_hidden(control), control
        assert it.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        assert it.page.pdf().startswith(b"%PDF")
