"""Personal fields put together from the configuration, and erasures left to be done. Belongs to `main.py`: see there.

LMDB has one writer, so `sidecar subjects erase` leaves the authority's note in a directory beside the keys, and whoever
has the ledger open does it: a running sidecar within a second, else the command itself, else the next start.

    acts/<hash>.act      the grant: to be done
    acts/<hash>.done     the seq of the TOMBSTONE, for whoever left it
    acts/<hash>.refused  why not

Where a copy of the keys is kept elsewhere (`personal.copy_file`), it holds a key before that seals anything, and
nothing counts as erased before the copy, too, is one without it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from sidecar import files
from sidecar.chain.limits import GENESIS_SEQ
from sidecar.chain.seeds import custody_of
from sidecar.config import Config
from sidecar.custody import CopyFile, FieldSealer, Pointers, SubjectKeys
from sidecar.errors import NotPermitted, UsageError
from sidecar.ledger import Ledger

log = logging.getLogger("sidecar.subjects")

ACTS: Final = "acts"


def keys_directory(config: Config) -> Path:
    """Where data subjects' keys are."""
    return Path(config.personal_keys_dir or Path(config.data_dir, "subjects"))


def pointers_of(config: Config) -> Pointers | None:
    """What is personal, as configured. Raises UsageError."""
    if not config.personal_subject:
        return None
    return Pointers(config.personal_subject, config.personal_fields)


class Erasing:
    """Seals a ledger's personal fields, and does what was left to be erased. Methods block."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        """Raises UsageError, LedgerError, CustodyError; what TOMBSTONEs name is erased before it returns."""
        from sidecar.decide import Erasure  # whoever only reads keys needs nothing of it

        self._acts = keys_directory(config) / ACTS
        chain_id = ledger.position().chain_id
        if ledger.payload(GENESIS_SEQ)["authority"] is None:
            log.warning("GENESIS names no authority: nobody can ever allow personal fields to be erased in this chain")
        keys = SubjectKeys.open(keys_directory(config), chain_id)
        self._erasure = Erasure(ledger, keys)
        self._erasure.settle()
        if config.personal_copy_file:
            custody = custody_of(ledger.payload(GENESIS_SEQ))
            keys.copy_to(CopyFile(Path(config.personal_copy_file), custody, chain_id, os.urandom))
        self._keys = keys
        ledger.seal_with(FieldSealer(pointers_of(config), keys, chain_id))

    def pick_up(self, then: Callable[[], None] = lambda: None) -> None:
        """Do what was left; ``then`` is called once something was erased. Raises LedgerError, CustodyError,
        OSError: to be tried again."""
        for act in waiting(self._acts):
            answer, said = ".done", ""
            try:
                said = str(self._erasure.apply(act.read_bytes()))
                log.warning("a data subject was erased: TOMBSTONE at entry %s", said)
            except NotPermitted as error:
                answer, said = ".refused", str(error)
                log.warning("an erasure was refused: %s", error)
            then()
            files.put(act.with_suffix(answer), said.encode())
            act.unlink()
        self._keys.look_after_copy()


def of(config: Config, ledger: Ledger) -> Erasing | None:
    """Where personal fields are configured, or were once: else None."""
    if not config.personal_subject and not keys_directory(config).is_dir():
        return None
    return Erasing(config, ledger)


def waiting(acts: Path) -> list[Path]:
    """The grants that were left."""
    return sorted(acts.glob("*.act")) if acts.is_dir() else []


def leave(config: Config, grant: bytes) -> Path:
    """Leave a grant to be done, durably; gives its file. Raises UsageError."""
    acts = keys_directory(config) / ACTS
    act = acts / f"{sha256(grant).hexdigest()}.act"
    try:
        acts.mkdir(mode=0o700, exist_ok=True)
        files.sync(acts.parent)
        for answer in (".done", ".refused"):
            act.with_suffix(answer).unlink(missing_ok=True)
        files.put(act, grant)
    except OSError as error:
        raise UsageError(f"cannot write {act}: {error.strerror}") from None
    return act
