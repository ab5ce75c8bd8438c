"""`sidecar replay`: recorded decisions, asked again of the policy that the ledger archived."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from sidecar.chain.printable import number_of
from sidecar.chain.stream import records
from sidecar.chain.strictjson import dumps
from sidecar.cli.sealed import openings_for, put_back
from sidecar.cli.sources import Read, case_of, say_what_is_gone, streams, with_progress
from sidecar.cli.times import TIME
from sidecar.cli.words import plain
from sidecar.decide import policy_inputs
from sidecar.errors import UsageError
from sidecar.evidence import Difference, Found, Range, Replay, Tally
from sidecar.policy import find_opa

_SHOWN = 160  # characters of a value


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--from", "start", type=TIME, help="Recorded at this time or later.")
@click.option("--to", "end", type=TIME, help="Recorded before this time.")
@click.option(
    "--openings", "opening", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Openings of personal fields; those of an evidence bundle are used by themselves.",
)  # fmt: skip
@click.option("--agent", metavar="ID", help="Only decisions for this agent.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(
    path: Path, start: int | None, end: int | None, opening: Path | None, agent: str | None, as_json: bool
) -> None:
    """Re-run recorded decisions by the policy that made them, and list what comes out otherwise.

    PATH is a ledger directory, a segment file or an evidence bundle. Compared are effect, reasons, obligations,
    alternatives and the policy's whole result. Every mismatch is listed. Of a policy that is not pure nothing is
    re-run, and a DENY for want of a decision is counted apart. Decisions by the engine opa need the program opa on
    PATH. Whether the record is true, `sidecar verify` says.

    Exit: 0 all came out the same; 1 mismatches; 3 something could not be re-run, as where it was pruned or the
    ledger let go of it, or there was nothing; 2 usage.

    \b
    Example:
      sidecar replay /var/lib/sidecar --from 2026-11-23 --to 2026-11-24 --agent billing-agent
    """
    if start is not None and end is not None and start >= end:
        raise UsageError("--from is not before --to")
    logging.getLogger("sidecar.opa").setLevel(logging.ERROR)
    case = case_of(path)
    others = case is not None and case.agents is not None  # what is withheld is not theirs, or verify says so
    restore = partial(put_back, openings=openings_for(path, opening))
    within = Range(start, end, agent)
    run = Replay(policy_inputs, find_opa, within, others_withheld=others, whole=path.is_dir(), restore=restore)
    tell: Callable[[Found], None] = _Object() if as_json else _lines
    for stream in streams(path):
        with stream.open() as read, with_progress(path, read, "re-running", quiet=as_json) as counted:
            asyncio.run(_run(run, counted, tell))
    if as_json:
        click.echo(f"],{dumps(run.tally.to_json()).decode()[1:]}")
    else:
        for line in _summary(run.tally):
            click.echo(line)
    say_what_is_gone(path)
    sys.exit(run.tally.exit_code)


async def _run(run: Replay, read: Read, tell: Callable[[Found], None]) -> None:
    async for found in run.run(records(read)):
        tell(found)


class _Object:
    """Writes the one JSON object as its findings come: there may be any number."""

    def __init__(self) -> None:
        click.echo('{"findings":[', nl=False)
        self._between = ""

    def __call__(self, found: Found) -> None:
        click.echo(f"{self._between}{dumps(found.to_json()).decode()}", nl=False)
        self._between = ","


def _lines(found: Found) -> None:
    if found.kind == "impure":
        return  # as many as there are decisions, all alike: the summary counts them
    click.echo(f"{found.decision_id} (entry {found.seq})  {plain(found.agent)}  {found.kind}: {plain(found.why)}")
    for each in found.differences:
        for line in _difference(each):
            click.echo(line)


def _difference(each: Difference) -> list[str]:
    which = f"alternative {each.option - 1}, " if each.option else ""
    return [f"  {which}{each.what}", f"    recorded {_said(each.recorded)}", f"    re-run   {_said(each.rerun)}"]


def _said(value: object) -> str:
    try:
        text = plain(value if isinstance(value, str) else dumps(value).decode())
    except Exception:
        text = "what no payload can hold"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _summary(tally: Tally) -> list[str]:
    lines = [
        f"{number_of(tally.decisions, 'decision')}: {tally.matched:,} came out the same, {tally.mismatched:,} did not, "
        f"{tally.not_rerun:,} could not be re-run"
    ]
    lines += [f"  actions and alternatives compared: {tally.options:,}"]
    if tally.impure:
        lines.append(f"  no proof and not re-run, since their policy is no function of its input: {tally.impure:,}")
    for cause, count in sorted(tally.undecided.items()):
        lines.append(f"  a DENY for want of a decision ({cause}), so that there is nothing to re-run: {count:,}")
    if tally.undecided_alternatives:
        lines.append(f"  alternatives that are a DENY for want of a decision: {tally.undecided_alternatives:,}")
    for (recorded, now), count in sorted(tally.engines.items()):
        same = "the same engine" if recorded == now else f"{plain(now)}, recorded by {plain(recorded)}"
        lines.append(f"  {count:,} by {same}" + (f" ({plain(now)})" if recorded == now else ""))
    if tally.withheld:
        lines.append(f"  not here, since they were pruned or withheld as other agents': {tally.withheld:,}")
    if tally.let_go:
        lines.append("  those before what this ledger keeps are not here: export them from the collector")
    if tally.unreadable:
        lines.append(f"  {number_of(tally.unreadable, 'entry', 'entries')} cannot be read; run `sidecar verify`")
    if tally.ends_badly:
        lines.append(f"  reading ended early: {plain(tally.ends_badly)}; run `sidecar verify`")
    elif not tally.decisions:
        lines.append("  no decision lies in this range")
    return lines
