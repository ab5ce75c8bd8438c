"""How much of a chain no seal in the log covers yet, and since when: how blind whoever trusts the log alone is."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.chain import note
from sidecar.chain.seal import Seal
from sidecar.collector.held import Held


class Unanchored:
    """``at``: when the first entries of what is held and not in the log were taken, ns."""

    def __init__(self, held: Held, notes: Iterable[bytes], at: int) -> None:
        self._begun: dict[int, tuple[int, int]] = {}  # segment to its first entry, and when that was taken
        self.took(held, notes, at)

    def took(self, held: Held, notes: Iterable[bytes], at: int) -> None:
        """Up to ``held`` with these notes, epoch notes among them, was taken now."""
        for seal in map(_seal, notes):
            if seal is not None and seal.count:
                self._begun.setdefault(seal.segment, (seal.first, at))
        if held.seq > held.first:
            self._begun.setdefault(held.segment, (held.first, at))

    def look(self, held: Held, sealed: int | None, now: int) -> tuple[int, float]:
        """Entries after the last segment that is in the log, ``sealed``, and seconds since the oldest was taken."""
        begun = list(self._begun.items())  # whoever takes is another thread
        for segment, _ in begun:
            if sealed is not None and segment <= sealed:
                self._begun.pop(segment, None)
        left = [each for segment, each in begun if sealed is None or segment > sealed]
        if not left:
            return 0, 0.0
        return held.seq - min(first for first, _ in left), max(0, now - min(at for _, at in left)) / 1e9


def _seal(signed: bytes) -> Seal | None:
    text = note.parse(signed).text
    return Seal.parse(text) if text.startswith("sidecar/v1/seal\n") else None
