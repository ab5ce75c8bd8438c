"""Noticing silence, and what a collector says of itself: metrics and status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Around:
    """What a scrape is told of the process. ``certificate_end``: seconds since 1970; None: it shows none."""

    version: str
    ready: bool
    disk_free: int
    certificate_end: float | None


def metrics(
    ingest: Ingest, sequencer: Sequencer, alarms: Alarms, anchors: Sequence[Chaser[Any]], around: Around, now: int
) -> bytes:
    """Everything that is counted, in Prometheus' text format (docs/METRICS.md)."""
    books = ingest.books()
    blind = [_blind(book, sequencer, now) for book in books]
    page = _Page()
    page.add("collector_build_info", "Always 1.", {f'version="{around.version}"': 1})
    page.add("collector_ready", "1 when what is shipped is taken and logged.", {"": int(around.ready)})
    page.add("collector_chains", "Chains that were heard of since the start.", {"": len(books)})
    page.add("collector_silent_chains", "Chains that fell silent.", {"": sum(b.silent for b in books)})
    page.add("collector_silence_seconds", "The longest that an open chain said nothing.", {"": _silence(books, now)})
    page.add("collector_entries_total", "Entries taken.", {"": ingest.entries})
    page.add("collector_parcel_bytes_total", "Bytes of parcels taken.", {"": ingest.bytes})
    page.add("collector_unanchored_entries", "Entries that no seal in the log covers.", {"": sum(n for n, _ in blind)})
    oldest = max((age for _, age in blind), default=0.0)
    page.add("collector_unanchored_age_seconds", "Since the oldest of them was taken.", {"": oldest})
    page.add("collector_log_size", "Entries of the fleet log.", {"": size_of(sequencer.fleet.signed)})
    page.add("collector_log_waiting", "Notes that are not in the log yet.", {"": sequencer.waiting})
    page.add("collector_log_failures", "Attempts in a row that the log could not grow.", {"": sequencer.failures})
    page.add("collector_index_mended_total", "Lines of the index put right.", {"": sequencer.standings.mended})
    page.add("collector_lag_seconds", "Since the chain heard last was heard.", {"": _youngest(books, now)})
    page.add("collector_disk_free_bytes", "Free on the disk of its directory.", {"": around.disk_free})
    if around.certificate_end is not None:
        told = "When its certificate ends, since 1970."
        page.add("collector_tls_certificate_end_seconds", told, {"": around.certificate_end})
    raised, kept = ({f'kind="{kind}"': count[kind] for kind in KINDS} for count in (alarms.raised, alarms.kept))
    page.add("collector_alarms_total", "Alarms raised.", raised)
    page.add("collector_alarms_kept", "Alarms in the index, of earlier runs too.", kept)
    if anchors:
        told = "Since the oldest checkpoint that this party has not vouched for."
        page.add("collector_unanchored_seconds", told, {f'party="{each.name}"': each.age() for each in anchors})
        told = "Answers of this party that proved nothing, or proved us wrong; none was used."
        page.add("collector_anchor_refused_total", told, {f'party="{each.name}"': each.refused for each in anchors})
    return page.text()


class _Page:
    """Prometheus' text format: what ends in `_total` is a counter, all else a gauge."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, told: str, values: Mapping[str, float]) -> None:
        kind = "counter" if name.endswith("_total") else "gauge"
        self._lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
        self._lines += [f"{name}{f'{{{label}}}' if label else ''} {value}" for label, value in values.items()]

    def text(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode()


def _blind(book: Book, sequencer: Sequencer, now: int) -> tuple[int, float]:
    return book.unanchored.look(book.held, sequencer.standings.sealed(book.chain.chain_id), now)


def _silence(books: list[Book], now: int) -> float:
    heard = min((book.heard for book in books if not book.held.closed), default=now)
    return max(0, now - heard) / 1e9


def _youngest(books: list[Book], now: int) -> float:
    heard = max((book.heard for book in books), default=now)
    return max(0, now - heard) / 1e9
