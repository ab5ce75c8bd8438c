"""What each type of entry says: the members of its JSON object (proto/LEDGER.md, "Payload").

One table serves the writer, which refuses to write what it would not read, and the verifier.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from sidecar.chain import personal, strictjson
from sidecar.chain.entry import WITH_FIELDS, EntryType
from sidecar.chain.head import EFFECTS
from sidecar.chain.limits import FORMAT, MAX_CUSTODIANS, MAX_DEPTH, MAX_PAYLOAD
from sidecar.chain.seeds import KEMS, MODES
from sidecar.chain.spellings import is_base64, is_moment, up_to
from sidecar.errors import Malformed

Check = Callable[[Any], object]
"""Whether a value is as it must be: true or false, as a truth value."""

_HEX32 = re.compile(r"\A[0-9a-f]{64}\Z")
_HEX16 = re.compile(r"\A[0-9a-f]{32}\Z")
_UUID7 = re.compile(r"\A[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
_DURATION = re.compile(r"\A(?:[1-9][0-9]{0,18})?\Z")
_NANOSECONDS = re.compile(r"\A(?:0|-?[1-9][0-9]{0,18})\Z")
CAUSES = frozenset(
    {
        *("policy", "engine_error", "engine_timeout", "engine_unavailable"),
        *("policy_undefined", "policy_misshaped", "policy_not_active", "policy_stale"),
        "unshipped",
    }
)
_DECISION, _POLICY = EntryType.DECISION, EntryType.POLICY  # Python 3.11 takes long to look them up
STATUSES = frozenset({"executed", "blocked", "failed"})


def _text(value: Any) -> bool:
    return isinstance(value, str)


# The verifier runs these for each member of each entry: the fastest check is a method of a built-in, and where it
# raises TypeError (a number is no text to match, a list is in no set) or KeyError, `check` takes that for a no.


def _matches(pattern: re.Pattern[str]) -> Check:
    return pattern.match


def _one_of(*values: str) -> Check:
    return frozenset(values).__contains__


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _any(_: Any) -> bool:
    return True


def _dict(value: Any) -> bool:
    return isinstance(value, dict)


_WRITTEN: dict[Check, str] = {_text: "type({}) is str", _boolean: "type({}) is bool", _dict: "type({}) is dict"}
"""Checks that `_object` writes out instead of calling them."""


def _array(check: Check, limit: int = 10_000) -> Check:
    def every(value: Any) -> bool:
        if type(value) is not list or len(value) > limit:
            return False
        for item in value:  # noqa: SIM110  a loop: most arrays are empty or have one item
            if not check(item):
                return False
        return True

    return every


def _object(members: Mapping[str, Check], *, closed: bool = False) -> Check:
    # One expression of straight code, no loop and no call for a text or a boolean: twice as fast. What it is made of
    # are the names in the tables below.
    scope: dict[str, Any] = {f"check{n}": member for n, member in enumerate(members.values())}
    terms = ["type(value) is dict", *([f"len(value) == {len(members)}"] if closed else [])]
    for n, (name, member) in enumerate(members.items()):
        terms.append(_WRITTEN.get(member, f"check{n}({{}})").format(f"value[{name!r}]"))
    compiled: Check = eval(f"lambda value: {' and '.join(terms)}", scope)  # noqa: S307
    return compiled


_hex32 = _matches(_HEX32)
_hex32_or_empty = _matches(re.compile(r"\A(?:[0-9a-f]{64})?\Z"))
_hex32_or_sealed = _hex32_or_empty
_effect = _one_of(*EFFECTS)
_reasons = _array(_object({"code": _text, "message": _text}))
_resource = _object({"type": _text, "id": _text})
_roles = {"id": _text, "roles": _array(_text), "attributes": lambda value: isinstance(value, dict)}
_in_transit = {"certificate": _hex32, "spiffe_id": _text}
_statement = {"statement": _text, "signature": is_base64, "key": is_base64}
_PROOFS = {
    "asserted": _object({}),
    "mtls": _object(_in_transit),
    "signature": _object(_statement),
    "signature+mtls": _object({**_statement, **_in_transit}),
    "gateway": _object(
        {
            "gateway": _text,
            "gateway_proof": _one_of("socket", "mtls"),
            "certificate": _hex32_or_empty,
            "spiffe_id": _text,
        }
    ),
}
_named = _object({"id": _text, "proof": _one_of(*_PROOFS)})
_known = _object({**_roles, "proof": _one_of(*_PROOFS)})
_known_of_kind = _object({**_roles, "kind": _text})


def _principal(value: Any) -> bool:
    return bool(_known(value) and _PROOFS[value["proof"]](value))


_policy = {
    "engine": _text, "engine_version": _text, "entrypoint": _text, "revision": _text, "bundle_digest": _text,
}  # fmt: skip
_COMMIT = ("id", "author", "committer", "authored", "committed", "subject")
_gate_step = _object(
    {
        "step": _text,
        "outcome": _one_of("passed", "failed", "not run"),
        "note": _text,
        "findings": _array(_object({"file": _text, "line": _place, "message": _text})),
    }
)
_request = _object(
    {
        "action": _text,
        "resource": _resource,
        "arguments": _text,
        "context": _text,
        "purpose": _text,
        "alternatives": _array(_object({"action": _text, "resource": _resource, "arguments": _text})),
        "trace_parent": _text,
        "idempotency_key": _text,
        "last_receipt": is_base64,
        "executor": _text,
        "delegations": _array(_object({"text": _text, "key": is_base64, "signature": is_base64})),
        "approval_of": _text,
    }
)
_approval = _object(
    {
        "decision_id": _matches(_UUID7),
        "decision_seq": _place,
        "approvals": _array(_object({"seq": _place, "time": is_moment, "by": _object(_roles)})),
    }
)
_terms = _object({"count": _count, "roles": _array(_text), "expires": is_moment})
_names = _array(_text)
_opening: dict[str, Check] = {
    "type": _text,
    "epoch_note": _hex32,
    "seeds": _array(_object({"commit": _hex32, "sealed": is_base64}, closed=True), MAX_CUSTODIANS),
    "software": _text,
    "development": _boolean,
}
_open = _object(_opening, closed=True)
_unconfirmed = _object({**_opening, "unconfirmed": lambda value: value is True}, closed=True)
_after_loss = _object({**_opening, "accepted_loss": _hex32}, closed=True)


def _open_or_unconfirmed(value: Any) -> bool:
    return bool(_open(value) or _unconfirmed(value))


DECISION: Mapping[str, Check] = {
    "decision_id": _matches(_UUID7),
    "time": is_moment,
    "agent": _principal,
    "registry": _or_null(_object({"revision": _text, "digest": _hex32})),
    "request": _request,
    "request_digest": _hex32,
    "effect": _effect,
    "enforced": _boolean,
    "cause": _one_of(*CAUSES),
    "reasons": _reasons,
    "obligations": _array(_object({"kind": _text, "parameters": _dict})),
    "alternatives": _array(_object({"effect": _effect, "reasons": _reasons})),
    "result": _any,
    "policy": _object(_policy),
    "peer": _text,
    "executor": _or_null(_object(_roles)),
    "delegators": _array(_known_of_kind),
    "approval": _or_null(_approval),
    "terms": _or_null(_terms),
    "permit": _or_null(_object({"not_after": _matches(_NANOSECONDS)})),
    "timings": _object({"evaluate_ns": _matches(_NANOSECONDS)}),
}
"""The members of a DECISION. A check that raises TypeError or KeyError says no."""

_MEMBERS: dict[EntryType, Check] = {
    EntryType.GENESIS: _object(
        {
            "type": _text,
            "format": _one_of(FORMAT),
            "nonce": _hex32,
            "identity": _hex32,
            "mode": _one_of(*MODES),
            "custodians": _array(
                _object({"name": _text, "kem": _one_of(*KEMS), "spki": is_base64}, closed=True), MAX_CUSTODIANS
            ),
            "authority": _or_null(_hex32),
            "log": _or_null(_text),
            "retention": _text,
        },
        closed=True,
    ),
    EntryType.OPEN: lambda value: (_after_loss if "accepted_loss" in value else _open_or_unconfirmed)(value),
    EntryType.DECISION: _object(DECISION),
    EntryType.OUTCOME: _object(
        {
            "decision_id": _matches(_UUID7),
            "decision_seq": _place,
            "agent": _named,
            "by": _principal,
            "status": _one_of(*STATUSES),
            "response": _or_null(_text),
            "response_digest": _or_null(_hex32_or_sealed),
            "arguments_digest": _or_null(_hex32_or_sealed),
            "permit": _text,
            "downstream_status": up_to(256),
            "started_ns": _matches(_DURATION),
            "duration_ns": _matches(_DURATION),
        }
    ),
    EntryType.APPROVAL: _object(
        {
            "decision_id": _matches(_UUID7),
            "decision_seq": _place,
            "agent": _named,
            "by": _principal,
            "verdict": _one_of("approve", "reject"),
            "action_digest": _hex32_or_sealed,
            "arguments_digest": _hex32_or_sealed,
            "policy": _object({"revision": _text, "bundle_digest": _text}),
            "comment": up_to(1_024),
        }
    ),
    EntryType.REGISTRY: _object(
        {
            "event": _one_of("activated", "resumed", "refused"),
            "digest": _hex32_or_sealed,
            "revision": _text,
            "source": _object(
                {"kind": _one_of("git", "directory", "bundle", "starter", "opa", "file"), "place": _text}
            ),
            "from": _or_null(_hex32),
            "cause": _text,
            "registry": _text,
        }
    ),
    EntryType.REJECTED: _object(
        {
            **dict.fromkeys(("call", "code", "field", "cause", "peer", "principal", "decision_id"), _text),
            "count": _count,
        }
    ),
    EntryType.POLICY: _object(
        {
            "event": _one_of("activated", "resumed", "observed", "refused"),
            **_policy,
            "bundle_digest": _hex32_or_sealed,
            "from": _or_null(_object({"revision": _text, "bundle_digest": _text})),
            "source": _object({"kind": _one_of("git", "directory", "bundle", "starter", "opa"), "place": _text}),
            "commit": _or_null(_object(dict.fromkeys(_COMMIT, _text))),
            "signer": _or_null(_object({"principal": _text, "key": _text})),
            "gate": _array(_gate_step),
            "impure_builtins": _names,
        }
    ),
    EntryType.CLOCK: _object({"step_ns": _matches(_NANOSECONDS)}),
    EntryType.CLOSE: _object({"reason": _one_of("shutdown")}),
    EntryType.TOMBSTONE: _object(
        {"type": _text, "subject": _matches(_HEX16), "note": _text, "body": _text}, closed=True
    ),
}


def check(kind: EntryType, value: Any) -> dict[str, Any]:
    """Hold a parsed payload against its type's table.

    Raises:
        Malformed: not an object, another type's, or a member missing or of another form.
    """
    try:
        proper = value["type"] == kind.name and _MEMBERS[kind](value)
    except (KeyError, TypeError):
        proper = False
    if not proper:
        raise Malformed(f"payload is not a proper {kind.name}")
    checked: dict[str, Any] = value
    return checked


def parse(kind: EntryType, payload: bytes) -> dict[str, Any]:
    """Read a payload strictly (RFC 7493) and hold it against its type's table.

    Raises:
        Malformed: as said there and in :func:`check`.
    """
    if len(payload) > MAX_PAYLOAD:
        raise Malformed("payload is over the limit")
    return hold(kind, strictjson.parse_object(payload, max_depth=MAX_DEPTH))


def parse_known(kind: EntryType, payload: bytes) -> dict[str, Any]:
    """As :func:`parse`, of a payload that somebody else parses too: whether it is strict JSON is left to them. Raises
    Malformed: not JSON at all, or not what its type's table says."""
    return hold(kind, strictjson.parse_known(payload, max_depth=MAX_DEPTH), known=True)


