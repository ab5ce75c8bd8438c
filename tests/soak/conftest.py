"""Prints the figures at the end of `make soak`."""

from __future__ import annotations

import pytest

from tests.soak.figures import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("soak figures")
        for line in lines:
            terminalreporter.line(line)
