"""Erasing a data subject's fields: by the authority's note, a TOMBSTONE first, then the key (proto/LEDGER.md).

    note verified ─► TOMBSTONE durable ─► key destroyed ─► what waited on the fields is over

A crash in between leaves a TOMBSTONE whose subject still has a key: :meth:`Erasure.settle` destroys it before anything
is answered, as it does with the keys in an old copy that was given back.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from sidecar.chain import authority_note
from sidecar.chain.acts import Erase
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import GENESIS_SEQ
from sidecar.chain.retention import NEVER_ERASED
from sidecar.errors import Malformed, NotPermitted, SignatureInvalid
from sidecar.ledger import Draft, Ledger


class Keys(Protocol):
    """Who keeps subjects' keys."""

    def erase(self, subjects: Collection[bytes]) -> None:
        """Destroy the keys of these subjects, those that there are. Raises LedgerError; to be tried again then."""


class Erasure:
    """Erasures of one open ledger. Blocks: not for an event loop's thread."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger, self._keys = ledger, keys

    def settle(self) -> None:
        """Destroy every key whose subject has a TOMBSTONE. Raises LedgerError."""
        self._keys.erase({bytes.fromhex(value["subject"]) for value in self._tombstones().values()})

    def apply(self, grant: bytes) -> int:
        """Erase what an authority note allows; gives the seq of its TOMBSTONE. The same again changes nothing.

        Raises:
            NotPermitted: this chain's authority did not sign it, or nothing may be erased in this chain.
            LedgerError: it could not be done, or not all of it: to be tried again.
        """
        act = self._allowed(grant)
        before = [seq for seq, value in self._tombstones().items() if value["subject"] == act.subject.hex()]
        seq = before[0] if before else self._bury(act, grant)
        self._keys.erase({act.subject})
        return seq

    def _allowed(self, grant: bytes) -> Erase:
        genesis = self._ledger.payload(GENESIS_SEQ)
        if genesis["retention"] in NEVER_ERASED:
            raise NotPermitted(f"the chain has the retention profile {genesis['retention']}: nothing of it is erased")
        if genesis["authority"] is None:
            raise NotPermitted("GENESIS names no authority, so nobody can allow an erasure in this chain")
        try:
            chain_id = self._ledger.position().chain_id
            act = authority_note.verify(grant, chain_id, bytes.fromhex(genesis["authority"])).act
        except (Malformed, SignatureInvalid) as error:
            raise NotPermitted(f"the authority of this chain did not sign this: {error}") from None
        if not isinstance(act, Erase):
            raise NotPermitted("the authority note is not about an erasure")
        return act

    def _bury(self, act: Erase, grant: bytes) -> int:
        signed, body = authority_note.split(grant)
        value = {
            "type": EntryType.TOMBSTONE.name,
            "subject": act.subject.hex(),
            "note": signed.decode(),
            "body": body.decode(),
        }
        return self._ledger.append(Draft(EntryType.TOMBSTONE, value, ref_seq=GENESIS_SEQ)).result().seq

    def _tombstones(self) -> dict[int, dict[str, Any]]:
        return {seq: self._ledger.payload(seq) for seq, _ in self._ledger.about(GENESIS_SEQ)}
