"""A verdict as a person reads it, and as an exit code."""

from __future__ import annotations

from typing import Final

import click

from sidecar.chain.printable import number_of
from sidecar.verify import BundleReport, Finding, Report

_EXITS: Final = {"OK": 0, "REDACTED": 0, "PRUNED": 0, "UNANCHORED": 4, "INCOMPLETE": 3, "CLOCK": 3}
_WORTH: Final = {
    "non_repudiable": "non-repudiable (signed by a key you pinned)",
    "signed": "signed (by a key that only the ledger's own registry names)",
    "authenticated_in_transit": "authenticated in transit only",
    "vouched": "named by a gateway",
    "unopened": "signed, over personal fields that were not opened",
    "asserted": "asserted only",
}
_SHOWN: Final = 50  # findings printed; --json has them all


def exit_code(report: Report | BundleReport) -> int:
    """0 OK and what the authority signed; 1 not true; 3 incomplete; 4 nobody outside vouches."""
    return _EXITS.get(report.verdict.name, 1)


def print_report(report: Report | BundleReport) -> None:
    """Verdict first, then findings, what was checked and what was not."""
    click.echo(report.verdict.name)
    chains = f", {number_of(len(report.chains), 'chain')}" if isinstance(report, BundleReport) else ""
    click.echo(f"  {_size(report.entries, report.segments)}{chains}")
    if isinstance(report, BundleReport):
        for chain, verdict, entries, segments in report.chains if len(report.chains) > 1 else ():
            click.echo(f"  chain {chain.hex()}: {verdict.name}, {_size(entries, segments)}")
        findings = [(_place(finding, chain), finding) for chain, finding in report.findings]
        bad = report.first_bad()
        first = None if bad is None else (_place(bad[1], bad[0]), bad[1])
    else:
        findings = [(_place(finding, None), finding) for finding in report.findings]
        worse = report.first_bad()
        first = None if worse is None else (_place(worse, None), worse)
    if first is not None:
        click.echo(f"  first bad place: {first[0]}: {first[1].reason}")
    for place, finding in findings[:_SHOWN]:
        click.echo(f"  {finding.verdict.name:<10} {place}: {finding.reason}")
    hidden = report.findings_total - min(len(findings), _SHOWN)
    if hidden:
        click.echo(f"  … and {number_of(hidden, 'more finding')} (--json lists more)")
    _print_rest(report)


def _size(entries: int, segments: int) -> str:
    return f"{number_of(entries, 'entry', 'entries')} in {number_of(segments, 'segment')}"


def _print_rest(report: Report | BundleReport) -> None:
    if any(report.decisions.values()):
        click.echo(f"  decisions: {', '.join(f'{n:,} {_WORTH[what]}' for what, n in report.decisions.items() if n)}")
    for remark in report.notes[:_SHOWN]:
        click.echo(f"  note: {remark}")
    for title, lines in (("Checked", report.checked), ("Not checked", report.not_checked)):
        click.echo(f"{title}:")
        for line in lines:
            click.echo(f"  - {line}")
    click.echo(f"What this permits one to say: {report.claim}")


def _place(finding: Finding, chain: bytes | None) -> str:
    parts = [] if chain is None else [f"chain {chain.hex()[:16]}"]
    parts += [f"segment {finding.segment}"] if finding.segment is not None else []
    parts += [f"seq {finding.seq}"] if finding.seq is not None else []
    return ", ".join(parts) or "whole ledger"
