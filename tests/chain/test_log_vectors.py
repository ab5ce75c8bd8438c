"""`tests/vectors/log/`: fresh, and every figure in it computed again from LOG.md alone, without `sidecar.chain`."""

from __future__ import annotations

import hashlib
import json
import struct
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tests.vectors import make_log

FOLDER = Path(make_log.FOLDER)


def load(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def H(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def test_the_vectors_are_fresh() -> None:
    made = make_log.build()
    assert made == {path.name: path.read_bytes() for path in FOLDER.iterdir()}


KEYS = json.loads(load("keys.json"))
TEXT, _, LINES = load("checkpoint.txt").partition(b"\n\n")
TEXT += b"\n"


def vkey(text: str) -> tuple[str, bytes, bytes]:
    """Name, key hash and key of a verifier key."""
    name, key_hash, material = text.split("+", 2)
    raw = b64decode(material)
    assert key_hash == H(name.encode(), b"\n", raw)[:4].hex()
    return name, bytes.fromhex(key_hash), raw


def signature_of(name: str, lines: bytes) -> bytes:
    (found,) = [each for each in lines.decode().splitlines() if each.startswith(f"\u2014 {name} ")]
    return b64decode(found.split(" ")[2])


def root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if len(leaves) < 2:
        return leaves[0] if leaves else H()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return H(b"\1", root(leaves[:k]), root(leaves[k:]))


def cut(data: bytes) -> list[bytes]:
    found = []
    while data:
        (length,) = struct.unpack(">H", data[:2])
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


ENTRIES = cut(load("entries.bin"))
LEAVES = [H(b"\0", each) for each in ENTRIES]


def test_the_checkpoint() -> None:
    assert TEXT.decode() == f"{make_log.ORIGIN}\n{len(LEAVES)}\n{b64encode(root(LEAVES)).decode()}\n"
    name, key_hash, key = vkey(KEYS["log"])
    assert name == make_log.ORIGIN and key[:1] == b"\1"
    blob = signature_of(name, LINES)
    assert blob[:4] == key_hash
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(blob[4:], TEXT)
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(KEYS["log_private"]))
    assert private.sign(TEXT) == blob[4:]


def test_the_cosignature() -> None:
    name, key_hash, key = vkey(KEYS["witness"])
    blob = signature_of(name, LINES)
    assert key[:1] == b"\4" and blob[:4] == key_hash and len(blob) == 76
    (time,) = struct.unpack(">Q", blob[4:12])
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(blob[12:], f"cosignature/v1\ntime {time}\n".encode() + TEXT)


def test_the_batch_holds_the_entries_and_their_signatures() -> None:
    data, signature = load("batch.bin")[:-64], load("batch.bin")[-64:]
    Ed25519PublicKey.from_public_bytes(vkey(KEYS["log"])[2][1:]).verify(signature, b"sidecar/v1/batch\0" + data)
    assert data[:8] == b"SDCBAT\0\1" and struct.unpack(">QQ", data[8:24]) == (0, 0) and data[24:56] == H()
    for entry, signed in zip(ENTRIES, cut(data[56:]), strict=True):
        assert signed.startswith(entry)
        assert (signed == entry) == entry.startswith(b"sidecar/v1/roll-call\n")
    assert load("tile-0.bin") == b"".join(LEAVES)


def taken_apart(name: str) -> tuple[bytes, int, list[bytes]]:
    head, _, signed = load(name).partition(b"\n\n")
    assert signed == load("checkpoint.txt")
    rows = head.decode().split("\n")
    assert rows[0] == "c2sp.org/tlog-proof@v1" and rows[1].startswith("extra ") and rows[2].startswith("index ")
    return b64decode(rows[1][6:]), int(rows[2][6:]), [b64decode(row) for row in rows[3:]]


def climb(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.2."""
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if fn & 1 or fn == sn:
            r = H(b"\1", p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = H(b"\1", r, p)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    return r


@pytest.mark.parametrize("name", sorted(p.name for p in FOLDER.glob("*.tlog-proof")))
def test_proofs(name: str) -> None:
    extra, index, path = taken_apart(name)
    entry, _, answer = extra.partition(b"\n\n")
    entry += b"\n" * bool(answer)
    assert entry == ENTRIES[index]
    assert climb(index, len(LEAVES), H(b"\0", entry), path) == root(LEAVES)
    assert bool(answer) == entry.startswith(b"sidecar/v1/roll-call\n")
    if answer:
        rows = answer.decode().splitlines()
        lines = json.loads(load("roll-call.json"))["lines"]
        said = dict(row.split(" ", 1) for row in entry.decode().splitlines()[1:])
        assert rows[1] == lines[int(rows[0][6:])] and lines == sorted(lines) and said["chains"] == str(len(lines))
        leaves = [H(b"\0", line.encode()) for line in lines]
        path = [b64decode(row) for row in rows[2:]]
        assert climb(int(rows[0][6:]), 3, leaves[int(rows[0][6:])], path).hex() == said["root"] == root(leaves).hex()


def test_the_consistency_file() -> None:
    head, _, signed = load("from-3.tlog-consistency").partition(b"\n\n")
    rows = head.decode().split("\n")
    assert rows[0] == "old 3" and signed == load("checkpoint.txt") and len(LEAVES) == 8
    # RFC 6962 section 2.1.2, PROOF(3, D[8]).
    proof = [LEAVES[2], LEAVES[3], root(LEAVES[:2]), root(LEAVES[4:])]
    assert [b64decode(row) for row in rows[1:]] == proof


def test_the_acknowledgement() -> None:
    text, _, lines = load("ack.txt").partition(b"\n\n")
    name, _, key = vkey(KEYS["log"])
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature_of(name, lines)[4:], text + b"\n")
    assert [row.split(" ")[0] for row in text.decode().split("\n")[1:]] == [
        "chain", "epoch", "segment", "seq", "leaf", "time",
    ]  # fmt: skip


def path_of(number: int) -> str:
    digits = str(number)
    while len(digits) % 3:
        digits = "0" + digits
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join(["x" + g for g in groups[:-1]] + groups[-1:])


def test_tiles() -> None:
    v: dict[str, Any] = json.loads(load("tiles.json"))
    level, hashes, expected = 0, [H(b"\0", str(i).encode()) for i in range(v["size"])], {}
    assert root(hashes).hex() == v["root"]
    while hashes:
        for number in range((len(hashes) + 255) // 256):
            part = hashes[number * 256 : number * 256 + 256]
            partial = "" if len(part) == 256 else f".p/{len(part)}"
            expected[f"tile/{level}/{path_of(number)}{partial}"] = H(*part).hex()
        hashes = [root(hashes[i : i + 256]) for i in range(0, len(hashes) // 256 * 256, 256)]
        level += 1
    assert v["tiles"] == expected
