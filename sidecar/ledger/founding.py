"""Making a chain: epoch 0 with GENESIS, OPEN and CLOSE, sealed, in a directory that is there whole or not at all."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import payload as payloads
from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.lines import NONE
from sidecar.chain.seeds import Custody
from sidecar.errors import UsageError
from sidecar.ledger.batch import Batch
from sidecar.ledger.clock import Clock
from sidecar.ledger.directory import LOCK, founded, save_identity
from sidecar.ledger.epoch import Chain, Entropy, Start, WrapSeed, begin, close_entry
from sidecar.ledger.look import FILE
from sidecar.ledger.options import Options
from sidecar.ledger.port import Store
from sidecar.ledger.store import LmdbStore

CreateStore = Callable[[Path, int], Store]


def create(
    directory: Path, *, identity: Ed25519PrivateKey, custody: Custody, authority: bytes | None, log: str | None,
    retention: str, wrap: WrapSeed, options: Options, clock: Clock, entropy: Entropy = os.urandom,
    create_store: CreateStore = LmdbStore.create,
) -> bytes:  # fmt: skip
    """Make a ledger and give its 32-byte chain id. ``authority``: an Ed25519 public key, 32 bytes; ``log``: an origin.

    All or nothing: the directory appears complete, with `identity.pem`, or not at all.

    Raises:
        UsageError: the directory exists and is not empty, or cannot be made; a log origin that no note can carry.
        LedgerError: the store cannot be written.
    """
    _check(authority, log)
    genesis = _genesis(identity, custody, authority, log, retention, entropy)
    chain = Chain(payloads.chain_id(genesis), identity.public_key().public_bytes_raw(), custody, log, authority)
    with founded(directory) as draft:
        save_identity(draft, identity)
        (draft / LOCK).touch(mode=0o600)
        store = create_store(draft, options.max_bytes)
        try:
            store.commit(_epoch_zero(chain, genesis, identity, wrap, options, clock, entropy))
        finally:
            store.close()
        (draft / f"{FILE}-lock").unlink(missing_ok=True)
    return chain.chain_id


def _epoch_zero(
    chain: Chain, genesis: bytes, identity: Ed25519PrivateKey, wrap: WrapSeed, options: Options, clock: Clock,
    entropy: Entropy,
) -> Batch:  # fmt: skip
    batch = Batch()
    start = Start(software=options.software, development=options.development, config=options.config)
    epoch, _ = begin(
        chain, start, identity=identity, wrap=wrap, entropy=entropy, now=clock.now(), batch=batch, genesis=genesis
    )
    try:
        last = epoch.write(close_entry(), clock.now())
        batch.entry(last.seq, last.body)
        epoch.finish(clock.now(), batch)
    finally:
        epoch.wipe()
    return batch


def _genesis(
    identity: Ed25519PrivateKey, custody: Custody, authority: bytes | None, log: str | None, retention: str,
    entropy: Entropy,
) -> bytes:  # fmt: skip
    payload = {
        "type": "GENESIS",
        "format": "sidecar/v1",
        "nonce": entropy(32).hex(),
        "identity": identity.public_key().public_bytes_raw().hex(),
        "mode": custody.mode,
        "custodians": [
            {"name": c.name, "kem": c.kem, "spki": base64.b64encode(c.spki).decode()} for c in custody.custodians
        ],
        "authority": None if authority is None else authority.hex(),
        "log": log,
        "retention": retention,
    }
    data = strictjson.dumps(payload)
    payloads.parse(EntryType.GENESIS, data)
    return data


def _check(authority: bytes | None, log: str | None) -> None:
    if authority is not None and len(authority) != 32:
        raise UsageError("the authority's key must be an Ed25519 public key of 32 bytes")
    if log is not None and (not log or log == NONE or not log.isascii() or not log.isprintable() or log.strip() != log):
        raise UsageError("the log's origin must be printable ASCII without spaces around it")
