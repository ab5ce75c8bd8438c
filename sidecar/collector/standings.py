"""Where each chain stands: what the index says, and never less than what this collector accepted, logged or called.

The index can be rebuilt, restored or written to by others. A line of it that says less than before would have the next
roll-call vouch for an old copy of that chain. So what is known to be true is kept beside it, from the log's objects on,
and a line that says less, or another thing of the same place, is put right before the roll is called.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import replace

from sidecar.chain.rollcall import Standing
from sidecar.collector.index import Index
from sidecar.errors import StorageError

log = logging.getLogger("sidecar.collector")

_ATTEMPTS = 100


def joined(old: Standing, new: Standing) -> Standing:
    """What is known of a chain together: each value the farthest that was said, of one place the older word."""
    both = old
    if new.sealed is not None and (old.sealed is None or new.sealed > old.sealed):
        both = replace(both, sealed=new.sealed, seal=new.seal)
    if new.seq is not None and (old.seq is None or new.seq > old.seq):
        both = replace(both, seq=new.seq, leaf=new.leaf, time=new.time)
    return replace(both, epoch=max(old.epoch, new.epoch))


class Standings:
    """``known``: what the log's objects say of each chain. All methods raise StorageError; any thread."""

    def __init__(self, index: Index, known: Iterable[Standing] = ()) -> None:
        self._index, self._lock = index, threading.Lock()
        self._known = {each.chain_id: each for each in known}
        self.mended = 0
        """Lines of the index that said less, or another thing, than what was known."""
        self.all()

    def put(self, new: Standing) -> None:
        """What is known of a chain is this and nothing farther: with its authority's consent it goes on from there."""
        with self._lock:
            self._known[new.chain_id] = new
        for _ in range(_ATTEMPTS):
            found = self._index.standing(new.chain_id)
            if self._index.stand(new, 0 if found is None else found[1]):
                return
        raise StorageError("a chain's line in the index changes all the time")

    def raise_to(self, new: Standing, *, lowered: bool = False) -> None:
        """Join what is newly known of a chain with its line. Where the index fails, the next roll-call has it still.

        ``lowered``: all there is of the chain is this; a line that says more is of what was lost."""
        if lowered:
            found = self._index.standing(new.chain_id)
            with self._lock:
                lines = [each for each in (found and found[0], self._known.get(new.chain_id)) if each is not None]
            if any((each.seq or 0) > (new.seq or 0) for each in lines):
                self.put(new)
                return
        try:
            self._write(new, index_first=True)
        finally:
            # After the index: what is known here is never ahead of a line that nobody touched.
            with self._lock:
                old = self._known.get(new.chain_id)
                self._known[new.chain_id] = new if old is None else joined(old, new)

    def sealed(self, chain_id: bytes) -> int | None:
        """The last segment of a chain whose seal is known to be in the log."""
        with self._lock:
            known = self._known.get(chain_id)
        return None if known is None else known.sealed

    def all(self) -> list[Standing]:
        """Every chain's line, in rising order of id."""
        with self._lock:  # before the lines are read, which only rise
            known = dict(self._known)
        lines = {each.chain_id: each for each in self._index.standings()}
        for chain_id, least in known.items():
            line = lines.get(chain_id)
            true = least if line is None else joined(least, line)
            if true != line:
                self.mended += 1
                log.error("the index says less or other of chain %s than was logged: put right", chain_id.hex())
                self._write(least, index_first=False)
                lines[chain_id] = true
        return [lines[chain_id] for chain_id in sorted(lines)]

    def _write(self, new: Standing, *, index_first: bool) -> None:
        for _ in range(_ATTEMPTS):
            found = self._index.standing(new.chain_id)
            if found is None:
                if self._index.stand(new, 0):
                    return
                continue
            line, version = found
            both = joined(line, new) if index_first else joined(new, line)
            if both == line or self._index.stand(both, version):
                return
        raise StorageError("a chain's line in the index changes all the time")
