"""A Scribe that seals personal fields: told which values to take out of a payload, with fixed salts and keys."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sidecar.chain import acts, authority_note, personal, strictjson
from sidecar.chain.digests import Outcome, arguments_digest
from sidecar.chain.entry import EntryType, payload_commit
from sidecar.chain.limits import NO_SEQ, ZERO16
from sidecar.chain.personal import Field, Part, Personal
from sidecar.chain.pointer import get, put
from sidecar.chain.request import Option, Request
from sidecar.verify import ChainOpenings, Openings
from tests.scribe import AGENT_KEY, EXECUTOR, EXECUTOR_KEY, MILLISECOND, Header, Scribe, ratchet, secret, signing_key

EMAIL = '"ann@example.org"'
SUBJECT = bytes.fromhex("5ab1ec70000000000000000000000001")
OTHER = bytes.fromhex("5ab1ec70000000000000000000000002")
IDEMPOTENCY_KEY = "00000000000000000000000000000042"
ARGUMENTS = b'{"amount":12, "to" : {"email":"ann@example.org","iban":["DE75",7]},"note":"\xc3\xa9"}'

Taken = tuple[str, str, bytes | None]
"""Where: `in`, `pointer`, and in a text the bytes of the value."""


class Discreet(Scribe):
    """``parts``: salts and values that were sealed, by seq."""

    def __init__(self, name: str = "discreet", *, retention: str = "default", authority: bool = True) -> None:
        super().__init__(name, authority=authority, retention=retention)
        self.parts: dict[int, list[Part]] = {}

    def key_of(self, subject: bytes) -> bytes:
        """A subject's key."""
        return secret(self.name, "subject", subject.hex())

    def sealed(
        self, kind: EntryType, value: dict[str, Any], taken: Sequence[Taken], *, subject: bytes = SUBJECT,
        ref_seq: int = NO_SEQ, agent: str | None = None, count: int | None = None, changed: Mapping[str, Any] = {},
        parts: Sequence[Part] | None = None,
    ) -> int:  # fmt: skip
        """One entry without the values at these places. ``count``: another field_count; ``changed``: members of
        `personal` that differ; ``parts``: others to be committed to and encrypted."""
        fields, found = self._taken(value, taken)
        parts = found if parts is None else list(parts)
        commits = [personal.commitment(self.chain_id, self.seq, i, *part) for i, part in enumerate(parts)]
        made = tuple(Field(f.place, f.pointer, f.at, c) for f, c in zip(fields, commits, strict=True))
        nonce = secret(self.name, "field nonce", self.seq)[:12]
        ciphertext = personal.encrypt(self.key_of(subject), nonce, self.chain_id, subject, parts)
        value["personal"] = Personal(subject, made, ciphertext).member() | changed
        self.parts[self.seq] = list(parts)
        return self.put(
            kind, strictjson.dumps(value), ref_seq=ref_seq, agent=agent, count=len(parts) if count is None else count
        )

    def _taken(self, value: dict[str, Any], taken: Sequence[Taken]) -> tuple[list[Field], list[Part]]:
        """Take values out, in order; each text from its end, so that offsets found in it stay right."""
        found: list[tuple[str, int | None, str, bytes]] = []
        shift: dict[str, int] = {}
        for place, where, raw in sorted(taken, key=lambda t: (t[0], _offset(value, t))):
            if raw is None:
                found.append((place, None, where, strictjson.dumps(get(value, place))))
                put(value, place, "")
                continue
            text = get(value, place).encode()
            at = text.index(raw, shift.get(place, 0))
            put(value, place, (text[:at] + b'""' + text[at + len(raw) :]).decode())
            shift[place] = at + 2
            found.append((place, at, where, raw))
        fields = [Field(place, where, at, b"") for place, at, where, _ in found]
        salts = [secret(self.name, "field salt", self.seq, i) for i in range(len(found))]
        return fields, [(salt, raw) for salt, (*_, raw) in zip(salts, found, strict=True)]

    def put(
        self, kind: EntryType, payload: bytes, *, ref_seq: int = NO_SEQ, agent: str | None = None, count: int
    ) -> int:
        """As `write`, with a field_count."""
        self.mono += MILLISECOND
        salt = secret(self.name, "salt", self.seq)
        tag = ZERO16 if agent is None else ratchet.agent_tag(self.keys[self.segment].tag_key, self.seq, agent)
        header = Header(
            kind, self.epoch, self.seq, self.segment, self.chain_id, self.leaf, payload_commit(salt, payload),
            len(payload), self.wall_offset + self.mono, self.mono, 1, ref_seq, tag, count,
        )  # fmt: skip
        self.payloads[self.seq] = strictjson.parse_object(payload)
        return self.append(header, salt, payload)

    def asked(self, effect: str = "ALLOW", *, executor: str = "") -> dict[str, Any]:
        """The payload of a decision on personal data, nothing sealed yet."""
        value = self.decision_value(effect, executor=executor)
        value["request"] |= {"arguments": ARGUMENTS.decode(), "idempotency_key": IDEMPOTENCY_KEY}
        option = Option("refund", "invoice", "inv-1", ARGUMENTS)
        request = Request(
            "billing-agent", option, b'{"ticket":7}', idempotency_key=IDEMPOTENCY_KEY, executor=executor
        )  # fmt: skip
        value["request_digest"] = request.digest().hex()
        value["reasons"] = [{"code": "known", "message": "ann@example.org is known"}]
        value["result"] = {"effect": effect, "reasons": value["reasons"], "to": {"ann": 1}}
        return value

    def personal_decision(self, effect: str = "ALLOW", *, subject: bytes = SUBJECT, **changed: Any) -> int:
        """A decision with every kind of place sealed; ``changed``: members of its payload."""
        return self.sealed(EntryType.DECISION, self.asked(effect) | changed, TAKEN, subject=subject)

    def signed_personal_decision(self, effect: str = "ALLOW", *, executor: str = EXECUTOR) -> int:
        """As that, signed by its agent, with a permit if it is allowed."""
        value = self.asked(effect, executor=executor)
        value["agent"] = self.signed("request", "billing-agent", AGENT_KEY, bytes.fromhex(value["request_digest"]))
        value["registry"] = {"revision": "", "digest": self.registered}
        return self.sealed(EntryType.DECISION, value, TAKEN, agent="billing-agent")

    def personal_outcome(self, decision: int, *, subject: bytes = SUBJECT, **changed: Any) -> int:
        """What its executor did of a signed decision."""
        about, done = self.payloads[decision], arguments_digest(ARGUMENTS)
        permit = self._permit_for(decision)
        began, response = self.headers[decision].wall_ns, b'{"mailed": "ann@example.org"}'
        said = Outcome(EXECUTOR, about["decision_id"], "executed", response, b"", permit, done, "200", began, 1_000)
        value = {
            **self.outcome_value(decision),
            "agent": {name: about["agent"][name] for name in ("id", "proof")},
            "by": self.signed("outcome", EXECUTOR, EXECUTOR_KEY, said.digest(), **changed),
            "response": response.decode(),
            "arguments_digest": done.hex(),
            "permit": permit.decode(),
            "downstream_status": "200",
            "started_ns": str(began),
            "duration_ns": "1000",
        }
        taken: list[Taken] = [
            ("/response", "/mailed", EMAIL.encode()), ("/by/statement", "", None), ("/permit", "", None),
            ("/arguments_digest", "", None),
        ]  # fmt: skip
        return self.sealed(EntryType.OUTCOME, value, taken, subject=subject, ref_seq=decision, agent="billing-agent")

    def _permit_for(self, decision: int) -> bytes:
        about = self.payloads[decision]
        was, about["request"]["arguments"] = about["request"]["arguments"], ARGUMENTS.decode()
        permit = self.permit(decision).sign(self.identity)
        about["request"]["arguments"] = was
        return permit

    def tombstone(self, subject: bytes = SUBJECT, **changed: Any) -> int:
        """What the authority signed: ``key`` another's, ``act`` another act, ``value`` other members."""
        act = changed.get("act") or acts.Erase(self.chain_id, subject, "asked for on 2026-01-01, ticket 12")
        key = changed.get("key") or self.authority or signing_key("nobody")
        signed, body = authority_note.split(authority_note.compose(act, self.wall_offset + self.mono, key))
        value = {"type": "TOMBSTONE", "subject": subject.hex(), "note": signed.decode(), "body": body.decode()}
        payload = strictjson.dumps(value | changed.get("value", {}))
        return self.write(EntryType.TOMBSTONE, payload, ref_seq=changed.get("ref_seq", 0))

    def opened(self, *, complete: bool = True, without: Iterable[int] = (), **changed: bytes) -> Openings:
        """Openings of what was sealed; ``changed``: others, by `at` and the seq."""
        entries = {seq: personal.join(parts) for seq, parts in self.parts.items() if seq not in set(without)}
        entries |= {int(name.removeprefix("at")): opening for name, opening in changed.items()}
        return Openings({self.chain_id: ChainOpenings(entries, complete)})


TAKEN: list[Taken] = [
    ("/request/arguments", "/to/iban", b'["DE75",7]'),
    ("/request/arguments", "/to/email", EMAIL.encode()),
    ("/request/idempotency_key", "", None),
    ("/reasons/0/message", "", None),
    ("/result/reasons/0/message", "", None),
    ("/result/to", "", None),
]


def _offset(value: Mapping[str, Any], taken: Taken) -> int:
    place, _, raw = taken
    return -1 if raw is None else get(value, place).encode().index(raw)


def canonical(data: bytes) -> str:
    return base64.b64encode(data).decode()
