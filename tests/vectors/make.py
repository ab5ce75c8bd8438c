"""Writes worked examples of each construction: of LEDGER.md to `ledger/`, of SIGNING.md (`signing.py`) to `signing/`.

`.venv/bin/python -m tests.vectors.make` writes them anew; `tests/chain/test_vectors.py` fails where they are stale and
computes each figure a second time, by other code. Nothing here asks the verifier: what it must say of the streams is
written down by hand. `wrapped.json` is made once, since encryption takes fresh randomness; it is kept unless missing.
"""

from __future__ import annotations

import dataclasses
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sidecar.chain import acts, authority_note, entry, merkle, note, ratchet, seeds, strictjson
from sidecar.chain.acts import Position, Run
from sidecar.chain.digests import arguments_digest
from sidecar.chain.entry import EntryType, Header
from sidecar.chain.epoch import epoch_hash
from sidecar.chain.head import head_hash
from sidecar.chain.ratchet import Ratchet
from sidecar.chain.request import Option, Request
from sidecar.chain.seal import seal_hash
from sidecar.chain.seeds import Custodian, Custody, SealedShare
from sidecar.chain.stream import MAGIC, Kind
from tests.scribe import (
    START,
    Record,
    Scribe,
    flip,
    public,
    secret,
    signed_story,
    signing_key,
    story,
    stream,
    vouched_story,
)
from tests.vectors import discreet, signing

FOLDER = Path(__file__).parent / "ledger"
SIGNING = FOLDER.with_name("signing")
WRAPPED = "wrapped.json"
Vectors = dict[str, bytes]

# Kept as bytes: another zlib may pack the same payload otherwise, and be right.
PACKED_PAYLOAD = b'{"type":"CLOCK","step_ns":"1","x":"' + b"0123456789" * 200 + b'"}'
PACKED = bytes.fromhex(
    "78daab562aa92c4855b25272f6f177f656d2512a2e492d88cf2b068a1802791540dac0d0c8d8c4d4ccdcc2729435ca1a658db24659a3ac51d6"
    "506529d50200a46da4a1"
)


def build() -> Vectors:
    """Every file but `wrapped.json`, by name."""
    s = story()
    files = {"derivations.json": _json(derivations(s)), "notes.json": _json(notes(s)), "merkle.json": _json(trees())}
    files["grants.json"] = _json(grants(s))
    files["personal.json"] = _json(discreet.figures())
    streams: list[dict[str, Any]] = []
    for name, data, expected in [*good(s), *bad(), *opened()]:
        files[f"{name}.bin"] = data
        streams.append({"file": f"{name}.bin", **expected})
    files["streams.json"] = _json(streams)
    return files


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


# --- figures


def derivations(s: Scribe) -> dict[str, Any]:
    """One worked example of each formula; bytes are hex, what the ledger holds as text is text."""
    return {
        "chain_id": {"genesis": s.genesis.decode(), "chain_id": s.chain_id.hex()},
        "entry": _entry(s),
        "compressed": {"payload": PACKED_PAYLOAD.decode(), "codec": 1, "stored": PACKED.hex()},
        "keys": _keys(s),
        "agent_tag": _agent_tag(s),
        "request_digest": _requests(),
        "wrapped_seeds": [_custody(mode, n) for mode in ("any", "all") for n in (0, 1, 3)],
    }


def _entry(s: Scribe) -> dict[str, Any]:
    body = next(r.body for r in s.records if r.seq == 4)
    stored = entry.StoredEntry.parse(body)
    header = Header.decode(stored.header)
    fields = {k: v.hex() if isinstance(v, bytes) else int(v) for k, v in _members(header)}
    key = ratchet_key(s, header)
    return {
        "seq": 4,
        "fields": fields,
        "header": stored.header.hex(),
        "key": key.hex(),
        "tag": stored.tag.hex(),
        "leaf": entry.leaf(stored.header, stored.tag).hex(),
        "salt": stored.salt.hex(),
        "payload": stored.payload(header.payload_len).decode(),
        "stored": body.hex(),
    }


def _members(header: Header) -> list[tuple[str, Any]]:
    return [(f.name, getattr(header, f.name)) for f in dataclasses.fields(header)]


def ratchet_key(s: Scribe, header: Header) -> bytes:
    """The key of an entry of the story's first segment."""
    key = s.keys[header.segment].mac_key
    for _ in range(header.seq):
        key = ratchet.evolve(key)
    return key


