"""Which values of a payload are personal, and taking them out (proto/LEDGER.md, "Personal fields").

What the operator named by pointers is sealed, and what repeats it: a string or number of four characters or more is
looked for in everything else that may be sealed. Pointers begin with ``/arguments`` (those of alternatives too),
``/context``, ``/purpose``, ``/result`` or, of an outcome, ``/response``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.chain import personal, pointer, strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import MAX_FIELDS
from sidecar.chain.personal import Field, Part, Personal
from sidecar.custody.subjects import MAX_WHO, SubjectKeys
from sidecar.errors import Malformed, RequestError, UsageError

SHORTEST_KEY: Final = 22
"""Characters of an idempotency key: what base64 makes of 128 bits."""

NOBODY: Final = b"null"
"""Who an outcome's personal fields are of where its decision names nobody."""

_LOOKED_FOR: Final = 4  # characters
_MOST_LOOKING: Final = 1 << 31  # about a second's work
_EACH: Final = 16  # characters that looking for something costs, however short it is
_DEEP: Final = range(2, 65)
_FORMS: Final = {
    "arguments": _DEEP, "context": _DEEP, "purpose": range(1, 2), "result": range(1, 65), "response": range(1, 65),
}  # fmt: skip
"""How many steps a pointer may have, by its first."""
_DIGESTS: Final = ("/permit", "/arguments_digest", "/response_digest", "/action_digest")


@dataclass(frozen=True, slots=True)
class Pointers:
    """What is personal. ``subject``: pointer to what names the person, in arguments or context; it is sealed too.

    Raises:
        UsageError: no pointer (RFC 6901), or one that leads elsewhere.
    """

    subject: str
    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        for each in (self.subject, *self.fields):
            try:
                tokens = pointer.split(each)
            except Malformed as error:
                raise UsageError(f"personal: {each!r}: {error}") from None
            if not tokens or len(tokens) not in _FORMS.get(tokens[0], ()):
                raise UsageError(
                    f"personal: {each!r} must lead into /arguments, /context, /result or /response, or be /purpose"
                )
        if self.to_subject[0] not in ("arguments", "context"):
            raise UsageError("personal.subject must lead into /arguments or /context")

    @property
    def to_subject(self) -> tuple[str, str]:
        """The root of what names the person, and the pointer from there on."""
        root, _, rest = self.subject[1:].partition("/")
        return root, f"/{rest}"

    def within(self, root: str) -> list[str]:
        """The pointers into what ``root`` names, from there on."""
        before = f"/{root}"
        named = {self.subject, *self.fields}
        return sorted(p.removeprefix(before) for p in named if p == before or p.startswith(f"{before}/"))


@dataclass(slots=True)
class _Taking:
    """Values taken out of a payload of ``size`` bytes: by `in`, what stood at which offset of a text (None: itself)."""

    payload: dict[str, Any]
    size: int
    needles: set[str] = field(default_factory=set)
    taken: dict[str, list[tuple[int | None, str, bytes]]] = field(default_factory=dict)

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> _Taking:
        """Of a copy of this payload."""
        written = strictjson.dumps(payload)
        return cls(strictjson.parse_object(written), len(written))

    def text(self, place: str, pointers: Iterable[str]) -> None:
        """Take out of a JSON text what the pointers name and what repeats a needle."""
        text = (pointer.get(self.payload, place) or "").encode()
        if not text:
            return
        named, end, size = set(pointers), 0, 0
        pieces: list[bytes] = []
        for spot in pointer.spots(text):
            raw = text[spot.start : spot.end]
            if spot.start < end or not (spot.pointer in named or self._repeats(raw)):
                continue
            size += spot.start - end
            self.taken.setdefault(place, []).append((size, spot.pointer, raw))
            pieces += (text[end : spot.start], b'""')
            end, size = spot.end, size + 2
        pointer.put(self.payload, place, b"".join((*pieces, text[end:])).decode())

    def _repeats(self, raw: bytes) -> bool:
        return bool(self.needles) and raw[:1] not in b"[{" and self.repeats(strictjson.parse(raw))

    def repeats(self, value: object) -> bool:
        """Whether a string holds, or a number is, something looked for."""
        if isinstance(value, str):
            return any(needle in value for needle in self.needles)
        return isinstance(value, int | float) and not isinstance(value, bool) and str(value) in self.needles

    def value(self, place: str) -> None:
        """Take a member of the payload itself."""
        raw = strictjson.dumps(pointer.get(self.payload, place))
        self.taken[place] = [(None, "", raw)]
        pointer.put(self.payload, place, personal.SEALED)

    def values(self, place: str) -> None:
        """Take what repeats a needle at or below a place."""
        found = pointer.get(self.payload, place)
        if isinstance(found, dict | list):
            for step in list(found) if isinstance(found, dict) else range(len(found)):
                self.values(place + pointer.join([step]))
        elif self.repeats(found):
            self.value(place)

    def look_for(self, values: Iterable[object]) -> None:
        """Strings and numbers in these values are needles from now on."""
        for each in values:
            self.needles.update(text for text in _scalars(each) if len(text) >= _LOOKED_FOR)

    @property
    def endless(self) -> bool:
        """Whether to look for all of that would take for ever: it is each in each, and nobody could stop it."""
        return sum(_EACH + len(needle) for needle in self.needles) * self.size > _MOST_LOOKING


