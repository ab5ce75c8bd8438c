"""Damage by chance: from a seed, bundles that verifiers must agree on, verdict and place.

    python -m tests.conformance.mutations DIRECTORY FIRST COUNT      # writes them, and their trust file

``mutations(seed, count)`` gives the same bundles for the same numbers. Kinds: one byte anywhere in the file; bytes of a
content, with the bag made anew; records of a stream dropped, doubled, swapped, made bare, altered; members of the case;
files dropped or mixed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from sidecar.chain.stream import Kind
from tests.conformance.case_authority import of
from tests.conformance.cases import TRUST
from tests.conformance.chains import approved, files, pruned
from tests.conformance.packing import Files, packed
from tests.conformance.published import (
    AGENTS,
    Row,
    bare,
    middle,
    of_agent,
    only_stream,
    rows,
    with_rows,
)
from tests.scribe import flip

Mutate = Callable[[Random, Files], bytes]
_BASES: tuple[Callable[[], Files], ...] = (
    middle, of_agent, lambda: files(0, 4), lambda: files(6, 7), lambda: of(pruned(), 0, 3), lambda: of(pruned(), 1, 3),
    lambda: of(approved(), 0, 1),
)  # fmt: skip
_CASE = "data/case.json"


def _byte_of_file(random: Random, base: Files) -> bytes:
    whole = packed(base)
    return flip(whole, random.randrange(len(whole)), 1 << random.randrange(8))


def _byte_of_content(random: Random, base: Files) -> bytes:
    name = random.choice(sorted(base))
    return packed({**base, name: flip(base[name], random.randrange(len(base[name])), 1 << random.randrange(8))})


def _byte_of_entry(random: Random, base: Files) -> bytes:
    there = rows(base)
    where = random.choice([i for i, (kind, _) in enumerate(there) if kind in (Kind.ENTRY, Kind.BARE)])
    kind, body = there[where]
    there[where] = kind, flip(body, random.randrange(min(len(body), 249 + 64)), 1 << random.randrange(8))
    return packed(with_rows(base, there))


def _byte_of_note(random: Random, base: Files) -> bytes:
    there = rows(base)
    notes = (Kind.SEAL, Kind.HEAD, Kind.EPOCH, Kind.CONTEXT_SEAL, Kind.OPEN, Kind.GENESIS, Kind.AUTHORITY)
    where = random.choice([i for i, (kind, _) in enumerate(there) if kind in notes])
    kind, body = there[where]
    end = body.index(b"\n\n") if kind is Kind.CONTEXT_SEAL else len(body)  # a hash may vouch for it, not its signature
    there[where] = kind, flip(body, random.randrange(end), 1 << random.randrange(8))
    return packed(with_rows(base, there))


def _reordered(change: Callable[[Random, list[Row]], list[Row]]) -> Mutate:
    return lambda random, base: packed(with_rows(base, change(random, rows(base))))


def _dropped(random: Random, there: list[Row]) -> list[Row]:
    del there[random.randrange(len(there))]
    return there


def _doubled(random: Random, there: list[Row]) -> list[Row]:
    where = random.randrange(len(there))
    return [*there[:where], there[where], *there[where:]]


def _swapped(random: Random, there: list[Row]) -> list[Row]:
    a, b = random.sample(range(len(there)), 2)
    there[a], there[b] = there[b], there[a]
    return there


def _made_bare(random: Random, there: list[Row]) -> list[Row]:
    entries = [i for i, (kind, _) in enumerate(there) if kind is Kind.ENTRY]
    for where in random.sample(entries, min(len(entries), random.choice((1, 1, 2)))):
        there[where] = bare(there[where])
    return there


def _cut(random: Random, there: list[Row]) -> list[Row]:
    return there[: random.randrange(len(there))]


def _stream_cut(random: Random, base: Files) -> bytes:
    stream = base[only_stream(base)]
    return packed({**base, only_stream(base): stream[: random.randrange(len(stream))]})


def _case(random: Random, base: Files) -> bytes:
    case = json.loads(base[_CASE])
    claim = case["chains"][0]
    changes: list[Callable[[], object]] = [
        lambda: claim.update(first_segment=random.randrange(6)),
        lambda: claim.update(last_segment=random.randrange(9)),
        lambda: claim.update(entries=random.randrange(20)),
        lambda: claim.update(through=None),
        lambda: case.update(agents=random.choice([None, list(AGENTS), ["nobody"]])),
        lambda: case.update({"from": f"2026-01-01T00:{random.randrange(60):02d}:00.000000000Z"}),
        lambda: case.update(to=f"2026-01-01T00:{random.randrange(60):02d}:00.000000000Z"),
    ]
    random.choice(changes)()
    return packed({**base, _CASE: json.dumps(case).encode()})


def _file_dropped(random: Random, base: Files) -> bytes:
    name = random.choice(sorted(base))
    return packed({n: c for n, c in base.items() if n != name})


def _file_of_another(random: Random, base: Files) -> bytes:
    other = random.choice(_BASES)()
    name = random.choice(sorted(base.keys() & other.keys()))
    return packed({**base, name: other[name]})


KINDS: dict[str, Mutate] = {
    "byte-of-file": _byte_of_file,
    "byte-of-content": _byte_of_content,
    "byte-of-entry": _byte_of_entry,
    "byte-of-note": _byte_of_note,
    "record-dropped": _reordered(_dropped),
    "record-doubled": _reordered(_doubled),
    "records-swapped": _reordered(_swapped),
    "entry-made-bare": _reordered(_made_bare),
    "records-cut": _reordered(_cut),
    "stream-cut": _stream_cut,
    "case": _case,
    "file-dropped": _file_dropped,
    "file-of-another": _file_of_another,
}


def mutation(seed: int) -> tuple[str, bytes]:
    """One bundle, and what was done to it."""
    random = Random(seed)
    kind = random.choice(sorted(KINDS))
    return f"{seed}-{kind}", KINDS[kind](random, random.choice(_BASES)())


def mutations(first: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many bundles; the trust file for all is `trust.json`."""
    return (mutation(seed) for seed in range(first, first + count))


if __name__ == "__main__":
    _directory, _first, _count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _directory.mkdir(parents=True, exist_ok=True)
    (_directory / "trust.json").write_bytes(TRUST["trust.json"]())
    for _name, _bundle in mutations(_first, _count):
        (_directory / f"{_name}.zip").write_bytes(_bundle)
