"""`sidecar serve`: run the sidecar."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import click

from sidecar import config as configuration
from sidecar.chain.strictjson import dumps
from sidecar.errors import UsageError
from sidecar.ledger import has_ledger
from sidecar.main import serve as run


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--data-dir", help="The ledger's directory.")
@click.option("--init", is_flag=True, help="Make the ledger first if there is none in the directory.")
@click.option("--listen", metavar="ADDR", help="unix:/path or host:port. Default: a socket in the data directory.")
@click.option("--policy", metavar="DIR|BUNDLE", help="The policy. Default for wasm: the starter policy.")
@click.option("--engine", type=click.Choice(["opa", "wasm"]), help="Who evaluates the policy. Default: wasm.")
@click.option(
    "--opa", metavar="ADDR", help="A running OPA for engine opa: http://host:port or unix:/path. Default: starts one."
)
@click.option("--dev", is_flag=True, help="Accept agent names that are merely asserted. Every entry says so.")
@click.option("--print-config", is_flag=True, help="Print each setting and where it came from, then exit.")
def serve(file: Path | None, init: bool, print_config: bool, **flags: Any) -> None:
    """Answer decisions until SIGTERM or SIGINT, then seal the ledger and exit.

    Settings come from the file, then SIDECAR_... in the environment, then flags.

    \b
    Example:
      sidecar serve --data-dir ./ledger --init --dev
    """
    given = {name: value for name, value in flags.items() if value not in (None, False)}
    config, sources = configuration.load(file, os.environ, given)
    if print_config:
        for name, source in sources.items():
            click.echo(f"{name} = {source.value!r}  # {source.origin}")
        return
    if init and not config.dev and not config.custodians and not has_ledger(Path(config.data_dir)):
        raise UsageError("--init needs custodians in the configuration (or --dev, which makes a key beside the ledger)")
    _log(config.log_level)
    run(config, init=init, started=lambda address: click.echo(f"sidecar is ready on {address}", err=True))


class _Lines(logging.Formatter):
    """One JSON object a line: time, level, message; never a payload."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return dumps(line).decode()


def _log(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler])
