"""The receipt a caller brings back: proof of what this ledger had answered before.

A receipt of this chain that the ledger does not hold means that the ledger was cut, restored or changed, and nobody but
the caller may be able to tell. It is refused loudly, and recorded. Its signature settles nothing here: a restored copy
goes on under other keys than the one the receipt is from, so a lost receipt looks just like an invented one.
"""

from __future__ import annotations

from sidecar.chain import note
from sidecar.chain.head import Head
from sidecar.errors import Gone, Malformed, RequestError, WrongState
from sidecar.ledger import Ledger

REMEMBERED = 2_048


class Receipts:
    """Holds receipts that come back against the ledger; those it gave out of late it knows again, byte for byte."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._given: dict[bytes, None] = {}  # oldest first

    def give(self, receipt: bytes) -> None:
        """A receipt goes out, if there is one."""
        if not receipt:
            return
        self._given[receipt] = None
        if len(self._given) > REMEMBERED:
            del self._given[next(iter(self._given))]

    def is_foreign(self, receipt: bytes) -> bool:
        """Whether the receipt is of another chain; False also where there is none.

        Raises:
            RequestError: it is no receipt. WrongState: it is of this chain, and the ledger does not hold what it says.
        """
        return bool(receipt) and receipt not in self._given and _is_foreign(self._ledger, receipt)


def _is_foreign(ledger: Ledger, receipt: bytes) -> bool:
    try:
        head = Head.parse(note.parse(receipt).text)
    except Malformed:
        raise RequestError("last_receipt", "is not a receipt; send one as it was received, or none") from None
    if head.chain_id != ledger.position().chain_id:
        return True
    try:
        held = ledger.holds(head.seq, head.leaf)
    except Gone:
        raise WrongState(
            f"last_receipt: entry {head.seq} is no longer kept here, so this receipt cannot be held against it; send a "
            "newer one or none, and have the collector's copy verified with it"
        ) from None
    if not held:
        raise WrongState(
            f"last_receipt: this ledger does not hold entry {head.seq} as the receipt says: its end was cut, or it was "
            "restored or changed, or the receipt is invented; keep it and have the ledger verified with it"
        )
    return False
