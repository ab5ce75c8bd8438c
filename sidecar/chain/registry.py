"""The registry: who the principals are, which keys are theirs, and what policies know of them (proto/SIGNING.md)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.chain.signing import PublicKey
from sidecar.chain.spellings import is_moment
from sidecar.chain.statement import is_principal
from sidecar.errors import Malformed

FORMAT: Final = "sidecar/v1/registry"
MAX_SIZE: Final = 4_000_000
KINDS: Final = frozenset({"agent", "executor", "approver", "user"})
STATUSES: Final = frozenset({"active", "suspended", "revoked"})
_MAX_PRINCIPALS: Final = 20_000
_SPIFFE: Final = re.compile(r"\Aspiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+\Z")  # SPIFFE-ID section 2


@dataclass(frozen=True, slots=True)
class Span:
    """From ``not_before`` on, up to but not at ``not_after``; times as in payloads, None: no bound."""

    not_before: str | None = None
    not_after: str | None = None

    def holds(self, at: str) -> bool:
        """Whether it covers this time."""
        return not (self.not_before is not None and at < self.not_before) and (
            self.not_after is None or at < self.not_after
        )


@dataclass(frozen=True, slots=True)
class Key:
    """One of a principal's keys."""

    public: PublicKey
    span: Span = Span()
    revoked: bool = False

    def valid(self, at: str) -> bool:
        """Whether it may sign at this time."""
        return not self.revoked and self.span.holds(at)


@dataclass(frozen=True, slots=True)
class Principal:
    """One principal. ``keys`` by key id, ``spiffe_ids`` by id."""

    id: str
    kind: str
    status: str
    keys: Mapping[str, Key]
    spiffe_ids: Mapping[str, Span]
    roles: tuple[str, ...]
    attributes: Mapping[str, Any]
    owner: str = ""
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """All principals by id. ``digest``: hex, of the file; ``text``: the file itself, bytes."""

    digest: str
    text: bytes = field(repr=False)
    principals: Mapping[str, Principal] = field(repr=False)
    key_owners: Mapping[str, str] = field(repr=False)
    spiffe_owners: Mapping[str, str] = field(repr=False)


def parse(text: bytes) -> Registry:
    """Read a registry file.

    Raises:
        Malformed: what is wrong, and where.
    """
    if len(text) > MAX_SIZE:
        raise Malformed(f"registry: longer than {MAX_SIZE} bytes")
    value = strictjson.parse_object(text)
    principals: dict[str, Principal] = {}
    _members(value, "registry", {"format": lambda v: v == FORMAT, "principals": lambda v: isinstance(v, list)})
    if len(value["principals"]) > _MAX_PRINCIPALS:
        raise Malformed(f"registry: more than {_MAX_PRINCIPALS} principals")
    owners: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for index, each in enumerate(value["principals"]):
        place = f"principals[{index}]"
        principal = _principal(each, place)
        if principal.id in principals:
            raise Malformed(f"{place}: its id is there twice")
        principals[principal.id] = principal
        for owned, names in zip(owners, (principal.keys, principal.spiffe_ids), strict=True):
            for name in names:
                if owned.setdefault(name, principal.id) != principal.id:
                    raise Malformed(f"{place}: a key or SPIFFE id of it belongs to {owned[name]} too")
    return Registry(hashlib.sha256(text).hexdigest(), text, principals, *owners)


def is_time(value: Any) -> bool:
    """Whether it is a time as payloads spell it."""
    return isinstance(value, str) and is_moment(value)


def _principal(value: Any, place: str) -> Principal:
    _members(value, place, _PRINCIPAL)
    keys: dict[str, Key] = {}
    for index, each in enumerate(value["keys"]):
        key = _key(each, f"{place}.keys[{index}]")
        if keys.setdefault(key.public.id, key) is not key:
            raise Malformed(f"{place}.keys[{index}]: this key is there twice")
    ids: dict[str, Span] = {}
    for index, each in enumerate(value["spiffe_ids"]):
        name, span = _spiffe_id(each, f"{place}.spiffe_ids[{index}]")
        if ids.setdefault(name, span) is not span:
            raise Malformed(f"{place}.spiffe_ids[{index}]: this id is there twice")
    return Principal(
        value["id"], value["kind"], value["status"], keys, ids, tuple(value["roles"]), value["attributes"],
        value["owner"], value["purpose"],
    )  # fmt: skip


def _key(value: Any, place: str) -> Key:
    _members(
        value, place, {"spki": _text(256), "status": lambda v: isinstance(v, str) and v in ("active", "revoked")}, _SPAN
    )
    try:
        spki = base64.b64decode(value["spki"], validate=True)
        if base64.b64encode(spki).decode() != value["spki"]:
            raise Malformed("key: not canonical base64")
        public = PublicKey(spki)
    except (Malformed, binascii.Error) as error:
        raise Malformed(f"{place}.spki: {error}") from None
    return Key(public, _span(value), value["status"] == "revoked")


def _spiffe_id(value: Any, place: str) -> tuple[str, Span]:
    _members(value, place, {"id": _spiffe}, _SPAN)
    return value["id"], _span(value)


def _span(value: Mapping[str, Any]) -> Span:
    return Span(value.get("not_before"), value.get("not_after"))


_Checks = Mapping[str, Callable[[Any], bool]]


def _members(value: Any, place: str, required: _Checks, optional: _Checks | None = None) -> None:
    """Hold an object against its members; raises Malformed naming the place."""
    known = {**required, **(optional or {})}
    if not isinstance(value, dict):
        raise Malformed(f"{place}: must be an object")
    for name in value:
        if name not in known:
            raise Malformed(f"{place}: has an unknown member {name[:64]!r}")
    for name, check in known.items():
        if name not in value and name in required:
            raise Malformed(f"{place}.{name}: is missing")
        if name in value and not check(value[name]):
            raise Malformed(f"{place}.{name}: is not as proto/SIGNING.md, Registry, has it")


def _text(limit: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, str) and len(v) <= limit


def _spiffe(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 2_048 and _SPIFFE.match(value) is not None


def _array(limit: int, check: Callable[[Any], bool] = lambda _: True) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, list) and len(v) <= limit and all(map(check, v))


_SPAN: Final[_Checks] = {"not_before": is_time, "not_after": is_time}
_PRINCIPAL: Final[_Checks] = {
    "id": lambda v: isinstance(v, str) and is_principal(v),
    "kind": lambda v: isinstance(v, str) and v in KINDS,
    "owner": _text(1_024),
    "purpose": _text(1_024),
    "status": lambda v: isinstance(v, str) and v in STATUSES,
    "keys": _array(16),
    "spiffe_ids": _array(16),
    "roles": _array(64, _text(256)),
    "attributes": lambda v: isinstance(v, dict),
}
