"""Wrapping an epoch's seed for its custodians and opening it again; their keys, in files and in tokens; data subjects'
keys, and the personal fields that are sealed with them.

Rules: private keys come from files and stay in memory, or stay in their token; no message names a secret, every one
names the custodian at fault. What a share is bound to, and how seeds are split, is `chain.seeds`' to say.
"""

from sidecar.custody.disclosing import disclose
from sidecar.custody.kems import PrivateKey
from sidecar.custody.keys import (
    generate_agent,
    generate_authority,
    generate_custodian,
    generate_exporter,
    load_authority,
    load_authority_private,
    load_custodian,
    load_private,
    public_pem,
)
from sidecar.custody.opening import openings_of
from sidecar.custody.pkcs11 import load_pkcs11
from sidecar.custody.pkcs11_agent import load_agent_token, make_agent_token
from sidecar.custody.sealing import FieldSealer, Pointers
from sidecar.custody.shares import open_seed, seal_shares
from sidecar.custody.subjects import SubjectKeys
from sidecar.custody.subjects_copy import CopyFile, open_copy, wrap_copy

__all__ = [
    "CopyFile",
    "FieldSealer",
    "Pointers",
    "PrivateKey",
    "SubjectKeys",
    "disclose",
    "generate_agent",
    "generate_authority",
    "generate_custodian",
    "generate_exporter",
    "load_agent_token",
    "load_authority",
    "load_authority_private",
    "load_custodian",
    "load_pkcs11",
    "load_private",
    "make_agent_token",
    "open_copy",
    "open_seed",
    "openings_of",
    "public_pem",
    "seal_shares",
    "wrap_copy",
]
