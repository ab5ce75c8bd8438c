"""Writes `tests/vectors/log/`: worked examples of every construction in proto/LOG.md.

`.venv/bin/python -m tests.vectors.make_log` writes them anew; `tests/chain/test_log_vectors.py` fails where they are
stale and computes each figure a second time, by other code.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from sidecar.chain import checkpoint, cosignature, merkle, note, rollcall, tile
from sidecar.chain.ack import Ack
from sidecar.chain.batch import Batch
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.consistency import Consistency
from sidecar.chain.logged import Logged, entry_of, parse_entry
from sidecar.chain.merkle import Tree
from sidecar.chain.note import SignedNote, VerifierKey
from sidecar.chain.rollcall import Standing
from sidecar.chain.seal import seal_hash
from sidecar.chain.tile import Edge
from sidecar.chain.tlog_proof import TlogProof
from tests.scribe import public, secret, signing_key, story

FOLDER = Path(__file__).parent / "log"
ORIGIN = "log.example.org/fleet"
LOG, WITNESS = signing_key("log"), signing_key("witness")
TIME = 1_767_225_660


def build() -> dict[str, bytes]:
    """Every file, by name."""
    s = story()
    notes = [s.notes[0], *(s.seals[i] for i in sorted(s.seals))]
    standings = sorted(
        (
            Standing(s.chain_id, 2, 4, seal_hash(note.parse(s.seals[4]).text), 18, s.leaf_of(18), 1_767_225_660),
            Standing(secret("other chain"), 0, None, None, None, None, None),
            Standing(secret("third chain"), 7, 0, secret("its seal"), 3, secret("its leaf"), -1),
        ),
        key=lambda each: each.chain_id,
    )
    roll = rollcall.Roll(ORIGIN, TIME * 10**9, standings)
    call = roll.call
    batch = Batch(0, 0, merkle.EMPTY_ROOT, (*notes, call.text().encode()))
    leaves = [merkle.leaf_hash(each) for each in batch.entries()]
    signed = _cosigned(Checkpoint(ORIGIN, len(leaves), _root(leaves)))
    at = next(i for i, each in enumerate(standings) if each.chain_id == s.chain_id)
    files = {
        "keys.json": _json(_keys()),
        "checkpoint.txt": signed,
        "batch.bin": batch.encode(LOG),
        "entries.bin": tile.join_entries(batch.entries()),
        "tile-0.bin": b"".join(leaves),
        "roll-call.json": _json({"entry": call.text(), "lines": [each.line() for each in standings]}),
        "ack.txt": note.sign(Ack(s.chain_id, 2, 5, 18, s.leaf_of(18), TIME * 10**9).text(), ORIGIN, LOG),
        "tiles.json": _json(_tiles(70_000)),
    }
    for index, extra in enumerate(batch.entries()):
        name = "roll-call" if index == len(notes) else f"entry-{index}"
        if name == "roll-call":
            extra = Logged(call, call.text(), roll.answer(at)).extra()
        path = tuple(merkle.inclusion_path(leaves, index))
        files[f"{name}.tlog-proof"] = TlogProof(extra, index, path, signed).encode()
    proof = tuple(merkle.consistency_proof(leaves, 3))
    files["from-3.tlog-consistency"] = Consistency(3, proof, signed).encode()
    assert all(entry_of(each) == parse_entry(entry_of(each).decode()).text().encode() for each in batch.notes)
    return files


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _root(leaves: list[bytes]) -> bytes:
    tree = Tree()
    for each in leaves:
        tree.append(each)
    return tree.root()


def _cosigned(of: Checkpoint) -> bytes:
    parsed = note.parse(checkpoint.sign(of, LOG))
    line = cosignature.cosign(of.text(), "witness.example/w1", WITNESS, TIME)
    return note.encode(SignedNote(parsed.text, (*parsed.signatures, line)))


def _keys() -> dict[str, str]:
    return {
        "log_private": LOG.private_bytes_raw().hex(),
        "log": str(VerifierKey(ORIGIN, public(LOG))),
        "witness_private": WITNESS.private_bytes_raw().hex(),
        "witness": str(VerifierKey("witness.example/w1", public(WITNESS), cosignature.COSIGNATURE)),
    }


def _tiles(size: int) -> dict[str, Any]:
    """SHA-256 of each tile of a tree whose entry i is the text of the number i."""
    leaves = [merkle.leaf_hash(str(i).encode()) for i in range(size)]
    made = Edge(0, lambda level, number: []).grow(leaves)
    return {"size": size, "root": _root(leaves).hex(), "tiles": {t.path(): sha256(d).hexdigest() for t, d in made}}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in build().items():
        (FOLDER / name).write_bytes(data)
