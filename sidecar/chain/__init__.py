"""The bytes: entries, payloads, keys, notes, Merkle tree, streams, as proto/LEDGER.md writes them down.

Rules: no I/O, clock, randomness, logging or threads; everything comes in as an argument. One noun a file, and the
files are the room's public list. What is encoded here is decoded here, strictly: what has two spellings is refused.
"""

__all__ = [
    "delegation",
    "digests",
    "entry",
    "epoch",
    "head",
    "limits",
    "lines",
    "merkle",
    "note",
    "payload",
    "permit",
    "ratchet",
    "registry",
    "request",
    "seal",
    "seeds",
    "signing",
    "statement",
    "stream",
    "strictjson",
]
