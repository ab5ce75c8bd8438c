"""`sidecar approvals`: what waits for somebody's word, and that word, signed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from sidecar.chain.payload import policy_time
from sidecar.chain.printable import to_seconds
from sidecar.chain.strictjson import dumps
from sidecar.cli.custodian_key import KEY_METAVAR, key_source
from sidecar.cli.options import together
from sidecar.cli.over_tls import over_tls
from sidecar.cli.signer_key import signer
from sidecar.cli.words import plain
from sidecar.client import Approver, Pending, TlsFiles
from sidecar.errors import UsageError

_approver = together(
    click.option("--server", required=True, metavar="ADDR", help="unix:/path or host:port."),
    click.option("--by", required=True, metavar="ID", help="The approver."),
    click.option("--key", required=True, metavar=KEY_METAVAR, type=key_source, help="Its private key."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
    over_tls,
)  # who speaks, and to whom
_word = together(
    click.argument("decision_id"),
    click.option("--comment", default="", help="Why, up to 1,024 characters; recorded."),
    click.option("--yes", is_flag=True, help="Do not ask: what is shown was looked at before."),
    _approver,
)  # what approving and rejecting have in common


@click.group()
def approvals() -> None:
    """See what waits for an approval; approve or reject it, signed."""


@approvals.command(name="list")
@_approver
def list_(server: str, by: str, key: str, as_json: bool, tls: TlsFiles | None) -> None:
    """Print what waits for this approver's word.

    \b
    Example:
      sidecar approvals list --server unix:ledger/sidecar.sock --by ann --key ann.pem
    """
    with _open(server, by, key, tls) as approver:
        pending, more = approver.list()
    if as_json:
        click.echo(dumps({"pending": [_object(each) for each in pending], "more": more}))
        return
    for each in pending:
        click.echo("\n".join(_lines(each)))
    click.echo("nothing waits" if not pending else "there is more" if more else f"{len(pending)} in all")


@approvals.command()
@_word
def approve(decision_id: str, **how: Any) -> None:
    """Approve what a decision asks for, once it was shown whole.

    \b
    Example:
      sidecar approvals approve --server unix:ledger/sidecar.sock --by ann --key ann.pem \\
        019ab4a0-7c3e-7f11-8a55-0242ac120002
    """
    _say("approve", decision_id, **how)


@approvals.command()
@_word
def reject(decision_id: str, **how: Any) -> None:
    """Reject what a decision asks for: nobody can approve it any more.

    \b
    Example:
      sidecar approvals reject --server unix:ledger/sidecar.sock --by ann --key ann.pem \\
        --comment 'not this supplier' 019ab4a0-7c3e-7f11-8a55-0242ac120002
    """
    _say("reject", decision_id, **how)


def _say(
    verdict: str, decision_id: str, *, server: str, by: str, key: str, comment: str, yes: bool, as_json: bool,
    tls: TlsFiles | None,
) -> None:  # fmt: skip
    with _open(server, by, key, tls) as approver:
        pending = next((each for each in approver.list()[0] if each.decision_id == decision_id), None)
        if pending is None:
            raise UsageError(f"decision {plain(decision_id)[:64]} does not wait for {by}: see `sidecar approvals list`")
        click.echo("\n".join(_lines(pending)), err=as_json)
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("nobody can be asked here: give --yes once the request was looked at")
            if not click.confirm(f"{verdict} this as {by}?", err=as_json):
                click.echo("nothing was signed", err=True)
                sys.exit(1)
        said = approver.approve if verdict == "approve" else approver.reject
        state = said(pending, comment)
    told = {"decision_id": decision_id, "verdict": verdict, "by": by, "state": state}
    click.echo(dumps(told) if as_json else f"recorded: {verdict} by {by}; it is {state} now")


def _open(server: str, by: str, key: str, tls: TlsFiles | None) -> Approver:
    return Approver(server, by=by, key=signer(key), tls=tls)


def _lines(pending: Pending) -> Iterator[str]:
    """The whole request as a person reads it."""
    kind, name = pending.resource
    yield f"{pending.decision_id}  {plain(pending.agent)}  {plain(pending.action)}  {plain(kind)}:{plain(name)}"
    yield f"  arguments {plain(pending.arguments)}"
    for label, value in (("context", pending.context), ("purpose", pending.purpose), ("executor", pending.executor)):
        if value and value != "{}":
            yield f"  {label} {plain(value)}"
    for each in pending.delegations:
        allowed = f"{', '.join(each.actions)} on {', '.join(each.resources)}"
        yield f"  on behalf of {plain(each.giver)}, by leave to {plain(each.to)} for {plain(allowed)}"
    for reason in pending.reasons:
        yield f"  because {plain(reason.message)} ({plain(reason.code)})"
    roles = f" with the role {plain(' or '.join(pending.terms.roles))}" if pending.terms.roles else ""
    until = to_seconds(policy_time(pending.terms.expires_ns))
    yield f"  takes {pending.terms.count} of the approvers{roles}, until {until}"
    yield f"  approved by {plain(', '.join(pending.approved_by)) or 'nobody yet'}"
    yield f"  policy {pending.policy.entrypoint} revision {plain(pending.policy.revision) or 'unknown'}"


def _object(pending: Pending) -> dict[str, Any]:
    return {
        "decision_id": pending.decision_id,
        "seq": pending.seq,
        "agent": pending.agent,
        "action": pending.action,
        "resource": {"type": pending.resource[0], "id": pending.resource[1]},
        "arguments": pending.arguments,
        "context": pending.context,
        "purpose": pending.purpose,
        "executor": pending.executor,
        "delegations": [{"from": each.giver, "to": each.to} for each in pending.delegations],
        "reasons": [{"code": r.code, "message": r.message} for r in pending.reasons],
        "policy": {"revision": pending.policy.revision, "bundle_digest": pending.policy.bundle_digest},
        "terms": {
            "count": pending.terms.count,
            "roles": list(pending.terms.roles),
            "expires": policy_time(pending.terms.expires_ns),
        },
        "approved_by": list(pending.approved_by),
    }
