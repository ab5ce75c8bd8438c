"""`sidecar verify`: the judgement on a ledger, a segment file or an evidence bundle."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sidecar.chain.seeds import Custody, SealedShare
from sidecar.chain.strictjson import dumps
from sidecar.cli import verify_workers
from sidecar.cli.custodian_key import KEY_METAVAR, key_source, private_keys
from sidecar.cli.log_receipts import Held, held, timestamp_check
from sidecar.cli.reading import parsed
from sidecar.cli.reports import exit_code, print_report
from sidecar.cli.sealed import read_openings
from sidecar.cli.sources import bundle_in, is_bundle, opened, progress, size_of, with_progress
from sidecar.config import read_file
from sidecar.custody import PrivateKey, open_seed
from sidecar.errors import CustodianMissing, UsageError
from sidecar.verify import (
    BundleReport,
    Evidence,
    Report,
    SeedOpener,
    Verdict,
    Worker,
    parse_disclosure,
    parse_trust,
    verify_bundle,
    verify_stream,
)

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
@click.option("--trust-bundle", "own_trust", is_flag=True, help="Use the copy in a bundle: UNANCHORED at best.")
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
    own_trust: bool,
    receipts: tuple[Path, ...],
    openings: Path | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Check a ledger directory (also one being written to), a segment file or an evidence bundle.

    Receipts of the fleet log that lie beside it are read too; with --trust they anchor what they cover.
    Prints the verdict first. Exit: 0 OK; 1 TAMPERED, FORK, MALFORMED; 3 INCOMPLETE, CLOCK; 4 UNANCHORED, when
    all that was checked holds but nobody outside vouches for it; 2 usage.

    \b
    Example:
      sidecar verify /var/lib/sidecar --custodian-key auditor.pem --receipt receipt.txt
    """
    if keys and disclosure:
        raise UsageError("--custodian-key and --disclosure: give one of them")
    verify_workers.collect_rarely()
    trouble: list[CustodianMissing] = []
    evidence = _evidence(keys, disclosure, trust, held(path, receipts), openings, trouble)
    with verify_workers.started(jobs or verify_workers.suitable(size_of(path))) as workers:
        if is_bundle(path):
            report = _bundle(path, evidence, workers, own_trust=own_trust, quiet=as_json)
        else:
            if own_trust:
                raise UsageError("--trust-bundle goes with an evidence bundle, which this is not")
            report = _stream(path, evidence, workers, quiet=as_json)
    if as_json:
        click.echo(dumps(report.to_json()))
    else:
        print_report(report)
    if trouble and report.verdict <= Verdict.UNANCHORED:
        raise UsageError(f"the HMAC chain was not checked: {trouble[0]}")
    sys.exit(exit_code(report))


def _stream(path: Path, evidence: Evidence, workers: Sequence[Worker], *, quiet: bool) -> Report | BundleReport:
    with opened(path) as read, with_progress(path, read, "verifying", quiet=quiet) as counted:
        return verify_stream(counted, evidence, workers=workers)


def _bundle(
    path: Path, evidence: Evidence, workers: Sequence[Worker], *, own_trust: bool, quiet: bool
) -> Report | BundleReport:
    if own_trust and evidence.trust is not None:
        raise UsageError("--trust and --trust-bundle: give one of them")
    if own_trust:
        click.echo("sidecar: THE TRUST FILE IS THE BUNDLE'S OWN: whoever made it chose what you trust", err=True)
    with path.open("rb") as file, progress(size_of(path), "verifying", quiet=quiet) as told:
        source = bundle_in(file, told or (lambda _: None))
        return verify_bundle(source, evidence, own_trust=own_trust, stamp_check=timestamp_check, workers=workers)


def _evidence(
    keys: Sequence[str],
    disclosure: Path | None,
    trust: Path | None,
    files: Held,
    openings: Path | None,
    trouble: list[CustodianMissing],
) -> Evidence:
    pinned = parsed(trust, read_file(trust, "trust file"), parse_trust) if trust else None
    return Evidence(
        open_seed=_opener(private_keys(keys), trouble) if keys else None,
        disclosure=parsed(disclosure, read_file(disclosure, "disclosure"), parse_disclosure) if disclosure else None,
        trust=pinned,
        receipts=files.heads,
        logged=files.logged,
        consistency=files.consistency,
        timestamps=files.timestamps,
        check_timestamp=timestamp_check(pinned),
        openings=read_openings(openings) if openings else None,
    )


def _opener(keys: Sequence[PrivateKey], trouble: list[CustodianMissing]) -> SeedOpener:
    def open_with(custody: Custody, chain_id: bytes, epoch: int, shares: Sequence[SealedShare]) -> bytes:
        try:
            return open_seed(keys, custody, chain_id, epoch, shares)
        except CustodianMissing as error:
            trouble.append(error)
            raise

    return open_with