class FieldSealer:
    """Seals and opens the fields of one chain. ``pointers`` None: nothing new is sealed."""

    def __init__(
        self,
        pointers: Pointers | None,
        keys: SubjectKeys,
        chain_id: bytes,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._pointers, self._keys, self._chain_id, self._entropy = pointers, keys, chain_id, entropy

    def seal(
        self, kind: EntryType, payload: Mapping[str, Any], about: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], tuple[Part, ...]] | None:
        """The payload without its personal values, with marks for commitments, and what was taken; None: it has none.

        ``about``: the payload, as it is stored, of the DECISION that an OUTCOME or APPROVAL is about.

        Raises:
            RequestError: it has some and names nobody, has a key that can be guessed, or has too many.
            LedgerFull, LedgerError: no key for a new subject.
        """
        if kind is EntryType.DECISION:
            return self._decision(payload)
        if about is None:
            return None
        said = personal.read(EntryType.DECISION, about)
        if said is None:
            return self._unnamed(payload) if kind is EntryType.OUTCOME else None
        return self._about(kind, payload, said)

    def open(self, seq: int, payload: dict[str, Any]) -> None:
        """Put the values of the entry ``seq`` back, in place; member `personal` then has its subject alone. Where the
        subject was erased, nothing changes.

        Raises:
            Malformed, ProofRejected: what was sealed is not what the entry commits to.
        """
        said = personal.read(EntryType[payload["type"]], payload)
        key = None if said is None else self._keys.key(said.subject)
        if said is None or key is None:
            return
        parts = personal.decrypt(key, self._chain_id, said)
        said.check(self._chain_id, seq, parts)
        personal.put_back(payload, said, parts)
        payload["personal"] = {"subject": said.subject.hex()}

    def opening(self, seq: int, said: Personal) -> bytes | None:
        """The opening of an entry; None: its subject was erased. Raises as :meth:`open`."""
        key = self._keys.key(said.subject)
        if key is None:
            return None
        parts = personal.decrypt(key, self._chain_id, said)
        said.check(self._chain_id, seq, parts)
        return personal.join(parts)

    def _decision(self, payload: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Part, ...]] | None:
        if self._pointers is None:
            return None
        documents = _documents(payload)
        named = [(root, each, self._pointers.within(root)) for root, each in documents]
        values = [value for _, each, pointers in named for value in _found(each, pointers)]
        if not values:
            return None
        who = self._who(documents)
        request = payload["request"]
        if len(request["idempotency_key"]) < SHORTEST_KEY or request["idempotency_key"] == request["approval_of"]:
            cause = f"with personal fields it must have {SHORTEST_KEY} characters or more, drawn at random"
            raise RequestError("idempotency_key", cause)
        taking = _Taking.of(payload)
        taking.look_for(values)
        if taking.endless:
            raise RequestError(
                "request", "has too many personal values to look for all of them in it; send less at once"
            )
        _take_decision(taking, self._pointers)
        return self._sealed(taking, *self._keys.of(who))

    def _who(self, documents: list[tuple[str, Any]]) -> bytes:
        """The JSON text that names the person. Raises RequestError."""
        assert self._pointers is not None
        root, inner = self._pointers.to_subject
        document = next(each for name, each in documents if name == root)
        for value in _found(document, [inner]):
            who = strictjson.dumps(value)
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "" and len(who) <= MAX_WHO:
                return who
        raise RequestError(root, "has personal fields, and nobody is named whose they are")

    def _about(
        self, kind: EntryType, payload: Mapping[str, Any], said: Personal
    ) -> tuple[dict[str, Any], tuple[Part, ...]] | None:
        """An outcome or approval of a decision with sealed fields; all of its texts where these were erased, or are too
        many to look for."""
        taking, key = _Taking.of(payload), self._keys.key(said.subject)
        if key is not None:
            parts = personal.decrypt(key, self._chain_id, said)
            taking.look_for(strictjson.parse(value) for _, value in parts)
        all_of_it = key is None or taking.endless
        whole = [""] if all_of_it else [] if self._pointers is None else self._pointers.within("response")
        if kind is EntryType.OUTCOME:
            taking.text("/response", whole)
        for place in ("/downstream_status", "/comment"):
            if payload.get(place[1:]) and (all_of_it or taking.repeats(payload[place[1:]])):
                taking.value(place)
        for place in _DIGESTS:
            if payload.get(place[1:]):
                taking.value(place)
        _take_statement(taking)
        return self._sealed(taking, said.subject, key or self._entropy(personal.KEY_BYTES)) if taking.taken else None

    def _unnamed(self, payload: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Part, ...]] | None:
        """An outcome whose decision has no personal fields."""
        pointers = [] if self._pointers is None else self._pointers.within("response")
        response = payload["response"]
        if not pointers or not response or not _found(strictjson.parse(response.encode()), pointers):
            return None
        taking = _Taking.of(payload)
        taking.text("/response", pointers)
        _take_statement(taking)
        return self._sealed(taking, *self._keys.of(NOBODY))

    def _sealed(self, taking: _Taking, subject: bytes, key: bytes) -> tuple[dict[str, Any], tuple[Part, ...]]:
        fields: list[Field] = []
        parts: list[Part] = []
        for place, taken in sorted(taking.taken.items()):
            for at, where, value in taken:
                salt = self._entropy(32)
                fields.append(Field(place, where, at, personal.mark(salt)))
                parts.append((salt, value))
        if len(fields) > MAX_FIELDS:
            raise RequestError("request", f"has more than {MAX_FIELDS} personal values; name what holds them all")
        sealed = personal.encrypt(key, self._entropy(personal.NONCE_BYTES), self._chain_id, subject, parts)
        taking.payload["personal"] = Personal(subject, tuple(fields), sealed).member()
        return taking.payload, tuple(parts)


