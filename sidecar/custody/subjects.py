"""Data subjects' keys, outside of the ledger: a directory of its own with two files, each 0600 and durable before use.

    kek.<n>    the key-encryption key, 32 bytes
    keys.<n>   "SDCSUB" 00 01 ‖ chain id ‖ records (proto/LEDGER.md, "Subject keys"), one more for each new subject

and, where a copy of them is kept, `copied`: SHA-256 of the key-encryption key and the copy's first line, by which the
next start knows it again.

An erasure writes generation n + 1 under a new key-encryption key without the subject's record, then destroys generation
n: first its key. Whichever the greatest whole generation is counts, so a crash leaves the one or the other. That what
was overwritten or unlinked is gone from a flash or copy-on-write medium nobody can promise.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar import files
from sidecar.chain.personal import KEY_BYTES, NONCE_BYTES, SUBJECT_BYTES
from sidecar.errors import CustodyError, LedgerError, LedgerFull, UsageError

MAX_SUBJECTS: Final = 1_000_000
MAX_WHO: Final = 1_024
"""Bytes of the JSON text that names a person."""

_MAGIC: Final = b"SDCSUB\x00\x01"
_CHAIN_AT: Final = len(_MAGIC)
_START: Final = _CHAIN_AT + 32
_FRAME: Final = struct.Struct(f">H{SUBJECT_BYTES}s{NONCE_BYTES}s")
_COPIED: Final = "copied"
_NAME: Final = re.compile(r"keys\.(0|[1-9][0-9]{0,17})")

Key = tuple[bytes, bytes]
"""A subject, 16 bytes, and its key, 32 bytes."""


@dataclass(slots=True)
class _Held:
    """One generation: its number, the key-encryption key, and by each person's JSON text subject and key."""

    generation: int
    kek: bytes
    by_who: dict[bytes, Key]


class KeysCopy(Protocol):
    """A second copy of the keys, elsewhere. What it was given is durable there once the call returns."""

    def there(self) -> bool:
        """Whether it is as it was left."""

    def found(self) -> tuple[bytes, bytes]:
        """Its first line and its records, as they were found, and durable; both empty where it cannot be read."""

    def replace(self, kek: bytes, records: bytes) -> bytes:
        """This key-encryption key and these records in the place of all that it held; gives its first line. Raises
        LedgerError."""

    def add(self, record: bytes) -> None:
        """One record more under the same key. Raises LedgerError."""