def _keys(s: Scribe) -> dict[str, Any]:
    r = Ratchet(s.chain_id, 2, s.seeds[2], 5)
    segments = []
    for number in (5, 6, 7):
        keys = r.advance()
        segments.append(
            {
                "segment": number,
                "K": keys.mac_key.hex(),
                "T": keys.tag_key.hex(),
                "mac_key": ratchet.mac_key_commit(keys.mac_key).hex(),
                "tag_key": ratchet.tag_key_commit(keys.tag_key).hex(),
                "k_1": ratchet.evolve(keys.mac_key).hex(),
                "k_2": ratchet.evolve(ratchet.evolve(keys.mac_key)).hex(),
            }
        )
    commit = ratchet.seed_commit(s.chain_id, 2, s.seeds[2]).hex()
    return {"chain_id": s.chain_id.hex(), "epoch": 2, "seed": s.seeds[2].hex(), "seed_commit": commit} | {
        "segments": segments
    }


def _agent_tag(s: Scribe) -> dict[str, Any]:
    key, agent = s.keys[1].tag_key, "spiffe://example.org/agent/é"
    return {"T": key.hex(), "seq": 6, "agent": agent, "agent_tag": ratchet.agent_tag(key, 6, agent).hex()}


def _requests() -> list[dict[str, Any]]:
    plain = Request("a", Option("", "", ""))
    return [{**_request(r), "digest": r.digest().hex()} for r in (plain, signing.REQUEST)]


def _request(r: Request) -> dict[str, Any]:
    fields = ("agent", "context", "purpose", "trace_parent", "idempotency_key", "last_receipt")
    texts = {f: _hex_of(getattr(r, f)) for f in fields}
    return {**texts, "wanted": _option(r.wanted), "alternatives": [_option(o) for o in r.alternatives]}


def _option(o: Option) -> dict[str, str]:
    return {f.name: _hex_of(getattr(o, f.name)) for f in dataclasses.fields(o)}


def _hex_of(value: str | bytes) -> str:
    return (value.encode() if isinstance(value, str) else value).hex()


def _custody(mode: str, n: int) -> dict[str, Any]:
    kems = ("hpke", "rsa-oaep", "hpke")
    custody = Custody(mode, tuple(Custodian(f"c{i}", kems[i], secret("spki", i) * (i + 1)) for i in range(n)))
    chain, epoch, seed = secret("chain"), 5, secret("seed")
    randomness = [secret("random", i) for i in range(n)]
    shares, wrapped = [], []
    for index, share in enumerate(custody.split(seed, randomness)):
        ctx = custody.context(chain, epoch, index)
        sealed = secret("sealed", index) * (index + 2)
        wrapped.append(SealedShare(seeds.share_commit(ctx, share), sealed))
        shares.append(
            {"share": share.hex(), "ctx": ctx.hex(), "commit": wrapped[-1].commit.hex(), "sealed": sealed.hex()}
        )
    return {
        "mode": mode,
        "custodians": [{"kem": c.kem, "spki": c.spki.hex()} for c in custody.custodians],
        "chain_id": chain.hex(),
        "epoch": epoch,
        "seed": seed.hex(),
        "shares": shares,
        "custodians_digest": custody.digest().hex(),
        "seeds_digest": seeds.seeds_digest(wrapped).hex(),
    }


def trees() -> list[dict[str, Any]]:
    """RFC 6962 roots over n leaf inputs of 216 bytes: leaf input i is the byte i, 216 times."""
    found = []
    for n in (0, 1, 2, 3, 4, 5, 7, 8, 9):
        tree = merkle.Tree()
        for i in range(n):
            tree.append(merkle.leaf_hash(bytes((i,)) * 216))
        found.append({"size": n, "root": tree.root().hex()})
    return found


def notes(s: Scribe) -> list[dict[str, str]]:
    """Each kind of note as it stands in `good.bin`: text, hash, key and the signed bytes."""
    chosen = [
        ("epoch", s.notes[0], epoch_hash, s.identity),
        ("epoch, after a crash", s.notes[2], epoch_hash, s.identity),
        ("seal, count", s.seals[0], seal_hash, s.signing[0]),
        ("seal, empty", s.seals[2], seal_hash, s.signing[2]),
        ("seal, close", s.seals[3], seal_hash, s.signing[3]),
        ("seal, crash", s.seals[4], seal_hash, s.identity),
        ("head", s.records[-1].body, head_hash, s.signing[6]),
        ("receipt", s.receipt(9), head_hash, s.signing[3]),
    ]
    return [
        {
            "what": what,
            "text": note.parse(data).text,
            "hash": hashed(note.parse(data).text).hex(),
            "private_key": key.private_bytes_raw().hex(),
            "public_key": public(key).hex(),
            "signed": data.decode(),
        }
        for what, data, hashed, key in chosen
    ]


