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

AGENTS, AGENT = 2_048, 512
"""How many of those who ask are remembered, and of up to how many bytes each."""

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


class Plain(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the judgement needs of a plain DECISION. ``who``: agent and registry, as the payload spells them;
    ``arguments``: the digest that its outcome must name, "" where there may be none."""

    decision_id: str
    effect: str
    request_digest: str
    who: bytes
    arguments: str

    def value(self) -> dict[str, Any]:
        """The same as members of the payload and what `contents.needed` adds to them."""
        agent, registry, _ = _who_of(self.who)
        return {
            "decision_id": self.decision_id, "effect": self.effect, "request_digest": self.request_digest,
            "agent": agent, "registry": registry, "executor": None, "asked": None, "due": self.due(), "sealed": None,
        }  # fmt: skip

    def decided(self) -> tuple[str, str, str]:
        """What a head may name."""
        return self.decision_id, self.effect, self.request_digest

    def due(self) -> tuple[str, ...] | None:
        """As `outcomes.due`."""
        if not self.arguments:
            return None
        agent, _, _ = _who_of(self.who)
        return self.decision_id, agent["id"], agent["proof"], agent["id"], self.arguments, ""


def told(data: bytes, *, tagged: bool) -> Plain | None:
    """What `contents.tell` tells of this payload, if it is a plain DECISION whose agent signed nothing; else None.

    ``tagged``: its header has an agent tag.
    """
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
        arguments = request.arguments.encode()
        for text in (arguments, request.context.encode()):
            if text and not strictjson.is_written_object(text, max_depth=MAX_DEPTH):
                strictjson.parse_object(text, max_depth=MAX_DEPTH)
        who = b"".join((d.agent, b",", d.registry))
        _, _, proof = _who_of(who)
        effect, enforced = (_remembered_answer if len(answered) <= _ANSWER else _answer)(answered)
    except (msgspec.MsgspecError, Malformed, UnicodeDecodeError, RecursionError):
        return None
    if proof is None or tagged is not proof:
        return None
    digest = arguments_digest(arguments).hex() if effect == "ALLOW" or not enforced else ""
    return Plain(d.decision_id, effect, d.request_digest, who, digest)


def _who_of(texts: bytes) -> tuple[dict[str, Any], dict[str, Any] | None, bool | None]:
    return _remembered_who(texts) if len(texts) <= AGENT else _who(texts)


def _who(texts: bytes) -> tuple[dict[str, Any], dict[str, Any] | None, bool | None]:
    """Agent, registry, and whether anything proves the agent; None: it signed something. Raises Malformed."""
    values = strictjson.parse(b"[" + texts + b"]", max_depth=MAX_DEPTH)
    if len(values) != 2:
        raise Malformed("not plain")
    for name, value in zip(("agent", "registry"), values, strict=True):
        _proper(name, value)
    agent, registry = values
    return agent, registry, None if "statement" in agent else agent["proof"] != "asserted"


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
    _proper(name, value)
    return value


def _proper(name: str, value: Any) -> None:
    try:
        proper = DECISION[name](value)
    except (KeyError, TypeError):
        proper = False
    if not proper:
        raise Malformed(f"{name} is not proper")


_remembered_who = lru_cache(AGENTS)(_who)
_remembered_answer = lru_cache(_ANSWERS)(_answer)
