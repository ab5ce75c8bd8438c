"""`verify.html` in a real Chromium, from a file as an auditor opens it: no server, no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from tests.page.core import PAGE

PATIENCE = 60_000.0  # ms; a guard, not a measure of speed


@dataclass
class Opened:
    """One page, and what it did besides what it shows."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Console messages, errors, dialogs."""
    requests: list[str] = field(default_factory=list)
    """The addresses of what it asked for."""

    def verify(self, bundle: Path, trust: Path | None = None, *, own: bool = False) -> str:
        """Give it the files; the verdict's word."""
        self.page.set_input_files("#bundle", str(bundle))
        if trust is not None:
            self.page.set_input_files("#trust", str(trust))
        self.page.click("#start-own" if own else "#start")
        self.page.wait_for_selector("#entries tbody tr, #trouble:not(:empty)", timeout=PATIENCE)
        return self.text("#word .verdict-word") if self.page.is_visible("#result") else self.text("#trouble")

    def workers_begin_with(self, script: str) -> None:
        """Workers that start from now on run this before their own script."""
        self.page.evaluate(
            """script => {
              const url = URL.createObjectURL(new Blob([script, document.getElementById("core").textContent]));
              const Before = Worker;
              window.Worker = function () { return new Before(url); };
            }""",
            script,
        )

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def rows(self) -> list[str]:
        """What the list shows, a line a row."""
        found: list[str] = self.page.eval_on_selector_all("#entries tbody tr", "rows => rows.map(row => row.innerText)")
        return [" ".join(row.split()) for row in found]

    def until(self, condition: str) -> None:
        """Waits for what a script says of the page, looked at whenever it paints: its own policy forbids to evaluate
        texts in it."""
        held = self.page.evaluate(
            f"() => new Promise(done => {{ setTimeout(() => done(false), {PATIENCE}); "
            f"const look = () => ({condition}) ? done(true) : requestAnimationFrame(look); look(); }})"
        )
        assert held, condition

    def quiet(self) -> None:
        """It neither complained, nor asked for anything."""
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith((PAGE.as_uri(), "blob:"))] == []


@contextmanager
def opened(browser: Browser, **settings: Any) -> Iterator[Opened]:
    """The page, just loaded. ``settings``: of the browser's context."""
    context = browser.new_context(**settings)
    try:
        page = context.new_page()
        found = Opened(page)
        page.on("console", lambda message: found.complaints.append(message.text))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (found.complaints.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((PAGE.as_uri(), "blob:")) else found.requests.append(asked.url),
        )
        page.goto(PAGE.as_uri())
        page.evaluate("Object.defineProperty(navigator, 'hardwareConcurrency', { get: () => 2 })")  # on any machine
        yield found
    finally:
        context.close()
