"""What of a receipt needs no key: the lines of its text, and which receipt to send with the next question.

A receipt is a C2SP signed note: lines `name value`, an empty line, signatures (`proto/LEDGER.md`, "Head"). Its
signature is not checked here: that takes the chain's keys, and `sidecar verify --receipt` does it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from sidecar.client.decision import Decision
from sidecar.client.refusals import NoDecision


def names(receipt: bytes, wanted: dict[str, str]) -> bool:
    """Whether the receipt's text has each of these lines, once and with exactly this value."""
    return all(_values(receipt, name) == [value.encode()] for name, value in wanted.items())


class LastReceipt:
    """The receipt of the latest answer: of all that were given side by side, the one furthest on in its chain."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chain: list[bytes] = []
        self._seq = -1
        self._receipt = b""

    @property
    def receipt(self) -> bytes:
        """As it was received; empty before the first."""
        return self._receipt

    def take(self, receipt: bytes) -> None:
        """Keeps it unless a later one of the same chain is kept already. What names no place in a chain is left out."""
        chain, seq = _values(receipt, "chain"), _values(receipt, "seq")
        if len(chain) != 1 or len(seq) != 1 or not seq[0].isdigit() or len(seq[0]) > 20:
            return
        with self._lock:
            if chain != self._chain or int(seq[0]) > self._seq:
                self._chain, self._seq, self._receipt = chain, int(seq[0]), receipt

    def take_all(self, answers: Iterable[Decision | NoDecision]) -> None:
        """Keeps the latest of several answers' receipts."""
        for answer in answers:
            if isinstance(answer, Decision):
                self.take(answer.receipt)


def _values(receipt: bytes, name: str) -> list[bytes]:
    text, _blank_line, _signatures = receipt.rpartition(b"\n\n")
    start = name.encode() + b" "
    return [line[len(start) :] for line in text.split(b"\n") if line.startswith(start)]
