"""`sidecar keys`: custodians' and authorities' key pairs, and the disclosure of segment keys."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sidecar.cli.sources import opened
from sidecar.custody import disclose, generate_authority, generate_custodian, load_private
from sidecar.errors import UsageError
from sidecar.main import read_file, write_secret


@click.group()
def keys() -> None:
    """Make keys for custodians and authorities; hand out keys of single segments."""


@keys.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the private key (0600).")
@click.option(
    "--kind", type=click.Choice(["x25519", "rsa"]), default="x25519", show_default=True, help="The kind of key."
)
def custodian(out: Path, kind: str) -> None:
    """Make a custodian's key pair: OUT holds the private key, OUT with .pub.pem the public one.

    A custodian can check the HMAC chain and can disclose segments; a custodian cannot sign, so cannot forge.

    \b
    Example:
      sidecar keys custodian --out auditor.pem
    """
    _write_pair(out, *generate_custodian("rsa" if kind == "rsa" else "x25519"))


@keys.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the private key (0600).")
def authority(out: Path) -> None:
    """Make the authority's Ed25519 key pair. Keep the private key offline: it alone may sign erasure and pruning.

    \b
    Example:
      sidecar keys authority --out authority.pem
    """
    _write_pair(out, *generate_authority())


@keys.command(name="disclose")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--custodian-key",
    "key_files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A custodian's private key. Repeatable: with mode `all` every one is needed.",
)
@click.option("--segment", "segments", multiple=True, required=True, type=click.IntRange(0), help="Repeatable.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the disclosure (0600).")
def disclose_segments(path: Path, key_files: tuple[Path, ...], segments: tuple[int, ...], out: Path) -> None:
    """Hand out the keys of sealed segments, so that someone else can check their HMACs and nothing else.

    \b
    Example:
      sidecar keys disclose /var/lib/sidecar --custodian-key auditor.pem --segment 7 --out segment-7.json
    """
    private = [load_private(read_file(f, "custodian key")) for f in key_files]
    with opened(path) as read:
        document = disclose(read, private, segments)
    write_secret(out, document)
    click.echo("No log has anchored these segments: nobody outside vouches yet that they are the only ones.", err=True)
    click.echo(str(out))


def _write_pair(out: Path, private: bytes, public: bytes) -> None:
    public_file = out.with_suffix(".pub.pem") if out.suffix == ".pem" else out.with_name(out.name + ".pub.pem")
    if public_file.exists():
        raise UsageError(f"cannot write {public_file}: it exists; choose another --out")
    write_secret(out, private)
    public_file.write_bytes(public)
    click.echo(f"private key {out}")
    click.echo(f"public key {public_file}")
    if sys.stdout.isatty():
        click.echo("Give the public key to `sidecar init`; keep the private one away from the sidecar's host.")
