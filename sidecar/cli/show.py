"""`sidecar show`: entries, readable.

It holds each payload against the commitment beside it and verifies nothing else; `sidecar verify` does that. An entry
that cannot be read, or that fails even this, is named on stderr, the others are shown all the same, and the exit is 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sidecar.chain.entry import EntryType, Header, tagged
from sidecar.chain.limits import NO_SEQ
from sidecar.chain.payload import policy_time
from sidecar.chain.printable import number_of, to_milliseconds
from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind, records
from sidecar.chain.strictjson import dumps
from sidecar.cli.outcomes import KINDS, Outcomes, line
from sidecar.cli.sealed import Shown, read_openings
from sidecar.cli.sources import Stream, opened, say_what_is_gone, streams, with_progress
from sidecar.cli.story import moment, story
from sidecar.cli.words import plain, summary
from sidecar.errors import Malformed, NotFound, UsageError
from sidecar.ledger import ledger_stream
from sidecar.verify import Openings


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--seq", type=click.IntRange(0), help="One entry by its number, whole.")
@click.option("--decision", metavar="ID|SEQ", help="A decision, its approvals, and what became of it.")
@click.option("--agent", metavar="ID", help="Only entries of this agent, and what it was refused.")
@click.option("--segment", type=click.IntRange(0), help="With --out: the sealed segment to write.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the segment as a file that can be verified alone.")
@click.option(
    "--openings",
    "openings_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Openings of personal fields.",
)
@click.option("--outcomes", is_flag=True, help="Allows without outcome, outcomes without allow, changed arguments.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def show(
    path: Path,
    seq: int | None,
    decision: str | None,
    agent: str | None,
    segment: int | None,
    out: Path | None,
    openings_file: Path | None,
    outcomes: bool,
    as_json: bool,
) -> None:
    """Print the entries of a ledger directory, a segment file or an evidence bundle.

    As they are stored: `sidecar verify` says whether they are true. Exit 1 where an entry cannot be read or is
    not what its own header commits to.

    \b
    Example:
      sidecar show /var/lib/sidecar --agent billing-agent
      sidecar show /var/lib/sidecar --decision 4711
      sidecar show /var/lib/sidecar --segment 7 --out segment-7.bin
      sidecar show /var/lib/sidecar --outcomes
    """
    wanted = _Wanted(seq, decision, agent)
    if (segment is None) != (out is None):
        raise UsageError("--segment and --out go together")
    if segment is not None and out is not None:
        if wanted.some or outcomes or openings_file or as_json:
            raise UsageError("--segment and --out write a segment as it is: give no other option")
        _export(path, segment, out)
        return
    if outcomes:
        if wanted.some or openings_file:
            raise UsageError("--outcomes looks at all entries: give no --seq, --decision, --agent or --openings")
        _outcomes(path, as_json=as_json)
        say_what_is_gone(path)
        return
    openings = None if openings_file is None else read_openings(openings_file)
    bad, parts = 0, streams(path)
    for part in parts:
        if len(parts) > 1 and not as_json:
            click.echo(f"chain {part.chain}")
        bad += _show(part, wanted, openings, as_json=as_json)
    say_what_is_gone(path)
    if bad:
        raise Malformed(f"{number_of(bad, 'entry', 'entries')} cannot be shown; run `sidecar verify`")
    if wanted.some and not wanted.found:
        raise NotFound(f"no such entry in {path}")


@dataclass(slots=True)
class _Wanted:
    """Which entries are printed. ``decision``: its id; or the seq of its entry, until that was seen. ``found``: how
    many were wanted."""

    seq: int | None
    decision: str | None
    agent: str | None
    found: int = 0

    @property
    def some(self) -> bool:
        """Whether it is not all of them."""
        return self.whole or bool(self.agent)

    @property
    def whole(self) -> bool:
        """Whether one entry, or one decision, is to be printed with all that it says."""
        return self.seq is not None or bool(self.decision)

    def takes(self, header: Header, payload: dict[str, Any]) -> bool:
        if self.decision == str(header.seq) and header.type is EntryType.DECISION:
            self.decision = payload["decision_id"]
        if self.seq is not None and header.seq != self.seq:
            return False
        if self.decision and self.decision not in (payload.get("decision_id"), _approval_of(payload)):
            return False
        named = payload.get("agent")
        who = named["id"] if isinstance(named, dict) else payload.get("principal")
        return self._counted(not self.agent or who == self.agent)

    def takes_bare(self, header: Header) -> bool:
        """Whether an entry is wanted whose payload was pruned: of whom or what it was, nobody can tell."""
        return self._counted(not self.decision and not self.agent and self.seq in (None, header.seq))

    def _counted(self, taken: bool) -> bool:
        self.found += taken
        return taken


def _show(part: Stream, wanted: _Wanted, openings: Openings | None, *, as_json: bool) -> int:
    """Print what is wanted of one stream; gives how many entries cannot be shown."""
    bad, sealed = 0, Shown(openings, part.open)
    with part.open() as read:
        for number, (kind, body) in enumerate((r for r in records(read) if r[0] in (Kind.ENTRY, Kind.BARE)), 1):
            try:
                if kind is Kind.BARE:
                    header = Header.decode(tagged(body)[0])
                    if wanted.takes_bare(header):
                        _print_bare(header, as_json=as_json)
                    continue
                header, payload = entry(body)
                hidden = sealed.put_back(header, payload)
            except Malformed as error:
                bad += 1
                click.echo(f"sidecar: entry record {number}: {error}", err=True)
                continue
            if wanted.takes(header, payload):
                _print(header, payload, hidden, as_json=as_json, whole=wanted.whole)
    return bad


def _outcomes(path: Path, *, as_json: bool) -> None:
    counts = dict.fromkeys(KINDS, 0)
    with opened(path) as read, with_progress(path, read, "reading", quiet=as_json) as counted:
        entries = (
            (Header.decode(tagged(body)[0]), None) if kind is Kind.BARE else entry(body)
            for kind, body in records(counted)
            if kind in (Kind.ENTRY, Kind.BARE)
        )
        for finding in Outcomes(time.time_ns()).findings(entries):
            counts[finding["finding"]] += finding.get("count", 1)
            click.echo(dumps(finding) if as_json else line(finding))
    if not as_json:
        click.echo(", ".join(f"{kind}: {number}" for kind, number in counts.items()))


def _approval_of(payload: dict[str, Any]) -> object:
    """The decision that a DECISION was asked again under."""
    return payload["request"]["approval_of"] if payload["type"] == "DECISION" else None


def _print(
    header: Header, payload: dict[str, Any], hidden: list[tuple[str, str]], *, as_json: bool, whole: bool
) -> None:
    """``hidden``: the sealed fields that are not shown, and why."""
    if as_json:
        more = {"hidden": dict(hidden)} if hidden else {}
        click.echo(dumps({**_about(header), "payload": payload, **more}))
        return
    click.echo(f"{header.seq:>8}  {_at(header)}  {header.type.name:<9} {summary(header.type.name, payload)}")
    if whole:
        for sentence in story(payload):
            click.echo(f"          {plain(sentence)}")
        for name, value in (*hidden, *_flat(payload, "")):
            meant = moment(name, value)
            click.echo(f"            {plain(name)}: {plain(value)}" + (f" ({meant})" if meant else ""))


def _print_bare(header: Header, *, as_json: bool) -> None:
    """An entry whose payload was pruned."""
    if as_json:
        click.echo(dumps({**_about(header), "payload": None}))
    else:
        click.echo(f"{header.seq:>8}  {_at(header)}  {header.type.name:<9} its payload is not here")


def _about(header: Header) -> dict[str, Any]:
    reference = None if header.ref_seq == NO_SEQ else header.ref_seq
    place = {"seq": header.seq, "segment": header.segment, "epoch": header.epoch, "ref_seq": reference}
    return {**place, "wall_ns": str(header.wall_ns)}


def _at(header: Header) -> str:
    return to_milliseconds(policy_time(header.wall_ns))


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{name}[{index}]")
    else:
        yield name, value if isinstance(value, str) else dumps(value).decode()


def _export(path: Path, segment: int, out: Path) -> None:
    if not path.is_dir():
        raise UsageError(f"{path} is not a ledger directory")
    try:
        file = out.open("xb")
    except FileExistsError:
        raise UsageError(f"{out} exists; choose another --out") from None
    try:
        with file, ledger_stream(path, segment) as read:
            while chunk := read(1 << 20):
                file.write(chunk)
    except BaseException as error:
        out.unlink(missing_ok=True)
        if isinstance(error, Malformed):
            raise UsageError(f"segment {segment} cannot be written out: {error}") from None
        raise
    click.echo(str(out), file=sys.stderr)
