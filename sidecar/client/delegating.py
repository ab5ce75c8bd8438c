"""Making delegations (proto/SIGNING.md, "Delegation"), and keeping them in files.

A file holds one as JSON: ``{"text": string, "key": base64, "signature": base64}``.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Sequence

from sidecar.chain import delegation, strictjson
from sidecar.chain.payload import policy_time
from sidecar.chain.request import Given
from sidecar.chain.statement import key_id
from sidecar.client.signing import Signer
from sidecar.errors import Malformed, NotPermitted, RequestError

_MEMBERS = {"text", "key", "signature"}


def delegate(
    key: Signer,
    from_: str,
    to: str,
    actions: Sequence[str],
    resources: Sequence[str],
    *,
    seconds: float,
    chain: str = "*",
    further: int = 0,
    parent: Given | None = None,
) -> Given:
    """Leave that ``from_``, whose key it is, gives ``to`` to act for it, from now on for so many seconds.

    ``actions`` and ``resources`` (``type:id``) are names, or end in ``*`` for any rest. ``chain``: hex id of the only
    chain it is for. ``further``: how many more delegations may follow it. ``parent``: the delegation under which this
    one is given; it must not be wider or longer than that.

    Raises:
        RequestError: it would not be a delegation, or is wider than its parent.
    """
    now = time.time_ns()
    until = policy_time(now + int(seconds * 1e9))
    before = None if parent is None else _read(parent.text)
    text = json.dumps(
        {
            "format": delegation.FORMAT,
            "from": from_,
            "to": to,
            "key": key_id(key.spki),
            "audience": chain if before is None or chain != "*" else before.audience,
            "actions": list(actions),
            "resources": list(resources),
            "not_before": policy_time(now) if before is None else max(policy_time(now), before.not_before),
            "not_after": until if before is None else min(until, before.not_after),
            "further": further,
            "parent": None if before is None else before.name,
        }
    ).encode()
    made = _read(text)
    if before is not None:
        try:
            delegation.check_narrows(before, made)
        except NotPermitted as error:
            raise RequestError("parent", str(error)) from None
    return Given(text, key.spki, key.sign(delegation.LABEL + text))


def dump_delegation(given: Given) -> bytes:
    """A delegation as its file holds it."""
    key, signature = (base64.b64encode(each).decode() for each in (given.key, given.signature))
    return json.dumps({"text": given.text.decode(), "key": key, "signature": signature}, indent=1).encode() + b"\n"


def load_delegation(data: bytes) -> Given:
    """A delegation from its file. Raises RequestError: it holds none."""
    try:
        value = strictjson.parse_object(data)
        if value.keys() != _MEMBERS or not all(isinstance(each, str) for each in value.values()):
            raise Malformed("its members are text, key and signature")
        text = value["text"].encode()
        delegation.parse(text)
        return Given(text, *(base64.b64decode(value[name], validate=True) for name in ("key", "signature")))
    except (Malformed, binascii.Error) as error:
        raise RequestError("delegations", f"not the file of a delegation: {error}") from None


def _read(text: bytes) -> delegation.Delegation:
    try:
        return delegation.parse(text)
    except Malformed as error:
        raise RequestError("delegation", str(error)) from None
