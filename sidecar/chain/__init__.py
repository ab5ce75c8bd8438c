"""The bytes: entries, payloads, keys, notes, Merkle tree, streams, as proto/LEDGER.md writes them down.

Rules: no I/O, clock, randomness, logging or threads; everything comes in as an argument. One noun a file. What is
encoded here is decoded here, strictly: whatever has two spellings is refused.
"""
