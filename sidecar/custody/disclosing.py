"""Handing out the keys of single segments: what a custodian does for an auditor (proto/LEDGER.md, "Other formats").

The ledger is read from its beginning, so that each epoch's seed is bound to a note the sidecar signed. Only a segment
whose seal commits to its keys is disclosed: the keys of any other could not be told from invented ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sidecar.chain import note, seeds
from sidecar.chain.entry import EntryType
from sidecar.chain.epoch import EpochNote
from sidecar.chain.lines import identity_name
from sidecar.chain.ratchet import Ratchet, SegmentKeys, mac_key_commit, seed_commit, tag_key_commit
from sidecar.chain.recorded import entry
from sidecar.chain.seal import Seal
from sidecar.chain.seeds import Custody, seeds_digest
from sidecar.chain.stream import Kind, records
from sidecar.custody.kems import PrivateKey
from sidecar.custody.shares import open_seed
from sidecar.errors import CustodyError, Malformed
from sidecar.verify import Disclosure

_OPENINGS = (bytes((EntryType.GENESIS,)), bytes((EntryType.OPEN,)))


def disclose(read: Callable[[int], bytes], keys: Sequence[PrivateKey], segments: Iterable[int]) -> bytes:
    """The disclosure file for some sealed segments of a ledger stream.

    Raises:
        CustodyError: a key that does not open the seed; a segment not there, not sealed, or ended by a crash.
        Malformed: a stream that is not a ledger's.
    """
    teller = _Teller(keys, frozenset(segments))
    for kind, body in records(read):
        teller.see(kind, body)
    return teller.disclosure().encode()


class _Teller:
    def __init__(self, keys: Sequence[PrivateKey], wanted: frozenset[int]) -> None:
        self._private = keys
        self._wanted = wanted
        self._told: dict[int, SegmentKeys] = {}
        self._genesis: dict[str, Any] = {}
        self._custody = Custody("any", ())
        self._chain_id = b""
        self._pending_note = b""
        self._ratchet: Ratchet | None = None

    def see(self, kind: Kind, body: bytes) -> None:
        if kind is Kind.EPOCH:
            self._pending_note, self._ratchet = body, None
        elif kind is Kind.ENTRY and body[8:9] in _OPENINGS:
            self._opening(body)
        elif kind is Kind.SEAL:
            self._sealed(body)

    def disclosure(self) -> Disclosure:
        missing = sorted(self._wanted - self._told.keys())
        if missing:
            raise CustodyError(
                f"segment {missing[0]} is not sealed in this ledger, or a crash ended it: nothing commits to its keys"
            )
        return Disclosure(self._chain_id, self._told)

    def _opening(self, body: bytes) -> None:
        header, value = entry(body)
        if header.type is EntryType.GENESIS:
            self._genesis, self._custody, self._chain_id = value, seeds.custody_of(value), header.chain_id
            return
        if not self._genesis:
            raise Malformed("stream does not start with GENESIS: give the whole ledger")
        identity = bytes.fromhex(self._genesis["identity"])
        text = note.verify_single(self._pending_note, identity_name(self._chain_id), identity)
        epoch, shares = EpochNote.parse(text), seeds.shares_of(value)
        if seeds_digest(shares) != epoch.seeds:
            raise CustodyError(f"epoch {epoch.epoch}: the wrapped seeds are not those that the sidecar signed")
        seed = open_seed(self._private, self._custody, self._chain_id, epoch.epoch, shares)
        if seed_commit(self._chain_id, epoch.epoch, seed) != epoch.seed_commit:
            raise CustodyError(f"epoch {epoch.epoch}: the seed is not the one that the sidecar committed to")
        self._ratchet = Ratchet(self._chain_id, epoch.epoch, seed, epoch.segment)

    def _sealed(self, body: bytes) -> None:
        seal = Seal.parse(note.parse(body).text)
        if self._ratchet is None:
            return
        keys = self._ratchet.advance()
        if seal.segment not in self._wanted or seal.mac_key is None:
            return
        if seal.mac_key != mac_key_commit(keys.mac_key) or seal.tag_key != tag_key_commit(keys.tag_key):
            raise CustodyError(f"segment {seal.segment}: its seal commits to other keys; verify the ledger")
        self._told[seal.segment] = keys
