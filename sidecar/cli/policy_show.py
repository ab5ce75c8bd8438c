"""`sidecar policy show`: which policy is in force, since when and from which commit; what was refused, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sidecar.chain.entry import EntryType, Header
from sidecar.chain.payload import policy_time
from sidecar.chain.printable import number_of, to_milliseconds
from sidecar.chain.strictjson import dumps
from sidecar.cli.reading import entries_of
from sidecar.cli.sources import opened, with_progress
from sidecar.cli.words import plain
from sidecar.errors import NotFound

_MOST_FINDINGS = 5


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(path: Path, as_json: bool) -> None:
    """Print which policies decided, from a ledger directory or a segment file.

    The one in force, since when, from which commit and signed by whom; those before it; and what was refused since,
    with the findings. As it is recorded: `sidecar verify` says whether that is true.

    \b
    Example:
      sidecar policy show /var/lib/sidecar
    """
    with opened(path, rare=True) as read, with_progress(path, read, "reading", quiet=as_json) as counted:
        events = [_event(header, payload) for header, payload in entries_of(counted, EntryType.POLICY)]
    if not events:
        raise NotFound(f"no policy was ever in force in {path}")
    active = next((event for event in reversed(events) if event["event"] != "refused"), None)
    if as_json:
        click.echo(dumps({"active": active, "history": events}))
        return
    for line in _lines(events, active):
        click.echo(line)


def _event(header: Header, payload: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in payload.items() if name != "type"}
    return {"seq": header.seq, "time": to_milliseconds(policy_time(header.wall_ns)), **kept}


def _lines(events: list[dict[str, Any]], active: dict[str, Any] | None) -> Iterator[str]:
    if active is None:
        yield "no policy is in force"
    else:
        yield from _in_force(active, events)
    since = 0 if active is None else active["seq"]
    refused = [event for event in events if event["event"] == "refused" and event["seq"] > since]
    for event in refused:
        yield f"refused  {event['time']}  entry {event['seq']}  {plain(event['revision']) or 'unknown revision'}"
        yield from _commit(event)
        yield from _findings(event)
    for event in reversed(events):
        if event is not active and event not in refused:
            yield f"{event['event']:<9}  {event['time']}  entry {event['seq']}  {plain(event['revision']) or 'unknown'}"


def _in_force(active: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[str]:
    same = [e for e in events if e["bundle_digest"] == active["bundle_digest"] and e["revision"] == active["revision"]]
    yield f"in force {plain(active['revision']) or 'unknown revision'}"
    yield f"  since {same[0]['time']} (entry {same[0]['seq']}), last {active['event']} {active['time']}"
    yield f"  engine {active['engine']} {plain(active['engine_version'])}, rule {active['entrypoint']}"
    yield f"  bundle {active['bundle_digest'] or 'unknown: OPA does not show it'}"
    yield f"  source {active['source']['kind']}: {plain(active['source']['place'])}"
    yield from _commit(active)
    if active["impure_builtins"]:
        yield f"  NOT exactly re-runnable: uses {plain(', '.join(active['impure_builtins']))}"
    for step in active["gate"]:
        yield f"  gate {step['step']}: {step['outcome']}{', ' + plain(step['note']) if step['note'] else ''}"


def _commit(event: dict[str, Any]) -> Iterator[str]:
    commit, signer = event["commit"], event["signer"]
    if commit is not None:
        said = f"{plain(commit['author'])}: {plain(commit['subject'])}"
        yield f"  commit {commit['id']} of {commit['committed']} by {said}"
    if signer is not None:
        yield f"  signed by {plain(signer['principal'])}, key {plain(signer['key'])}"


def _findings(event: dict[str, Any]) -> Iterator[str]:
    found = [(step["step"], finding) for step in event["gate"] for finding in step["findings"]]
    for step, finding in found[:_MOST_FINDINGS]:
        line = f":{finding['line']}" if finding["line"] else ""
        place = f"{plain(finding['file'])}{line}: " if finding["file"] else ""
        yield f"  {step}: {place}{plain(finding['message'])}"
    if len(found) > _MOST_FINDINGS:
        yield f"  and {number_of(len(found) - _MOST_FINDINGS, 'more finding')}"
