"""A private key as a command's argument: a PEM file, or a `pkcs11:` URI of a key in a token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from sidecar.config import read_file
from sidecar.custody import PrivateKey, load_pkcs11, load_private
from sidecar.errors import UsageError

KEY_METAVAR = "FILE|PKCS11-URI"


def key_source(value: str) -> str:
    """For `type=` of an argument or option: the name of a file that exists, or a URI."""
    if not is_uri(value):
        click.Path(exists=True, dir_okay=False).convert(value, None, None)
    return value


def private_keys(sources: Sequence[str]) -> list[PrivateKey]:
    """The keys named. Raises UsageError."""
    return [load_pkcs11(source) if is_uri(source) else _of_file(Path(source)) for source in sources]


def _of_file(path: Path) -> PrivateKey:
    try:
        return load_private(read_file(path, "custodian key"))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def is_uri(source: str) -> bool:
    """Whether it names a key in a token."""
    return source.lower().startswith("pkcs11:")
