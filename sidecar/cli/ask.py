"""`sidecar decide` and `sidecar outcome`: ask and report from a shell, through the SDK."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from sidecar.chain import strictjson
from sidecar.chain.strictjson import dumps
from sidecar.cli.custodian_key import KEY_METAVAR, key_source
from sidecar.cli.over_tls import over_tls
from sidecar.cli.signer_key import signer
from sidecar.cli.words import decision_lines, decision_object
from sidecar.client import Effect, Guard, NoDecision, Signer, Status, TlsFiles, load_delegation
from sidecar.config import read_file
from sidecar.errors import Malformed, SidecarError, UsageError

_STATUSES = [status.value.lower() for status in Status]


@click.command()
@click.option("--server", required=True, metavar="ADDR", help="unix:/path or host:port.")
@click.option("--agent", required=True, metavar="ID", help="Who asks.")
@click.option("--key", metavar=KEY_METAVAR, type=key_source, help="The agent's private key, to sign with.")
@click.option("--action", required=True, metavar="A", help="What it would do.")
@click.option("--resource", required=True, metavar="TYPE:ID", help="On what.")
@click.option("--arguments", default="{}", metavar="JSON|@FILE", help="With what: a JSON object.")
@click.option("--purpose", default="", help="Why.")
@click.option(
    "--delegation",
    "delegations",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="On whose behalf: a file of `sidecar keys delegate`. Repeatable, the first given first.",
)
@click.option("--approval-of", default="", metavar="ID", help="The decision that was approved.")
@click.option("--executor", default="", metavar="ID", help="Who would carry it out: an ALLOW then has a permit for it.")
@click.option("--permit-out", type=click.Path(path_type=Path), help="File to keep the permit in, if there is one.")
@click.option("--receipt-out", type=click.Path(path_type=Path), help="File to keep the receipt in.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@over_tls
def decide(
    server: str,
    agent: str,
    key: str | None,
    action: str,
    resource: str,
    arguments: str,
    purpose: str,
    delegations: tuple[Path, ...],
    approval_of: str,
    executor: str,
    permit_out: Path | None,
    receipt_out: Path | None,
    as_json: bool,
    tls: TlsFiles | None,
) -> None:
    """Ask whether an agent may do something. Exit 0 only for ALLOW; 1 for any other answer or none.

    \b
    Example:
      sidecar decide --server unix:ledger/sidecar.sock --agent billing-agent \\
        --action payments.transfer --resource account:acme-42 --arguments '{"amount": 120}'
    """
    kind, colon, name = resource.partition(":")
    if not colon:
        raise UsageError("--resource is TYPE:ID, for instance account:acme-42")
    with Guard(server, agent=agent, attempts=1, key=_key(key), tls=tls) as guard:
        given = [load_delegation(read_file(each, "delegation")) for each in delegations]
        decision = guard.ask(
            action, (kind, name), _object(arguments),
            purpose=purpose, delegations=given, approval_of=approval_of, executor=executor,
        )  # fmt: skip
    if as_json:
        click.echo(dumps(decision_object(decision)))
    else:
        click.echo("\n".join(decision_lines(decision)))
    if receipt_out:
        receipt_out.write_bytes(decision.receipt)
    if permit_out and decision.permit:
        permit_out.write_bytes(decision.permit)
    sys.exit(0 if decision.effect is Effect.ALLOW else 1)


@click.command()
@click.argument("decision_id")
@click.option("--server", required=True, metavar="ADDR", help="unix:/path or host:port.")
@click.option("--agent", required=True, metavar="ID", help="Who reports: the agent the decision was made for.")
@click.option("--key", metavar=KEY_METAVAR, type=key_source, help="The agent's private key, to sign with.")
@click.option("--status", required=True, type=click.Choice(_STATUSES), help="What became of it.")
@click.option("--response", metavar="JSON|@FILE", help="What the downstream system answered: any JSON value.")
@over_tls
def outcome(
    decision_id: str,
    server: str,
    agent: str,
    key: str | None,
    status: str,
    response: str | None,
    tls: TlsFiles | None,
) -> None:
    """Report what became of an allowed action.

    \b
    Example:
      sidecar outcome --server unix:ledger/sidecar.sock --agent billing-agent --status executed \\
        --response '{"id": 7}' 019ab4a0-7c3e-7f11-8a55-0242ac120002
    """
    with Guard(server, agent=agent, attempts=1, key=_key(key), tls=tls) as guard:
        given = [] if response is None else [_json(response)]
        try:
            seq = guard.report(decision_id, Status(status.upper()), *given)
        except NoDecision as error:
            raise SidecarError(str(error).replace("no decision:", "not recorded:", 1)) from None
    click.echo(f"recorded at seq {seq}")


def _key(source: str | None) -> Signer | None:
    return None if source is None else signer(source)


def _object(text: str) -> dict[str, Any]:
    value = _json(text)
    if not isinstance(value, dict):
        raise UsageError("--arguments is not a JSON object")
    return value


def _json(text: str) -> Any:
    source = read_file(Path(text[1:]), "JSON") if text.startswith("@") else os.fsencode(text)
    try:
        return strictjson.parse(source)
    except Malformed as error:
        raise UsageError(f"{error}; give JSON without doubled keys (RFC 7493)") from None
