"""DECISIONs as most are: written by our own writer, of one agent that asked by itself and was answered at once.

`msgspec` takes such a payload apart by type and writes it again; if that gives the same bytes, no member is there
twice, unknown, or spelt otherwise. It is cut in three before, each of them an object once it has its braces: what was
asked; what was answered, which is the same to the byte for many and looked at once; and how long it took. What is not
certainly in order here is told by `contents.read`, which is the definition: it says what is wrong, if anything is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from sidecar.chain import strictjson
from sidecar.chain.digests import arguments_digest
from sidecar.chain.limits import MAX_DEPTH
from sidecar.chain.payload import DECISION
from sidecar.chain.spellings import is_base64
from sidecar.errors import Malformed

_AGENTS, _AGENT = 2_048, 512  # remembered of those who ask, and of up to how many bytes each
_ANSWERS, _ANSWER = 512, 4_096  # and of answers
_DIGEST: Final = b',"request_digest":"'
_ASKED: Final = len(_DIGEST) + 64 + 1
_TIMINGS: Final = b',"timings":{'
_TOOK: Final = re.compile(rb',"timings":\{"evaluate_ns":"(?:0|-?[1-9][0-9]{0,18})"\}\}')


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


class _Asked(msgspec.Struct, gc=False):
    type: Literal["DECISION"]
    decision_id: str
    time: str
    agent: msgspec.Raw
    registry: msgspec.Raw
    request: _Request
    request_digest: str


class _Answered(msgspec.Struct, gc=False):
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


_encode = msgspec.json.Encoder().encode
_asked = msgspec.json.Decoder(_Asked).decode
_answered = msgspec.json.Decoder(_Answered).decode
_id, _time, _digest = DECISION["decision_id"], DECISION["time"], DECISION["request_digest"]


def told(data: bytes) -> dict[str, Any] | None:
    """What `contents.tell` tells of this payload, if it is a plain DECISION whose agent signed nothing; else None."""
    end = data.rfind(_TIMINGS)
    turn = data.rfind(_DIGEST, 0, end) + _ASKED
    asked, answered = data[:turn] + b"}", data[turn:end]
    try:
        d = _asked(asked)
        request = d.request
        if _encode(d) != asked or strictjson.may_hold_noncharacter(asked) or not _TOOK.fullmatch(data, end):
            return None
        if not (_id(d.decision_id) and _time(d.time) and _digest(d.request_digest) and is_base64(request.last_receipt)):
            return None
        for text in (request.arguments, request.context):
            if text:
                strictjson.parse_object(text.encode(), max_depth=MAX_DEPTH)
        who = bytes(d.agent), bytes(d.registry)
        agent, registry = (_remembered_who if len(who[0]) + len(who[1]) <= _AGENT else _who)(*who)
        effect, enforced = (_remembered_answer if len(answered) <= _ANSWER else _answer)(answered)
    except (msgspec.MsgspecError, Malformed, UnicodeDecodeError, RecursionError):
        return None
    if "statement" in agent:
        return None
    due = None
    if effect == "ALLOW" or not enforced:
        digest = arguments_digest(request.arguments.encode()).hex()
        due = d.decision_id, agent["id"], agent["proof"], agent["id"], digest, ""
    return {
        "decision_id": d.decision_id, "effect": effect, "request_digest": d.request_digest, "agent": agent,
        "registry": registry, "executor": None, "asked": None, "due": due, "sealed": None,
    }  # fmt: skip


def _who(agent: bytes, registry: bytes) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Agent and registry. Raises Malformed."""
    return _member("agent", agent), _member("registry", registry)


def _answer(text: bytes) -> tuple[str, bool]:
    """Effect, and whether it was enforced, of the members from effect to permit with the comma before them.

    Raises:
        Malformed: not as the table has them. MsgspecError, UnicodeDecodeError, RecursionError: not plain.
    """
    whole = b"{" + text[1:] + b"}"
    d = _answered(whole)
    if text[:1] != b"," or _encode(d) != whole or strictjson.may_hold_noncharacter(whole):
        raise Malformed("not plain")
    if not DECISION["cause"](d.cause):
        raise Malformed("cause is not proper")
    for name in ("reasons", "obligations", "result", "policy"):
        _member(name, bytes(getattr(d, name)))
    return d.effect, d.enforced


def _member(name: str, text: bytes) -> Any:
    value = strictjson.parse(text, max_depth=MAX_DEPTH - 1)
    try:
        proper = DECISION[name](value)
    except (KeyError, TypeError):
        proper = False
    if not proper:
        raise Malformed(f"{name} is not proper")
    return value


_remembered_who = lru_cache(_AGENTS)(_who)
_remembered_answer = lru_cache(_ANSWERS)(_answer)
