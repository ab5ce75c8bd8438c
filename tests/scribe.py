"""A writer in memory, independent of `sidecar.ledger`: chain functions alone, with fixed seeds, keys and clocks.

Everything a writer, custodian or thief knows is at hand, so that tests can attack with chosen secrets: ``identity``,
``signing`` (segment keys), ``seeds``, ``keys`` (K_i and T_i). ``records`` is a list one may edit; :func:`stream` frames
it. Twins by the same ``name`` write the same bytes as long as they are told the same things.
"""

from __future__ import annotations

import base64
import dataclasses
import hmac
import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Any
from zlib import crc32

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.chain import acts, authority_note, entry, lines, note, ratchet, strictjson
from sidecar.chain.digests import Outcome, arguments_digest, target_digest
from sidecar.chain.entry import EntryType, Header
from sidecar.chain.epoch import EpochNote, epoch_hash
from sidecar.chain.head import Decided, Head, head_hash
from sidecar.chain.limits import NO_SEQ, ZERO16, ZERO32
from sidecar.chain.merkle import Tree
from sidecar.chain.permit import Permit
from sidecar.chain.pruning import PRUNABLE
from sidecar.chain.ratchet import Ratchet, SegmentKeys
from sidecar.chain.request import Option, Request
from sidecar.chain.seal import Seal, Span, seal_hash
from sidecar.chain.seeds import Custodian, Custody, SealedShare, seeds_digest, share_commit
from sidecar.chain.signing import PrivateKey, key_id, public_spki, sign
from sidecar.chain.statement import Statement
from sidecar.chain.stream import MAGIC, Kind, record
from sidecar.errors import CustodyError
from sidecar.verify import Evidence, Piped, Report, verify_stream
from sidecar.verify.ahead import work
from sidecar.verify.run import Seen
from tests.second import assert_agree, comparable

START = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
MILLISECOND = 1_000_000
NO_EVIDENCE = Evidence()
SOAK = os.environ.get("SIDECAR_SOAK") == "1"
PUBLISH = os.environ.get("TESTS_PUBLISH_ATTACKS", "")
BUNDLE = b"the bundle of the policy"
POLICY = {
    "engine": "wasm",
    "engine_version": "opa-1.22.2",
    "entrypoint": "agents/decision",
    "revision": "r1",
    "bundle_digest": sha256(BUNDLE).hexdigest(),
}
ACTIVATED = {
    "type": "POLICY",
    "event": "activated",
    **POLICY,
    "from": None,
    "source": {"kind": "starter", "place": "starter.tar.gz"},
    "commit": None,
    "signer": None,
    "gate": [],
    "impure_builtins": [],
}


EXECUTOR = "payments-gateway"
TERMS: dict[str, Any] = {"count": 1, "roles": [], "expires": "2026-01-01T01:00:01.000000000Z"}
AGENT_KEY = Ed25519PrivateKey.from_private_bytes(sha256(b"agent key").digest())
EXECUTOR_KEY = ec.derive_private_key(int.from_bytes(sha256(b"executor key").digest()[1:], "big"), ec.SECP256R1())
_IN_TRANSIT = {"certificate": sha256(b"certificate").hexdigest(), "spiffe_id": ""}


_BY_GATEWAY = {"gateway": EXECUTOR, "gateway_proof": "socket", "certificate": "", "spiffe_id": ""}


def principal(name: str, proof: str) -> dict[str, Any]:
    """The ``agent`` of a payload: asserted, in transit, or named by a gateway; of whom no registry says anything."""
    shown = {"mtls": _IN_TRANSIT, "gateway": _BY_GATEWAY}.get(proof, {})
    return {"id": name, "proof": proof, "roles": [], "attributes": {}, **shown}


def registered(name: str, proof: str) -> dict[str, Any]:
    """As :func:`principal`, with what :func:`registry_text` says of it."""
    return {**principal(name, proof), "roles": ["billing"], "attributes": {"team": "finance"}}


