"""What is logged of a decision: ids and fixed words, and of trouble a line a second."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from sidecar.api import DecisionLog, Metrics
from sidecar.cli.serve import Lines
from sidecar.decide import Unobserved
from tests.api.pages import series


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def members(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [{"message": r.getMessage(), **vars(r)["members"]} for r in caplog.records]


def test_a_flood_of_refusals_is_a_line_a_second_that_counts_all(caplog: pytest.LogCaptureFixture) -> None:
    clock, metrics = Hand(), Metrics("test")
    log = DecisionLog(metrics, clock)
    for _ in range(1000):
        log.refused("INVALID_ARGUMENT", "agent")
    log.refused("UNAUTHENTICATED", "")
    clock.at += 1.0
    log.settle()
    log.settle()
    assert [(m["code"], m["count"]) for m in members(caplog)] == [
        ("INVALID_ARGUMENT", 1),
        ("UNAUTHENTICATED", 1),
        ("INVALID_ARGUMENT", 999),
    ]
    assert {r.levelname for r in caplog.records} == {"WARNING"}
    assert series(metrics.page())["sidecar_rejected_total", "INVALID_ARGUMENT"] == 1000.0


def test_a_flood_of_refused_approvals_is_a_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """An agent may ask under a used approval as often as it likes."""
    caplog.set_level("INFO", "sidecar.decisions")
    log = DecisionLog(Unobserved(), Hand())
    log.approval("approve")
    log.approval("allowed")
    for _ in range(1000):
        log.approval("used")
    log.settle(everything=True)
    assert [r.getMessage() for r in caplog.records] == ["approval: approve", "approval: allowed"] + [
        "approval refused"
    ] * 2
    assert [r.members["count"] for r in caplog.records[2:]] == [1, 999]  # type: ignore[attr-defined]


def test_what_is_held_back_is_written_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    log = DecisionLog(Unobserved(), Hand())
    for _ in range(3):
        log.unanswered("Decide", "INTERNAL", "KeyError")
    log.settle(everything=True)
    assert [(m["method"], m["code"], m["fault"], m["count"]) for m in members(caplog)] == [
        ("Decide", "INTERNAL", "KeyError", 1),
        ("Decide", "INTERNAL", "KeyError", 2),
    ]


def test_what_a_library_says_is_withheld() -> None:
    """asyncio prints a lost exception with its text, and an exception may quote what it could not handle."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(Lines().format(record))

    async def lose() -> None:
        async def fail() -> None:
            raise ValueError("s3cr3t")

        task = asyncio.ensure_future(fail())
        await asyncio.wait({task})
        del task

    handler = Kept()
    logging.getLogger("asyncio").addHandler(handler)
    try:
        asyncio.run(lose())
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
    (line,) = lines
    assert "s3cr3t" not in line
    assert '"fault":"ValueError"' in line.replace(": ", ":")
