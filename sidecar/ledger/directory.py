"""A ledger's directory: `ledger.mdb` (and LMDB's own lock beside it), `identity.pem`, `lock`."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sidecar import files
from sidecar.errors import LedgerBusy, LedgerError, UsageError

IDENTITY: Final = "identity.pem"
LOCK: Final = "lock"


class Lock:
    """flock(2) on the file `lock`: one process at a time. The kernel lets go of it when the process dies."""

    def __init__(self, directory: Path) -> None:
        try:
            self._fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(f"cannot lock {directory}: {error.strerror}; give this user write access to it") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise LedgerBusy(f"another process has the ledger in {directory} open; stop it first") from None

    def release(self) -> None:
        """Let go. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def save_identity(directory: Path, key: Ed25519PrivateKey) -> None:
    """Write `identity.pem` (PKCS #8, mode 0600), durable once its directory is. Raises OSError."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files.write_new(directory / IDENTITY, pem)


def load_identity(directory: Path, public: bytes) -> Ed25519PrivateKey:
    """The chain's identity key.

    Raises:
        LedgerError: `identity.pem` is missing, cannot be read, or is not the key that GENESIS names.
    """
    path = directory / IDENTITY
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise LedgerError(f"cannot read {path}: {error.strerror}; put the chain's identity key back there") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise LedgerError(f"{path} holds no unencrypted private key; put the chain's identity key back there") from None
    if not isinstance(key, Ed25519PrivateKey) or key.public_key().public_bytes_raw() != public:
        raise LedgerError(f"{path} is not the identity key of this chain; put the right one back there")
    return key


@contextmanager
def founded(directory: Path) -> Iterator[Path]:
    """A new directory beside the one wanted, which takes its place if all went well and vanishes if not.

    Raises:
        UsageError: the one wanted exists and is not empty, or cannot be made.
    """
    directory = directory.absolute()
    try:
        if directory.is_symlink() or (directory.exists() and any(directory.iterdir())):
            raise UsageError(f"{directory} exists and is not empty; a new ledger needs a directory of its own")
        draft = directory.with_name(f".{directory.name}.new-{os.urandom(8).hex()}")
        draft.mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(f"cannot make {directory}: {error.strerror}; name a directory that can be made") from None
    try:
        yield draft
        files.sync(draft)
        draft.rename(directory)
        files.sync(directory.parent)
    except OSError as error:
        raise UsageError(
            f"cannot make {directory}: {error.strerror}; where it is a mount point, name a directory inside it"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
