"""`sidecar keys`: custodians' and authorities' key pairs, and the disclosure of segment keys."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sidecar.chain.statement import key_id
from sidecar.cli.custodian_key import KEY_METAVAR, is_uri, key_source, private_keys
from sidecar.cli.sources import opened
from sidecar.config import read_file, write_secret
from sidecar.custody import (
    disclose,
    generate_agent,
    generate_authority,
    generate_custodian,
    generate_exporter,
    make_agent_token,
    public_pem,
)
from sidecar.errors import RequestError, UsageError


@click.group()
def keys() -> None:
    """Make keys for agents, custodians and authorities; hand out keys of single segments."""


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


@keys.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the private key (0600).")
def exporter(out: Path) -> None:
    """Make the Ed25519 key pair of whoever exports evidence: certificates of custody are signed with it.

    \b
    Example:
      sidecar keys exporter --out exporter.pem
    """
    _write_pair(out, *generate_exporter(), then="Give the public key to whoever checks your certificates.")


@keys.command()
@click.option(
    "--out", required=True, metavar=KEY_METAVAR, help="File for the private key (0600), or where it is made in a token."
)
@click.option(
    "--type", "kind", type=click.Choice(["ed25519", "p256"]), default="ed25519", show_default=True, help="Kind of key."
)
def agent(out: str, kind: str) -> None:
    """Make the key pair of an agent, executor, approver or user: what it asks, does or approves is signed with it.

    A key made in a token (PKCS #11, P-256) never leaves it; the same URI then registers it and signs with it.

    \b
    Example:
      sidecar keys agent --out billing.pem
      sidecar keys agent --type p256 --out 'pkcs11:token=T;object=billing?module-path=/M.so&pin-source=file:/P'
    """
    if not is_uri(out):
        _write_pair(Path(out), *generate_agent(kind), then="Register the public key with `sidecar agents add`.")
        return
    if kind != "p256":
        raise UsageError("--type: a key in a token is P-256; add --type p256")
    made = make_agent_token(out)
    click.echo(f"{made.whose}: made there; key id {key_id(made.spki)}")


@keys.command()
@click.option("--key", required=True, metavar=KEY_METAVAR, type=key_source, help="Private key of who gives leave.")
@click.option("--from", "giver", required=True, metavar="ID", help="Who gives leave.")
@click.option("--to", required=True, metavar="ID", help="Who may then act for them.")
@click.option("--action", "actions", multiple=True, required=True, help="An action, or a prefix and *. Repeatable.")
@click.option("--resource", "resources", multiple=True, required=True, metavar="TYPE:ID", help="Likewise. Repeatable.")
@click.option(
    "--hours",
    type=click.FloatRange(0, 24 * 366, min_open=True),
    default=8.0,
    show_default=True,
    help="For how long it holds.",
)
@click.option("--further", type=click.IntRange(0, 7), default=0, show_default=True, help="How many more may follow.")
@click.option("--chain", default="*", help="Id of the only chain that it is for.")
@click.option("--parent", type=click.Path(path_type=Path), help="The delegation under which this one is given.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the delegation.")
def delegate(
    key: str, giver: str, to: str, actions: tuple[str, ...], resources: tuple[str, ...], hours: float, further: int,
    chain: str, parent: Path | None, out: Path,
) -> None:  # fmt: skip
    """Sign leave that somebody gives an agent to act for them, from now on.

    \b
    Example:
      sidecar keys delegate --key ursula.pem --from ursula --to billing-agent --action 'payments.*' \\
        --resource 'account:*' --hours 8 --out leave.json
    """
    from sidecar.cli.signer_key import signer
    from sidecar.client import delegate as signed
    from sidecar.client import dump_delegation, load_delegation

    before = None if parent is None else load_delegation(read_file(parent, "delegation"))
    try:
        given = signed(
            signer(key), giver, to, actions, resources, seconds=hours * 3600, chain=chain, further=further,
            parent=before,
        )  # fmt: skip
    except RequestError as error:
        if before is not None:
            raise
        raise UsageError(
            "--from and --to are principals' ids, --action is an action or a prefix and *, --resource TYPE:ID or a "
            "prefix and *, --chain 64 hex digits"
        ) from error
    out.write_bytes(dump_delegation(given))
    click.echo(str(out))


@keys.command(name="public")
@click.argument("key", type=key_source, metavar=KEY_METAVAR)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the public key.")
def write_public(key: str, out: Path) -> None:
    """Write the public key of a custodian's key, in a file or a token (PKCS #11, RSA), for `sidecar init`.

    A token must first open something sealed to that key, so that nobody is made custodian who could not open a seed.

    \b
    Example:
      sidecar keys public 'pkcs11:token=T;object=K?module-path=/M.so&pin-source=file:/P' --out auditor.pub.pem
    """
    (private,) = private_keys([key])
    try:
        with out.open("xb") as file:
            file.write(public_pem(private))
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from None
    click.echo(f"public key {out}")


@keys.command(name="disclose")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--custodian-key",
    "sources",
    multiple=True,
    required=True,
    type=key_source,
    metavar=KEY_METAVAR,
    help="A custodian's private key. Repeatable: with mode `all` every one is needed.",
)
@click.option("--segment", "segments", multiple=True, required=True, type=click.IntRange(0), help="Repeatable.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the disclosure (0600).")
def disclose_segments(path: Path, sources: tuple[str, ...], segments: tuple[int, ...], out: Path) -> None:
    """Hand out the keys of sealed segments, so that someone else can check their HMACs and nothing else.

    \b
    Example:
      sidecar keys disclose /var/lib/sidecar --custodian-key auditor.pem --segment 7 --out segment-7.json
    """
    private = private_keys(sources)
    with opened(path, rare=True) as read:
        document = disclose(read, private, segments)
    write_secret(out, document)
    click.echo("No log has anchored these segments: nobody outside vouches yet that they are the only ones.", err=True)
    click.echo(str(out))


_CUSTODY = "Give the public key to `sidecar init`; keep the private one away from the sidecar's host."


def _write_pair(out: Path, private: bytes, public: bytes, *, then: str = _CUSTODY) -> None:
    public_file = out.with_suffix(".pub.pem") if out.suffix == ".pem" else out.with_name(out.name + ".pub.pem")
    if public_file.exists():
        raise UsageError(f"cannot write {public_file}: it exists; choose another --out")
    write_secret(out, private)
    public_file.write_bytes(public)
    click.echo(f"private key {out}")
    click.echo(f"public key {public_file}")
    if sys.stdout.isatty():
        click.echo(then)