def registry_text(**changed: Any) -> bytes:
    """A registry of an agent and an executor. ``changed``: members of the agent that differ."""
    members = [("billing-agent", "agent", AGENT_KEY, changed), (EXECUTOR, "executor", EXECUTOR_KEY, {})]
    principals = [
        {
            "id": name,
            "kind": kind,
            "owner": "",
            "purpose": "",
            "status": "active",
            "keys": [{"spki": base64.b64encode(public_spki(key)).decode(), "status": "active"}],
            "spiffe_ids": [],
            "roles": ["billing"],
            "attributes": {"team": "finance"},
        }
        | other
        for name, kind, key, other in members
    ]
    return strictjson.dumps({"format": "sidecar/v1/registry", "principals": principals})


@dataclass(slots=True)
class Record:
    """One record, with the place it was written at."""

    kind: Kind
    body: bytes
    segment: int
    seq: int | None = None


def stream(records: Iterable[Record]) -> bytes:
    """The framed stream."""
    return MAGIC + b"".join(record(r.kind, r.body) for r in records)


def judge(records: Iterable[Record] | bytes, evidence: Evidence = NO_EVIDENCE) -> Report:
    """The verifier's report on records or on a stream's bytes; the same, whoever reads the payloads.

    That is held against workers for one stream in eight, and against the second verifier for one in four; for all of
    them by `make soak`.
    """
    data = records if isinstance(records, bytes) else stream(records)
    report = verify_stream(BytesIO(data).read, evidence)
    if comparable(data, evidence) and (SOAK or crc32(data) % 4 == 1):
        assert_agree(data, evidence, report)
    if PUBLISH:
        from tests.conformance.attacks import publish

        publish(data, evidence, report)
    if SOAK or crc32(data) % 8 == 0:
        assert verify_stream(BytesIO(data).read, evidence, workers=[Near(), Near()]) == report
    return report


class Near:
    """A verifier's worker in this process, asked and answering in the bytes that pipes carry."""

    def __init__(self) -> None:
        self._answers: deque[bytes] = deque()
        self._polled = False

    def takes(self, size: int) -> bool:
        return True

    def ask(self, runs: Sequence[Sequence[bytes]]) -> None:
        question, answer = BytesIO(), BytesIO()
        Piped(question, answer).ask(runs)
        work(BytesIO(question.getvalue()), answer)
        self._answers.append(answer.getvalue())

    def ready(self) -> bool:
        """Not at once, so that the verifier sees the next run itself."""
        self._polled = not self._polled
        return not self._polled

    def answer(self) -> list[Seen]:
        return Piped(BytesIO(), BytesIO(self._answers.popleft())).answer()


def secret(*path: object) -> bytes:
    """32 fixed bytes."""
    return sha256("/".join(map(str, path)).encode()).digest()


def entry_tag(key: bytes, header: bytes) -> bytes:
    """HMAC-SHA256 of an encoded header under the entry's own key, made the plain way."""
    return hmac.digest(key, b"sidecar/v1/entry\0" + header, "sha256")


def signing_key(*path: object) -> Ed25519PrivateKey:
    """A fixed Ed25519 key."""
    return Ed25519PrivateKey.from_private_bytes(secret("ed25519", *path))


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def custodian(*path: object) -> Custodian:
    """A fixed custodian with a real X25519 key."""
    key = X25519PrivateKey.from_private_bytes(secret("x25519", *path)).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Custodian(f"custodian-{path[-1]}", "hpke", spki)


def _toy_cipher(spki: bytes, ctx: bytes, data: bytes) -> bytes:
    """Stands in for HPKE, which no fixed bytes can drive: 64 bytes under a stream that anybody could compute."""
    pad = sha256(b"0" + spki + ctx).digest() + sha256(b"1" + spki + ctx).digest()
    return bytes(a ^ b for a, b in zip(data, pad, strict=True))


