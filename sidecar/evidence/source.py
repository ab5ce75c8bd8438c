"""Where evidence comes from: the stream of a whole chain, as often as it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from sidecar.chain.stream import Kind

Records = Iterator[tuple[Kind, bytes]]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Something of the log's beside a chain: its name, and its bytes when asked for."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Source:
    """One chain. ``open`` gives its records from the start of the chain, as of now (proto/LEDGER.md, "Stream"); what
    it gave before it gives again, and perhaps more. It is told from which segment on entries are wanted, and may leave
    out those before. ``rare`` may leave out all entries but GENESIS, OPEN, POLICY and REGISTRY.
    ``first``: segments before it have no entries here any more, and `open` has context in their place.

    ``receipts`` are the log's, ``callers`` those that callers hold;
    ``prove`` has more of the log's made: of the first of these texts of seals that it holds, and of its last roll-call.
    ``size``: about how many bytes there are to read, for progress.
    """

    open: Callable[[int], AbstractContextManager[Records]]
    rare: Callable[[], AbstractContextManager[Records]]
    receipts: Sequence[Receipt] = ()
    callers: Sequence[bytes] = field(default=())
    size: int = 1
    first: int = 0
    prove: Callable[[Sequence[str]], Sequence[Receipt]] = lambda _: ()
