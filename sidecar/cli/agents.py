"""`sidecar agents`: the registry of principals, in a file (proto/SIGNING.md, "Registry")."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from sidecar import files
from sidecar.chain import registry as registries
from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.payload import policy_time
from sidecar.chain.printable import number_of
from sidecar.chain.signing import PublicKey
from sidecar.cli.custodian_key import KEY_METAVAR, is_uri, key_source
from sidecar.cli.reading import entries_of, parsed
from sidecar.cli.sources import opened
from sidecar.cli.words import plain
from sidecar.config import read_file
from sidecar.errors import Malformed, UsageError
from sidecar.verify.trust import FORMAT as TRUST

Principals = list[dict[str, Any]]
_DURATION: Final = re.compile(r"\A([0-9]{1,9})([smhd])\Z")
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_registry = click.option(
    "--registry", "file", required=True, type=click.Path(path_type=Path), help="The registry's file."
)


@click.group()
def agents() -> None:
    """Register agents, executors, approvers and users; a sidecar takes changes up within a second."""


@agents.command(name="list")
@_registry
@click.option("--json", "as_json", is_flag=True, help="Print the file as one JSON object.")
def list_(file: Path, as_json: bool) -> None:
    """Print who is registered; also tells what is wrong with a file that is none.

    \b
    Example:
      sidecar agents list --registry registry.json
    """
    principals = _read(file)
    if as_json:
        click.echo(strictjson.dumps({"format": registries.FORMAT, "principals": principals}))
        return
    for each in principals:
        keys = sum(key["status"] == "active" for key in each["keys"])
        roles = ", ".join(each["roles"]) or "no roles"
        names = "".join(f", {plain(name['id'])}" for name in each["spiffe_ids"])
        held = number_of(keys, "active key")
        click.echo(f"{plain(each['id'])}  {each['kind']}  {each['status']}  {plain(roles)}  {held}{names}")


@agents.command()
@_registry
@click.argument("name", metavar="ID")
@click.option(
    "--kind",
    type=click.Choice(sorted(registries.KINDS)),
    default="agent",
    show_default=True,
    help="What it may do here: ask, carry out, approve, or have agents act for it.",
)
@click.option(
    "--key",
    type=key_source,
    metavar=KEY_METAVAR,
    help="Its public key: PEM, Ed25519 or P-256; or a key in a token.",
)
@click.option("--spiffe-id", multiple=True, help="A SPIFFE id of it. Repeatable.")
@click.option("--owner", default="", help="Who answers for it.")
@click.option("--purpose", default="", help="What it is for.")
@click.option("--role", "roles", multiple=True, help="For the policy. Repeatable.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME=JSON", help="For the policy. Repeatable.")
def add(
    file: Path,
    name: str,
    kind: str,
    key: str | None,
    spiffe_id: tuple[str, ...],
    owner: str,
    purpose: str,
    roles: tuple[str, ...],
    attributes: tuple[str, ...],
) -> None:
    """Register a principal; makes the file if it is not there.

    \b
    Example:
      sidecar agents add --registry registry.json --key billing.pub.pem --role billing billing-agent
    """
    if key is None and not spiffe_id:
        raise UsageError("a principal without --key and --spiffe-id could prove nothing; give one of them")
    with _changed(file, create=True) as principals:
        if any(each["id"] == name for each in principals):
            raise UsageError(f"{name} is registered already; see `sidecar agents rotate` and `revoke`")
        principals.append(
            {
                "id": name,
                "kind": kind,
                "owner": owner,
                "purpose": purpose,
                "status": "active",
                "keys": [] if key is None else [{"spki": _spki(key), "status": "active"}],
                "spiffe_ids": [{"id": each} for each in spiffe_id],
                "roles": list(roles),
                "attributes": dict(map(_attribute, attributes)),
            }
        )


@agents.command()
@_registry
@click.argument("name", metavar="ID")
@click.option("--key", "key_id", metavar="KEY-ID", help="Only this key of it, by its id or the id's beginning.")
@click.option("--suspend", is_flag=True, help="For a while: the principal, not its keys.")
def revoke(file: Path, name: str, key_id: str | None, suspend: bool) -> None:
    """Take away a principal's right to ask anything, or one of its keys.

    \b
    Example:
      sidecar agents revoke --registry registry.json billing-agent
    """
    if suspend and key_id is not None:
        raise UsageError("--suspend is for the principal with all its keys: leave --key out, or revoke that key")
    with _changed(file) as principals:
        principal = _find(principals, name)
        if key_id is None:
            principal["status"] = "suspended" if suspend else "revoked"
            return
        found = [key for key in principal["keys"] if _id_of(key).startswith(key_id)]
        if len(found) != 1:
            raise UsageError(f"{name} has {len(found)} keys whose id begins so; `sidecar agents list --json` has them")
        found[0]["status"] = "revoked"


@agents.command()
@_registry
@click.argument("name", metavar="ID")
@click.option("--key", required=True, type=key_source, metavar=KEY_METAVAR, help="The new public key, as for `add`.")
@click.option("--overlap", default="24h", show_default=True, help="How long the old keys stay: 90s, 15m, 24h, 7d.")
def rotate(file: Path, name: str, key: str, overlap: str) -> None:
    """Give a principal a new key; its old ones end after the overlap.

    \b
    Example:
      sidecar agents rotate --registry registry.json --key new.pub.pem --overlap 1h billing-agent
    """
    end = policy_time(time.time_ns() + _seconds(overlap) * 1_000_000_000)
    with _changed(file) as principals:
        principal = _find(principals, name)
        for old in principal["keys"]:
            if old["status"] == "active":
                old["not_after"] = min(end, old.get("not_after", end))
        principal["keys"].append({"spki": _spki(key), "status": "active"})


@agents.command()
@_registry
@click.argument("ledger", type=click.Path(path_type=Path, exists=True))
def trust(file: Path, ledger: Path) -> None:
    """Print a trust file: the ledger's chain and identity key, and whose the keys are that are registered now.

    It says what you found, not that it is true: look at it, and keep it where the sidecar's host cannot write.

    \b
    Example:
      sidecar agents trust --registry registry.json /var/lib/sidecar > trust.json
    """
    with opened(ledger) as read:
        header, genesis = next(entries_of(read, EntryType.GENESIS), (None, None))
    if header is None or genesis is None:
        raise UsageError(f"{ledger} does not begin with its chain's first entry; name a ledger's directory")
    known = [
        {"id": each["id"], "keys": [_id_of(key) for key in each["keys"] if key["status"] == "active"]}
        for each in _read(file)
    ]
    chains = [{"chain": header.chain_id.hex(), "identity": genesis["identity"]}]
    click.echo(strictjson.dumps({"format": TRUST, "chains": chains, "principals": known}))


def _read(file: Path) -> Principals:
    text = read_file(file, "registry")
    parsed(file, text, registries.parse)
    principals: Principals = strictjson.parse_object(text)["principals"]
    return principals


@contextlib.contextmanager
def _changed(file: Path, *, create: bool = False) -> Iterator[Principals]:
    """The principals, to be changed; then written whole, in one rename, if what comes out is a registry."""
    principals: Principals = [] if create and not file.exists() else _read(file)
    yield principals
    ordered = sorted(principals, key=lambda each: str(each["id"]))
    value = {"format": registries.FORMAT, "principals": ordered}
    text = json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    parsed(file, text, registries.parse)
    _replace(file, text)


def _replace(file: Path, text: bytes) -> None:
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
    try:
        files.put(file, text, mode)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None


def _find(principals: Principals, name: str) -> dict[str, Any]:
    for each in principals:
        if each["id"] == name:
            return each
    raise UsageError(f"{name} is not registered; see `sidecar agents list`")


def _spki(source: str) -> str:
    if is_uri(source):
        from sidecar.custody import load_agent_token

        return base64.b64encode(load_agent_token(source).spki).decode()
    pem = read_file(Path(source), "public key")
    if b"PRIVATE KEY-----" in pem:
        raise UsageError(f"{source} is a private key; give its public half, and keep the private one with the agent")
    try:
        key = load_pem_public_key(pem)
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(PublicKey(spki).spki).decode()
    except (ValueError, UnsupportedAlgorithm, Malformed):
        raise UsageError(f"{source}: no Ed25519 or P-256 public key in PEM; make one: sidecar keys agent") from None


def _id_of(key: dict[str, Any]) -> str:
    return PublicKey(base64.b64decode(key["spki"])).id


def _attribute(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        if not equals or not name:
            raise Malformed("no NAME=")
        return name, strictjson.parse(os.fsencode(value))
    except Malformed:
        raise UsageError(f"--attribute {text!r} is not NAME=JSON, such as limit=100 or team='\"finance\"'") from None


def _seconds(text: str) -> int:
    found = _DURATION.match(text)
    if found is None:
        raise UsageError(f"--overlap {text!r} is not a number and s, m, h or d, such as 24h")
    return int(found[1]) * _UNITS[found[2]]
