"""The log's receipts beside the ledger, in ``receipts/`` (proto/SHIPPING.md, "Answers").

Names tell what is there: nothing is read again. What the collector sends is proved before it is stored.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path

from sidecar.chain import checkpoint, merkle
from sidecar.chain.consistency import Consistency
from sidecar.chain.epoch import EpochNote
from sidecar.chain.logged import Logged, parse_entry
from sidecar.chain.note import VerifierKey
from sidecar.chain.rollcall import RollCall, Standing
from sidecar.chain.seal import Seal
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import CollectorRefused, LedgerError, Malformed, ProofRejected, SignatureInvalid
from sidecar.ship.link import Proved

_PROOF = re.compile(r"(?P<what>(?:seal|epoch)-[0-9]+)-(?P<size>[0-9]+)\.tlog-proof")
_JOINED = re.compile(r"(?P<size>[0-9]+)\.tlog-consistency")


def anchored_in(directory: Path) -> int | None:
    """The highest segment of the ledger in a directory whose seal has a receipt, by the names of its files."""
    try:
        names = [path.name for path in (directory / "receipts").iterdir()]
    except OSError:
        return None
    found = (match["what"] for name in names if (match := _PROOF.fullmatch(name)))
    return max((int(what.removeprefix("seal-")) for what in found if what.startswith("seal-")), default=None)


class Receipts:
    """``key`` is the log's, pinned. Raises LedgerError where the directory cannot be used."""

    def __init__(self, directory: Path, key: VerifierKey) -> None:
        self._directory, self._key = directory / "receipts", key
        self.since = 0
        """The size of the newest tree whose checkpoint is held; 0: none."""
        self.rolled: Standing | None = None
        """The chain's line in the last roll-call that was stored in this run."""
        self.anchored: int | None = None
        """The highest segment whose seal has a receipt."""
        self._have: set[str] = set()
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            for path in self._directory.iterdir():
                self._know(path.name)
        except OSError as error:
            raise LedgerError(f"cannot use {self._directory}: {error.strerror}") from None

    def missing(self, entries: list[bytes]) -> list[bytes]:
        """Those of the entries that no receipt is held of."""
        return [each for each in entries if _name(each.decode()) not in self._have]

    def set_aside(self, segment: int) -> None:
        """What is of this segment and those after it is of what was lost: others take their places. It stays a receipt.

        Raises:
            LedgerError: it cannot be renamed.
        """
        try:
            for path in list(self._directory.iterdir()):
                found = _PROOF.fullmatch(path.name)
                if found is not None and self._segment(path) >= segment:
                    path.replace(path.with_name(f"lost-{path.name}"))
        except OSError as error:
            raise LedgerError(f"cannot use {self._directory}: {error.strerror}") from None
        self._have, self.anchored, self.rolled = set(), None, None
        for path in self._directory.iterdir():
            self._know(path.name)

    def _segment(self, path: Path) -> int:
        try:
            entry = Logged.parse(TlogProof.parse(path.read_bytes()).extra or b"").entry
        except Malformed:
            return -1
        return -1 if isinstance(entry, RollCall) else entry.segment

    def store(self, chain_id: bytes, proved: Proved) -> None:
        """Check what the collector proved, and keep it, durably, the consistency file first.

        Raises:
            CollectorRefused: it proves nothing, or not of this log and chain.
            LedgerError: it cannot be written.
        """
        given = [each for each in (*proved.proofs, proved.roll_call) if each]
        if not given:
            return
        try:
            read = [self._proof(chain_id, each) for each in given]
            sizes = {size for _, size in read}
            if len(sizes) != 1:
                raise Malformed("proofs under several checkpoints")
            (size,) = sizes
            if size < self.since:
                return
            if self.since and size > self.since:
                self._joins(proved.consistency, size)
            stamps = [each for each in proved.timestamps if Timestamp.parse(each)]
        except (Malformed, ProofRejected, SignatureInvalid) as error:
            raise CollectorRefused("MALFORMED", f"what it sends as receipts proves nothing: {error}") from None
        if self.since and size > self.since:
            self._write(f"{size}.tlog-consistency", proved.consistency)
        for (name, _), data in zip(read, given, strict=True):
            self._write("roll-call.tlog-proof" if name == "roll-call" else f"{name}-{size}.tlog-proof", data)
        if proved.roll_call:
            answer = Logged.parse(TlogProof.parse(proved.roll_call).extra or b"").answer
            self.rolled = answer.standing if answer else None
        for stamp in stamps:
            self._write(f"{size}-{sha256(stamp).hexdigest()[:8]}.timestamp", stamp)
        self.since = size

    def _proof(self, chain_id: bytes, data: bytes) -> tuple[str, int]:
        proof = TlogProof.parse(data)
        logged = Logged.parse(proof.extra or b"")
        at = checkpoint.verify(proof.checkpoint, self._key)[0]
        merkle.verify_inclusion(proof.index, at.size, merkle.leaf_hash(logged.text.encode()), proof.path, at.root)
        if logged.answer is not None and isinstance(logged.entry, RollCall):
            logged.answer.verify(logged.entry)
        if logged.chain_id != chain_id:
            raise Malformed("a receipt of another chain")
        return _name(logged.text), at.size

    def _joins(self, data: bytes, size: int) -> None:
        joined = Consistency.parse(data)
        if joined.old != self.since or checkpoint.verify(joined.checkpoint, self._key)[0].size != size:
            raise Malformed("a consistency file of other trees")

    def _write(self, name: str, data: bytes) -> None:
        beside, place = self._directory / f".{name}.new", self._directory / name
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(place)
            descriptor = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise LedgerError(f"cannot write {place}: {error.strerror}") from None
        self._know(name)

    def _know(self, name: str) -> None:
        found = _PROOF.fullmatch(name) or _JOINED.fullmatch(name)
        if found is None:
            return
        what = found.groupdict().get("what") or ""
        self._have.add(what)
        if what.startswith("seal-"):
            self.anchored = max(self.anchored or 0, int(what.removeprefix("seal-")))
        self.since = max(self.since, int(found["size"]))


def _name(text: str) -> str:
    read = parse_entry(text)
    if isinstance(read, Seal):
        return f"seal-{read.segment}"
    return f"epoch-{read.epoch}" if isinstance(read, EpochNote) else "roll-call"
