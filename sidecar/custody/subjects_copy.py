"""The copy of data subjects' keys that outlives the machine, wrapped for custodians (proto/LEDGER.md, "Subject keys").

A line for the key-encryption key, then the records, so that a new one is appended. It is not shipped: what a collector
keeps under a retention lock could not be erased.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from sidecar import files
from sidecar.chain import strictjson
from sidecar.chain.seeds import Custody, SealedShare
from sidecar.custody.kems import PrivateKey
from sidecar.custody.shares import open_seed, seal_shares
from sidecar.custody.subjects import Key, append, opened, overwrite
from sidecar.errors import CustodyError, LedgerError, Malformed

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
    }
    return strictjson.dumps(value) + b"\n" + records


class CopyFile:
    """The copy that is kept while a sidecar runs, in a file of its own: a `KeysCopy`."""

    def __init__(self, path: Path, custody: Custody, chain_id: bytes, entropy: Callable[[int], bytes]) -> None:
        self._path, self._custody, self._chain_id, self._entropy = path, custody, chain_id, entropy
        self._left: tuple[int, int, int] | None = None

    def there(self) -> bool:
        """Whether the file is the one that was written last, and as long."""
        return self._left is not None and self._left == self._found()

    def found(self) -> tuple[bytes, bytes]:
        """As `KeysCopy.found`."""
        try:
            with self._path.open("rb") as file:
                line, _, records = file.read().partition(b"\n")
                os.fsync(file.fileno())  # who wrote it may have died before
            files.sync(self._path.parent)
        except OSError:
            return b"", b""
        self._left = self._found()
        return line, records

    def replace(self, kek: bytes, records: bytes) -> bytes:
        """A new file in its place; what it held is overwritten. Raises LedgerError, CustodyError."""
        data = wrap_copy((kek, records), self._custody, self._chain_id, self._entropy)
        with self._writing(), contextlib.ExitStack() as stack:
            old = stack.enter_context(self._path.open("r+b")) if self._path.exists() else None
            files.put(self._path, data)
            if old is not None:
                overwrite(old, self._entropy)
        return data.partition(b"\n")[0]

    def add(self, record: bytes) -> None:
        """One record more at its end. Raises LedgerError."""
        with self._writing():
            append(self._path, record)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._left = None
        try:
            yield
        except OSError as error:
            said = error.strerror or str(error)
            raise LedgerError(f"the copy of the data subjects' keys, {self._path}: {said}; mend that") from None
        self._left = self._found()

    def _found(self) -> tuple[int, int, int] | None:
        try:
            seen = self._path.stat()
        except OSError:
            return None
        return seen.st_dev, seen.st_ino, seen.st_size


def open_copy(
    data: bytes, keys: Sequence[PrivateKey], custody: Custody, chain_id: bytes
) -> tuple[dict[bytes, Key], int]:
    """Subject and key by each person's JSON text, and how many bytes at the end are no whole record.

    Raises:
        Malformed: not of this form, or of another chain. CustodianMissing, CustodyError: it does not open.
    """
    line, ended, records = data.partition(b"\n")
    value = strictjson.parse_object(line)
    if not ended or value.keys() != {"format", "chain", "kek"} or value["format"] != FORMAT:
        raise Malformed(f"subject keys: a line with an object of format {FORMAT!r}, chain and kek is required")
    if value["chain"] != chain_id.hex():
        raise Malformed("subject keys: of another chain")
    if not isinstance(value["kek"], list):
        raise Malformed("subject keys: kek is an array")
    shares = [_share(each) for each in value["kek"]]
    held, whole = opened(open_seed(keys, custody, _bound(chain_id), 0, shares), chain_id, records)
    return held, len(records) - whole


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
