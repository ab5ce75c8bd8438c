"""`sidecar timeline`: what an agent did in a window, and what keeps the account from being whole."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from sidecar.chain.stream import records
from sidecar.chain.strictjson import dumps
from sidecar.cli.sealed import openings_for, put_back
from sidecar.cli.sources import streams, with_progress
from sidecar.cli.times import TIME
from sidecar.errors import UsageError
from sidecar.evidence import Range, Timeline, page, sheet, text, timeline, timelines

_COLOURS = {"ALLOW": "green", "DENY": "red", "REQUIRE_APPROVAL": "yellow", "gap": "yellow"}
_WIDEST = 110


@click.command("timeline")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--openings", "opening", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Openings of personal fields; those of an evidence bundle are used by themselves.",
)  # fmt: skip
@click.option("--agent", metavar="ID", required=True, help="Whose attempts.")
@click.option("--from", "start", type=TIME, help="Recorded at this time or later.")
@click.option("--to", "end", type=TIME, help="Recorded before this time.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "csv", "html"]), default="text", show_default=True,
    help="For a terminal, a program, a spreadsheet or a browser.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Write it to a new file.")
def command(
    path: Path, opening: Path | None, agent: str, start: int | None, end: int | None, form: str, out: Path | None
) -> None:
    """Tell what an agent attempted in a window, and what came of it.

    PATH is a ledger directory, a segment file or an evidence bundle. For each attempt: which policy judged it and
    why, what was considered instead, who approved, on whose behalf, what was executed, blocked or failed, and what
    the downstream system answered. Gaps stand in their place: an allow without an outcome, a sidecar that was down,
    a clock that jumped, entries that are not here, refused requests.

    \b
    Example:
      sidecar timeline /var/lib/sidecar --agent billing-agent --from 2026-11-23 --to 2026-11-24
    """
    if start is not None and end is not None and start >= end:
        raise UsageError("--from is not before --to")
    restore = partial(put_back, openings=openings_for(path, opening))
    told = []
    for stream in streams(path):
        with stream.open() as read, with_progress(path, read, "reading", quiet=False) as counted:
            told.append(timeline(records(counted), Range(start, end, agent), restore=restore))
    if out is None:
        for piece in _pieces(told, form, colours=True):
            click.echo(piece, nl=False)
        return
    try:
        with out.open("x", encoding="utf-8", newline="") as file:
            file.writelines(_pieces(told, form, colours=False))
    except FileExistsError:
        raise UsageError(f"{out} exists; choose another --out") from None
    click.echo(str(out), file=sys.stderr)


def _pieces(told: list[Timeline], form: str, *, colours: bool) -> Iterator[str]:
    if form == "json":
        yield dumps(timelines(told)).decode() + "\n"
    elif form == "csv":
        yield from sheet(told)
    elif form == "html":
        yield from (f"{line}\n" for line in page(told))
    else:
        width = min(shutil.get_terminal_size((100, 24)).columns, _WIDEST)
        for each in told:
            yield from (f"{line}\n" for line in text(each, width, _styled if colours else lambda words, _: words))


def _styled(words: str, kind: str) -> str:
    if kind == "title":
        return click.style(words, bold=True)
    return click.style(words, fg=_COLOURS.get(kind), bold=kind in ("ALLOW", "DENY"), dim=kind == "quiet")
