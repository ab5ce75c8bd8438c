"""DECISIONs as most are: written by our own writer, of one agent that asked by itself and was answered at once.

`msgspec` takes such a payload apart by type and writes it again; if that gives the same bytes, no member is there
twice, unknown, or spelt otherwise. Parts that many entries have in common are looked at once. What is not certainly in
order here is told by `contents.read`, which is the definition: it says what is wrong, if anything is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from sidecar.chain import strictjson
from sidecar.chain.digests import arguments_digest
from sidecar.chain.limits import MAX_DEPTH
from sidecar.chain.payload import DECISION
from sidecar.chain.spellings import is_base64
from sidecar.errors import Malformed

_REMEMBERED: Final = 4_096
_SHORT: Final = 1_024  # bytes of a part that is remembered


class _Resource(msgspec.Struct, gc=False):
    type: str
    id: str


class _Request(msgspec.Struct, gc=False):
    action: str
    resource: _Resource
    arguments: str
    context: str
    purpose: str
    alternatives: tuple[()]
    trace_parent: str
    idempotency_key: str
    last_receipt: str
    executor: Literal[""]
    delegations: tuple[()]
    approval_of: Literal[""]


class _Timings(msgspec.Struct, gc=False):
    evaluate_ns: str


class _Decision(msgspec.Struct, gc=False):
    type: Literal["DECISION"]
    decision_id: str
    time: str
    agent: msgspec.Raw
    registry: msgspec.Raw
    request: _Request
    request_digest: str
    effect: Literal["ALLOW", "DENY"]
    enforced: bool
    cause: str
    reasons: msgspec.Raw
    obligations: msgspec.Raw
    alternatives: tuple[()]
    result: msgspec.Raw
    policy: msgspec.Raw
    peer: str
    executor: None
    delegators: tuple[()]
    approval: None
    terms: None
    permit: None
    timings: _Timings


_decode = msgspec.json.Decoder(_Decision).decode
_encode = msgspec.json.Encoder().encode
_id, _time, _digest, _cause = (DECISION[name] for name in ("decision_id", "time", "request_digest", "cause"))
_timings = DECISION["timings"]


def told(data: bytes) -> dict[str, Any] | None:
    """What `contents.tell` tells of this payload, if it is a plain DECISION whose agent signed nothing; else None."""
    try:
        d = _decode(data)
        if _encode(d) != data or strictjson.may_hold_noncharacter(data):
            return None
        request = d.request
        if not (_id(d.decision_id) and _time(d.time) and _digest(d.request_digest) and _cause(d.cause)):
            return None
        if not (_timings({"evaluate_ns": d.timings.evaluate_ns}) and is_base64(request.last_receipt)):
            return None
        for text in (request.arguments, request.context):
            if text:
                strictjson.parse_object(text.encode(), max_depth=MAX_DEPTH)
        agent, registry, policy = _part("agent", d.agent), _part("registry", d.registry), _part("policy", d.policy)
        _part("reasons", d.reasons), _part("obligations", d.obligations), _part("result", d.result)
    except (msgspec.MsgspecError, Malformed, ValueError, RecursionError):
        return None
    if "statement" in agent:
        return None
    due = None
    if d.effect == "ALLOW" or not d.enforced:
        digest = arguments_digest(request.arguments.encode()).hex()
        due = d.decision_id, agent["id"], agent["proof"], agent["id"], digest, ""
    return {
        "decision_id": d.decision_id, "effect": d.effect, "request_digest": d.request_digest, "agent": agent,
        "policy": policy, "registry": registry, "executor": None, "time": d.time, "terms": None, "approval": None,
        "delegators": [], "asked": None, "due": due, "sealed": None,
    }  # fmt: skip


def _part(name: str, raw: msgspec.Raw) -> Any:
    """The value of a member, in order as the table has it. Raises Malformed."""
    text = bytes(raw)
    return (_remembered if len(text) <= _SHORT else _read)(name, text)


def _read(name: str, text: bytes) -> Any:
    value = strictjson.parse(text, max_depth=MAX_DEPTH - 1)
    try:
        proper = DECISION[name](value)
    except (KeyError, TypeError):
        proper = False
    if not proper:
        raise Malformed(f"{name} is not proper")
    return value


_remembered = lru_cache(_REMEMBERED)(_read)
