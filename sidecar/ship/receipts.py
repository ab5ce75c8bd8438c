"""The log's receipts beside the ledger, in ``receipts/`` (proto/SHIPPING.md, "Answers").

Names tell what is there; only the newest checkpoint is read again. What the collector sends is proved before it is
stored, also that its log extends the one that is held: else it forked, or was restored from an old copy.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from sidecar import files
from sidecar.chain import checkpoint, merkle
from sidecar.chain.checkpoint import Checkpoint
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

_ROLL_CALL = "roll-call"
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
        self._root = merkle.EMPTY_ROOT
        self.rolled: Standing | None = None
        """The chain's line in the last roll-call that was stored in this run."""
        self.anchored: int | None = None
        """The highest segment whose seal has a receipt."""
        self._have: set[str] = set()
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            for path in list(self._directory.iterdir()):
                if path.suffix == files.DRAFT:
                    path.unlink()  # of a receipt that is asked for again, perhaps under another name
                self._know(path.name)
            self._find_newest()
        except OSError as error:
            raise LedgerError(f"cannot use {self._directory}: {error.strerror}") from None

    def _find_newest(self) -> None:
        """The newest tree whose checkpoint can be read."""
        held: dict[int, list[Path]] = {}
        for path in self._directory.iterdir():
            if found := _PROOF.fullmatch(path.name) or _JOINED.fullmatch(path.name):
                held.setdefault(int(found["size"]), []).append(path)
        for size in sorted(held, reverse=True):
            for path in held[size]:
                with contextlib.suppress(Malformed, SignatureInvalid):
                    data = path.read_bytes()
                    joined = path.name.endswith(".tlog-consistency")
                    signed = Consistency.parse(data).checkpoint if joined else TlogProof.parse(data).checkpoint
                    at = checkpoint.verify(signed, self._key)[0]
                    self.since, self._root = at.size, at.root
                    return

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

    def store(self, chain_id: bytes, asked: Sequence[bytes], proved: Proved) -> bool:
        """Check what the collector proved of the entries that were asked for, and keep it, durably, the consistency
        file first. False: nothing was proved under the newest tree that is known, or one that extends it.

        Raises:
            CollectorRefused: it proves nothing, or not of this log and chain, or something else than was asked.
            LedgerError: it cannot be written.
        """
        given = [each for each in (*proved.proofs, proved.roll_call) if each]
        if not given:
            return False
        try:
            self._answers(asked, proved)
            read = [self._proof(chain_id, each) for each in given]
            trees = {(at.size, at.root) for _, at in read}
            if len(trees) != 1:
                raise Malformed("proofs under several checkpoints")
            ((size, root),) = trees
            if size < self.since:
                return False
            if self.since:
                self._joins(proved.consistency, size, root)
            stamps = [each for each in proved.timestamps if Timestamp.parse(each)]
        except (Malformed, ProofRejected, SignatureInvalid) as error:
            raise CollectorRefused("MALFORMED", f"what it sends as receipts proves nothing: {error}") from None
        if self.since and size > self.since:
            self._write(f"{size}.tlog-consistency", proved.consistency)
        for (name, _), data in zip(read, given, strict=True):
            if name != _ROLL_CALL:
                self._write(f"{name}-{size}.tlog-proof", data)
        if proved.roll_call and _position(proved.roll_call) >= self._rolled_at(chain_id):
            self._write(f"{_ROLL_CALL}.tlog-proof", proved.roll_call)
            answer = Logged.parse(TlogProof.parse(proved.roll_call).extra or b"").answer
            self.rolled = answer.standing if answer else None
        for stamp in stamps:
            self._write(f"{size}-{sha256(stamp).hexdigest()[:8]}.timestamp", stamp)
        self.since, self._root = size, root
        return True

    def _answers(self, asked: Sequence[bytes], proved: Proved) -> None:
        """Whether each proof is of the entry that was asked for in its place. Raises Malformed."""
        texts = [_text(each) if each else None for each in proved.proofs]
        if len(texts) > len(asked) or any(text not in (None, entry) for text, entry in zip(texts, asked, strict=False)):
            raise Malformed("a receipt of another entry than was asked for")
        if proved.roll_call and _name(_text(proved.roll_call).decode()) != _ROLL_CALL:
            raise Malformed("in the place of a roll-call something else")

    def _rolled_at(self, chain_id: bytes) -> int:
        """Where in the log the roll-call is that is held; −1: there is none that can be read."""
        try:
            held = (self._directory / f"{_ROLL_CALL}.tlog-proof").read_bytes()
            self._proof(chain_id, held)
            return _position(held)
        except (OSError, Malformed, ProofRejected, SignatureInvalid):
            return -1

    def _proof(self, chain_id: bytes, data: bytes) -> tuple[str, Checkpoint]:
        proof = TlogProof.parse(data)
        logged = Logged.parse(proof.extra or b"")
        at = checkpoint.verify(proof.checkpoint, self._key)[0]
        merkle.verify_inclusion(proof.index, at.size, merkle.leaf_hash(logged.text.encode()), proof.path, at.root)
        if logged.answer is not None and isinstance(logged.entry, RollCall):
            logged.answer.verify(logged.entry)
        if logged.chain_id != chain_id:
            raise Malformed("a receipt of another chain")
        return _name(logged.text), at

    def _joins(self, data: bytes, size: int, root: bytes) -> None:
        proof: tuple[bytes, ...] = ()
        if size > self.since:
            joined = Consistency.parse(data)
            at = checkpoint.verify(joined.checkpoint, self._key)[0]
            if joined.old != self.since or (at.size, at.root) != (size, root):
                raise Malformed("a consistency file of other trees")
            proof = joined.proof
        try:
            merkle.verify_consistency(self.since, size, self._root, root, proof)
        except ProofRejected:
            raise ProofRejected(
                f"its log of {size} entries does not extend that of {self.since} which it showed before: it forked, or "
                "was restored from an old copy"
            ) from None

    def _write(self, name: str, data: bytes) -> None:
        place = self._directory / name
        try:
            files.put(place, data, 0o644)
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


def _position(proof: bytes) -> int:
    return TlogProof.parse(proof).index


def _text(proof: bytes) -> bytes:
    """The entry that it proves. Raises Malformed."""
    return Logged.parse(TlogProof.parse(proof).extra or b"").text.encode()


def _name(text: str) -> str:
    read = parse_entry(text)
    if isinstance(read, Seal):
        return f"seal-{read.segment}"
    return f"epoch-{read.epoch}" if isinstance(read, EpochNote) else _ROLL_CALL