def grants(s: Scribe) -> list[dict[str, str]]:
    """One authority note of each act, with its body."""
    key, place = signing_key("authority"), Position(3, 9, secret("kept"))
    seal = seal_hash(note.parse(s.seals[1]).text)
    given: list[acts.Act] = [
        acts.Prune(s.chain_id, (Run(0, 0, secret("seal")), Run(1, 1, seal)), "retention of 90 days is over"),
        acts.Erase(s.chain_id, secret("subject")[:16], "asked for on 2026-01-01, ticket 12"),
        acts.AcceptLoss(s.chain_id, place, Position(5, 9, secret("kept")), "the volume was lost; ticket é-7"),
    ]
    found = []
    for act in given:
        record = authority_note.compose(act, START, key)
        signed, body = authority_note.split(record)
        found.append(
            {
                "act": act.ACT,
                "body": body.decode(),
                "note": signed.decode(),
                "hash": authority_note.grant_hash(note.parse(signed).text).hex(),
                "public_key": public(key).hex(),
                "grant": record.hex(),
            }
        )
    return found


# --- streams


Stream = tuple[str, bytes, dict[str, Any]]


def expect(s: Scribe, verdict: str, place: tuple[int | None, int | None], **more: Any) -> dict[str, Any]:
    """What a verifier must say without a key, and, unless ``key_verdict`` or ``key_place`` differ, with one."""
    with_key = {"verdict": more.pop("key_verdict", verdict)}
    key_place = more.pop("key_place", place)
    return {
        "why": more.pop("why"),
        "chain": s.chain_id.hex(),
        "seeds": {str(epoch): seed.hex() for epoch, seed in s.seeds.items()},
        "receipts": more.pop("receipts", []),
        "openings": more.pop("openings", None),
        "without_key": {"verdict": verdict, "segment": place[0], "seq": place[1]},
        "with_key": {**with_key, "segment": key_place[0], "seq": key_place[1]},
    }


NOWHERE = (None, None)


def good(s: Scribe) -> list[Stream]:
    receipts = [s.receipt(n).decode() for n in (3, 5, 9, 18)]
    whole = expect(s, "UNANCHORED", NOWHERE, why="a whole ledger: three epochs, every type of entry", receipts=receipts)
    signed = signed_story()
    why = "a registry, a request and an outcome that were signed, two epochs"
    found: list[Stream] = [
        ("good", s.stream(), whole),
        ("signed", signed.stream(), expect(signed, "UNANCHORED", NOWHERE, why=why)),
    ]
    vouched = vouched_story()
    vouched.head()
    why = "an agent whom a gateway named, and what the gateway reported"
    found.append(("vouched", vouched.stream(), expect(vouched, "UNANCHORED", NOWHERE, why=why)))
    gone = pruned()
    why = "the payloads of two segments are pruned with the authority's note; PRUNED with a receipt of a pinned log"
    found.append(("pruned", gone.stream(), expect(gone, "UNANCHORED", NOWHERE, why=why)))
    for number in (0, 1, 2, 4):
        why = f"segment {number} of good.bin as a segment file"
        found.append((f"segment-{number}", stream(s.segment_file(number)), expect(s, "UNANCHORED", NOWHERE, why=why)))
    return found


def opened() -> list[Stream]:
    """Sealed personal fields; openings are given with and without a key."""
    found: list[Stream] = []
    for case in discreet.cases():
        text = None if case.openings is None else case.openings.encode().decode()
        expected = expect(case.ledger, case.verdict, case.place, why=case.why, openings=text)
        found.append((case.name, case.ledger.stream(), expected))
    return found


def pruned(key: str = "authority") -> Scribe:
    """Two sealed segments without the payloads that may be pruned, by a note of this key."""
    s = Scribe("pruned", authority=True)
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    s.decision("DENY", proof="mtls")
    s.rejected()
    s.close()
    s.grant(acts.Prune(s.chain_id, (s.run(0, 1),), "retention is over"), key=signing_key("pruned", key))
    s.strip(0, 1)
    return s


def short() -> Scribe:
    """A ledger of one epoch: two sealed segments, one of them empty, and an open one with a head."""
    s = Scribe("short")
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    s.seal("time")
    s.decision("DENY")
    s.rejected()
    s.head()
    return s


def _at(records: list[Record], seq: int) -> int:
    return next(i for i, r in enumerate(records) if r.kind is Kind.ENTRY and r.seq == seq)