def hold(kind: EntryType, value: Any, *, known: bool = False, read: Collection[bytes] = ()) -> dict[str, Any]:
    """As :func:`parse`, of a value that was parsed already, as one with its sealed fields put back; ``known``: as
    :func:`parse_known`; ``read``: JSON texts that were read strictly, and need not be again where they stand in it.

    Raises:
        Malformed: as said there.
    """
    checked = check(kind, value)
    if kind is EntryType.POLICY and bool(value["bundle_digest"]) != (value["event"] in ("activated", "resumed")):
        raise Malformed("payload has a bundle_digest that does not go with its event")
    if kind is EntryType.REGISTRY and {bool(value["digest"]), bool(value["registry"])} != {value["event"] != "refused"}:
        raise Malformed("payload has a digest or registry that does not go with its event")
    if kind is _DECISION:
        if value.get("receipt_check", "foreign") != "foreign":
            raise Malformed("payload has an unknown receipt_check")
        if not (_names(value.get("impure_builtins", [""])) and value.get("impure_builtins") != []):
            raise Malformed("payload has impure_builtins that are none")
        if not known:
            _check_embedded(value["request"], read)
        if "personal" in value:
            personal.read(kind, value)
    elif kind in WITH_FIELDS:
        personal.read(kind, value)
    return checked


def _check_embedded(request: dict[str, Any], read: Collection[bytes]) -> None:
    others = [alternative["arguments"] for alternative in request["alternatives"]]
    for text in (request["arguments"], request["context"], *others):
        if text and (data := text.encode()) not in read:
            strictjson.parse_object(data, max_depth=MAX_DEPTH)


def policy_time(wall_ns: int) -> str:
    """``YYYY-MM-DDThh:mm:ss.nnnnnnnnnZ`` from nanoseconds since 1970 (years 1970 to 9999)."""
    seconds, nanoseconds = divmod(wall_ns, 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds:09d}Z"


@functools.lru_cache(maxsize=8)  # many entries are of one second
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def wall_ns_of(time: str) -> int:
    """The nanoseconds since 1970 of a time as payloads have it. Raises Malformed for a day that is none."""
    try:
        seconds = datetime.strptime(time[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise Malformed("a time that is none") from None
    return int(seconds.timestamp()) * 1_000_000_000 + int(time[20:29])


def chain_id(genesis: bytes) -> bytes:
    """The 32-byte name of the chain that starts with this GENESIS payload, byte for byte."""
    return hashlib.sha256(b"sidecar/v1/chain\0" + genesis).digest()
