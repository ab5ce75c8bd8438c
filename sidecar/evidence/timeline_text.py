"""A timeline for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Final

from sidecar.chain.printable import number_of, plain, to_seconds

from . import rows, sentences
from .timeline import Row, Timeline

_LABEL: Final = 14
_LONGEST: Final = 2_000  # characters of one value; the other forms have all of it
_MARKS: Final = {"ALLOW": "ALLOW", "DENY": "DENY", "REQUIRE_APPROVAL": "NEEDS APPROVAL"}

Style = Callable[[str, str], str]
"""A text in the colour of: ALLOW, DENY, REQUIRE_APPROVAL, gap, or quiet."""


def text(timeline: Timeline, width: int, style: Style = lambda words, _: words) -> Iterator[str]:
    """Its lines, at most ``width`` (40 or more) characters each, not counting what ``style`` adds to them."""
    width = max(width, 40)
    yield from _head(timeline, width, style)
    day = ""
    for row in timeline.rows:
        time = rows.at(row.wall_ns)
        if time[:10] != day:
            day = time[:10]
            yield ""
            yield style(f"── {day} (UTC) {'─' * (width - 20)}"[:width], "quiet")
        yield ""
        yield from _row(row, time[11:23], width, style)
    yield ""
    yield from _wrapped(_counts(timeline), width, "")


def _head(timeline: Timeline, width: int, style: Style) -> Iterator[str]:
    within, read = timeline.within, timeline.read
    start, end = (to_seconds(rows.at(each)) if each is not None else "the {}" for each in (within.start, within.end))
    window = f"{start.format('beginning')} to {end.format('end')}"
    for line in _wrapped(f"Timeline of {within.agent or 'all agents'}, {window}", width, ""):
        yield style(line, "title")
    entries = number_of(read["entries"], "entry", "entries")
    yield from _wrapped(f"chain {read['chain'][:16]}…, {entries} read", width, "")
    for act in read["allowed"]:
        yield from _wrapped(sentences.allowed(act), width, "  ")
    yield from _wrapped("As it is recorded; sidecar verify says whether that is true.", width, "")


def _row(row: Row, time: str, width: int, style: Style) -> Iterator[str]:
    if row.kind != "decision":
        mark = "✗ GAP  " if row.gap else ""
        first, *others = list(_wrapped(f"{time}  {mark}{row.said} (entry {row.seq})", width, " " * 14))
        yield style(first, "gap" if row.gap else "quiet")
        yield from (style(line, "gap" if row.gap else "quiet") for line in others)
    else:
        effect, about = row.about["effect"], row.about
        target = f"{about['resource']['type']}:{about['resource']['id']}"
        shadow = "" if about["enforced"] else "  (not enforced: shadow)"
        via = f" via {about['door']['kind']}" if about["door"] else ""
        wanted = f"{about['action']} {target}{via}{shadow}  (entry {row.seq})"
        first, *others = list(_wrapped(f"{time}  {_MARKS[effect]}  {wanted}", width, " " * 14))
        yield first.replace(_MARKS[effect], style(_MARKS[effect], effect), 1)
        yield from others
    for label, words in sentences.lines(row):
        yield from _labelled(label, words, width, style)


def _labelled(label: str, words: str, width: int, style: Style) -> Iterator[str]:
    short = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}… ({len(words):,} characters)"
    indent = " " * (_LABEL + 2)
    found = list(_wrapped(f"  {label:<{_LABEL}}{short}", width, indent))
    for number, line in enumerate(found):
        colour = "gap" if label == "GAP" else "plain" if number else "label"
        if colour == "label":
            yield style(line[: _LABEL + 2], "quiet") + line[_LABEL + 2 :]
        else:
            yield style(line, colour)


def _wrapped(words: str, width: int, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        plain(words), width, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True,
        replace_whitespace=False,
    ) or [""]  # fmt: skip


def _counts(timeline: Timeline) -> str:
    decisions = [row for row in timeline.rows if row.kind == "decision"]
    effects = {effect: sum(row.about["effect"] == effect for row in decisions) for effect in _MARKS}
    gaps = sum(row.gap for row in timeline.rows)
    told = ", ".join(f"{count:,} {_MARKS[effect]}" for effect, count in effects.items() if count)
    attempts = number_of(len(decisions), "attempt")
    return f"{attempts}{': ' if told else ''}{told}; {number_of(gaps, 'row with a gap', 'rows with gaps')}"
