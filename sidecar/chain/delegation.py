"""Leave that one principal gives another to act for it, and what a chain of them covers (proto/SIGNING.md).

Nothing here knows a registry: whose key it is and whether everybody named is active is for whoever calls.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.chain.request import Given
from sidecar.chain.spellings import is_moment
from sidecar.chain.statement import is_principal
from sidecar.errors import Malformed, NotPermitted, SignatureInvalid

FORMAT: Final = "sidecar/v1/delegation"
LABEL: Final = b"sidecar/v1/delegation\0"
MAX_SIZE: Final = 8 * 1024
MAX_CHAIN: Final = 8
_MAX_PATTERNS: Final = 64
_ANY: Final = "*"
_HEX32: Final = re.compile(r"\A[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Delegation:
    """A delegation's members. ``parent``: hex of the one before it, or None in the first."""

    giver: str
    to: str
    key: str
    audience: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    not_before: str
    not_after: str
    further: int
    parent: str | None
    name: str


def name_of(text: bytes) -> str:
    """What the next delegation of a chain names as its parent: hex."""
    return hashlib.sha256(LABEL + text).hexdigest()


def opened(given: Given) -> Delegation:
    """A delegation whose signature is right, by the key that it names itself.

    Raises:
        Malformed: a text or key that is not as it must be, or not the key named. SignatureInvalid: not signed by it.
    """
    from sidecar.chain.signing import PublicKey  # cryptography is slow to import, and only this needs it

    delegation, key = parse(given.text), PublicKey(given.key)
    if key.id != delegation.key:
        raise SignatureInvalid("delegation: not with the key that it names")
    key.verify(given.signature, LABEL + given.text)
    return delegation


def parse(text: bytes) -> Delegation:
    """Read a delegation's text. Raises Malformed."""
    if len(text) > MAX_SIZE:
        raise Malformed(f"delegation: longer than {MAX_SIZE} bytes")
    value = strictjson.parse_object(text)
    if value.keys() != _CHECKS.keys() or not all(check(value[name]) for name, check in _CHECKS.items()):
        raise Malformed("delegation: a member is missing, unknown or not as it must be")
    if not value["not_before"] < value["not_after"]:
        raise Malformed("delegation: it ends before it begins")
    return Delegation(
        value["from"], value["to"], value["key"], value["audience"], tuple(value["actions"]), tuple(value["resources"]),
        value["not_before"], value["not_after"], value["further"], value["parent"], name_of(text),
    )  # fmt: skip


def check_chain(
    chain: Sequence[Delegation], *, chain_id: str, agent: str, at: str, asked: Sequence[tuple[str, str, str]]
) -> None:
    """Return if these delegations, first given first, let ``agent`` do all that is ``asked`` at this time.

    ``asked``: action, resource type and resource id of the request and of each alternative. ``at``: as in payloads.

    Raises:
        NotPermitted: they do not, and why.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise NotPermitted(f"delegations: from 1 to {MAX_CHAIN} make a chain")
    if chain[0].parent is not None:
        raise NotPermitted("delegations: the first one has a parent, which is not here")
    for before, after in itertools.pairwise(chain):
        check_narrows(before, after)
    if chain[-1].to != agent:
        raise NotPermitted("delegations: the last one is given to another than the requesting agent")
    for each in chain:
        _check_covers(each, chain_id, at, asked)


def check_narrows(before: Delegation, after: Delegation) -> None:
    """Return if ``after`` may follow ``before`` in a chain. Raises NotPermitted, and why it may not."""
    faults = {
        "is given by another than the one before was given to": after.giver != before.to,
        "does not name the one before as its parent": after.parent != before.name,
        "allows as many further ones as the one before": after.further >= before.further,
        "is valid longer than the one before": (
            after.not_before < before.not_before or after.not_after > before.not_after
        ),
        "is for another audience than the one before": before.audience not in (_ANY, after.audience),
        "covers more actions than the one before": not _within(after.actions, before.actions),
        "covers more resources than the one before": not _within(after.resources, before.resources),
    }
    for what, found in faults.items():
        if found:
            raise NotPermitted(f"delegations: the one by {after.giver} {what}")


def _check_covers(each: Delegation, chain_id: str, at: str, asked: Sequence[tuple[str, str, str]]) -> None:
    if each.audience not in (_ANY, chain_id):
        raise NotPermitted(f"delegations: the one by {each.giver} is for another chain")
    if not each.not_before <= at < each.not_after:
        raise NotPermitted(f"delegations: the one by {each.giver} is not valid now")
    for action, kind, name in asked:
        # Two resources could be written the same way where a type holds a colon.
        resources = each.resources if ":" not in kind else tuple(r for r in each.resources if r == _ANY)
        if not _within((action,), each.actions) or not _within((f"{kind}:{name}",), resources):
            raise NotPermitted(f"delegations: the one by {each.giver} does not cover what is asked")


def _within(wanted: Sequence[str], patterns: Sequence[str]) -> bool:
    return all(any(_covers(pattern, each) for pattern in patterns) for each in wanted)


def _covers(pattern: str, text: str) -> bool:
    """Whether all that ``text``, itself a pattern or a plain text, stands for is covered."""
    return text.startswith(pattern[:-1]) if pattern.endswith(_ANY) else text == pattern


def _patterns(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= _MAX_PATTERNS
        and all(isinstance(p, str) and p and _ANY not in p[:-1] for p in value)
    )


def _time(value: Any) -> bool:
    return isinstance(value, str) and is_moment(value)


def _hex(value: Any) -> bool:
    return isinstance(value, str) and _HEX32.match(value) is not None


def _id(value: Any) -> bool:
    return isinstance(value, str) and is_principal(value)


_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "format": lambda v: v == FORMAT,
    "from": _id,
    "to": _id,
    "key": _hex,
    "audience": lambda v: v == _ANY or _hex(v),
    "actions": _patterns,
    "resources": _patterns,
    "not_before": _time,
    "not_after": _time,
    "further": lambda v: type(v) is int and 0 <= v <= 7,
    "parent": lambda v: v is None or _hex(v),
}
