"""Noticing silence, and what a collector says of itself: metrics and status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidecar.anchor import Chaser
from sidecar.collector.alarms import KINDS, Alarms
from sidecar.collector.ingest import Book, Ingest
from sidecar.collector.sequencer import Sequencer, size_of

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def find_silent(ingest: Ingest, alarms: Alarms, now: int, silence_ns: int) -> None:
    """Raise an alarm, once, for each chain that neither ships nor was closed for so long."""
    for book in ingest.books():
        if book.silent or book.held.closed or now - book.heard < silence_ns:
            continue
        book.silent = True
        seconds = (now - book.heard) // 1_000_000_000
        alarms.sound("SILENT", book.chain.chain_id, f"nothing was shipped for {seconds} s, and it was not closed")


def metrics(ingest: Ingest, sequencer: Sequencer, alarms: Alarms, anchors: Sequence[Chaser[Any]], now: int) -> bytes:
    """Everything that is counted, in Prometheus' text format."""
    books = ingest.books()
    rows = [
        ("collector_chains", "gauge", "Chains that were heard of since the start.", "", len(books)),
        ("collector_silent_chains", "gauge", "Chains that fell silent.", "", sum(b.silent for b in books)),
        ("collector_entries_total", "counter", "Entries taken.", "", ingest.entries),
        ("collector_parcel_bytes_total", "counter", "Bytes of parcels taken.", "", ingest.bytes),
        ("collector_log_size", "gauge", "Entries of the fleet log.", "", size_of(sequencer.fleet.signed)),
        ("collector_log_waiting", "gauge", "Notes that are not in the log yet.", "", sequencer.waiting),
        ("collector_log_failures", "gauge", "Attempts in a row that the log could not grow.", "", sequencer.failures),
        ("collector_index_mended_total", "counter", "Lines of the index put right.", "", sequencer.standings.mended),
        ("collector_lag_seconds", "gauge", "Since the chain heard last was heard.", "", _youngest(books, now)),
    ]
    raised = [f'{{kind="{kind}"}}' for kind in KINDS]
    lines: list[str] = []
    for name, kind, told, label, value in rows:
        lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}", f"{name}{label} {value}"]
    lines += ["# HELP collector_alarms_total Alarms raised.", "# TYPE collector_alarms_total counter"]
    lines += [f"collector_alarms_total{at} {alarms.raised[kind]}" for at, kind in zip(raised, KINDS, strict=True)]
    if anchors:
        told = "Since the oldest checkpoint that this party has not vouched for."
        lines += [f"# HELP collector_unanchored_seconds {told}", "# TYPE collector_unanchored_seconds gauge"]
        lines += [f'collector_unanchored_seconds{{party="{each.name}"}} {each.age()}' for each in anchors]
        told = "Answers of this party that proved nothing, or proved us wrong; none was used."
        lines += [f"# HELP collector_anchor_refused_total {told}", "# TYPE collector_anchor_refused_total counter"]
        lines += [f'collector_anchor_refused_total{{party="{each.name}"}} {each.refused}' for each in anchors]
    return ("\n".join(lines) + "\n").encode()


def _youngest(books: list[Book], now: int) -> float:
    heard = max((book.heard for book in books), default=now)
    return max(0, now - heard) / 1e9
