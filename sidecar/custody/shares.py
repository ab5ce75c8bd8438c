"""Sealing an epoch's seed for its custodians, and opening it again (proto/LEDGER.md, "Wrapped seeds")."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sidecar.chain.seeds import Custody, SealedShare, share_commit
from sidecar.custody.kems import PrivateKey, seal
from sidecar.errors import CustodianMissing, CustodyError

_SHARE_BYTES: Final = 32


def seal_shares(
    custody: Custody, chain_id: bytes, epoch: int, seed: bytes, entropy: Callable[[int], bytes]
) -> list[SealedShare]:
    """The 32-byte seed's shares, each sealed for its custodian, in the custodians' order; none without custodians.

    ``entropy(n)`` gives n random bytes; encryption itself draws from the operating system.

    Raises:
        CustodyError: a custodian's key that nothing can be encrypted to.
    """
    spare = max(0, len(custody.custodians) - 1) if custody.mode == "all" else 0
    shares = custody.split(seed, [entropy(_SHARE_BYTES) for _ in range(spare)])
    sealed = []
    for index, share in enumerate(shares):
        ctx = custody.context(chain_id, epoch, index)
        sealed.append(SealedShare(share_commit(ctx, share), _seal(custody, index, share, ctx)))
    return sealed


def open_seed(
    keys: Sequence[PrivateKey], custody: Custody, chain_id: bytes, epoch: int, shares: Sequence[SealedShare]
) -> bytes:
    """The epoch's 32-byte seed. Mode ``any``: by the first key that is a custodian's; ``all``: every key is needed.

    The caller still holds it against the epoch note's ``seed_commit``.

    Raises:
        CustodianMissing: keys of no custodian of this chain, or not of every one in mode ``all``.
        CustodyError: a custodian's bad share; named by index and name.
        UsageError: a token that could not be used.
    """
    if len(shares) != len(custody.custodians):
        raise CustodyError(f"{len(shares)} wrapped seeds for {len(custody.custodians)} custodians")
    held = _by_custodian(keys, custody)
    if custody.mode == "any":
        index = next(iter(held))
        return _open(custody, index, held[index], chain_id, epoch, shares[index])
    missing = [_named(custody, i) for i in range(len(shares)) if i not in held]
    if missing:
        raise CustodianMissing(f"this chain opens only with all its custodians' keys; missing: {', '.join(missing)}")
    opened = [_open(custody, i, held[i], chain_id, epoch, share) for i, share in enumerate(shares)]
    return custody.combine(opened)


def _by_custodian(keys: Sequence[PrivateKey], custody: Custody) -> Mapping[int, PrivateKey]:
    """Custodian's index to key, in the order the keys were given."""
    if not custody.custodians:
        raise CustodianMissing("this chain has no custodians: nobody can open its seeds")
    places = {c.spki: index for index, c in enumerate(custody.custodians)}
    held = {places[spki]: key for key in keys if (spki := key.spki) in places}
    if not held:
        raise CustodianMissing("the key belongs to no custodian of this chain")
    return held


def _open(custody: Custody, index: int, key: PrivateKey, chain_id: bytes, epoch: int, sealed: SealedShare) -> bytes:
    ctx = custody.context(chain_id, epoch, index)
    fits = key.kem == custody.custodians[index].kem
    plain = key.open(sealed.sealed, ctx) if fits else None
    if plain is None:
        raise CustodyError(f"the share of {_named(custody, index)} in epoch {epoch} does not open")
    share, bound = plain[:_SHARE_BYTES], plain[_SHARE_BYTES:]
    if len(plain) != 2 * _SHARE_BYTES or not hmac.compare_digest(bound, ctx):
        raise CustodyError(f"the share of {_named(custody, index)} in epoch {epoch} was made for another place")
    if not hmac.compare_digest(share_commit(ctx, share), sealed.commit):
        raise CustodyError(f"the share of {_named(custody, index)} in epoch {epoch} is not the one committed to")
    return share


def _seal(custody: Custody, index: int, share: bytes, ctx: bytes) -> bytes:
    sealed = seal(custody.custodians[index], share + ctx, ctx)
    if sealed is None:
        raise CustodyError(f"nothing can be encrypted to the key of {_named(custody, index)}")
    return sealed


def _named(custody: Custody, index: int) -> str:
    return f"custodian {index} ({custody.custodians[index].name})"
