"""`sidecar bench`: how fast this is on this machine, as ratios within one run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from sidecar.chain.strictjson import dumps
from sidecar.cli import (
    bench_collector,
    bench_engines,
    bench_export,
    bench_ledger,
    bench_mcp,
    bench_policy,
    bench_signed,
    bench_start,
    bench_tls,
    bench_verify,
)
from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_programs import machine
from sidecar.cli.bench_work import Work, prepare
from sidecar.policy import OpaProgram, find_opa

PARTS: Final = (
    "disk", "engines", "sizes", "signed", "tls", "verify", "export", "collector", "start", "memory", "policy", "mcp",
)  # fmt: skip
_NEEDS: Final[Mapping[str, Sequence[str]]] = {
    "disk": (), "engines": ("opa", "h2load"), "sizes": ("opa", "h2load"), "verify": ("opa", "openssl"),
    "start": ("opa",), "memory": ("opa", "h2load"), "tls": ("opa",), "policy": ("opa", "h2load", "git"),
    "signed": ("opa",), "collector": ("opa", "openssl"), "mcp": ("opa",), "export": ("opa",),
}  # fmt: skip
_NO_OPA: Final = OpaProgram("", "")  # no part that is run needs one
_ROUNDS: Final = 7
_VERIFIED: Final = 4_000  # entries verified for each second that a figure may take, and decisions for RssAnon
_EXPORTED: Final = 20_000  # entries exported, likewise
_RERUN: Final = 200  # decisions run again, in each round, for each such second
_MOST_DECISIONS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the bench: its own directory, what is asked, and how long each figure may take, seconds."""

    place: Path
    work: Work
    opa: OpaProgram
    seconds: float
    rounds: int
    entries: tuple[int, ...]


def _entries(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple({int(part) for part in text.split(",")})
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 10:
        raise click.BadParameter("numbers from 10 on, with commas between them, are required")
    return sizes


@click.command()
@click.option("--seconds", default=5.0, type=click.FloatRange(0.01, 600), help="Measuring time of each figure. [5]")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Measure only this part. Repeatable.")
@click.option("--entries", default="10000,1000000", callback=_entries, metavar="N,N", help="Ledger sizes compared.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Where to measure. [TMPDIR]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    seconds: float, only: tuple[str, ...], entries: tuple[int, ...], data_dir: Path | None, as_json: bool
) -> None:
    """Measure this sidecar against bare OPA, the disk and openssl, in interleaved rounds.

    Only the ratios travel: absolute figures are this machine's, in this minute. Needs opa, h2load (nghttp2),
    openssl and git; a part whose program is missing is left out, and that is said. Exit 0 also where one is missed.

    \b
    Example:
      sidecar bench --only engines --only disk
    """
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-", dir=data_dir) as scratch:
        place = Path(scratch)
        opa = find_opa() if shutil.which("opa") else None
        told = machine(place, opa.path if opa else None)
        findings = Findings()
        wanted = _possible(findings, only or PARTS)
        run = Run(place, prepare(place, opa), opa or _NO_OPA, seconds, _ROUNDS if seconds >= 1 else 1, entries)
        for part in wanted:
            click.echo(f"measuring: {part}", err=True)
            _MEASURE[part](findings, run)
    click.echo(dumps(findings.to_json(told)) if as_json else "\n".join(findings.lines(told)))


def _possible(findings: Findings, parts: Sequence[str]) -> list[str]:
    """The parts whose programs are there, in their order; the others are said to be left out."""
    possible = []
    for part in PARTS:
        missing = [program for program in _NEEDS[part] if shutil.which(program) is None]
        if part in parts and missing:
            findings.left_out[part] = f"not on PATH: {', '.join(missing)}"
        elif part in parts:
            possible.append(part)
    return possible


def _disk(findings: Findings, run: Run) -> None:
    bench_ledger.measure_disk(findings, run.place / "disk", run.rounds, run.seconds)


def _engines(findings: Findings, run: Run) -> None:
    place = run.place / "engines"
    place.mkdir()
    with bench_engines.contestants(run.work, place, run.opa.path) as asked:
        bench_engines.measure(findings, asked, run.rounds, run.seconds)
        if bench_ledger.COMMIT not in findings.figures:
            bench_ledger.measure_disk(findings, run.place / "disk", run.rounds, run.seconds)
        bench_ledger.hold_durable(findings, asked)


def _sizes(findings: Findings, run: Run) -> None:
    bench_ledger.measure_sizes(findings, run.work, run.place / "sizes", run.entries, run.rounds, run.seconds)


def _signed(findings: Findings, run: Run) -> None:
    bench_signed.measure_signed(findings, run.work, run.place / "signed", run.rounds, run.seconds)


def _tls(findings: Findings, run: Run) -> None:
    bench_tls.measure_tls(findings, run.work, run.place / "tls", run.rounds, run.seconds)


def _verify(findings: Findings, run: Run) -> None:
    entries = max(100, int(_VERIFIED * run.seconds))
    bench_verify.measure_verify(findings, run.work, run.place / "verify", entries, run.rounds)


def _export(findings: Findings, run: Run) -> None:
    entries = max(100, int(_EXPORTED * run.seconds))
    bench_export.measure_export(findings, run.work, run.place / "export", entries, min(3, run.rounds))


def _collector(findings: Findings, run: Run) -> None:
    entries = max(100, int(_VERIFIED * run.seconds))
    bench_collector.measure_ingest(findings, run.work, run.place / "ingest", entries, run.rounds)
    bench_collector.measure_receipts(findings, run.place / "receipts", run.seconds)
    bench_collector.measure_added(findings, run.work, run.place / "shipping", run.rounds, run.seconds)


def _start(findings: Findings, run: Run) -> None:
    bench_start.measure_start(findings, run.work, run.place / "start", run.rounds)


def _memory(findings: Findings, run: Run) -> None:
    decisions = min(_MOST_DECISIONS, int(_VERIFIED * 5 * run.seconds))
    bench_start.measure_memory(findings, run.work, run.place / "memory", decisions)


def _policy(findings: Findings, run: Run) -> None:
    bench_policy.measure_activation(findings, run.work, run.place / "activation", run.rounds, run.seconds)
    entries = max(100, int(_RERUN * run.seconds))
    bench_policy.measure_diff(findings, run.work, run.place / "diff", entries, run.rounds, run.opa)


def _mcp(findings: Findings, run: Run) -> None:
    bench_mcp.measure_mcp(findings, run.place / "mcp", run.rounds, run.seconds)


_MEASURE: Final[Mapping[str, Callable[[Findings, Run], None]]] = {
    "disk": _disk, "engines": _engines, "sizes": _sizes, "verify": _verify, "start": _start, "memory": _memory,
    "signed": _signed, "tls": _tls, "collector": _collector, "policy": _policy, "mcp": _mcp, "export": _export,
}  # fmt: skip
