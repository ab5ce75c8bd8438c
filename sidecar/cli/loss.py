"""`sidecar loss`: what the authority must accept for a ledger to go on that is behind its collector."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from sidecar.cli.authority import words
from sidecar.config import load, write_secret
from sidecar.founding import what_was_lost


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path, exists=True), help="The sidecar's TOML file.")
@click.option("--data-dir", help="The ledger's directory.")
@click.option("--reason", required=True, help="Why entries were lost.")
@click.option(
    "--request", required=True, type=click.Path(path_type=Path), help="New file for the request; - prints it."
)
def loss(file: Path | None, data_dir: str | None, reason: str, request: Path) -> None:
    """Write a request to accept that entries are lost which the collector holds and this ledger does not.

    Bring the newest ledger back if you can. With the signed note as collector.accept_loss_file the sidecar starts;
    OPEN names the note, and `sidecar verify` says INCOMPLETE there ever after. The collector keeps what was lost.

    \b
    Example:
      sidecar loss --config sidecar.toml --reason 'the volume was lost' --request loss.json
      sidecar authority sign loss.json --key authority.pem --out loss.note       # elsewhere
    """
    flags: dict[str, Any] = {"data_dir": data_dir} if data_dir else {}
    config, _ = load(file, os.environ, flags)
    act = what_was_lost(config, reason)
    click.echo("\n".join(words(act)), err=True)
    if str(request) == "-":  # of a container that one cannot copy files out of
        click.echo(act.encode(), nl=False)
    else:
        write_secret(request, act.encode())
        click.echo(str(request))
