"""A timeline as one HTML page: nothing is loaded, nothing runs, every value is text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from sidecar.chain.printable import number_of, plain, to_seconds

from . import rows, sentences
from .timeline import Row, Timeline

_MARKS: Final = {"ALLOW": "Allowed", "DENY": "Denied", "REQUIRE_APPROVAL": "Needs approval"}
_STYLE: Final = """
:root { color-scheme: light; --ink: #1b1f24; --quiet: #57606a; --rule: #d0d7de; --allow: #116329; --deny: #a40e26;
  --wait: #7a4b00; --gap: #fff4d6; }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1rem; margin: 2.25rem 0 .5rem; color: var(--quiet) }
p { margin: .25rem 0; overflow-wrap: anywhere } .quiet { color: var(--quiet) }
ol { list-style: none; margin: 0; padding: 0 }
li { border-top: 1px solid var(--rule); padding: .75rem 0 .75rem 8.5rem; position: relative; break-inside: avoid-page }
li.gap { background: var(--gap); border-left: 4px solid var(--wait); padding-left: calc(8.5rem - 4px) }
time { position: absolute; left: .5rem; top: .8rem; font-variant-numeric: tabular-nums; color: var(--quiet);
  font-size: .85rem } li .seq { color: var(--quiet); font-size: .85rem; white-space: nowrap }
h3 { font-size: 1rem; margin: 0; font-weight: 600; overflow-wrap: anywhere }
.effect { display: inline-block; padding: 0 .5em; border: 1px solid; border-radius: 1em; font-size: .8rem;
  margin-right: .4em }
.ALLOW { color: var(--allow) } .DENY { color: var(--deny) } .REQUIRE_APPROVAL { color: var(--wait) }
dl { display: grid; grid-template-columns: 7.5rem 1fr; gap: .1rem .75rem; margin: .4rem 0 0 }
dt { color: var(--quiet); font-size: .85rem } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap }
dt.bad, dd.bad { color: var(--wait); font-weight: 600 } dd.code { font: .85rem/1.45 ui-monospace, monospace }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr } li, li.gap { padding-left: .75rem }
  time { position: static; display: block } }
@media print { body { max-width: none; padding: 0; font-size: 10pt } li.gap { print-color-adjust: exact } }
"""
_CODE: Final = {"arguments", "context", "answered"}


def page(timelines: Sequence[Timeline]) -> Iterator[str]:
    """Its lines, in UTF-8 a whole document."""
    agents = {timeline.within.agent or "all agents" for timeline in timelines}
    title = f"Timeline of {' and '.join(sorted(agents))}"
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body><main><h1>{_text(title)}</h1>"
    for timeline in timelines:
        yield from _chain(timeline)
    yield "</main></body></html>"


def _chain(timeline: Timeline) -> Iterator[str]:
    yield from _about(timeline)
    day = ""
    for row in timeline.rows:
        time = rows.at(row.wall_ns)
        if time[:10] != day:
            yield f"{'</ol>' if day else ''}<h2>{_text(time[:10])} (UTC)</h2><ol>"
            day = time[:10]
        yield from _row(row, time)
    yield "</ol>" if day else "<p>Nothing is recorded in this window.</p>"


def _counted(effect: str, count: int) -> str:
    word = _MARKS[effect].lower()
    return word if count == 1 else word.replace("needs", "need")


def _about(timeline: Timeline) -> Iterator[str]:
    within, read = timeline.within, timeline.read
    start = to_seconds(rows.at(within.start)) if within.start is not None else "the beginning"
    end = to_seconds(rows.at(within.end)) if within.end is not None else "the end"
    decisions = [row.about["effect"] for row in timeline.rows if row.kind == "decision"]
    counts = {effect: decisions.count(effect) for effect in _MARKS}
    effects = ", ".join(f"{count:,} {_counted(effect, count)}" for effect, count in counts.items())
    gaps = sum(row.gap for row in timeline.rows)
    window = f"From {_text(start)} to {_text(end)}"
    read_of = number_of(read["entries"], "entry", "entries")
    attempts, gapped = number_of(len(decisions), "attempt"), number_of(gaps, "row with a gap", "rows with gaps")
    yield f"<p>{window}: {attempts} ({effects}), {gapped}.</p>"
    for act in read["allowed"]:
        yield f"<p>{_text(sentences.allowed(act))}</p>"
    yield f'<p class="quiet">Chain {_text(read["chain"])}, {read_of} read. As it is recorded: '
    yield "<code>sidecar verify</code> says whether that is true.</p>"


def _row(row: Row, time: str) -> Iterator[str]:
    yield f'<li class="{"gap" if row.gap else "row"}" id="entry-{row.seq}-{_text(row.kind)}">'
    yield f'<time datetime="{_text(time)}">{_text(time[11:23])}</time>'
    seq = f'<span class="seq">entry {row.seq}</span>'
    if row.kind == "decision":
        about, effect = row.about, row.about["effect"]
        target = f"{about['action']} {about['resource']['type']}:{about['resource']['id']}"
        shadow = "" if about["enforced"] else " (not enforced: shadow)"
        mark = f'<span class="effect {_text(effect)}">{_MARKS[effect]}</span>'
        yield f"<h3>{mark}{_text(target)}{shadow} {seq}</h3>"
    else:
        yield f"<h3>{'Gap: ' if row.gap else ''}{_text(row.said)} {seq}</h3>"
    told = list(sentences.lines(row))
    if told:
        yield "<dl>"
        for label, words in told:
            bad = ' class="bad"' if label == "GAP" else ""
            kind = ' class="code"' if label in _CODE else bad
            yield f"<dt{bad}>{_text(label.capitalize())}</dt><dd{kind}>{_text(words)}</dd>"
        yield "</dl>"
    yield "</li>"


def _text(value: object) -> str:
    return escape(plain(value), quote=True)
