"""A private key as a command's argument: a PEM file, or a `pkcs11:` URI of a key in a token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from sidecar.config import read_file
from sidecar.custody import PrivateKey, load_pkcs11, load_private

KEY_METAVAR = "FILE|PKCS11-URI"


def key_source(value: str) -> str:
    """For `type=` of an argument or option: the name of a file that exists, or a URI."""
    if not is_uri(value):
        click.Path(exists=True, dir_okay=False).convert(value, None, None)
    return value


def private_keys(sources: Sequence[str]) -> list[PrivateKey]:
    """The keys named. Raises UsageError."""
    return [load_pkcs11(s) if is_uri(s) else load_private(read_file(Path(s), "custodian key")) for s in sources]


def is_uri(source: str) -> bool:
    """Whether it names a key in a token."""
    return source.lower().startswith("pkcs11:")