def _seal(records: list[Record], segment: int) -> int:
    return next(i for i, r in enumerate(records) if r.kind is Kind.SEAL and r.segment == segment)


def bad() -> list[Stream]:
    return [*_edited(), *_moved(), *_malformed(), *_by_insiders(), *_outcomes(), *_against_receipts(), *_unauthorised()]


def _unauthorised() -> list[Stream]:
    forged, unasked = pruned("mallory"), pruned()
    unasked.records = [r for r in unasked.records if r.kind is not Kind.AUTHORITY]
    why = "payloads are gone, and the note that allows it is not the authority's"
    found = [("bad-pruned-forged", forged.stream(), expect(forged, "INCOMPLETE", (0, 3), why=why))]
    why = "payloads are gone, and nothing allows it"
    return [*found, ("bad-pruned", unasked.stream(), expect(unasked, "INCOMPLETE", (0, 3), why=why))]


def _edited() -> list[Stream]:
    s = short()
    found: list[Stream] = []
    for what, offset in (("type", 8), ("wall", 139), ("prev", 70), ("commit", 100), ("tag", 190), ("salt", 230)):
        records = list(s.records)
        i = _at(records, 3)
        records[i] = Record(Kind.ENTRY, flip(records[i].body, offset), 0, 3)
        verdict = "MALFORMED" if what == "type" else "TAMPERED"
        key = {"key_verdict": "TAMPERED"}
        why = f"a bit of entry 3 is flipped in its {what}"
        found.append((f"bad-flip-{what}", stream(records), expect(s, verdict, (0, 3), why=why, **key)))
    records = list(s.records)
    records[_seal(records, 0)] = Record(Kind.SEAL, records[_seal(records, 0)].body.replace(b"time 1", b"time 2"), 0)
    found.append(
        ("bad-seal-edited", stream(records), expect(s, "TAMPERED", (0, None), why="a line of seal 0 is edited"))
    )
    return found


def _moved() -> list[Stream]:
    s = short()
    found: list[Stream] = []
    records = list(s.records)
    del records[_at(records, 3)]
    found.append(("bad-deleted", stream(records), expect(s, "TAMPERED", (0, 3), why="entry 3 is deleted")))
    records = list(s.records)
    i = _at(records, 2)
    records[i], records[i + 1] = records[i + 1], records[i]
    found.append(("bad-reordered", stream(records), expect(s, "TAMPERED", (0, 2), why="entries 2 and 3 are swapped")))
    records = list(s.records)
    del records[_seal(records, 1)]
    why = "the empty segment 1 is dropped"
    found.append(("bad-empty-segment-dropped", stream(records), expect(s, "TAMPERED", (1, None), why=why)))
    records = [r for r in s.records if r.seq != 6 or r.kind is not Kind.ENTRY]
    why = "entry 6 is cut off, and the head was signed for it"
    found.append(("bad-tail-cut", stream(records), expect(s, "INCOMPLETE", (2, 6), why=why)))
    records = list(s.records)
    records.pop()
    why = "the open segment's head is gone"
    found.append(("bad-head-gone", stream(records), expect(s, "TAMPERED", (2, 5), why=why)))
    why = "the stream ends within the head"
    found.append(("bad-cut-within-a-record", s.stream()[:-10], expect(s, "MALFORMED", (2, 7), why=why)))
    return found


def _malformed() -> list[Stream]:
    found: list[Stream] = []
    s = Scribe("short")
    s.open()
    seq = s.write(EntryType.CLOCK, b'{"type":"CLOCK","step_ns":"1","step\\u005fns":"2"}')
    s.head()
    why = "a name occurs twice in a payload, once escaped; all tags are right"
    found.append(("bad-json", s.stream(), expect(s, "MALFORMED", (0, seq), why=why)))
    s = Scribe("short")
    s.open()
    s.decision()
    s.seal("count")
    data = s.records[-1].body
    other = note.parse(note.sign(note.parse(data).text, "example.org/other", signing_key("other")))
    s.records[-1].body = data + note.encode(other).partition(b"\n\n")[2]
    why = "seal 0 has a further signature line"
    found.append(("bad-signature-line", s.stream(), expect(s, "MALFORMED", (0, None), why=why)))
    s = short()
    bomb = MAGIC + s.stream()[8:] + b"\x05\xff\xff\xff\xff"
    why = "a record says it is 4 GiB long"
    found.append(("bad-length", bomb, expect(s, "MALFORMED", (2, 7), why=why)))
    return found


