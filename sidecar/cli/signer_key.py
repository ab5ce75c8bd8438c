"""A principal's private key as a command's argument: a PEM file, or a `pkcs11:` URI of a key in a token."""

from __future__ import annotations

from sidecar.cli.custodian_key import is_uri
from sidecar.client import AgentKey, Signer
from sidecar.custody import load_agent_token


def signer(source: str) -> Signer:
    """The key named. Raises UsageError."""
    return load_agent_token(source) if is_uri(source) else AgentKey.from_file(source)
