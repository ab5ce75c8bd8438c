"""The copy of data subjects' keys that outlives the machine, wrapped for custodians (proto/LEDGER.md, "Subject keys").

It is not shipped: what a collector keeps under a retention lock could not be erased.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.chain.seeds import Custody, SealedShare
from sidecar.custody.kems import PrivateKey
from sidecar.custody.shares import open_seed, seal_shares
from sidecar.custody.subjects import Key, opened
from sidecar.errors import CustodyError, Malformed

FORMAT: Final = "sidecar/v1/subject-keys"


def wrap_copy(copy: tuple[bytes, bytes], custody: Custody, chain_id: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """The file: ``copy`` as `SubjectKeys.copy` gives it. Raises CustodyError where there is no custodian to open it."""
    kek, records = copy
    if not custody.custodians:
        raise CustodyError("this chain has no custodians: nobody could open a copy of the keys")
    shares = seal_shares(custody, _bound(chain_id), 0, kek, entropy)
    value = {
        "format": FORMAT,
        "chain": chain_id.hex(),
        "kek": [{"commit": s.commit.hex(), "sealed": base64.b64encode(s.sealed).decode()} for s in shares],
        "keys": base64.b64encode(records).decode(),
    }
    return strictjson.dumps(value) + b"\n"


def open_copy(data: bytes, keys: Sequence[PrivateKey], custody: Custody, chain_id: bytes) -> dict[bytes, Key]:
    """Subject and key by each person's JSON text.

    Raises:
        Malformed: not of this form, or of another chain. CustodianMissing, CustodyError: it does not open.
    """
    value = strictjson.parse_object(data)
    if value.keys() != {"format", "chain", "kek", "keys"} or value["format"] != FORMAT:
        raise Malformed(f"subject keys: an object with format {FORMAT!r}, chain, kek and keys is required")
    if value["chain"] != chain_id.hex():
        raise Malformed("subject keys: of another chain")
    if not isinstance(value["kek"], list):
        raise Malformed("subject keys: kek is an array")
    shares = [_share(each) for each in value["kek"]]
    records = _decoded(value["keys"])
    held, whole = opened(open_seed(keys, custody, _bound(chain_id), 0, shares), chain_id, records)
    if whole != len(records):
        raise CustodyError("the copy of the keys is cut short")
    return held


def _share(value: Any) -> SealedShare:
    if not isinstance(value, dict) or value.keys() != {"commit", "sealed"} or not isinstance(value["commit"], str):
        raise Malformed("subject keys: each share has the members commit and sealed")
    try:
        return SealedShare(bytes.fromhex(value["commit"]), _decoded(value["sealed"]))
    except ValueError:
        raise Malformed("subject keys: a commitment is not hex") from None


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise Malformed("subject keys: not base64")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise Malformed("subject keys: not base64") from None


def _bound(chain_id: bytes) -> bytes:
    """What stands in the place of the chain's id, so that no share of a seed is taken for one of these."""
    return sha256(b"sidecar/v1/subject-keys\0" + chain_id).digest()
