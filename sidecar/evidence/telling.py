"""Telling a bundle: its events, entries, timeline, certificate and report, all from the streams as they lie in it.

The account (`account`) has events, entries and figures; a short timeline takes a second pass over the streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sidecar.chain.stream import Kind
from sidecar.chain.strictjson import dumps
from sidecar.errors import UsageError
from sidecar.verify.container import Content, Member

from .account import stream
from .certificate import certificate, digest_of
from .external import EXTERNAL, without_values
from .made import Content as Pieces
from .made import Made
from .range import Range
from .received import Received
from .report import report
from .report_data import Parts
from .report_data import told as report_told
from .timeline import Timeline, timeline, timelines

MOST_ROWS: Final = 20_000


def tell(made: Made) -> Iterator[tuple[str, Pieces]]:
    """Names below `data/` and contents. A report is left out, and that is noted, where Typst is not installed."""
    telling = _Telling(made)
    for name, packed in (("events.ocsf.jsonl", made.account.events), ("entries.csv", made.account.entries)):
        if packed is not None:
            yield name, packed
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
        self.abstracts = made.account.abstracts

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
        return stream(self._content(self._members[f"data/chains/{chain}/stream.sdcseg"]).read)

    def _content(self, member: Member) -> Content:
        return Content(self._made.bundle, member)


_GOOD: Final = frozenset({"OK", "REDACTED", "PRUNED", "UNANCHORED"})
