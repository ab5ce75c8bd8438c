"""The page of `sidecar timeline` in a real Chromium: nothing keeps people from reading it, hostile words are words."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from sidecar.evidence import Timeline, page
from tests.evidence.day import day
from tests.evidence.test_timeline import HOSTILE, hostile, told
from tests.languages.building import node_modules

HERE = Path(__file__).resolve().parent


def written(timeline: Timeline, place: Path) -> Path:
    file = place / "timeline.html"
    file.write_text("\n".join(page([timeline])), "utf-8")
    return file


@pytest.mark.parametrize("width", [1_100, 390])
def test_nothing_keeps_people_from_reading_it(browser: Browser, tmp_path: Path, width: int) -> None:
    file = written(told(day().s), tmp_path)
    axe = (node_modules(HERE / "package.json") / "axe-core" / "axe.min.js").read_text()
    context = browser.new_context(viewport={"width": width, "height": 844})
    try:
        shown = context.new_page()
        shown.goto(file.as_uri())
        shown.evaluate(axe)
        found = shown.evaluate("async () => (await axe.run(document)).violations.map(v => v.id)")
        assert found == []
        assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert shown.locator("li.gap").count() == 8 and shown.locator("li").count() == 13
        assert "carla@example.com" in shown.inner_text("main")
        assert shown.pdf().startswith(b"%PDF")
    finally:
        context.close()


def test_hostile_words_do_nothing(browser: Browser, tmp_path: Path) -> None:
    file = written(hostile(), tmp_path)
    context = browser.new_context()
    did: list[str] = []
    try:
        shown = context.new_page()
        shown.on("dialog", lambda dialog: (did.append(dialog.message), dialog.dismiss()))
        shown.on("pageerror", lambda error: did.append(str(error)))
        shown.on("request", lambda asked: did.append(asked.url))
        shown.goto(file.as_uri())
        assert did == [file.as_uri()]
        assert shown.locator("script, img, a, iframe, form").count() == 0
        assert HOSTILE[0] in shown.inner_text("main") and HOSTILE[1] in shown.inner_text("main")
    finally:
        context.close()
