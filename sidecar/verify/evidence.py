"""What the verifier holds besides the ledger: keys, receipts, expectations. All of it is optional."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.chain.seeds import Custody, SealedShare
from sidecar.verify.disclosure import Disclosure
from sidecar.verify.trust import Trust

SeedOpener = Callable[[Custody, bytes, int, Sequence[SealedShare]], bytes]
"""``(custody, chain_id, epoch, shares) -> seed`` (32 bytes); raises `CustodianMissing` where
the keys held do not open this chain's seeds, `CustodyError` naming the custodian whose share is bad."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """``open_seed`` gives a custodian's view, ``disclosure`` an auditor's; ``receipts`` are signed heads as callers
    hold them; ``trust`` pins chain and identity key."""

    open_seed: SeedOpener | None = None
    disclosure: Disclosure | None = None
    receipts: Sequence[bytes] = ()
    trust: Trust | None = None
