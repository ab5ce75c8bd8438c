"""Openings of a ledger's sealed personal fields, for whoever may read them (proto/LEDGER.md, "Openings")."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from sidecar.chain import personal
from sidecar.chain.entry import HEADER_SIZE, EntryType, Header
from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind, records
from sidecar.custody.sealing import FieldSealer
from sidecar.custody.subjects import SubjectKeys
from sidecar.errors import Malformed
from sidecar.verify import MAX_OPENINGS, ChainOpenings, Openings


def openings_of(
    read: Callable[[int], bytes], directory: Path, *, subjects: Collection[bytes] | None = None
) -> Openings:
    """What the keys in ``directory`` open of a stream. ``subjects``: of these alone.

    Claimed complete only where what is left out has a TOMBSTONE in the stream itself.

    Raises:
        Malformed: a stream that is none, or more than a file of openings may hold.
        ProofRejected: an entry whose fields are not those it commits to.
        UsageError, LedgerError, CustodyError: the keys cannot be used.
    """
    opener = _Opener(directory, subjects)
    for kind, body in records(read):
        if kind is Kind.ENTRY:
            opener.see(body)
    return opener.openings()


class _Opener:
    def __init__(self, directory: Path, subjects: Collection[bytes] | None) -> None:
        self._directory, self._subjects = directory, subjects
        self._chain_id = b""
        self._sealer: FieldSealer | None = None
        self._found: dict[int, bytes] = {}
        self._size = 0
        self._without: set[str] = set()
        self._erased: set[str] = set()

    def see(self, body: bytes) -> None:
        header = Header.decode(body[:HEADER_SIZE])
        self._chain_id = self._chain_id or header.chain_id
        if header.type is EntryType.TOMBSTONE:
            self._erased.add(entry(body)[1]["subject"])
        elif header.field_count:
            said = personal.read(header.type, entry(body)[1])
            assert said is not None
            self._open(header.seq, said)

    def _open(self, seq: int, said: personal.Personal) -> None:
        if self._sealer is None:
            keys = SubjectKeys.read(self._directory, self._chain_id)
            self._sealer = FieldSealer(None, keys, self._chain_id)
        wanted = self._subjects is None or said.subject in self._subjects
        opening = self._sealer.opening(seq, said) if wanted else None
        if opening is None:
            self._without.add(said.subject.hex())
            return
        self._found[seq] = opening
        self._size += len(opening) * 4 // 3 + 64
        if self._size > MAX_OPENINGS:
            raise Malformed(f"openings: more than {MAX_OPENINGS} bytes; ask for fewer entries")

    def openings(self) -> Openings:
        return Openings({self._chain_id: ChainOpenings(self._found, self._without <= self._erased)})