def toy_open(custody: Custody, chain_id: bytes, epoch: int, shares: Sequence[SealedShare]) -> bytes:
    """Opens what a Scribe wrapped, as `sidecar.custody` opens real ones: the culprit is named."""
    opened = []
    for index, (who, share) in enumerate(zip(custody.custodians, shares, strict=True)):
        ctx = custody.context(chain_id, epoch, index)
        plain = _toy_cipher(who.spki, ctx, share.sealed.ljust(64, b"\0")[:64])
        if plain[32:] != ctx or share_commit(ctx, plain[:32]) != share.commit:
            raise CustodyError(f"the share of {who.name} is bad")
        opened.append(plain[:32])
    return custody.combine(opened)


class Scribe:
    """Writes one chain. ``identity`` may differ from the key GENESIS names: an attacker's."""

    def __init__(
        self,
        name: str = "alpha",
        *,
        mode: str = "any",
        custodians: int = 1,
        identity: Ed25519PrivateKey | None = None,
        nonce: bytes | None = None,
        authority: bool = False,
        retention: str = "default",
    ) -> None:
        self.name, self.retention = name, retention
        self.authority = signing_key(name, "authority") if authority else None
        self.custody = Custody(mode, tuple(custodian(name, i) for i in range(custodians)))
        self.identity = identity or signing_key(name, "identity")
        self.genesis = self._genesis(nonce or secret(name, "nonce"))
        self.chain_id = sha256(b"sidecar/v1/chain\0" + self.genesis).digest()
        self.records: list[Record] = []
        self.signing: dict[int, Ed25519PrivateKey] = {}
        self.seeds: dict[int, bytes] = {}
        self.keys: dict[int, SegmentKeys] = {}
        self.payloads: dict[int, dict[str, Any]] = {}
        self.headers: dict[int, Header] = {}
        self.notes: dict[int, bytes] = {}
        self.openings: dict[int, bytes] = {}
        self.seals: dict[int, bytes] = {}
        self.epoch, self.segment, self.seq = -1, 0, 0
        self.leaf = self.seal_before = self.policy_commit = self.registry_commit = ZERO32
        self.wall_offset, self.mono = START, 1_000 * MILLISECOND
        self.recovered: int | None = None
        self.registered = ""

    def _genesis(self, nonce: bytes) -> bytes:
        each = [
            {"name": c.name, "kem": c.kem, "spki": base64.b64encode(c.spki).decode()} for c in self.custody.custodians
        ]
        value = {
            "type": "GENESIS",
            "format": "sidecar/v1",
            "nonce": nonce.hex(),
            "identity": public(signing_key(self.name, "identity")).hex(),
            "mode": self.custody.mode,
            "custodians": each,
            "authority": None if self.authority is None else public(self.authority).hex(),
            "log": None,
            "retention": self.retention,
        }
        return strictjson.dumps(value)

    # --- epochs and segments

    def open(
        self, *, seed: bytes | None = None, software: str = "scribe 1", accepted_loss: bytes | None = None
    ) -> None:
        """Start an epoch: its note, GENESIS if it is the first, OPEN; ``accepted_loss``: the grant it goes on by."""
        self.epoch += 1
        seed = self.seeds[self.epoch] = seed or secret(self.name, "seed", self.epoch)
        shares = self._wrap(seed)
        self.signing.setdefault(self.segment, signing_key(self.name, "segment", self.segment))
        text = self._epoch_note(seed, shares).text()
        self.notes[self.epoch] = note.sign(text, lines.identity_name(self.chain_id), self.identity)
        self._record(Kind.EPOCH, self.notes[self.epoch])
        self.ratchet = Ratchet(self.chain_id, self.epoch, seed, self.segment)
        self._begin_segment()
        if self.seq == 0:
            self.write(EntryType.GENESIS, self.genesis)
        opening = {
            "epoch_note": epoch_hash(text).hex(),
            "seeds": [{"commit": s.commit.hex(), "sealed": base64.b64encode(s.sealed).decode()} for s in shares],
            "software": software,
            "development": True,
        }
        if accepted_loss is not None:
            opening["accepted_loss"] = authority_note.read(accepted_loss).hash.hex()
        self.openings[self.epoch] = strictjson.dumps({"type": "OPEN", **opening})
        self.write(EntryType.OPEN, self.openings[self.epoch])

    def _wrap(self, seed: bytes) -> list[SealedShare]:
        randomness = [secret(self.name, "share", self.epoch, i) for i in range(len(self.custody.custodians))]
        shares = []
        for index, share in enumerate(self.custody.split(seed, randomness)):
            ctx = self.custody.context(self.chain_id, self.epoch, index)
            sealed = _toy_cipher(self.custody.custodians[index].spki, ctx, share + ctx)
            shares.append(SealedShare(share_commit(ctx, share), sealed))
        return shares

    def _epoch_note(self, seed: bytes, shares: Sequence[SealedShare]) -> EpochNote:
        return EpochNote(
            self.chain_id, self.epoch, self.segment, self.seq, self.leaf, self.seal_before, self.recovered,
            self.custody.digest(), seeds_digest(shares), ratchet.seed_commit(self.chain_id, self.epoch, seed),
            public(self.signing[self.segment]), secret("config"), None, self.wall_offset + self.mono,
        )  # fmt: skip

    def _begin_segment(self) -> None:
        self.keys[self.segment] = self.ratchet.advance()
        self.key = self.keys[self.segment].mac_key
        self.first, self.tree = self.seq, Tree()
        self.clocks: list[tuple[int, int]] = []

    def seal(self, reason: str = "count", **changed: Any) -> None:
        """Close the segment; after ``count`` and ``time`` the next is open. ``changed``: lines an attacker alters."""
        goes_on = reason in ("count", "time")
        if goes_on:
            self.signing.setdefault(self.segment + 1, signing_key(self.name, "segment", self.segment + 1))
        sealed = dataclasses.replace(self._seal(reason), **changed)
        self.sign_seal(sealed)
        self.seal_before = seal_hash(sealed.text())
        self.recovered = self.segment if reason == "crash" else None
        self.segment += 1
        if goes_on:
            self._begin_segment()

    def sign_seal(self, sealed: Seal) -> None:
        """Put a seal on record, signed by whose key it must be."""
        crash = sealed.reason == "crash"
        name = lines.identity_name(self.chain_id) if crash else lines.segment_name(self.chain_id, sealed.segment)
        data = note.sign(sealed.text(), name, self.identity if crash else self.signing[sealed.segment])
        self.seals[sealed.segment] = data
        self._record(Kind.SEAL, data)

    def _seal(self, reason: str) -> Seal:
        crash, keys = reason == "crash", self.keys[self.segment]
        following = self.signing.get(self.segment + 1) if reason in ("count", "time") else None
        headed = [r for r in self.records if r.kind is Kind.HEAD and r.segment == self.segment]
        head = head_hash(note.parse(headed[-1].body).text) if crash and headed else None
        return Seal(
            self.chain_id, self.epoch, self.segment, self.first, self.tree.size, self.tree.root(), self.leaf,
            self.seal_before, self._span(), None if crash else ratchet.mac_key_commit(keys.mac_key),
            None if crash else ratchet.tag_key_commit(keys.tag_key), following and public(following),
            self.policy_commit, self.registry_commit, head, reason, self.wall_offset + self.mono,
        )  # fmt: skip

    def _span(self) -> Span | None:
        if not self.clocks:
            return None
        (wall_first, mono_first), (wall_last, mono_last) = self.clocks[0], self.clocks[-1]
        return Span(wall_first, wall_last, mono_first, mono_last)

    def head(self, seq: int | None = None, *, decided: bool = False) -> bytes:
        """Put the open segment's head on record."""
        data = self.sign_head(self.seq - 1 if seq is None else seq, decided=decided)
        self._record(Kind.HEAD, data, self.seq - 1 if seq is None else seq)
        return data

    def receipt(self, seq: int) -> bytes:
        """What the caller of the decision at ``seq`` holds."""
        return self.sign_head(seq, decided=True)

    def sign_head(self, seq: int, *, decided: bool, **changed: Any) -> bytes:
        """A head about any entry written. ``changed``: lines that differ (``place`` for its seq)."""
        changed = {"seq" if name == "place" else name: value for name, value in changed.items()}
        header, value = self.headers[seq], self.payloads[seq]
        named = None
        if decided:
            named = Decided(value["decision_id"], value["effect"], bytes.fromhex(value["request_digest"]))
        head = Head(self.chain_id, header.epoch, header.segment, seq, self.leaf_of(seq), header.wall_ns, named)
        text = dataclasses.replace(head, **changed).text()
        return note.sign(text, lines.segment_name(self.chain_id, header.segment), self.signing[header.segment])

    def close(self) -> None:
        """End the epoch in order."""
        self.write(EntryType.CLOSE, strictjson.dumps({"type": "CLOSE", "reason": "shutdown"}))
        self.seal("close")

    def crash(self) -> None:
        """End the epoch by a crash: the last head, and the recovery seal that the next start makes."""
        if self.tree.size:
            self.head()
        self.seal("crash")

    # --- entries

    def write(self, kind: EntryType, payload: bytes, *, ref_seq: int = NO_SEQ, agent: str | None = None) -> int:
        """One entry with any payload; its seq."""
        self.mono += MILLISECOND
        salt = secret(self.name, "salt", self.seq)
        tag_key = self.keys[self.segment].tag_key
        header = Header(
            kind, self.epoch, self.seq, self.segment, self.chain_id, self.leaf, entry.payload_commit(salt, payload),
            len(payload), self.wall_offset + self.mono, self.mono, 1, ref_seq,
            ZERO16 if agent is None else ratchet.agent_tag(tag_key, self.seq, agent),
        )  # fmt: skip
        self.payloads[self.seq] = _value(payload)
        return self.append(header, salt, payload)

    def append(self, header: Header, salt: bytes, payload: bytes, raw: bytes | None = None) -> int:
        """Tag and record a header made elsewhere; ``raw`` are bytes to use in place of its own encoding."""
        encoded = raw or header.encode()
        tag = entry_tag(self.key, encoded)
        self.key = ratchet.evolve(self.key)
        self._record(Kind.ENTRY, entry.store(encoded, tag, salt, payload), self.seq)
        self.leaf = entry.leaf(encoded, tag)
        self.tree.append(self.leaf)
        self.headers[self.seq] = header
        self.clocks.append((header.wall_ns, header.mono_ns))
        if header.type is EntryType.POLICY:
            self.policy_commit = header.payload_commit
        if header.type is EntryType.REGISTRY:
            self.registry_commit = header.payload_commit
        self.seq += 1
        return self.seq - 1

    def policy(self) -> int:
        """The policy is activated; its bundle goes before everything."""
        if not any(r.kind is Kind.ATTACHMENT for r in self.records):
            self.records.insert(0, Record(Kind.ATTACHMENT, BUNDLE, 0))
        return self.write(EntryType.POLICY, strictjson.dumps(ACTIVATED))

    def registry(self, text: bytes | None = None, **changed: Any) -> int:
        """A registry is put in force: of :data:`AGENT_KEY` and the executor's key, unless ``text`` is another."""
        text = registry_text() if text is None else text
        value = {
            "type": "REGISTRY",
            "event": "activated",
            "digest": sha256(text).hexdigest(),
            "revision": "",
            "source": {"kind": "file", "place": "registry.json"},
            "from": None,
            "cause": "",
            "registry": text.decode(),
        }
        self.registered = value["digest"]
        return self.write(EntryType.REGISTRY, strictjson.dumps(value | changed))

    def signed(self, kind: str, by: str, key: PrivateKey, digest: bytes, /, **changed: Any) -> dict[str, Any]:
        """A principal who signed a message with this digest. ``changed``: lines of the statement that differ."""
        spki = public_spki(key)
        lines = {
            "kind": kind, "audience": self.chain_id, "epoch": self.epoch, "by": by, "key": key_id(spki),
            "digest": digest, "time": self.wall_offset + self.mono, "nonce": secret(self.name, "nonce", self.seq)[:16],
        }  # fmt: skip
        text = Statement(**(lines | changed)).encode()
        return {
            "id": by,
            "proof": "signature",
            "roles": ["billing"],
            "attributes": {"team": "finance"},
            "statement": text.decode(),
            "signature": base64.b64encode(sign(key, text)).decode(),
            "key": base64.b64encode(spki).decode(),
        }

    def signed_decision(self, key: PrivateKey | None = None, *, by: str = "billing-agent", **changed: Any) -> int:
        """A decision on a request that its agent signed, with a permit; ``changed``: lines of the statement."""
        value = self.decision_value("ALLOW", executor=EXECUTOR)
        digest = bytes.fromhex(value["request_digest"])
        agent = self.signed("request", by, key or AGENT_KEY, digest, **changed)
        named = {"revision": "", "digest": self.registered}
        return self.write(
            EntryType.DECISION, strictjson.dumps({**value, "agent": agent, "registry": named}), agent=agent["id"]
        )

    def signed_outcome(self, decision: int, **changed: Any) -> int:
        """The outcome of a signed decision, which its executor signed."""
        return self.permitted_outcome(decision, self.permit(decision).sign(self.identity), **changed)

    def vouched_decision(self, effect: str = "ALLOW", **members: Any) -> int:
        """A decision on a request whose agent the executor named, as a gateway that carries it out; ``members`` of the
        agent that differ."""
        value = self.decision_value(effect, "gateway", executor=EXECUTOR)
        value["agent"] |= members
        return self.write(EntryType.DECISION, strictjson.dumps(value), agent=value["agent"]["id"])

    def vouched_outcome(self, decision: int, **members: Any) -> int:
        """What the gateway reports of it; ``members`` of the reporter that differ."""
        permit = self.permit(decision).sign(self.identity)
        by = {**registered(EXECUTOR, "gateway"), **members}
        return self.permitted_outcome(decision, permit, by=by)

    def permitted_outcome(
        self, decision: int, permit: bytes, /, started: int = 0, by: dict[str, Any] | None = None, **changed: Any
    ) -> int:
        """The outcome that its executor reports with this permit; begun at ``started``, or the decision's own time.

        ``by``: who reports it, where that is not who signs it."""
        about = self.payloads[decision]
        done = arguments_digest(about["request"]["arguments"].encode())
        began = started or self.headers[decision].wall_ns
        said = Outcome(
            EXECUTOR, about["decision_id"], "executed", b'{"ok":true}', b"", permit, done, "200", began, 1_000
        )
        value = {
            **self.outcome_value(decision),
            "agent": {name: about["agent"][name] for name in ("id", "proof")},
            "by": by or self.signed("outcome", EXECUTOR, EXECUTOR_KEY, said.digest(), **changed),
            "response": '{"ok":true}',
            "arguments_digest": done.hex(),
            "permit": permit.decode(),
            "downstream_status": "200",
            "started_ns": str(began),
            "duration_ns": "1000",
        }
        agent = about["agent"]["id"]
        return self.write(EntryType.OUTCOME, strictjson.dumps(value), ref_seq=decision, agent=agent)

    def permit(self, decision: int) -> Permit:
        """The permit that the decision's executor was given."""
        about = self.payloads[decision]
        asked = about["request"]
        return Permit(
            self.chain_id, about["decision_id"], decision, about["agent"]["id"], EXECUTOR,
            target_digest(asked["action"], asked["resource"]["type"], asked["resource"]["id"]),
            arguments_digest(asked["arguments"].encode()), int(about["permit"]["not_after"]),
        )  # fmt: skip

    def decision(self, effect: str = "ALLOW", *, proof: str = "asserted", bulk: int = 0, **changed: Any) -> int:
        """One DECISION; ``bulk`` bytes more of arguments, ``changed`` members."""
        value = self.decision_value(effect, proof, bulk) | changed
        agent = None if proof == "asserted" else value["agent"]["id"]
        return self.write(EntryType.DECISION, strictjson.dumps(value), agent=agent)

    def decision_value(
        self, effect: str, proof: str = "asserted", bulk: int = 0, *, executor: str = ""
    ) -> dict[str, Any]:
        """The payload that a decision at the next seq has."""
        arguments = strictjson.dumps({"amount": 12 + self.seq, "currency": "EUR", "note": "x" * bulk})
        asked = Request(
            "billing-agent", Option("refund", "invoice", "inv-1", arguments), b'{"ticket":7}', executor=executor
        )
        known = {"id": executor, "roles": ["billing"], "attributes": {"team": "finance"}}
        until = {"not_after": str(self.wall_offset + self.mono + 60_000_000_000)}
        reasons = [{"code": "within_limit", "message": "below the limit of the role"}]
        return {
            "type": "DECISION",
            "decision_id": f"019aaf3c-0000-7000-8000-{self.seq:012x}",
            "time": "2026-01-01T00:00:01.000000000Z",
            "agent": (registered if self.registered else principal)("billing-agent", proof),
            "registry": {"revision": "", "digest": self.registered} if self.registered else None,
            "request": {
                "action": "refund",
                "resource": {"type": "invoice", "id": "inv-1"},
                "arguments": arguments.decode(),
                "context": '{"ticket":7}',
                "purpose": "",
                "alternatives": [],
                "trace_parent": "",
                "idempotency_key": "",
                "last_receipt": "",
                "executor": executor,
                "delegations": [],
                "approval_of": "",
            },
            "request_digest": asked.digest().hex(),
            "effect": effect,
            "enforced": True,
            "cause": "policy",
            "reasons": reasons,
            "obligations": [],
            "alternatives": [],
            "result": {"effect": effect, "reasons": reasons},
            "policy": dict(POLICY),
            "peer": "unix:",
            "executor": known if executor else None,
            "delegators": [],
            "approval": None,
            "terms": {**TERMS, "roles": list(TERMS["roles"])} if effect == "REQUIRE_APPROVAL" else None,
            "permit": until if executor and effect == "ALLOW" else None,
            "timings": {"evaluate_ns": "41000"},
        }

    def outcome(self, decision: int, *, refer: int | None = None) -> int:
        """What became of the decision at ``decision``; ``refer``: another reference in the header."""
        value = self.outcome_value(decision)
        return self.write(EntryType.OUTCOME, strictjson.dumps(value), ref_seq=decision if refer is None else refer)

    def outcome_value(self, decision: int) -> dict[str, Any]:
        """The payload of an outcome of the decision at ``decision``."""
        return {
            "type": "OUTCOME",
            "decision_id": self.payloads[decision]["decision_id"],
            "decision_seq": decision,
            "agent": {"id": "billing-agent", "proof": "asserted"},
            "by": principal("billing-agent", "asserted"),
            "status": "executed",
            "response": None,
            "response_digest": None,
            "arguments_digest": None,
            "permit": "",
            "downstream_status": "",
            "started_ns": "",
            "duration_ns": "",
        }

    def rejected(self, **changed: Any) -> int:
        """A refused request; ``changed`` members."""
        value = {
            "type": "REJECTED", "call": "Decide", "code": "INVALID_ARGUMENT", "field": "arguments",
            "cause": "not JSON", "peer": "unix:", "principal": "", "decision_id": "", "count": 1,
        }  # fmt: skip
        return self.write(EntryType.REJECTED, strictjson.dumps(value | changed))

    def clock(self, step: int) -> int:
        """The wall clock steps, and that is put on record."""
        self.wall_offset += step
        return self.write(EntryType.CLOCK, strictjson.dumps({"type": "CLOCK", "step_ns": str(step)}))

    # --- with the authority's leave

    def grant(self, act: acts.Act, *, key: Ed25519PrivateKey | None = None, time: int | None = None) -> bytes:
        """An authority note, in its place; ``key``: another's."""
        signer = key or self.authority
        assert signer is not None
        record = authority_note.compose(act, self.wall_offset + self.mono if time is None else time, signer)
        self.records.append(Record(Kind.AUTHORITY, record, 0))
        given = [r for r in self.records if r.kind is Kind.AUTHORITY]
        rest = [r for r in self.records if r.kind is not Kind.AUTHORITY]
        at = sum(r.kind is Kind.ATTACHMENT for r in rest)
        self.records = [*rest[:at], *sorted(given, key=lambda r: sha256(r.body).digest()), *rest[at:]]
        return record

    def run(self, first: int, last: int) -> acts.Run:
        """A run of sealed segments, as a note names it."""
        return acts.Run(first, last, seal_hash(note.parse(self.seals[last]).text))

    def strip(self, *segments: int) -> list[int]:
        """Take the payloads that may be pruned away from these segments; the entries' numbers."""
        taken: list[int] = []
        for r in self.records:
            if r.kind is Kind.ENTRY and r.segment in segments and EntryType(r.body[8]) in PRUNABLE:
                r.kind, r.body = Kind.BARE, r.body[:216]
                taken.append(r.seq or 0)
        return taken

    # --- what comes out

    def _record(self, kind: Kind, body: bytes, seq: int | None = None) -> None:
        self.records.append(Record(kind, body, self.segment, seq))

    def leaf_of(self, seq: int) -> bytes:
        body = next(r.body for r in self.records if r.kind is Kind.ENTRY and r.seq == seq)
        return entry.leaf(body[:184], body[184:216])

    def stream(self) -> bytes:
        """The whole ledger."""
        return stream(self.records)

    def segment_file(self, segment: int) -> list[Record]:
        """One sealed segment with what comes before it as context."""
        own = [r for r in self.records if r.segment == segment]
        if segment == 0:
            return own
        header = Seal.parse(note.parse(self.seals[segment]).text)
        context = [Record(Kind.GENESIS, self.genesis, segment)]
        if own[0].kind is Kind.EPOCH:
            context.append(own.pop(0))
        else:
            context.append(Record(Kind.EPOCH, self.notes[header.epoch], segment))
            context.append(Record(Kind.OPEN, self.openings[header.epoch], segment))
        return [*context, Record(Kind.SEAL_BEFORE, self.seals[segment - 1], segment), *own]

    @property
    def keyed(self) -> Evidence:
        """A verifier with all custodians' keys."""
        return Evidence(open_seed=toy_open)