class SubjectKeys:
    """The keys of one chain's data subjects. Every method may be called from any thread."""

    def __init__(self, directory: Path, chain_id: bytes, entropy: Callable[[int], bytes], held: _Held) -> None:
        self._directory, self._chain_id, self._entropy = directory, chain_id, entropy
        self._guard = threading.Lock()
        self._copy: KeysCopy | None = None
        self._copied: int | None = None  # the generation that the copy holds all of
        self._lacking: set[bytes] = set()  # who has a key that the copy may not hold: it is not given
        self._take(held)

    @classmethod
    def open(cls, directory: Path, chain_id: bytes, entropy: Callable[[int], bytes] = os.urandom) -> SubjectKeys:
        """The keys in a directory, to be added to and erased; made where there are none. One process at a time: who
        holds the ledger's lock.

        Raises:
            LedgerError: it cannot be read or written. CustodyError: what is in it is not this chain's, or damaged.
        """
        with _translated(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            generation = _last(directory)
            if generation is None:
                keys = cls(directory, chain_id, entropy, _Held(0, entropy(KEY_BYTES), {}))
                keys._write(keys._held)
            else:
                held, whole = _read(directory, chain_id, generation)
                os.truncate(directory / f"keys.{generation}", whole)
                keys = cls(directory, chain_id, entropy, held)
            keys._tidy()
            return keys

    @classmethod
    def restore(
        cls, directory: Path, chain_id: bytes, by_who: Mapping[bytes, Key], entropy: Callable[[int], bytes] = os.urandom
    ) -> SubjectKeys:
        """Keys from a copy, under a new key-encryption key, in a directory that has none.

        Raises:
            UsageError: there are keys already. LedgerError: it cannot be written.
        """
        with _translated(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _last(directory) is not None:
                raise UsageError(f"there are keys of data subjects in {directory}; move them away first")
            keys = cls(directory, chain_id, entropy, _Held(0, entropy(KEY_BYTES), dict(by_who)))
            keys._write(keys._held)
            return keys

    @classmethod
    def read(cls, directory: Path, chain_id: bytes) -> SubjectKeys:
        """The keys in a directory, to be looked at, also while a sidecar uses them.

        Raises:
            UsageError: there are none. LedgerError, CustodyError: as :meth:`open`.
        """
        with _translated(directory):
            for _ in range(3):
                generation = _last(directory) if directory.is_dir() else None
                if generation is None:
                    break
                with contextlib.suppress(FileNotFoundError):  # it was replaced meanwhile
                    return cls(directory, chain_id, os.urandom, _read(directory, chain_id, generation)[0])
        raise UsageError(f"no keys of data subjects in {directory}; name the sidecar's personal.keys_dir")

    @staticmethod
    def chain_of(directory: Path) -> bytes | None:
        """The id of the chain whose data subjects' keys are in a directory; None: there are none."""
        with contextlib.suppress(OSError):
            generation = _last(directory)
            if generation is not None:
                with (directory / f"keys.{generation}").open("rb") as file:
                    return file.read(_START)[_CHAIN_AT:]
        return None

    def copy_to(self, copy: KeysCopy) -> None:
        """Keep a copy from now on: it holds a key before that is given, and no erased one once :meth:`erase` is done.

        Raises:
            LedgerError: the copy cannot be written.
        """
        with self._guard:
            self._copy, self._copied = copy, None
            if self._is_copied(*copy.found()):
                self._copied = self._held.generation
            self._keep()

    def look_after_copy(self) -> None:
        """Make the copy anew where it is away, or an earlier call could not write it. Raises LedgerError."""
        with self._guard:
            if self._copy is not None and not self._copy.there():
                self._copied = None
            self._keep()

    def of(self, who: bytes) -> Key:
        """The key of a person whom ``who``, compact JSON, names; a new one is durable, in the copy too, before it is
        given.

        Raises:
            LedgerFull: there are as many as there may be. LedgerError: it, or the copy, cannot be written.
        """
        with self._guard:
            record = b"" if who in self._held.by_who else self._add(who)
            if who in self._lacking:
                self._keep(record)
            return self._held.by_who[who]

    def _add(self, who: bytes) -> bytes:
        """A key for somebody new, durable here; gives its record."""
        if len(self._held.by_who) >= MAX_SUBJECTS:
            raise LedgerFull(f"{MAX_SUBJECTS} data subjects have keys, and there may be no more")
        made = self._entropy(SUBJECT_BYTES), self._entropy(KEY_BYTES)
        record = self._record(self._held.kek, who, made)
        with _translated(self._directory):
            append(self._directory / f"keys.{self._held.generation}", record)
        self._held.by_who[who] = made
        self._by_subject[made[0]] = made[1]
        self._lacking.add(who)
        return record

    def _keep(self, record: bytes = b"") -> None:
        """See that the copy holds what is held here, of which ``record`` is the last if it is new."""
        current = self._copied == self._held.generation
        if self._copy is not None and (record or not current):
            self._copied = None
            if current and self._copy.there():
                self._copy.add(record)
            else:
                mark = self._mark(self._copy.replace(*self._everything()))
                with _translated(self._directory):
                    files.put(self._directory / _COPIED, mark)
            self._copied = self._held.generation
        self._lacking.clear()

    def _is_copied(self, line: bytes, records: bytes) -> bool:
        """Whether that is the copy that was written last, and all that is held here."""
        try:
            known = (self._directory / _COPIED).read_bytes()
        except OSError:
            return False
        return known == self._mark(line) and records == self._everything()[1]

    def _mark(self, line: bytes) -> bytes:
        return sha256(b"sidecar/v1/subject-keys-copy\0" + self._held.kek + line).digest()

    def key(self, subject: bytes) -> bytes | None:
        """The key of a subject, if it has one: it was not erased."""
        return self._by_subject.get(subject)

    def named(self, who: bytes) -> bytes | None:
        """What the chain calls the person whom ``who`` names, if it has fields of theirs."""
        found = self._held.by_who.get(who)
        return None if found is None else found[0]

    def subjects(self) -> list[tuple[bytes, bytes]]:
        """Each subject and who it is, in the order they came in."""
        with self._guard:
            return [(subject, who) for who, (subject, _) in self._held.by_who.items()]

    def erase(self, subjects: Collection[bytes]) -> None:
        """Destroy the keys of these subjects, and the key that all were encrypted under, in the copy too. Where it
        fails nothing, or not everything, is destroyed: to be tried again. Raises LedgerError."""
        with self._guard, _translated(self._directory):
            if any(subject in self._by_subject for subject in subjects):
                left = {who: key for who, key in self._held.by_who.items() if key[0] not in subjects}
                following = _Held(self._held.generation + 1, self._entropy(KEY_BYTES), left)
                self._write(following)
                self._take(following)
            self._tidy()
            self._keep()

    def copy(self) -> tuple[bytes, bytes]:
        """The key-encryption key and all records under it. Raises LedgerError."""
        with self._guard:
            return self._everything()

    def _everything(self) -> tuple[bytes, bytes]:
        with _translated(self._directory):
            return self._held.kek, (self._directory / f"keys.{self._held.generation}").read_bytes()[_START:]

    def _take(self, held: _Held) -> None:
        self._held = held
        self._by_subject = dict(held.by_who.values())

    def _write(self, held: _Held) -> None:
        """A generation's files, its key first: it counts once the records have their name."""
        kek = self._directory / f"kek.{held.generation}"
        kek.unlink(missing_ok=True)
        files.write_new(kek, held.kek)
        records = [self._record(held.kek, who, key) for who, key in held.by_who.items()]
        name = self._directory / f"keys.{held.generation}"
        files.put(name, b"".join((_MAGIC, self._chain_id, *records)))

    def _tidy(self) -> None:
        """Destroy what is of another generation: overwritten before it is unlinked."""
        kept = {f"{name}.{self._held.generation}" for name in ("kek", "keys")}
        old = [p for p in self._directory.iterdir() if p.name.startswith(("kek.", "keys.")) and p.name not in kept]
        for path in sorted(old):  # kek before keys
            with path.open("r+b") as file:
                overwrite(file, self._entropy)
            path.unlink()
        if old:
            files.sync(self._directory)

    def _record(self, kek: bytes, who: bytes, key: Key) -> bytes:
        subject, secret = key
        nonce = self._entropy(NONCE_BYTES)
        sealed = AESGCM(kek).encrypt(nonce, secret + who, _bound(self._chain_id, subject))
        return _FRAME.pack(len(sealed), subject, nonce) + sealed


def overwrite(file: BinaryIO, entropy: Callable[[int], bytes]) -> None:
    """Put other bytes, durably, in the place of all that an open file holds. Raises OSError."""
    file.write(entropy(os.fstat(file.fileno()).st_size))
    file.flush()
    os.fsync(file.fileno())


def opened(kek: bytes, chain_id: bytes, records: bytes) -> tuple[dict[bytes, Key], int]:
    """What each person's JSON text has as subject and key, and how many bytes of the records are whole.

    Raises:
        CustodyError: a record that is all there, and does not open.
    """
    held: dict[bytes, Key] = {}
    at = 0
    while at + _FRAME.size <= len(records):
        length, subject, nonce = _FRAME.unpack_from(records, at)
        end = at + _FRAME.size + length
        if end > len(records):
            break
        try:
            plain = AESGCM(kek).decrypt(nonce, records[at + _FRAME.size : end], _bound(chain_id, subject))
        except (InvalidTag, ValueError):
            if not records[at:].strip(b"\0"):
                break
            raise CustodyError("keys of data subjects do not open: another key-encryption key, or damaged") from None
        held[plain[KEY_BYTES:]] = subject, plain[:KEY_BYTES]
        at = end
    return held, at


def _bound(chain_id: bytes, subject: bytes) -> bytes:
    return b"sidecar/v1/subject-key\0" + chain_id + subject


def _last(directory: Path) -> int | None:
    found = [int(match[1]) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    return max(found, default=None)


def _read(directory: Path, chain_id: bytes, generation: int) -> tuple[_Held, int]:
    """The keys of a generation, and how long its file of records is as far as it is whole."""
    kek = (directory / f"kek.{generation}").read_bytes()
    data = (directory / f"keys.{generation}").read_bytes()
    if data[:_CHAIN_AT] != _MAGIC or len(kek) != KEY_BYTES:
        raise CustodyError(f"what is in {directory} is no store of subjects' keys; name another personal.keys_dir")
    if data[_CHAIN_AT:_START] != chain_id:
        raise CustodyError(f"the keys in {directory} are of another chain's data subjects; name another directory")
    held, whole = opened(kek, chain_id, data[_START:])
    return _Held(generation, kek, held), _START + whole


def append(path: Path, record: bytes) -> None:
    """Put all of it at the end of a file, durably, or nothing. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        before = os.fstat(fd).st_size
        try:
            if os.write(fd, record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, before)
            raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def _translated(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"keys of data subjects in {directory}: {error.strerror}; mend that and start again"
        ) from None
