"""The bytes: entries, payloads, keys, notes, Merkle tree, streams, as proto/LEDGER.md writes them down; and
checkpoints, tiles, proofs, roll-calls, as proto/LOG.md does.

Rules: no I/O, clock, randomness, logging or threads; everything comes in as an argument. One noun a file, and the
files are the room's public list. What is encoded here is decoded here, strictly: what has two spellings is refused.
"""

__all__ = [
    "ack",
    "acts",
    "authority_note",
    "batch",
    "checkpoint",
    "consistency",
    "cosignature",
    "delegation",
    "digests",
    "entry",
    "epoch",
    "hash_lines",
    "head",
    "limits",
    "lines",
    "logged",
    "merkle",
    "note",
    "payload",
    "permit",
    "pruning",
    "pruning_certificate",
    "ratchet",
    "registry",
    "request",
    "retention",
    "rollcall",
    "seal",
    "seeds",
    "signing",
    "statement",
    "stream",
    "strictjson",
    "tile",
    "tlog_proof",
]
