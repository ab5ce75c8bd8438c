"""Entries of which it is not known what they say: what refers to one cannot be judged (LEDGER.md rules 10, 11)."""

from __future__ import annotations


class Unread:
    """Sequence numbers. A byte for each entry up to the last that was added, and none where none was."""

    def __init__(self) -> None:
        self._first = 0
        self._said = bytearray()

    def before(self, seq: int) -> None:
        """What is read in a row starts with this entry."""
        self._first, self._said = seq, bytearray()

    def add(self, seq: int) -> None:
        """This entry, the next or a later one, is bare, or its payload is of no use."""
        at = seq - self._first
        self._said.extend(bytes(at + 1 - len(self._said)))
        self._said[at] = 1

    def __contains__(self, seq: int) -> bool:
        at = seq - self._first
        return at < 0 or (at < len(self._said) and self._said[at] == 1)
