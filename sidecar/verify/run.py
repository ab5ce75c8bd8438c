"""Entries that follow each other as they must, held together against what is due (LEDGER.md rules 1, 2, 6, 7).

Most entries are DECISIONs and OUTCOMEs in their places. Whether all of a run are, in all but what their payloads say,
is told in a few comparisons of whole columns; what is wrong with a run that is not in order, and where, is told by
judging its entries one by one. So nothing is ever found here, and nothing is changed unless all is in order.

What a run says by its own bytes alone may be seen by anybody, in any order (:func:`see`); whether it is due is said by
the judgement (:func:`in_order`), which takes run after run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from operator import lt, sub
from typing import NamedTuple

import msgspec

from sidecar.chain.entry import LAYOUT, TAGGED, TYPES, EntryType
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
_FARTHEST = 1 << 62  # nanoseconds between two clocks of one moment: any more is out of order on any ground

Run = tuple[Kind, list[bytes]]
"""The bodies of entry records that follow each other, or of one record of another kind."""


class Headers(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Headers that are well built, of one chain, epoch and segment, each the next of the one before and linked to it.

    ``seq`` and ``link`` are the first one's; ``mono`` are the first and the last boot-time clock, between which it
    rises; ``apart`` are the least and the greatest difference of wall and boot-time clock, ns.
    """

    epoch: int
    segment: int
    chain_id: bytes
    seq: int
    link: bytes
    leaves: list[bytes]
    walls: list[int]
    mono: tuple[int, int]
    apart: tuple[int, int]


class Seen(NamedTuple):
    """What a run's own bytes say: of its headers, if they are in order by themselves, and of each payload (`tell`)."""

    headers: Headers | None
    told: Sequence[Told | None]


def runs(stream: Iterable[tuple[Kind, bytes]]) -> Iterator[Run]:
    """Records in their order.

    Raises:
        Malformed: what ``stream`` raised, once all records before it were given.
    """
    run: list[bytes] = []
    size = 0
    trouble: Malformed | None = None
    try:
        for kind, body in stream:
            entry = kind is Kind.ENTRY
            if entry:
                run.append(body)
                size += len(body)
            if run and (not entry or len(run) == LONGEST or size >= _LARGEST):
                yield Kind.ENTRY, run
                run, size = [], 0
            if not entry:
                yield kind, [body]
    except Malformed as error:
        trouble = error
    if run:
        yield Kind.ENTRY, run
    if trouble is not None:
        raise trouble


def see(bodies: Sequence[bytes]) -> Seen:
    """What these entries say by themselves."""
    if len(min(bodies, key=len)) < contents.SHORTEST:
        return Seen(None, [contents.tell(body) for body in bodies])
    fields = [LAYOUT.unpack_from(body) for body in bodies]
    headers = _headers(bodies, fields)
    if headers is None:
        return Seen(None, [contents.tell(body) for body in bodies])
    return Seen(
        headers, [contents.tell_of(TYPES[each[1]], each, body) for each, body in zip(fields, bodies, strict=True)]
    )


def _headers(bodies: Sequence[bytes], fields: Sequence[Fields]) -> Headers | None:
    (magics, types, algs, flags, epochs, seqs, segments, chains, links, _, lengths, counts, walls, monos, _, zeros,
     references, _) = zip(*fields, strict=True)  # fmt: skip
    if seqs != tuple(range(seqs[0], seqs[0] + len(seqs))) or not ORDINARY.issuperset(types):
        return None
    places = set(zip(epochs, segments, chains, strict=True))
    shapes = list(zip(magics, types, algs, flags, counts, zeros, references, strict=True))
    if len(places) > 1 or min(lengths) < 2 or max(lengths) > MAX_PAYLOAD or not _built(shapes, fields):
        return None
    leaves = [sha256(b"\0" + body[:TAGGED]).digest() for body in bodies]
    if list(links[1:]) != leaves[:-1] or not all(map(lt, monos, monos[1:])):
        return None
    differences: list[int] = list(map(sub, walls, monos))
    apart = min(differences), max(differences)
    if apart[0] < -_FARTHEST or apart[1] > _FARTHEST:
        return None
    return Headers(*places.pop(), seqs[0], links[0], leaves, list(walls), (monos[0], monos[-1]), apart)


def _built(shapes: list[Fields], fields: Sequence[Fields]) -> bool:
    """Whether the headers' structure is in order. Of each shape the first is looked at: what is before that is before
    those of its shape that follow."""
    first = dict(zip(reversed(shapes), reversed(fields), strict=True))
    try:
        for each in first.values():
            contents.structure(each)
    except Malformed:
        return False
    return True


def in_order(s: State, it: Headers, bodies: Sequence[bytes]) -> bool:
    """Whether the entries are the next ones of the open segment, timed and tagged as they must be, and nothing waits
    for one of them. Clock and keys have then gone on past them."""
    if s.phase is not _SEGMENT or s.due is not None or s.closed or s.personal.given.entries:
        return False
    if (it.epoch, it.segment, it.chain_id, it.seq, it.link) != (s.epoch, s.segment, s.chain_id, s.seq, s.leaf):
        return False
    if s.receipts.due and not s.receipts.due.keys().isdisjoint(range(s.seq, s.seq + len(bodies))):
        return False
    if not s.clock.steady(it.mono[0], it.apart) or not s.keys.fit(bodies):
        return False
    s.clock.wall, s.clock.mono = it.walls[-1], it.mono[1]
    return True
