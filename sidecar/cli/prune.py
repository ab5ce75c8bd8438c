"""`sidecar prune`: payloads that need not be kept any longer go, with the authority's leave (LEDGER.md rule 13)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from sidecar.chain import note as notes
from sidecar.chain.acts import Prune, Run
from sidecar.chain.authority_note import Grant
from sidecar.chain.entry import EntryType
from sidecar.chain.printable import number_of
from sidecar.chain.pruning import PRUNABLE, Record, bared, pruned
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.stream import MAGIC, Kind, reader, record, records
from sidecar.cli.authority import read_grant
from sidecar.cli.log_receipts import held
from sidecar.cli.sources import opened
from sidecar.config import read_file, write_secret
from sidecar.errors import Malformed, UsageError
from sidecar.ledger import carry_out
from sidecar.verify import Evidence, Report, parse_trust, verify_stream

DAY_NS = 86_400 * 1_000_000_000


@click.command()
@click.argument("ledger", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--request", type=click.Path(path_type=Path), help="Write a request for the authority to this new file.")
@click.option("--days", type=click.IntRange(0), help="With --request: of segments sealed at least so long ago.")
@click.option("--reason", help="With --request: why.")
@click.option("--note", type=click.Path(path_type=Path), help="Prune what this authority note allows.")
@click.option("--trust", type=click.Path(path_type=Path), help="With --note: the trust file that pins the log.")
def prune(
    ledger: Path, request: Path | None, days: int | None, reason: str | None, note: Path | None, trust: Path | None
) -> None:
    """Take payloads out of a ledger that no sidecar has open; first ask the authority for leave.

    Only of segments that the pinned log has receipted, and never before the chain's retention profile allows it.
    What remains is verified before anything is touched: chain, seals, receipts stay, and `sidecar verify` says PRUNED.

    \b
    Example:
      sidecar prune /var/lib/sidecar --request prune.json --days 90 --reason 'kept by the collector'
      sidecar authority sign prune.json --key authority.pem --out prune.note     # elsewhere
      sidecar prune /var/lib/sidecar --note prune.note --trust trust.json
    """
    if (request is None) == (note is None):
        raise UsageError("give either --request, to ask the authority, or --note, to do what it allowed")
    if request is not None:
        if days is None or not reason:
            raise UsageError("--request needs --days and --reason")
        if trust is not None:
            raise UsageError("--trust is for --note, by which is pruned: leave it out with --request")
        with opened(ledger) as read:
            act = proposal(records(read), time.time_ns() - days * DAY_NS, reason)
        write_secret(request, act.encode())
        click.echo(f"{request}: segments up to {act.runs[-1].last}; have it signed: sidecar authority sign {request}")
        return
    assert note is not None
    if days is not None or reason is not None:
        raise UsageError("--days and --reason are for --request: the note says what goes")
    if trust is None:
        raise UsageError("--note needs --trust: without a pinned log nobody knows what was receipted")
    grant, act = granted(note)
    files = held(ledger, [])
    evidence = Evidence(
        trust=parse_trust(read_file(trust, "trust file")), logged=files.logged, consistency=files.consistency
    )
    with opened(ledger) as read:
        check(records(read), grant, act, evidence)
    cut = carry_out(ledger, grant, act)
    click.echo(f"{number_of(cut.entries, 'payload')} pruned; the file has {cut.after:,} bytes, and had {cut.before:,}")


def granted(file: Path) -> tuple[Grant, Prune]:
    """A grant to prune, not verified yet. Raises UsageError."""
    grant = read_grant(file)
    if not isinstance(grant.act, Prune):
        raise UsageError(f"{file}: it allows {grant.note.act}, not prune")
    return grant, grant.act


def proposal(found: Iterable[Record], before_ns: int, reason: str) -> Prune:
    """A request for all segments with something to prune that were sealed before then, ns.

    Raises:
        UsageError: there is nothing to prune, or the reason cannot be written.
    """
    chain, first, some, last = b"", None, False, None
    for kind, body in found:
        if kind is Kind.ENTRY:
            chain = chain or body[32:64]
            some = some or EntryType(body[8]) in PRUNABLE
        elif kind is Kind.SEAL:
            text = notes.parse(body).text
            seal = Seal.parse(text)
            if seal.time > before_ns:
                break
            if some:
                first = seal.segment if first is None else first
                last = Run(first, seal.segment, seal_hash(text))
            some = False
    if last is None:
        raise UsageError("no segment was sealed so long ago that has payloads to prune")
    try:
        return Prune(chain, (last,), reason)
    except Malformed as error:
        raise UsageError(str(error)) from None


def check(found: Iterable[Record], grant: Grant, act: Prune, evidence: Evidence) -> Report:
    """Whether what would remain is in order, and this grant is what allows it.

    Raises:
        UsageError: why nothing may be pruned.
    """
    counted = _Counted(found, act)
    report = verify_stream(reader(_pieces(pruned(counted, [grant.record], [act]))), evidence)
    bad = report.first_bad()
    if bad is not None:
        raise UsageError(f"nothing is pruned: the ledger would be {bad.verdict.name}: {bad.reason}")
    if not counted.covered:
        raise UsageError("nothing is pruned: the note covers no payload that is here")
    return report


class _Counted:
    """Records, and how many of them an act would cut."""

    def __init__(self, found: Iterable[Record], act: Prune) -> None:
        self._found, self._act = found, act
        self.covered = 0

    def __iter__(self) -> Iterator[Record]:
        for each in self._found:
            self.covered += bared(each, [self._act]) is not each
            yield each


def _pieces(found: Iterable[Record]) -> Iterator[bytes]:
    yield MAGIC
    for kind, body in found:
        yield record(kind, body)
