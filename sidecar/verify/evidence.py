"""What the verifier holds besides the ledger: keys, receipts, expectations. All of it is optional."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.chain.seeds import Custody, SealedShare
from sidecar.chain.timestamp import Timestamp
from sidecar.verify.case import Part
from sidecar.verify.disclosure import Disclosure
from sidecar.verify.openings import Openings
from sidecar.verify.trust import Trust

SeedOpener = Callable[[Custody, bytes, int, Sequence[SealedShare]], bytes]
"""``(custody, chain_id, epoch, shares) -> seed`` (32 bytes); raises `CustodianMissing` where
the keys held do not open this chain's seeds, `CustodyError` naming the custodian whose share is bad."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """``open_seed`` gives a custodian's view, ``disclosure`` an auditor's; ``receipts`` are signed heads as callers
    hold them; ``trust`` pins chain, identity key and log. ``logged`` are receipts of the fleet log (tlog-proofs), with
    ``consistency`` files and ``timestamps`` beside them; ``check_timestamp`` checks one against the trusted roots.
    ``openings`` are of sealed personal fields.
    ``part``: the stream is one of an evidence bundle, and this is what the bundle says of it."""

    open_seed: SeedOpener | None = None
    disclosure: Disclosure | None = None
    receipts: Sequence[bytes] = ()
    trust: Trust | None = None
    logged: Sequence[bytes] = ()
    consistency: Sequence[bytes] = ()
    timestamps: Sequence[bytes] = ()
    check_timestamp: Callable[[Timestamp], int] | None = None
    openings: Openings | None = None
    part: Part | None = None
