"""How a bundle is published: a name, how it is made, what every verifier must say of it; and tools to alter one."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

from sidecar.chain import note
from sidecar.chain.seal import Seal
from sidecar.chain.stream import MAGIC, Kind, record, records
from tests.conformance.chains import (
    OURS,
    bundle,
    chain,
    disclosure,
    files,
    notary,
    source,
    window,
)
from tests.conformance.packing import Files
from tests.scribe import Scribe

Row = tuple[Kind, bytes]
AGENTS = (OURS,)


class Due(NamedTuple):
    """What is due: the verdict, and the first bad place (``chain`` by its number among the case's chains)."""

    verdict: str
    chain: int | None = None
    segment: int | None = None
    seq: int | None = None


class Published(NamedTuple):
    """One bundle. ``trust``: the trust file to give, by name; ``of``: its chain, where it has one."""

    make: Callable[[], bytes]
    due: Due
    trust: str = "trust.json"
    of: Callable[[], Scribe] = chain


CASES: dict[str, Published] = {}


def published(
    name: str, verdict: str, *place: int | None, trust: str = "trust.json", of: Callable[[], Scribe] = chain
) -> Any:
    """Register the maker of a bundle."""

    def registered(make: Callable[[], bytes]) -> Callable[[], bytes]:
        assert name not in CASES
        CASES[name] = Published(make, Due(verdict, *(place or (None,))), trust, of)
        return make

    return registered


def ids() -> list[bytes]:
    """The chains' ids, in their order."""
    return sorted([chain().chain_id, chain("case-two").chain_id])


HERE = 0  # the number of the chain of most bundles, which hold one


# --- altering a good bundle


def folder() -> str:
    """Where :func:`chain` is in a bundle."""
    return f"data/chains/{chain().chain_id.hex()}"


def stream_name() -> str:
    return f"{folder()}/stream.sdcseg"


def only_stream(files: Files) -> str:
    """The name of the one stream of a bundle."""
    (name,) = (each for each in files if each.endswith("/stream.sdcseg"))
    return name


def rows(files: Files) -> list[Row]:
    """The records of the stream."""
    return list(records(BytesIO(files[only_stream(files)]).read))


def with_rows(files: Files, altered: list[Row]) -> Files:
    """The same bundle with another stream."""
    return {**files, only_stream(files): MAGIC + b"".join(record(*each) for each in altered)}


def case_of(files: Files) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files["data/case.json"])
    return found


def with_case(files: Files, **changed: Any) -> Files:
    """The same with other members of the case; those of a claim change its one chain's."""
    case = case_of(files)
    claims = {"first_segment", "last_segment", "entries", "through", "chain"} & changed.keys()
    case["chains"][0] |= {name: changed.pop(name) for name in claims}
    return {**files, "data/case.json": json.dumps(case | changed).encode()}


def at(rows: list[Row], seq: int) -> int:
    """Where the entry of this number is."""
    return next(
        i for i, (kind, body) in enumerate(rows) if kind in (5, 9) and int.from_bytes(body[16:24], "big") == seq
    )


def seal_at(rows: list[Row], segment: int, kind: Kind = Kind.SEAL) -> int:
    """Where the seal of this segment is."""
    return next(
        i for i, (k, body) in enumerate(rows) if k is kind and Seal.parse(note.parse(body).text).segment == segment
    )


def bare(row: Row) -> Row:
    return Kind.BARE, row[1][:216]


MIDDLE = (3, 4)  # in most bundles: a window of these segments
START = 9
"""Its first entry. A signed decision; 10 its outcome, 11 another agent's decision, 12 rejected, 13 denied; in the next
segment 14 another's, 15 a signed decision, 16 CLOSE."""


def middle() -> Files:
    return files(*MIDDLE)


def of_agent(*, keys: bool = True) -> Files:
    return files(*MIDDLE, agents=AGENTS, keys=keys)


def two() -> Files:
    a, b = chain(), chain("case-two")
    log = notary(a, b)
    start, end = window(a, *MIDDLE)
    return bundle([source(a, log, 4), source(b, log, 4)], start, end)


def to_end() -> Files:
    s = chain()
    start, _ = window(s, 6, 7)
    log = notary(s)
    return bundle([source(s, log, 7, end=True)], start, window(s, 6, 7)[1] + 10**12, keys=disclosure(s))