def _value(payload: bytes) -> dict[str, Any]:
    try:
        return strictjson.parse_object(payload)
    except Exception:
        return {}


def flip(body: bytes, at: int, mask: int = 1) -> bytes:
    """``body`` with one byte changed."""
    return body[:at] + bytes((body[at] ^ mask,)) + body[at + 1 :]


def story() -> Scribe:
    """Three epochs of every type of entry: sealed by count and time, empty, closed, crashed, and an open tail."""
    s = Scribe()
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    s.decision("DENY")
    s.decision(proof="mtls")
    s.rejected()
    s.seal("time")
    s.seal("time")
    s.clock(5_000_000_000)
    s.decision("REQUIRE_APPROVAL")
    s.close()
    s.open()
    s.decision()
    s.crash()
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    s.decision()
    s.decision("DENY")
    s.head()
    return s


def signed_story() -> Scribe:
    """A registry, what an agent and its executor signed, a segment after it, and a second epoch."""
    s = Scribe("signed")
    s.open()
    s.policy()
    s.registry()
    s.signed_outcome(s.signed_decision())
    s.seal("count")
    s.signed_decision()
    s.decision("DENY")
    s.decision(proof="mtls")
    s.close()
    s.open()
    s.registry(event="resumed")
    s.signed_decision()
    s.head()
    return s


def vouched_story() -> Scribe:
    """A gateway names an agent, once by a SPIFFE id, and reports what became of it; a denial; no head."""
    s = Scribe("vouched")
    s.open()
    s.policy()
    spiffe = "spiffe://prod.example/billing"
    s.registry(registry_text(spiffe_ids=[{"id": spiffe}]))
    s.vouched_outcome(s.vouched_decision())
    s.vouched_decision("DENY")
    s.seal("count")
    s.vouched_decision(gateway_proof="mtls", certificate=_IN_TRANSIT["certificate"], spiffe_id=spiffe)
    return s
