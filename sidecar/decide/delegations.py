"""A request's chain of delegations, held against the registry in force (proto/SIGNING.md, "Delegation")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.chain import delegation
from sidecar.chain.registry import Principal, Registry
from sidecar.chain.request import Request
from sidecar.decide.registered import known
from sidecar.errors import Malformed, NotPermitted, RequestError, SignatureInvalid


def delegators(request: Request, registry: Registry | None, *, chain_id: str, at: str) -> tuple[Principal, ...]:
    """Who gave each of the request's delegations, in their order; nobody where there are none.

    ``chain_id``: hex; ``at``: as in payloads.

    Raises:
        RequestError: one of them is no delegation. NotPermitted: they do not let the agent do what it asks.
    """
    if not request.delegations:
        return ()
    if registry is None:
        raise NotPermitted("delegations: this sidecar has no registry to hold them against")
    if len(request.delegations) > delegation.MAX_CHAIN:
        raise RequestError(
            "delegations", f"has {len(request.delegations)} members; the limit is {delegation.MAX_CHAIN}"
        )
    chain = [_opened(index, each) for index, each in enumerate(request.delegations)]
    options = (request.wanted, *request.alternatives)
    asked = [(o.action, o.resource_type, o.resource_id) for o in options]
    delegation.check_chain(chain, chain_id=chain_id, agent=request.agent, at=at, asked=asked)
    return tuple(_giver(each, registry, at) for each in chain)


def member(giver: Principal) -> dict[str, Any]:
    """One member of ``delegators`` in payloads."""
    return {**known(giver), "kind": giver.kind}


def seen(texts: Sequence[bytes], givers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``input.delegation``: the chain as the policy sees it. ``givers``: the payload's ``delegators``."""
    return [
        {
            "from": dict(giver),
            "to": each.to,
            "actions": list(each.actions),
            "resources": list(each.resources),
            "not_before": each.not_before,
            "not_after": each.not_after,
        }
        for each, giver in zip(map(delegation.parse, texts), givers, strict=True)
    ]


def _opened(index: int, given: Any) -> delegation.Delegation:
    try:
        return delegation.opened(given)
    except Malformed as error:
        raise RequestError(f"delegations[{index}]", str(error)) from None
    except SignatureInvalid as error:
        raise NotPermitted(f"delegations[{index}]: {error}") from None


def _giver(each: delegation.Delegation, registry: Registry, at: str) -> Principal:
    giver, to = registry.principals.get(each.giver), registry.principals.get(each.to)
    if giver is None or giver.status != "active":
        raise NotPermitted("delegations: one is given by somebody who is not active in the registry")
    if to is None or to.status != "active":
        raise NotPermitted("delegations: one is given to somebody who is not active in the registry")
    key = giver.keys.get(each.key)
    if key is None or not key.valid(at):
        raise NotPermitted("delegations: one is signed with a key that is not its giver's, or is not valid now")
    return giver
