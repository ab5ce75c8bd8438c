"""`sidecar collector`: run a collector, and look after what it holds."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from sidecar.chain.note import VerifierKey
from sidecar.chain.printable import number_of
from sidecar.chain.rollcall import Standing
from sidecar.chain.strictjson import dumps
from sidecar.cli.options import together
from sidecar.cli.serve import start_log
from sidecar.collecting import Collector, collect, log_key, open_index, open_storage, verifier_key
from sidecar.collector import reindex
from sidecar.collector.runs import Runs
from sidecar.collector_config import PREFIX, Collecting, load_collecting
from sidecar.config import write_secret
from sidecar.errors import UsageError
from sidecar.settings import load_settings, refuse_unknown
from sidecar.trust_file import trust

_DAY = 86_400


settings = together(
    click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file."),
    click.option("--data-dir", help="The collector's directory."),
    click.option("--dev", is_flag=True, help="For development: any sidecar is let in; nothing need be set."),
)
"""The options that say which collector."""


def _load(file: Path | None, **flags: Any) -> Collecting:
    return load_collecting(file, os.environ, {n: v for n, v in flags.items() if v not in (None, False)})


def load_present(file: Path | None, **flags: Any) -> Collecting:
    """The configuration of a collector that is there. Raises UsageError."""
    config = _load(file, **flags)
    _present(config)
    return config


@click.group()
def collector() -> None:
    """Run a collector: it takes what sidecars record, logs it for all to see, and hands back receipts."""


@collector.command()
@settings
@click.option("--listen", metavar="ADDR", help="host:port for sidecars. Default: 127.0.0.1:7473.")
@click.option("--web", metavar="ADDR", help="host:port for the log and /metrics. Default: 127.0.0.1:7474.")
@click.option("--print-config", is_flag=True, help="Print each setting and where it came from, then exit.")
def serve(file: Path | None, print_config: bool, **flags: Any) -> None:
    """Take what sidecars ship until SIGTERM or SIGINT.

    Settings come from the file, then COLLECTOR_... in the environment, then flags.

    \b
    Example:
      sidecar collector serve --data-dir ./collector --dev
    """
    if print_config:
        given = {name: value for name, value in flags.items() if value not in (None, False)}
        for name, source in load_settings(Collecting, PREFIX, file, os.environ, given)[1].items():
            click.echo(f"{name} = {source.value!r}  # {source.origin}")
        return
    config = _load(file, **flags)
    refuse_unknown(Collecting, PREFIX, os.environ)
    start_log(config.log_level)

    def started(running: Collector) -> None:
        click.echo(f"the collector is ready on {running.address}, its log on {running.url}", err=True)
        click.echo(f"log key {verifier_key(config)}", err=True)

    collect(config, started)


@collector.command()
@settings
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(file: Path | None, as_json: bool, **flags: Any) -> None:
    """Each chain's last head, lag, last seal in the log, and for how long what came after waits for one; alarms.

    \b
    Example:
      sidecar collector status --data-dir collector --dev
    """
    found = _standing(load_present(file, **flags))
    click.echo(dumps(found) if as_json else "\n".join(_standing_lines(found)))


def _standing(config: Collecting) -> dict[str, Any]:
    now, runs, index = time.time_ns(), Runs(open_storage(config)), open_index(config)
    try:
        alarms, tip, standings = index.alarms(), index.tip(), list(index.standings())
    finally:
        index.close()
    alarmed = Counter((alarm.chain_id, alarm.kind) for alarm in alarms)
    return {
        "log_key": verifier_key(config),
        "log_size": tip.size if tip else 0,
        "chains": [_of_chain(runs, each, now, alarmed) for each in standings],
        "alarms": [
            {"time": str(a.time), "chain": a.chain_id.hex(), "kind": a.kind, "detail": a.detail, "evidence": a.evidence}
            for a in alarms
        ],
    }


def _of_chain(runs: Runs, standing: Standing, now: int, alarmed: Counter[tuple[bytes, str]]) -> dict[str, Any]:
    first = None if standing.seq is None else runs.first_after(standing.chain_id, standing.sealed)
    return {
        "chain": standing.chain_id.hex(),
        "epoch": standing.epoch,
        "seq": standing.seq,
        "lag_seconds": _seconds_since(standing.time, now),
        "sealed": standing.sealed,
        "unanchored_seconds": _seconds_since(first, now),
        "alarms": {kind: number for (chain, kind), number in sorted(alarmed.items()) if chain == standing.chain_id},
    }


def _seconds_since(wall_ns: int | None, now: int) -> float | None:
    return None if wall_ns is None else round(max(0, now - wall_ns) / 1e9, 1)


def _standing_lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"log key {found['log_key']}"
    yield f"log {number_of(found['log_size'], 'entry', 'entries')}, {number_of(len(found['chains']), 'chain')}"
    for each in found["chains"]:
        said = "nothing yet" if each["seq"] is None else f"entry {each['seq']}, {each['lag_seconds']} s ago"
        sealed = "no seal yet" if each["sealed"] is None else f"segment {each['sealed']}"
        age = each["unanchored_seconds"]
        open_ = "nothing unanchored" if age is None else f"unanchored for {age} s"
        raised = "".join(f"  {kind} {number}" for kind, number in each["alarms"].items())
        yield f"chain {each['chain']}  epoch {each['epoch']}  last {said}  in the log up to {sealed}, {open_}{raised}"
    for alarm in found["alarms"]:
        yield f"ALARM {alarm['kind']}  chain {alarm['chain']}: {alarm['detail']}"


@collector.command("trust")
@settings
@click.option("--out", type=click.Path(path_type=Path), help="File to write. Default: standard output.")
def write_trust(file: Path | None, out: Path | None, **flags: Any) -> None:
    """Write trust.json, what an auditor needs: chains and their keys, this log's key, witnesses, authorities' roots.

    \b
    Example:
      sidecar collector trust --data-dir ./collector --dev --out trust.json
    """
    config = load_present(file, **flags)
    found = trust(config, open_storage(config))
    if out is None:
        click.echo(found, nl=False)
    else:
        out.write_bytes(found)


@collector.command()
@settings
@click.option("--days", type=click.IntRange(1, 365), default=7, show_default=True, help="How long it is good.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file for the token; - prints it.")
def register(file: Path | None, days: int, out: Path, **flags: Any) -> None:
    """Make a one-time token that lets one new chain in.

    \b
    Example:
      sidecar collector register --config /etc/collector/collector.toml --out token
    """
    config = load_present(file, **flags)
    token = secrets.token_urlsafe(32).encode()
    Runs(open_storage(config)).register(token, int(time.time()) + days * _DAY)
    if str(out) == "-":  # of a container that one cannot copy files out of
        click.echo(token, nl=True)
    else:
        write_secret(out, token + b"\n")


@collector.command("reindex")
@settings
def rebuild(file: Path | None, **flags: Any) -> None:
    """Make the index anew from the objects. The collector must not run meanwhile.

    \b
    Example:
      sidecar collector reindex --config /etc/collector/collector.toml
    """
    config = load_present(file, **flags)
    index = open_index(config)
    try:
        size = reindex(open_storage(config), index, _key(config))
    finally:
        index.close()
    click.echo(f"{number_of(size, 'entry', 'entries')} of the log indexed")


@collector.command("verify")
@settings
@click.option("--workers", type=click.IntRange(1, 64), help="Processes. Default: one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify_all(file: Path | None, workers: int | None, as_json: bool, **flags: Any) -> None:
    """Verify again everything that is held: chains, log, index. Exit: 0 all good, 1 something is not.

    \b
    Example:
      sidecar collector verify --data-dir collector --dev
    """
    from sidecar.cli.collector_verify import verify_everything

    config = load_present(file, **flags)

    def progress(done: int, of: int) -> None:
        click.echo(f"chains verified: {done} of {of}", err=True)

    chains, wrong = verify_everything(config, _key(config), workers or os.cpu_count() or 1, progress)
    if as_json:
        click.echo(dumps({"chains": chains, "wrong": wrong}))
    else:
        entries = sum(int(each["entries"]) for each in chains)
        click.echo(f"{number_of(len(chains), 'chain')}, {number_of(entries, 'entry', 'entries')}")
        for each in chains:
            for line in each["accepted"]:
                click.echo(f"{each['verdict']}: chain {each['chain']}: {line}")
        for line in wrong:
            click.echo(f"WRONG: {line}")
        click.echo("something is wrong" if wrong else "all that is held is as it was taken")
    sys.exit(1 if wrong else 0)


def _key(config: Collecting) -> VerifierKey:
    return VerifierKey(config.name, log_key(config).public_key().public_bytes_raw())


def _present(config: Collecting) -> None:
    if not Path(config.data_dir).is_dir():
        raise UsageError(f"no collector in {config.data_dir}; start one: sidecar collector serve")


def _more() -> None:
    from sidecar.cli.collector_check import check
    from sidecar.cli.collector_prune import certificate, hold, prune

    for command in (certificate, check, hold, prune):
        collector.add_command(command)


_more()
