"""`tests/vectors/ledger/`: fresh, and every figure in it computed a second time from LEDGER.md alone.

The second computation uses hashlib, hmac, struct and zlib, and `cryptography` for Ed25519, HPKE and RSA; nothing of
`sidecar.chain`. Only the verdicts on the streams come from our verifier: they were written down by hand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import struct
import zlib
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from sidecar.verify import Evidence, parse_openings, verify_stream
from tests.vectors import make

FOLDER = Path(make.FOLDER)


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_bytes())


def H(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def HMAC(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def expand(r: bytes, label: bytes, epoch: int, segment: int) -> bytes:
    """HKDF-Expand of RFC 5869 for 32 bytes: T(1) alone."""
    return HMAC(r, label, u32(epoch), u64(segment), b"\x01")


def u32(n: int) -> bytes:
    return struct.pack(">I", n)


def u64(n: int) -> bytes:
    return struct.pack(">Q", n)


def unhex(value: str) -> bytes:
    return bytes.fromhex(value)


DERIVED = load("derivations.json")


def test_files_are_fresh() -> None:
    files = make.build()
    on_disk = {p.name: p.read_bytes() for p in FOLDER.iterdir()}
    assert on_disk.pop(make.WRAPPED)
    assert on_disk.keys() == files.keys(), "run `.venv/bin/python -m tests.vectors.make`"
    stale = [name for name in files if files[name] != on_disk[name]]
    assert not stale, "run `.venv/bin/python -m tests.vectors.make`"


def test_chain_id() -> None:
    v = DERIVED["chain_id"]
    assert H(b"sidecar/v1/chain\0", v["genesis"].encode()).hex() == v["chain_id"]


def test_entry() -> None:
    v = DERIVED["entry"]
    f = {k: unhex(x) if isinstance(x, str) else x for k, x in v["fields"].items()}
    header = b"SDCREC\0\1" + bytes((f["type"], 1, 0, 0)) + u32(f["epoch"]) + u64(f["seq"]) + u64(f["segment"])
    header += f["chain_id"] + f["prev"] + f["payload_commit"] + u32(f["payload_len"]) + u32(0)
    header += struct.pack(">q", f["wall_ns"]) + u64(f["mono_ns"]) + u32(f["clock_error_ms"]) + u32(0)
    header += u64(f["ref_seq"]) + f["agent_tag"]
    assert header.hex() == v["header"] and len(header) == 184
    payload, salt, tag = v["payload"].encode(), unhex(v["salt"]), unhex(v["tag"])
    assert f["payload_commit"] == H(b"sidecar/v1/payload\0", salt, payload) and f["payload_len"] == len(payload)
    assert tag == HMAC(unhex(v["key"]), b"sidecar/v1/entry\0", header)
    assert v["leaf"] == H(b"\0", header, tag).hex()
    assert unhex(v["stored"]) == header + tag + salt + b"\0" + payload


def test_compressed() -> None:
    v = DERIVED["compressed"]
    stored = unhex(v["stored"])
    assert zlib.decompress(stored).decode() == v["payload"] and len(stored) < len(v["payload"])


def test_keys() -> None:
    v = DERIVED["keys"]
    chain, epoch, seed = unhex(v["chain_id"]), v["epoch"], unhex(v["seed"])
    assert v["seed_commit"] == H(b"sidecar/v1/seed\0", chain, u32(epoch), seed).hex()
    r = HMAC(chain, seed)
    for segment in v["segments"]:
        i = segment["segment"]
        k = expand(r, b"sidecar/v1/mac\0", epoch, i)
        t = expand(r, b"sidecar/v1/agent-tag\0", epoch, i)
        assert (segment["K"], segment["T"]) == (k.hex(), t.hex())
        assert segment["mac_key"] == H(b"sidecar/v1/key\0", k).hex()
        assert segment["tag_key"] == H(b"sidecar/v1/tag-key\0", t).hex()
        k_1 = HMAC(k, b"sidecar/v1/evolve\0")
        assert (segment["k_1"], segment["k_2"]) == (k_1.hex(), HMAC(k_1, b"sidecar/v1/evolve\0").hex())
        r = expand(r, b"sidecar/v1/ratchet\0", epoch, i)
    assert len(v["segments"]) == 3


def test_agent_tag() -> None:
    v = DERIVED["agent_tag"]
    tag = HMAC(unhex(v["T"]), b"sidecar/v1/agent\0", u64(v["seq"]), v["agent"].encode())[:16]
    assert tag.hex() == v["agent_tag"]


def test_request_digest() -> None:
    for v in DERIVED["request_digest"]:
        w = v["wanted"]
        fields = [v["agent"], w["action"], w["resource_type"], w["resource_id"], w["arguments"], v["context"]]
        fields += [v["purpose"], v["trace_parent"], v["idempotency_key"], v["last_receipt"]]
        fields.append(u32(len(v["alternatives"])).hex())
        for a in v["alternatives"]:
            fields += [a["action"], a["resource_type"], a["resource_id"], a["arguments"]]
        fields += ["", "", u32(0).hex()]  # executor, approval_of, delegations: tests/vectors/signing has them given
        data = b"".join(u32(len(unhex(field))) + unhex(field) for field in fields)
        assert H(b"sidecar/v1/request\0", data).hex() == v["digest"]
    assert len(DERIVED["request_digest"]) == 2


@pytest.mark.parametrize("v", DERIVED["wrapped_seeds"], ids=lambda v: f"{v['mode']}-{len(v['custodians'])}")
def test_wrapped_seeds(v: dict[str, Any]) -> None:
    mode, kems = {"any": b"\1", "all": b"\2"}[v["mode"]], {"hpke": b"\1", "rsa-oaep": b"\2"}
    n = len(v["custodians"])
    spkis = [H(unhex(c["spki"])) for c in v["custodians"]]
    each = b"".join(kems[c["kem"]] + spki for c, spki in zip(v["custodians"], spkis, strict=True))
    assert v["custodians_digest"] == H(b"sidecar/v1/custodians\0", mode, bytes((n,)), each).hex()
    wrapped = b""
    for index, share in enumerate(v["shares"]):
        place = mode + bytes((index, n))
        ctx = H(b"sidecar/v1/wrap\0", unhex(v["chain_id"]), u32(v["epoch"]), place, spkis[index])
        assert share["ctx"] == ctx.hex()
        assert share["commit"] == H(b"sidecar/v1/share\0", ctx, unhex(share["share"])).hex()
        wrapped += unhex(share["commit"]) + u32(len(unhex(share["sealed"]))) + unhex(share["sealed"])
    assert v["seeds_digest"] == H(b"sidecar/v1/seeds\0", u32(n), wrapped).hex()
    xor = 0
    for share in v["shares"]:
        xor ^= int(share["share"], 16)
    if v["mode"] == "all" and n:
        assert xor == int(v["seed"], 16)
    assert v["mode"] == "all" or all(share["share"] == v["seed"] for share in v["shares"])


def test_opening_wrapped_seeds() -> None:
    v = load(make.WRAPPED)
    chain, share = unhex(v["chain_id"]), unhex(v["share"])
    for index, c in enumerate(v["custodians"]):
        spki, sealed = b64decode(c["spki"]), b64decode(c["sealed"])
        ctx = H(b"sidecar/v1/wrap\0", chain, u32(v["epoch"]), bytes((1, index, 2)), H(spki))
        assert ctx.hex() == c["ctx"] and c["commit"] == H(b"sidecar/v1/share\0", ctx, share).hex()
        key = load_der_private_key(b64decode(c["private_key"]), None)
        assert key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == spki
        assert unseal(key, sealed, ctx) == share + ctx
        with pytest.raises((ValueError, InvalidTag)):
            unseal(key, sealed[:-1] + bytes((sealed[-1] ^ 1,)), ctx)


def unseal(key: object, sealed: bytes, ctx: bytes) -> bytes:
    if isinstance(key, X25519PrivateKey):
        suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        return bytes(suite.decrypt(sealed, key, ctx))
    assert isinstance(key, RSAPrivateKey)
    return key.decrypt(sealed, padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))


def root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if not leaves:
        return H()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return H(b"\1", root(leaves[:k]), root(leaves[k:]))


def test_merkle() -> None:
    for v in load("merkle.json"):
        assert v["root"] == root([H(b"\0", bytes((i,)) * 216) for i in range(v["size"])]).hex()


@pytest.mark.parametrize("v", load("notes.json"), ids=lambda v: v["what"])
def test_notes(v: dict[str, str]) -> None:
    text, public = v["text"].encode(), unhex(v["public_key"])
    kind = text.partition(b"\n")[0].decode()
    assert H(kind.encode(), b"\0", text).hex() == v["hash"]
    rows = dict(row.split(" ", 1) for row in v["text"].split("\n")[1:-1])
    crash = rows.get("reason") == "crash"
    who = "identity" if crash or kind == "sidecar/v1/epoch" else f"segment/{rows['segment']}"
    name = f"sidecar.v1/{rows['chain']}/{who}"
    signed, line = v["signed"].encode()[: len(text)], v["signed"].encode()[len(text) :]
    assert signed == text and line.startswith(f"\n\u2014 {name} ".encode()) and line.count(b"\n") == 2
    blob = b64decode(line.split(b" ")[-1])
    assert blob[:4] == H(name.encode(), b"\n\x01", public)[:4] and len(blob) == 68
    Ed25519PublicKey.from_public_bytes(public).verify(blob[4:], text)
    assert Ed25519PrivateKey.from_private_bytes(unhex(v["private_key"])).sign(text) == blob[4:]


@pytest.mark.parametrize("v", load("grants.json"), ids=lambda v: v["act"])
def test_authority_notes(v: dict[str, str]) -> None:
    signed, body = v["note"].encode(), v["body"].encode()
    assert unhex(v["grant"]) == struct.pack(">I", len(signed)) + signed + body
    assert H(b"sidecar/v1/authority\0", text_of(signed)).hex() == v["hash"]
    rows, name = rows_of(signed), f"sidecar.v1/{json.loads(body)['chain']}/authority"
    assert rows["act"] == v["act"] and rows["body"] == H(body).hex() and rows["chain"] == json.loads(body)["chain"]
    assert json.loads(body)["format"] == f"sidecar/v1/{v['act']}"
    line = signed[len(text_of(signed)) :]
    assert line.startswith(f"\n\u2014 {name} ".encode()) and line.count(b"\n") == 2
    blob = b64decode(line.split(b" ")[-1])
    assert blob[:4] == H(name.encode(), b"\n\x01", unhex(v["public_key"]))[:4] and len(blob) == 68
    Ed25519PublicKey.from_public_bytes(unhex(v["public_key"])).verify(blob[4:], text_of(signed))


def test_personal_fields() -> None:
    v = load("personal.json")
    chain, seq, opening = unhex(v["chain_id"]), struct.pack(">Q", v["seq"]), b""
    text = v["stored_arguments"].encode()
    for field in reversed(v["fields"]):
        value, salt = field["value"].encode(), unhex(field["salt"])
        index = struct.pack(">I", field["index"])
        assert H(b"sidecar/v1/field\0", chain, seq, index, salt, value).hex() == field["commit"]
        opening = salt + struct.pack(">I", len(value)) + value + opening
        if field["in"] == "/request/arguments":
            assert text[field["at"] :].startswith(b'""')
            text = text[: field["at"]] + value + text[field["at"] + 2 :]
    assert text.decode() == v["arguments"]
    assert opening.hex() == v["opening"]
    sealed = b64decode(v["sealed"])
    bound = b"sidecar/v1/personal\0" + chain + unhex(v["subject"])
    plain = AESGCM(unhex(v["subject_key"])).decrypt(sealed[:12], sealed[12:], bound)
    assert plain.startswith(opening) and not plain[len(opening) :].strip(b"\0") and len(plain) % 256 == 0


def cut(data: bytes) -> list[tuple[int, bytes]]:
    assert data[:8] == b"SDCSEG\0\1"
    at, found = 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at + 1)
        found.append((data[at], data[at + 5 : at + 5 + length]))
        at += 5 + length
    assert at == len(data)
    return found


def rows_of(note: bytes) -> dict[str, str]:
    text = note.partition(b"\n\n")[0].decode()
    return dict(row.split(" ", 1) for row in text.split("\n")[1:])


def text_of(note: bytes) -> bytes:
    return note.partition(b"\n\n")[0] + b"\n"


def test_the_good_stream_from_end_to_end() -> None:
    """Links, commitments, tags, roots and hashes of `good.bin`, in one straight line."""
    (expected,) = [v for v in load("streams.json") if v["file"] == "good.bin"]
    seeds = {int(epoch): unhex(seed) for epoch, seed in expected["seeds"].items()}
    chain, prev, seal, note = unhex(expected["chain"]), bytes(32), bytes(32), {}
    r = k = t = b""
    leaves: list[bytes] = []
    seq = segment = entries = 0

    def begin() -> tuple[bytes, bytes, bytes]:
        epoch = int(note["epoch"])
        found = [
            expand(r, f"sidecar/v1/{label}\0".encode(), epoch, segment) for label in ("mac", "agent-tag", "ratchet")
        ]
        return found[0], found[1], found[2]

    for kind, body in cut((FOLDER / "good.bin").read_bytes()):
        if kind == 2:
            note = rows_of(body)
            assert (note["seq"], note["leaf"], note["seal"]) == (str(seq), prev.hex(), seal.hex())
            epoch, seed = int(note["epoch"]), seeds[int(note["epoch"])]
            assert note["seed_commit"] == H(b"sidecar/v1/seed\0", chain, u32(epoch), seed).hex()
            note_hash = H(b"sidecar/v1/epoch\0", text_of(body)).hex()
            r = HMAC(chain, seed)
            k, t, r = begin()
            committed = k, t
        elif kind == 5:
            header, tag, salt, payload = body[:184], body[184:216], body[216:248], body[249:]
            assert body[248] == 0 and header[64:96] == prev and header[32:64] == chain
            assert struct.unpack_from(">IQQ", header, 12) == (int(note["epoch"]), seq, segment)
            assert header[96:128] == H(b"sidecar/v1/payload\0", salt, payload)
            assert tag == HMAC(k, b"sidecar/v1/entry\0", header)
            value = json.loads(payload)
            if value["type"] == "OPEN":
                assert value["epoch_note"] == note_hash
            if value.get("agent", {"proof": "asserted"})["proof"] != "asserted":
                agent = value["agent"]["id"].encode()
                assert header[168:] == HMAC(t, b"sidecar/v1/agent\0", u64(seq), agent)[:16]
            prev = H(b"\0", header, tag)
            leaves.append(prev)
            k = HMAC(k, b"sidecar/v1/evolve\0")
            seq, entries = seq + 1, entries + 1
        elif kind == 7:
            rows = rows_of(body)
            assert (rows["root"], rows["last"], rows["prev"]) == (root(leaves).hex(), prev.hex(), seal.hex())
            assert (rows["first"], rows["count"]) == (str(seq - len(leaves)), str(len(leaves)))
            if rows["reason"] != "crash":
                assert rows["mac_key"] == H(b"sidecar/v1/key\0", committed[0]).hex()
                assert rows["tag_key"] == H(b"sidecar/v1/tag-key\0", committed[1]).hex()
            seal, leaves, segment = H(b"sidecar/v1/seal\0", text_of(body)), [], segment + 1
            if rows["next"] != "-":
                k, t, r = begin()
                committed = k, t
    assert entries == 19 and segment == 6


def opener(v: dict[str, Any]) -> Evidence:
    seeds = {int(epoch): unhex(seed) for epoch, seed in v["seeds"].items()}
    receipts = [r.encode() for r in v["receipts"]]
    openings = None if v["openings"] is None else parse_openings(v["openings"].encode())
    return Evidence(open_seed=lambda custody, chain, epoch, shares: seeds[epoch], receipts=receipts, openings=openings)


@pytest.mark.parametrize("v", load("streams.json"), ids=lambda v: v["file"])
def test_streams(v: dict[str, Any]) -> None:
    data = (FOLDER / v["file"]).read_bytes()
    keyed = opener(v)
    keyless = dataclasses.replace(keyed, open_seed=None)
    for expected, evidence in ((v["without_key"], keyless), (v["with_key"], keyed)):
        report = verify_stream(BytesIO(data).read, evidence)
        bad = report.first_bad()
        place = (None, None) if bad is None else (bad.segment, bad.seq)
        assert report.verdict.name == expected["verdict"], report.findings
        assert place == (expected["segment"], expected["seq"]), report.findings
