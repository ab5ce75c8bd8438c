"""`sidecar init`: a new ledger."""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.chain.retention import PROFILES
from sidecar.chain.strictjson import dumps
from sidecar.config import load
from sidecar.errors import UsageError
from sidecar.founding import found_ledger


@click.command()
@click.option("--data-dir", required=True, type=click.Path(path_type=Path), help="Directory to make the ledger in.")
@click.option(
    "--custodian",
    "custodians",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="PEM",
    help="Public key of someone who may check the HMAC chain (X25519 or RSA). Repeatable.",
)
@click.option(
    "--mode",
    type=click.Choice(["any", "all"]),
    default="any",
    show_default=True,
    help="Whether each custodian alone opens the chain's seeds, or only all together.",
)
@click.option(
    "--authority",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="PEM",
    help="Public key of the offline authority that may later sign erasure and pruning.",
)
@click.option(
    "--retention", type=click.Choice(sorted(PROFILES)), help="How long payloads must stay at least. Default: any time."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def init(
    data_dir: Path,
    custodians: tuple[Path, ...],
    mode: str,
    authority: Path | None,
    retention: str | None,
    as_json: bool,
) -> None:
    """Make a new ledger, with a fresh identity key, in a directory that does not exist yet.

    Without --custodian a custodian key is made beside the directory, as DIR.custodian.pem: move it to where
    the sidecar's host cannot read it.

    \b
    Example:
      sidecar keys custodian --out auditor.pem
      sidecar init --data-dir /var/lib/sidecar --custodian auditor.pub.pem
    """
    if not data_dir.absolute().name:
        raise UsageError("--data-dir: a new ledger needs a directory of its own")
    flags = {"data_dir": str(data_dir.absolute()), "custodians": tuple(map(str, custodians)), "custody_mode": mode}
    if authority:
        flags["authority"] = str(authority)
    if retention:
        flags["retention"] = retention
    config, _ = load(None, {}, flags)
    founded = found_ledger(config)
    if as_json:
        made = str(founded.made_key) if founded.made_key else None
        click.echo(dumps({"chain": founded.chain_id.hex(), "data_dir": str(data_dir), "custodian_key": made}))
        return
    click.echo(f"chain {founded.chain_id.hex()}")
    click.echo(f"ledger {data_dir}")
    if founded.made_key:
        click.echo(
            f"No custodian was named, so one was made: {founded.made_key}. Whoever has it can check this ledger's HMAC "
            "chain. Move it off this host.",
            err=True,
        )
