"""Entries that follow each other as they must, held together against what is due (LEDGER.md rules 1, 2, 6, 7).

Most entries are DECISIONs and OUTCOMEs in their places. Whether all of a run are, in all but what their payloads say,
is told in a few comparisons of whole columns; what is wrong with a run that is not in order, and where, is told by
judging its entries one by one. So nothing is ever found here, and nothing is changed unless all is in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from sidecar.chain.entry import LAYOUT, TAGGED, EntryType
from sidecar.chain.limits import MAX_PAYLOAD
from sidecar.chain.stream import Kind
from sidecar.errors import Malformed
from sidecar.verify import contents
from sidecar.verify.contents import Fields, Told
from sidecar.verify.state import Phase, State

ORDINARY = frozenset({EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL, EntryType.REJECTED})
_SEGMENT = Phase.SEGMENT

LONGEST = 64
"""Entries: with headers and payloads they stay in a processor's cache."""
_LARGEST = 1 << 20  # bytes from which on it is long enough

Given = tuple[Kind, bytes, Told | None]
"""A record, and what is known of an entry's payload already."""


def runs(stream: Iterable[Given]) -> Iterator[list[Given]]:
    """Records in their order: several entries that follow each other, or one record of another kind.

    Raises:
        Malformed: what ``stream`` raised, once all records before it were given.
    """
    run: list[Given] = []
    size = 0
    trouble: Malformed | None = None
    try:
        for given in stream:
            entry = given[0] is Kind.ENTRY
            if entry:
                run.append(given)
                size += len(given[1])
            if run and (not entry or len(run) == LONGEST or size >= _LARGEST):
                yield run
                run, size = [], 0
            if not entry:
                yield [given]
    except Malformed as error:
        trouble = error
    if run:
        yield run
    if trouble is not None:
        raise trouble


class Run(NamedTuple):
    """What was read of entries in order: of each, the fields of its header, and its leaf."""

    fields: Sequence[Fields]
    leaves: Sequence[bytes]


def in_order(s: State, bodies: Sequence[bytes]) -> Run | None:
    """The entries, if they are the next ones of the open segment, linked, built, timed and tagged as they must be, and
    nothing waits for one of them. Clock and keys have then gone on past them."""
    following = range(s.seq, s.seq + len(bodies))
    if s.phase is not _SEGMENT or s.due is not None or s.closed or s.personal.given.entries:
        return None
    if not s.receipts.due.keys().isdisjoint(following) or len(min(bodies, key=len)) < contents.SHORTEST:
        return None
    fields = [LAYOUT.unpack_from(body) for body in bodies]
    (magics, types, algs, flags, epochs, seqs, segments, chains, links, _, lengths, counts, walls, monos, _, zeros,
     references, _) = zip(*fields, strict=True)  # fmt: skip
    if seqs != tuple(following) or not ORDINARY.issuperset(types):
        return None
    if set(zip(epochs, segments, chains, strict=True)) != {(s.epoch, s.segment, s.chain_id)}:
        return None
    shapes = list(zip(magics, types, algs, flags, counts, zeros, references, strict=True))
    if min(lengths) < 2 or max(lengths) > MAX_PAYLOAD or not _built(shapes, fields):
        return None
    leaves = [sha256(b"\0" + body[:TAGGED]).digest() for body in bodies]
    if links != (s.leaf, *leaves[:-1]) or not s.clock.steady(walls, monos) or not s.keys.fit(bodies):
        return None
    s.clock.wall, s.clock.mono = walls[-1], monos[-1]
    return Run(fields, leaves)


def _built(shapes: list[Fields], fields: list[Fields]) -> bool:
    """Whether the headers' structure is in order. Of each shape the first is looked at: what is before that is before
    those of its shape that follow."""
    first = dict(zip(reversed(shapes), reversed(fields), strict=True))
    try:
        for each in first.values():
            contents.structure(each)
    except Malformed:
        return False
    return True