def _take_decision(taking: _Taking, pointers: Pointers) -> None:
    request = taking.payload["request"]
    taking.text("/request/context", pointers.within("context"))
    others = (f"/request/alternatives/{n}/arguments" for n in range(len(request["alternatives"])))
    for place in ("/request/arguments", *others):
        taking.text(place, pointers.within("arguments"))
    taking.value("/request/idempotency_key")
    if request["purpose"] and (pointers.within("purpose") or taking.repeats(request["purpose"])):
        taking.value("/request/purpose")
    for where in pointers.within("result"):
        if _found(taking.payload["result"], [where]):
            taking.value(f"/result{where}")
    taking.values("/result")
    for place in ("/reasons", *(f"/alternatives/{n}/reasons" for n in range(len(taking.payload["alternatives"])))):
        for n, reason in enumerate(pointer.get(taking.payload, place)):
            if taking.repeats(reason["message"]):
                taking.value(f"{place}/{n}/message")
    for n in range(len(taking.payload["obligations"])):
        taking.values(f"/obligations/{n}/parameters")


def _take_statement(taking: _Taking) -> None:
    if taking.payload["by"].get("statement"):
        taking.value("/by/statement")


def _documents(payload: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What pointers lead into, each with its root; the action's own arguments first, then the context."""
    request = payload["request"]
    texts = [("arguments", request["arguments"]), ("context", request["context"])]
    texts += [("arguments", each["arguments"]) for each in request["alternatives"]]
    read = [(root, strictjson.parse(text.encode()) if text else {}) for root, text in texts]
    return [*read, ("purpose", request["purpose"] or None), ("result", payload["result"])]


def _found(document: Any, pointers: Iterable[str]) -> list[Any]:
    """The values that the pointers lead to, null aside."""
    found = []
    for each in pointers:
        with suppress(Malformed):
            found.append(pointer.get(document, each))
    return [value for value in found if value is not None]


def _scalars(value: object) -> Iterator[str]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _scalars(each)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
