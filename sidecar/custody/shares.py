"""Sealing an epoch's seed for its custodians, and opening it again (proto/LEDGER.md, "Wrapped seeds")."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sidecar.chain.seeds import Custodian, Custody, SealedShare, share_commit
from sidecar.custody.keys import PrivateKey, spki_of
from sidecar.errors import CustodyError

_SHARE_BYTES: Final = 32
# RFC 9180 base mode; `encrypt` gives enc[32] ‖ ciphertext.
_HPKE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


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
        CustodyError: keys of no custodian of this chain, custodians whose keys are missing, or a custodian's bad share;
            each is named by index and name.
    """
    if len(shares) != len(custody.custodians):
        raise CustodyError(f"{len(shares)} wrapped seeds for {len(custody.custodians)} custodians")
    held = _by_custodian(keys, custody)
    if custody.mode == "any":
        index = next(iter(held))
        return _open(custody, index, held[index], chain_id, epoch, shares[index])
    missing = [_named(custody, i) for i in range(len(shares)) if i not in held]
    if missing:
        raise CustodyError(f"this chain opens only with all its custodians' keys; missing: {', '.join(missing)}")
    opened = [_open(custody, i, held[i], chain_id, epoch, share) for i, share in enumerate(shares)]
    return custody.combine(opened)


def _by_custodian(keys: Sequence[PrivateKey], custody: Custody) -> Mapping[int, PrivateKey]:
    """Custodian's index to key, in the order the keys were given."""
    if not custody.custodians:
        raise CustodyError("this chain has no custodians: nobody can open its seeds")
    places = {c.spki: index for index, c in enumerate(custody.custodians)}
    held = {places[spki]: key for key in keys if (spki := spki_of(key.public_key())) in places}
    if not held:
        raise CustodyError("the key belongs to no custodian of this chain")
    return held


def _open(custody: Custody, index: int, key: PrivateKey, chain_id: bytes, epoch: int, sealed: SealedShare) -> bytes:
    ctx = custody.context(chain_id, epoch, index)
    plain = _decrypt(custody.custodians[index], key, sealed.sealed, ctx)
    if plain is None:
        raise CustodyError(f"the share of {_named(custody, index)} in epoch {epoch} does not open")
    share, bound = plain[:_SHARE_BYTES], plain[_SHARE_BYTES:]
    if len(plain) != 2 * _SHARE_BYTES or not hmac.compare_digest(bound, ctx):
        raise CustodyError(f"the share of {_named(custody, index)} in epoch {epoch} was made for another place")
    if not hmac.compare_digest(share_commit(ctx, share), sealed.commit):
        raise CustodyError(f"the share of {_named(custody, index)} in epoch {epoch} is not the one committed to")
    return share


def _seal(custody: Custody, index: int, share: bytes, ctx: bytes) -> bytes:
    custodian = custody.custodians[index]
    try:
        key = load_der_public_key(custodian.spki)
        if custodian.kem == "hpke" and isinstance(key, x25519.X25519PublicKey):
            return _HPKE.encrypt(share + ctx, key, ctx)
        if custodian.kem == "rsa-oaep" and isinstance(key, rsa.RSAPublicKey):
            return key.encrypt(share + ctx, _oaep())
    except ValueError:
        pass
    raise CustodyError(f"nothing can be encrypted to the key of {_named(custody, index)}")


def _decrypt(custodian: Custodian, key: PrivateKey, sealed: bytes, ctx: bytes) -> bytes | None:
    """The plaintext, or None where the ciphertext is not one for this key and place."""
    try:
        if custodian.kem == "hpke" and isinstance(key, x25519.X25519PrivateKey):
            return _HPKE.decrypt(sealed, key, ctx)
        if custodian.kem == "rsa-oaep" and isinstance(key, rsa.RSAPrivateKey):
            return key.decrypt(sealed, _oaep())
    except (InvalidTag, ValueError):
        pass
    return None


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)


def _named(custody: Custody, index: int) -> str:
    return f"custodian {index} ({custody.custodians[index].name})"