def _by_insiders() -> list[Stream]:
    found: list[Stream] = []
    s = Scribe("short")
    s.open()
    s.wall_offset += 3_600_000_000_000
    seq = s.decision()
    s.head()
    why = "the wall clock steps by an hour and no CLOCK entry says so"
    found.append(("bad-clock", s.stream(), expect(s, "CLOCK", (0, seq), why=why)))
    s = Scribe("short", identity=signing_key("mallory"))
    s.open()
    s.decision("DENY")
    s.head()
    why = "a custodian, who can make every tag, wrote all of it anew; the identity key is not theirs"
    found.append(("bad-rewritten-by-custodian", s.stream(), expect(s, "TAMPERED", (0, 0), why=why)))
    s = Scribe("short")
    s.open()
    s.key = secret("guess")
    s.decision()
    s.head()
    why = "entry 2 has a wrong tag that everything else fits"
    places: dict[str, Any] = {"key_verdict": "TAMPERED", "key_place": (0, 2)}
    found.append(("bad-tag", s.stream(), expect(s, "UNANCHORED", NOWHERE, why=why, **places)))
    return found


def _outcomes() -> list[Stream]:
    found: list[Stream] = []
    s = Scribe("short")
    s.open()
    seq = s.outcome(s.decision("DENY"))
    s.head()
    why = "an outcome of a DENY that was enforced"
    found.append(("bad-outcome-of-deny", s.stream(), expect(s, "TAMPERED", (0, seq), why=why)))
    s = Scribe("short")
    s.open()
    decision = s.decision()
    s.outcome(decision)
    s.seal("count")
    seq = s.outcome(decision)
    s.head()
    why = "a decision has a second outcome, in the next segment"
    found.append(("bad-outcome-second", s.stream(), expect(s, "TAMPERED", (1, seq), why=why)))
    s = Scribe("short")
    s.open()
    decision = s.decision()
    value = s.outcome_value(decision) | {"arguments_digest": arguments_digest(b'{"amount":1000000}').hex()}
    seq = s.write(EntryType.OUTCOME, strictjson.dumps(value), ref_seq=decision)
    s.head()
    why = "an outcome was reported for other arguments than were decided on"
    found.append(("bad-outcome-arguments", s.stream(), expect(s, "TAMPERED", (0, seq), why=why)))
    return found


def _against_receipts() -> list[Stream]:
    s = short()
    fork = s.sign_head(3, decided=False, leaf=secret("another")).decode()
    beyond = s.sign_head(6, decided=False, place=9).decode()
    return [
        ("bad-fork", s.stream(), expect(s, "FORK", (0, 3), why="a receipt names another leaf", receipts=[fork])),
        (
            "bad-beyond",
            s.stream(),
            expect(s, "INCOMPLETE", (2, 9), why="a receipt names a later entry", receipts=[beyond]),
        ),
    ]


# --- wrapped seeds, made once


def wrap() -> bytes:
    """A share sealed to a fresh key of each kind."""
    chain, epoch, share = secret("chain"), 5, secret("share")
    hpke_key = X25519PrivateKey.generate()
    rsa_key = rsa.generate_private_key(65537, 2048)
    custody = Custody("any", (_custodian("hpke", hpke_key), _custodian("rsa-oaep", rsa_key)))
    contexts = [custody.context(chain, epoch, i) for i in range(2)]
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
    sealed = [
        suite.encrypt(share + contexts[0], hpke_key.public_key(), contexts[0]),
        rsa_key.public_key().encrypt(share + contexts[1], oaep),
    ]
    keys = (hpke_key, rsa_key)
    return _json(
        {
            "mode": "any",
            "chain_id": chain.hex(),
            "epoch": epoch,
            "share": share.hex(),
            "custodians": [
                {
                    "kem": custody.custodians[i].kem,
                    "private_key": _pkcs8(keys[i]),
                    "spki": b64encode(custody.custodians[i].spki).decode(),
                    "ctx": contexts[i].hex(),
                    "commit": seeds.share_commit(contexts[i], share).hex(),
                    "sealed": b64encode(sealed[i]).decode(),
                }
                for i in range(2)
            ],
        }
    )


def _custodian(kem: str, key: X25519PrivateKey | rsa.RSAPrivateKey) -> Custodian:
    return Custodian(kem, kem, key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _pkcs8(key: X25519PrivateKey | rsa.RSAPrivateKey) -> str:
    return b64encode(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()


def main() -> None:
    _write(FOLDER, build())
    _write(SIGNING, signing.files())
    if not (FOLDER / WRAPPED).exists():
        (FOLDER / WRAPPED).write_bytes(wrap())


def _write(folder: Path, files: Vectors) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.name not in files and old.name != WRAPPED:
            old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
