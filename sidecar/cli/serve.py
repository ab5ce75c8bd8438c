"""`sidecar serve`: run the sidecar."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from sidecar import config as configuration
from sidecar.chain.strictjson import dumps
from sidecar.cli.standard_error import Overheard, overheard
from sidecar.errors import UsageError
from sidecar.ledger import has_ledger
from sidecar.settings import refuse_unknown

_log: Final = logging.getLogger("sidecar")


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--data-dir", help="The ledger's directory.")
@click.option("--init", is_flag=True, help="Make the ledger first if there is none in the directory.")
@click.option("--listen", metavar="ADDR", help="unix:/path or host:port. Default: a socket in the data directory.")
@click.option(
    "--policy",
    "policy_source_path",
    metavar="DIR|BUNDLE",
    help="The policy, gated and watched. Default for wasm: the starter policy.",
)
@click.option("--engine", type=click.Choice(["opa", "wasm"]), help="Who evaluates the policy. Default: wasm.")
@click.option(
    "--opa", metavar="ADDR", help="A running OPA for engine opa: http://host:port or unix:/path. Default: starts one."
)
@click.option("--metrics", metavar="ADDR", help="Serve /metrics on host:port; :port is loopback's. Default: nowhere.")
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
    refuse_unknown(configuration.Config, "SIDECAR_", os.environ)
    if init and not config.dev and not config.custodians and not has_ledger(Path(config.data_dir)):
        raise UsageError("--init needs custodians in the configuration (or --dev, which makes a key beside the ledger)")
    with overheard() if config.grpc_tls else contextlib.nullcontext() as heard:
        start_log(config.log_level)
        _run(config, init, heard)


def _run(config: configuration.Config, init: bool, heard: Overheard | None) -> None:
    from sidecar.main import serve as run  # brings gRPC, which reads how much it shall tell when it is imported

    overhear = None if heard is None else heard.tell
    faulthandler.enable(sys.stderr)  # on the number 2 what a crash says would not be read any more
    try:
        run(config, init=init, started=lambda address: announce(config, address), overhear=overhear)
    finally:
        faulthandler.disable()


def announce(config: configuration.Config, address: str) -> None:
    """Say that it is ready at an address, and first, where that is dangerous, who may ask there."""
    if config.dev and not address.startswith("unix:"):
        host, _ = configuration.host_and_port("listen", address)
        if not configuration.is_loopback(host):
            _log.warning("development mode: whoever reaches %s asks in any name and reads every entry", address)
    click.echo(f"sidecar is ready on {address}", err=True)


class Lines(logging.Formatter):
    """One JSON object a line: time, level, message, and the members a record brings; never a payload.

    What other libraries say may quote what they were handling (asyncio prints a lost exception with its text), so
    only where it came from is written.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **_said(record),
        }
        return dumps(line).decode()


def _said(record: logging.LogRecord) -> dict[str, Any]:
    if record.name.partition(".")[0] == "sidecar":
        return {"message": record.getMessage(), **getattr(record, "members", {})}
    fault = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
    place = f"{record.module}:{record.lineno}"
    return {"message": "a library's message, withheld: it may quote content", "place": place, "fault": fault}


def start_log(level: str) -> None:
    """Log to stderr, one JSON object a line, what is of this level or above."""
    logging.raiseExceptions = False  # what could not be written would be shown on stderr with its arguments
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    ours = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(ours, logging.WARNING), handlers=[handler])
    logging.getLogger("sidecar").setLevel(ours)
