"""`sidecar authority`: what the authority signs, away from any sidecar (proto/LEDGER.md, "Authority note")."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from sidecar.chain import acts, authority_note, strictjson
from sidecar.chain.authority_note import Grant
from sidecar.cli.reading import parsed
from sidecar.cli.words import plain
from sidecar.config import read_file, write_secret
from sidecar.custody import load_authority, load_authority_private
from sidecar.errors import Malformed, SignatureInvalid, UsageError


@click.group()
def authority() -> None:
    """Sign what only the authority may allow, as pruning; read what it signed. No ledger and no network is needed."""


@authority.command()
@click.argument("request", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The authority's private key, PEM.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the authority note (0600).")
@click.option("--yes", is_flag=True, help="Do not ask.")
def sign(request: Path, key: Path, out: Path, yes: bool) -> None:
    """Sign a request that somebody wrote down where the ledger is: it is shown first, and you are asked.

    \b
    Example:
      sidecar authority sign prune.json --key authority.pem --out prune.note
    """
    private = load_authority_private(read_file(key, "authority key"))
    act = parsed(request, read_file(request, "request"), acts.parse)
    click.echo("\n".join(words(act)), err=True)
    if not yes and not click.confirm("Sign this?", err=True):
        raise UsageError("nothing was signed")
    write_secret(out, authority_note.compose(act, time.time_ns(), private))
    click.echo(str(out))


@authority.command()
@click.argument("note", type=click.Path(path_type=Path))
@click.option(
    "--key", type=click.Path(path_type=Path), help="The authority's public key, PEM: without it nothing is verified."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(note: Path, key: Path | None, as_json: bool) -> None:
    """Print what an authority note allows, and whether the key given signed it.

    \b
    Example:
      sidecar authority show prune.note --key authority.pub.pem
    """
    public = None if key is None else load_authority(read_file(key, "authority key"))
    grant = read_grant(note, public)
    if as_json:
        body = strictjson.parse_object(authority_note.split(grant.record)[1])
        signed = {"act": grant.note.act, "time": str(grant.note.time), "note": grant.hash.hex()}
        click.echo(strictjson.dumps({**signed, "verified": public is not None, "body": body}))
        return
    click.echo("verified: signed by that key" if public else "NOT VERIFIED: no key was given")
    click.echo(f"signed {datetime.fromtimestamp(grant.note.time // 10**9, UTC).isoformat()}")
    click.echo("\n".join(words(grant.act)) if grant.act else f"{grant.note.act}: this version knows no such act")


def read_grant(file: Path, authority_key: bytes | None = None) -> Grant:
    """The grant in a file; with a key, verified.

    Raises:
        UsageError: it cannot be read, is none, or the key did not sign it.
    """
    record = read_file(file, "authority note")
    try:
        grant = authority_note.read(record)
        if authority_key is None:
            return grant
        return authority_note.verify(record, grant.note.chain_id, authority_key)
    except SignatureInvalid:
        raise UsageError(f"{file}: not signed by that authority key") from None
    except Malformed as error:
        raise UsageError(f"{file}: {error}") from None


def words(act: Any) -> list[str]:
    """An act in plain lines."""
    lines = [f"{act.ACT} for chain {act.chain_id.hex()}", f"because: {plain(act.reason)}"]
    if isinstance(act, acts.Prune):
        lines += [f"payloads of segments {r.first} to {r.last} (seal {r.seal.hex()})" for r in act.runs]
    elif isinstance(act, acts.Erase):
        lines.append(f"the key of data subject {act.subject.hex()} is destroyed: nobody can read its fields again")
    elif isinstance(act, acts.AcceptLoss):
        kept, lost = act.kept, act.lost
        lines.append(f"goes on at entry {kept.seq}, segment {kept.segment}, after leaf {kept.leaf.hex()}")
        lines.append(
            f"though it was acknowledged up to entry {lost.seq - 1}, segment {lost.segment}, leaf {lost.leaf.hex()}"
        )
    return lines
