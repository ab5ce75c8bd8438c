"""Telling a bundle: its events, entries, timeline, certificate and report, all from the streams as they lie in it.

One pass over the streams makes events and entries and takes the figures along; a second the timeline. What is large is
given in pieces, each to be taken to its end before the next is asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from typing import IO, Any, Final

from sidecar.chain.stream import Kind, records
from sidecar.chain.strictjson import dumps
from sidecar.errors import Malformed, UsageError
from sidecar.verify.container import Content, Member

from . import entry_sheet
from .abstract import Abstract
from .certificate import certificate, digest_of
from .external import EXTERNAL, without_values
from .made import Content as Pieces
from .made import Made
from .ocsf import Events
from .range import Range
from .received import Received
from .recorded import recorded
from .report import report
from .report_data import Parts
from .report_data import told as report_told
from .timeline import Timeline, timeline, timelines

MOST_ROWS: Final = 20_000
_SPOOL: Final = 8 << 20
_PIECE: Final = 1 << 20


def tell(made: Made) -> Iterator[tuple[str, Pieces]]:
    """Names below `data/` and contents. A report is left out, and that is noted, where Typst is not installed."""
    telling = _Telling(made)
    if made.lean:
        telling.figures()
    else:
        with tempfile.SpooledTemporaryFile(_SPOOL) as sheet:
            yield "events.ocsf.jsonl", telling.events(sheet)
            sheet.seek(0)
            yield "entries.csv", iter(partial(sheet.read, _PIECE), b"")
    told = telling.timelines()
    if told is not None:
        yield "timeline.json", dumps(_one_or_all(told)) + b"\n"
    custody, signed = telling.custody(), None
    if made.key is not None:
        envelope = certificate(telling.predicate(custody), made.digests(), made.key)
        signed = digest_of(envelope), made.key.id
        yield "certificate.dsse.json", envelope
    parts = Parts(
        made.case, made.report, telling.abstracts, custody, signed, made.trust, made.digests(), told
    )  # fmt: skip
    try:
        yield "report.pdf", report(report_told(parts), made.case.exported)
    except UsageError as error:
        made.note(f"report.pdf was left out: {error}")


def _one_or_all(told: list[Timeline]) -> dict[str, Any]:
    return timelines(told)


class _Telling:
    def __init__(self, made: Made) -> None:
        self._made = made
        self._members = made.members
        self._external = made.case.profile == EXTERNAL
        self.abstracts = [Abstract(claim.chain_id.hex()) for claim in made.case.claims]

    def figures(self) -> None:
        """Take the figures alone."""
        for abstract in self.abstracts:
            for entry in recorded(self._watched(abstract)):
                abstract.take(entry)

    def events(self, sheet: IO[bytes]) -> Iterator[bytes]:
        """The lines of the events; on the way the sheet is written and the figures are taken."""
        made = self._made
        events = Events(made.case.exporter, made.key.id if made.key else "", external=self._external)
        sheet.write(entry_sheet.header().encode())
        for abstract in self.abstracts:
            for entry in recorded(self._watched(abstract)):
                abstract.take(entry)
                sheet.write(entry_sheet.record(entry).encode())
                yield events.line(entry)

    def _watched(self, abstract: Abstract) -> Iterator[tuple[Kind, bytes]]:
        for kind, body in self._stream(abstract.chain):
            if kind is not Kind.ENTRY:
                abstract.record(kind, body)
            yield kind, body

    def timelines(self) -> list[Timeline] | None:
        """The account of each chain; None where they are too long."""
        agents = self._made.case.agents
        told: list[Timeline] = []
        left = MOST_ROWS
        if sum(sum(abstract.effects.values()) for abstract in self.abstracts) > left:
            return None  # a row for each decision at least
        try:
            for abstract in self.abstracts:
                within = Range(agent=agents[0] if agents is not None and len(agents) == 1 else None)
                told.append(timeline(self._stream(abstract.chain), within, most=left))
                left -= len(told[-1].rows)
        except UsageError:
            return None
        return [without_values(each) for each in told] if self._external else told

    def custody(self) -> list[dict[str, Any]]:
        """What is known of each chain: by its stream, and by its receipts."""
        told = []
        for claim, abstract in zip(self._made.case.claims, self.abstracts, strict=True):
            place = f"data/chains/{abstract.chain}/receipts/"
            files = (self._content(m).read(m.size) for name, m in self._members.items() if name.startswith(place))
            told.append(
                {**claim.to_json(), **abstract.custody(), **Received(self._made.check_timestamp).take(files).to_json()}
            )
        return told

    def predicate(self, custody: list[dict[str, Any]]) -> dict[str, Any]:
        """What the certificate says."""
        made, judged = self._made, self._made.report.to_json()
        case = made.case.to_json()
        first = next((each for each in judged["findings"] if each["verdict"] not in _GOOD), None)
        exported = {"time": case["exported"], "software": case["exporter"], "source": case["source"]}
        named = ("verdict", "entries", "segments", "checked", "not_checked")
        return {
            **{name: case[name] for name in ("case", "from", "to", "agents", "profile", "statements")},
            "exported": {**exported, "key": made.key.id if made.key else ""},
            "judged": {
                **{name: judged[name] for name in named},
                "trust": made.trust,
                "findings": judged["findings_total"],
                "first_bad": first,
            },
            "chains": custody,
        }

    def _stream(self, chain: str) -> Iterator[tuple[Kind, bytes]]:
        """Its records, as far as they can be read: how it ends is in the verdict."""
        member = self._members[f"data/chains/{chain}/stream.sdcseg"]
        try:
            yield from records(self._content(member).read)
        except Malformed:
            return

    def _content(self, member: Member) -> Content:
        return Content(self._made.bundle, member)


_GOOD: Final = frozenset({"OK", "REDACTED", "PRUNED", "UNANCHORED"})
