"""`sidecar verify`: the judgement on a ledger or a segment file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from sidecar.chain.seeds import Custody, SealedShare
from sidecar.chain.strictjson import dumps
from sidecar.cli import verify_workers
from sidecar.cli.custodian_key import KEY_METAVAR, key_source, private_keys
from sidecar.cli.log_receipts import Held, held, timestamp_check
from sidecar.cli.sources import opened, size_of, with_progress
from sidecar.config import read_file
from sidecar.custody import PrivateKey, open_seed
from sidecar.errors import CustodianMissing, Malformed, UsageError
from sidecar.verify import (
    Evidence,
    Report,
    SeedOpener,
    Verdict,
    parse_disclosure,
    parse_openings,
    parse_trust,
    verify_stream,
)

_T = TypeVar("_T")

_EXITS = {"OK": 0, "REDACTED": 0, "PRUNED": 0, "UNANCHORED": 4, "INCOMPLETE": 3, "CLOCK": 3}
_WORTH = {
    "non_repudiable": "non-repudiable (signed by a key you pinned)",
    "signed": "signed (by a key that only the ledger's own registry names)",
    "authenticated_in_transit": "authenticated in transit only",
    "unopened": "signed, over personal fields that were not opened",
    "asserted": "asserted only",
}
_SHOWN = 50  # findings printed; --json has them all

_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--custodian-key",
    "keys",
    multiple=True,
    type=key_source,
    metavar=KEY_METAVAR,
    help="A custodian's private key. Repeatable.",
)
@click.option("--disclosure", type=_file, help="Segment keys that a custodian handed out.")
@click.option(
    "--trust", type=_file, help="The chains, log and witnesses you expect, from a source other than the ledger."
)
@click.option(
    "--receipt",
    "receipts",
    multiple=True,
    type=_file,
    help="A receipt that a caller kept, or a receipt, consistency file or timestamp of the log. Repeatable.",
)
@click.option("--openings", type=_file, help="Salts and values of sealed personal fields.")
@click.option(
    "--jobs", type=click.IntRange(1, 64), help="Processes that work on it. Default: one, for a large ledger one a CPU."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(
    path: Path,
    keys: tuple[str, ...],
    disclosure: Path | None,
    trust: Path | None,
    receipts: tuple[Path, ...],
    openings: Path | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Check a ledger directory (also one being written to) or a segment file.

    Receipts of the fleet log that lie beside it are read too; with --trust they anchor what they cover.
    Prints the verdict first. Exit: 0 OK; 1 TAMPERED, FORK, MALFORMED; 3 INCOMPLETE, CLOCK; 4 UNANCHORED, when
    all that was checked holds but nobody outside vouches for it; 2 usage.

    \b
    Example:
      sidecar verify /var/lib/sidecar --custodian-key auditor.pem --receipt receipt.txt
    """
    if keys and disclosure:
        raise UsageError("--custodian-key and --disclosure: give one of them")
    trouble: list[CustodianMissing] = []
    evidence = _evidence(keys, disclosure, trust, held(path, receipts), openings, trouble)
    count = jobs or verify_workers.suitable(size_of(path))
    with (
        opened(path) as read,
        with_progress(path, read, "verifying", quiet=as_json) as counted,
        verify_workers.started(count) as workers,
    ):
        report = verify_stream(counted, evidence, workers=workers)
    if as_json:
        click.echo(dumps(report.to_json()))
    else:
        _print(report)
    if trouble and report.verdict <= Verdict.UNANCHORED:
        raise UsageError(f"the HMAC chain was not checked: {trouble[0]}")
    sys.exit(_EXITS.get(report.verdict.name, 1))


def _evidence(
    keys: Sequence[str],
    disclosure: Path | None,
    trust: Path | None,
    files: Held,
    openings: Path | None,
    trouble: list[CustodianMissing],
) -> Evidence:
    pinned = _parsed(trust, "trust file", parse_trust) if trust else None
    return Evidence(
        open_seed=_opener(private_keys(keys), trouble) if keys else None,
        disclosure=_parsed(disclosure, "disclosure", parse_disclosure) if disclosure else None,
        trust=pinned,
        receipts=files.heads,
        logged=files.logged,
        consistency=files.consistency,
        timestamps=files.timestamps,
        check_timestamp=timestamp_check(pinned),
        openings=_parsed(openings, "openings", parse_openings) if openings else None,
    )


def _parsed(path: Path, what: str, parse: Callable[[bytes], _T]) -> _T:
    try:
        return parse(read_file(path, what))
    except Malformed as error:
        raise UsageError(f"{path}: {error}") from None


def _opener(keys: Sequence[PrivateKey], trouble: list[CustodianMissing]) -> SeedOpener:
    def open_with(custody: Custody, chain_id: bytes, epoch: int, shares: Sequence[SealedShare]) -> bytes:
        try:
            return open_seed(keys, custody, chain_id, epoch, shares)
        except CustodianMissing as error:
            trouble.append(error)
            raise

    return open_with


def _print(report: Report) -> None:
    click.echo(report.verdict.name)
    click.echo(f"  {report.entries:,} entries in {report.segments:,} segments")
    first = report.first_bad()
    if first is not None:
        click.echo(f"  first bad place: {_place(first.segment, first.seq)}: {first.reason}")
    for finding in report.findings[:_SHOWN]:
        click.echo(f"  {finding.verdict.name:<10} {_place(finding.segment, finding.seq)}: {finding.reason}")
    hidden = report.findings_total - min(len(report.findings), _SHOWN)
    if hidden:
        click.echo(f"  … and {hidden} more findings (--json lists more)")
    if any(report.decisions.values()):
        click.echo(f"  decisions: {', '.join(f'{n:,} {_WORTH[what]}' for what, n in report.decisions.items() if n)}")
    for remark in report.notes[:_SHOWN]:
        click.echo(f"  note: {remark}")
    for title, lines in (("Checked", report.checked), ("Not checked", report.not_checked)):
        click.echo(f"{title}:")
        for line in lines:
            click.echo(f"  - {line}")
    click.echo(f"What this permits one to say: {report.claim}")


def _place(segment: int | None, seq: int | None) -> str:
    parts = [f"segment {segment}"] if segment is not None else []
    parts += [f"seq {seq}"] if seq is not None else []
    return ", ".join(parts) or "whole ledger"
