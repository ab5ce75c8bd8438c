"""Seeded damage to ledgers, from single bits to notes signed anew, for two verifiers to agree about."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Iterator

from sidecar.chain import note
from sidecar.chain.entry import HEADER_SIZE
from sidecar.chain.stream import Kind
from sidecar.verify import Disclosure, Evidence
from tests.scribe import Record, Scribe, flip, secret, signed_story, story, stream

Change = Callable[[random.Random, Scribe, list[Record]], None]
STORIES = (story(), signed_story())
DISAGREED = (904, 2630, 3390, 4592, 4863, 5670, 6154, 18763, 19265, 20203, 20558, 22501, 23461)
"""Seeds of mutants that two verifiers once judged differently, by rules that LEDGER.md had not made plain."""
_ENDS = (0, 8, 9, 10, 12, 16, 24, 32, 64, 96, 128, 132, 136, 144, 152, 156, 160, 168, 184, 216, 248)
FIELDS = tuple(itertools.pairwise(_ENDS))
VALUES = ("-", "0", "1", "7", "18446744073709551615", "00" * 32, "ab" * 32, "crash", "close", "count", "x y", "")


def _pick(rng: random.Random, records: list[Record]) -> int:
    return rng.randrange(len(records))


def bit(rng: random.Random, _: Scribe, records: list[Record]) -> None:
    """One bit of one record."""
    i = _pick(rng, records)
    if records[i].body:
        at = rng.randrange(len(records[i].body))
        records[i] = dataclasses.replace(records[i], body=flip(records[i].body, at, 1 << rng.randrange(8)))


def drop(rng: random.Random, _: Scribe, records: list[Record]) -> None:
    """One record is gone, or some in a row."""
    i = _pick(rng, records)
    del records[i : i + rng.choice((1, 1, 1, 2, 5))]


def double(rng: random.Random, _: Scribe, records: list[Record]) -> None:
    """One record once more, somewhere."""
    i = _pick(rng, records)
    records.insert(rng.choice((i, i + 1, _pick(rng, records))), records[i])


def swap(rng: random.Random, _: Scribe, records: list[Record]) -> None:
    """Two records change their places."""
    i = _pick(rng, records)
    j = rng.choice((_pick(rng, records), min(i + 1, len(records) - 1)))
    records[i], records[j] = records[j], records[i]


def cut(rng: random.Random, _: Scribe, records: list[Record]) -> None:
    """A record is shorter."""
    i = _pick(rng, records)
    records[i] = dataclasses.replace(records[i], body=records[i].body[: rng.randrange(len(records[i].body) + 1)])


def end(rng: random.Random, _: Scribe, records: list[Record]) -> None:
    """The ledger ends before its end."""
    del records[_pick(rng, records) + 1 :]


def kind(rng: random.Random, _: Scribe, records: list[Record]) -> None:
    """A record of another kind."""
    i = _pick(rng, records)
    records[i] = dataclasses.replace(records[i], kind=rng.choice([k for k in Kind if k in range(1, 9)]))


def field(rng: random.Random, _: Scribe, records: list[Record]) -> None:
    """A field of an entry is that of another entry, zeros, ones or one more."""
    entries = [i for i, r in enumerate(records) if r.kind is Kind.ENTRY and len(r.body) > 216]
    if not entries:
        return
    i, j = rng.choice(entries), rng.choice(entries)
    start, stop = rng.choice(FIELDS)
    old = int.from_bytes(records[i].body[start:stop], "big")
    size = stop - start
    top = 1 << 8 * size
    new = rng.choice(
        (records[j].body[start:stop], bytes(size), b"\xff" * size, ((old + 1) % top).to_bytes(size, "big"),
         ((old - 1) % top).to_bytes(size, "big"))
    )  # fmt: skip
    body = records[i].body[:start] + new + records[i].body[stop:]
    records[i] = dataclasses.replace(records[i], body=body)


def signed(rng: random.Random, s: Scribe, records: list[Record]) -> None:
    """A line of a note says something else, and the right key (or another) signs that."""
    notes = [i for i, r in enumerate(records) if r.kind in (Kind.EPOCH, Kind.HEAD, Kind.SEAL)]
    if not notes:
        return
    i = rng.choice(notes)
    try:
        parsed = note.parse(records[i].body)
    except Exception:
        return
    rows = parsed.text.splitlines()
    at = rng.randrange(1, len(rows))
    name, _, old = rows[at].partition(" ")
    near = str(int(old) + rng.choice((-1, 1))) if old.isdigit() else secret(rng.random()).hex()
    rows[at] = f"{name} {rng.choice((*VALUES, near, near))}"
    if rng.random() < 0.1:
        rows.insert(at, rng.choice(rows))
    crash = any(row in ("reason crash",) for row in rows) or records[i].kind is Kind.EPOCH
    key = s.identity if crash else s.signing.get(records[i].segment, s.identity)
    if rng.random() < 0.1:
        key = s.signing[0]
    text = "\n".join(rows) + "\n"
    try:
        body = note.sign(text, parsed.signatures[0].name, key)
    except Exception:
        return
    records[i] = dataclasses.replace(records[i], body=body)


def mix(rng: random.Random, _: Scribe, records: list[Record]) -> None:
    """The stored payload of one entry stands in another."""
    entries = [i for i, r in enumerate(records) if r.kind is Kind.ENTRY and len(r.body) > 216]
    if entries:
        i, j = rng.choice(entries), rng.choice(entries)
        cutoff = rng.choice((HEADER_SIZE, 216, 248))
        body = records[i].body[:cutoff] + records[j].body[cutoff:]
        records[i] = dataclasses.replace(records[i], body=body)


CHANGES: tuple[Change, ...] = (
    bit, bit, bit, drop, drop, double, swap, cut, end, kind, field, field, signed, signed, mix,
)  # fmt: skip


def mutant(seed: int, s: Scribe, records: list[Record]) -> bytes:
    """The stream of these records after one to three changes; the same for the same seed."""
    rng = random.Random(seed)
    changed = list(records)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if changed:
            rng.choice(CHANGES)(rng, s, changed)
    data = stream(changed)
    if rng.random() < 0.03:
        data = data[: rng.randrange(len(data) + 1)]
    if rng.random() < 0.03 and data:
        data = flip(data, rng.randrange(len(data)), 1 << rng.randrange(8))
    return data


def questions(seeds: Iterable[int]) -> Iterator[tuple[int, bytes, Evidence]]:
    """For each seed a mutant of one of the stories, and what it is judged with: keys for most, with and without what
    callers hold."""
    for seed in seeds:
        s = STORIES[seed % 2]
        keys = Disclosure(s.chain_id, s.keys) if seed % 3 else None
        data = mutant(seed, s, s.records)
        for seqs in ((), (4, 7, s.seq - 1) if seed % 2 else (5, 9, s.seq - 1)):
            yield seed, data, Evidence(disclosure=keys, receipts=[s.receipt(seq) for seq in seqs])
