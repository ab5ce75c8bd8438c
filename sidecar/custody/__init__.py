"""Wrapping an epoch's seed for its custodians and opening it again; the keys that are kept in files.

Rules: private keys come from files and stay in memory; no message names a secret, every one names the custodian at
fault. What a share is bound to, and how seeds are split, is `chain.seeds`' to say.
"""

from sidecar.custody.disclosing import disclose
from sidecar.custody.keys import (
    PrivateKey,
    generate_authority,
    generate_custodian,
    load_authority,
    load_custodian,
    load_private,
)
from sidecar.custody.shares import open_seed, seal_shares

__all__ = [
    "PrivateKey",
    "disclose",
    "generate_authority",
    "generate_custodian",
    "load_authority",
    "load_custodian",
    "load_private",
    "open_seed",
    "seal_shares",
]
