"""Good bundles, and such as claim what is not so: in case.json, in their names, in their files."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.chains import (
    chain,
    files,
)
from tests.conformance.packing import bagged, deflated, packed, stored, zipped
from tests.conformance.published import (
    CASES,
    HERE,
    MIDDLE,
    Due,
    Published,
    at,
    case_of,
    folder,
    middle,
    of_agent,
    published,
    rows,
    stream_name,
    to_end,
    two,
    with_case,
    with_rows,
)
from tests.scribe import flip

# --- good bundles


@published("good-whole", "OK")
def _() -> bytes:
    return packed(files(0, 4))


@published("good-window", "OK")
def _() -> bytes:
    return packed(middle())


@published("good-window-from-an-epoch", "OK")
def _() -> bytes:
    return packed(files(6, 7))


@published("good-window-of-an-empty-segment", "OK")
def _() -> bytes:
    return packed(files(2, 2))


@published("good-agent", "OK")
def _() -> bytes:
    return packed(of_agent())


@published("good-without-keys", "OK")
def _() -> bytes:
    return packed(files(*MIDDLE, keys=False))


@published("good-deflated", "OK")
def _() -> bytes:
    made = bagged(middle())
    return zipped([stored(n, c) if n == stream_name() else deflated(n, c) for n, c in made.items()])


@published("good-two-chains", "OK", trust="trust-two.json")
def _() -> bytes:
    return packed(two())


@published("good-whole-chain-with-a-roll-call", "UNANCHORED")  # its last segment is open, and it lies past the window
def _() -> bytes:
    return packed(to_end())


@published("good-crashed", "UNANCHORED")
def _() -> bytes:
    return packed(files(5, 6))


@published("good-no-trust-file-knows-a-log", "UNANCHORED", trust="trust-no-log.json")
def _() -> bytes:
    return packed(middle())


@published("good-with-further-files", "OK")
def _() -> bytes:
    more = {"data/report.pdf": b"%PDF-2.0", "data/notes/from-the-auditor.txt": b"seen", "data/verify.py": b"print()"}
    return packed({**middle(), **more})


# --- the case


def _case(name: str, verdict: str, *place: int | None, **changed: Any) -> None:
    CASES[f"case-{name}"] = Published(lambda: packed(with_case(middle(), **changed)), Due(verdict, *(place or (None,))))


_case("other-format", "MALFORMED", format="sidecar/v2/evidence")
_case("further-member", "MALFORMED", more=1)
_case("window-backwards", "MALFORMED", to="1970-01-01T00:00:00.000000001Z")
_case("time-that-is-none", "MALFORMED", exported="2026-02-30T00:00:00.000000000Z")
_case("time-in-other-spelling", "MALFORMED", exported="2026-02-01T00:00:00Z")
_case("no-agents", "MALFORMED", agents=[])
_case("agents-out-of-order", "MALFORMED", agents=["b", "a"])
_case("agents-twice", "MALFORMED", agents=["a", "a"])
_case("other-profile", "MALFORMED", profile="secret")
_case("other-source", "MALFORMED", source={"kind": "rumour", "place": ""})
_case("long-name", "MALFORMED", case="x" * 201)
_case("segments-backwards", "MALFORMED", first_segment=5)
_case("segment-no-number", "MALFORMED", last_segment=True)
_case("through-outside", "MALFORMED", through="2027-01-01T00:00:00.000000000Z")
_case("first-segment-claimed-too-low", "INCOMPLETE", HERE, 2, None, first_segment=2)
_case("last-segment-claimed-too-high", "INCOMPLETE", HERE, 5, None, last_segment=9)
_case("last-segment-claimed-too-low", "INCOMPLETE", HERE, 4, None, last_segment=3)
_case("entries-claimed-too-many", "INCOMPLETE", HERE, None, None, entries=9)
_case("window-starts-earlier", "INCOMPLETE", HERE, 2, None, **{"from": "2026-01-01T00:00:00.000000000Z"})
_case(
    "window-ends-later", "INCOMPLETE", HERE, 5, None,
    to="2026-01-05T00:00:00.000000000Z", through="2026-01-05T00:00:00.000000000Z",
)  # fmt: skip
_case("window-ends-later-and-says-so", "UNANCHORED", to="2026-01-05T00:00:00.000000000Z")
_case("nothing-claimed", "OK", through=None)


@published("case-not-json", "MALFORMED")
def _() -> bytes:
    return packed({**middle(), "data/case.json": b"{"})


@published("case-key-twice", "MALFORMED")
def _() -> bytes:
    text = middle()["data/case.json"]
    return packed({**middle(), "data/case.json": b'{"profile":"full",' + text[1:]})


@published("case-missing", "MALFORMED")
def _() -> bytes:
    return packed({n: c for n, c in middle().items() if n != "data/case.json"})


@published("case-chain-not-there", "MALFORMED")
def _() -> bytes:
    return packed(with_case(middle(), chain="00" * 32))


@published("case-chain-not-listed", "MALFORMED", trust="trust-two.json")
def _() -> bytes:
    case = case_of(two())
    case["chains"] = case["chains"][:1]
    return packed({**two(), "data/case.json": json.dumps(case).encode()})


@published("case-chains-out-of-order", "MALFORMED", trust="trust-two.json")
def _() -> bytes:
    case = case_of(two())
    case["chains"] = case["chains"][::-1]
    return packed({**two(), "data/case.json": json.dumps(case).encode()})


@published("case-external-with-openings", "MALFORMED")
def _() -> bytes:
    return packed({**with_case(middle(), profile="external"), "data/openings.json": b"{}"})


# --- files


@published("files-stream-of-another-chain", "TAMPERED", HERE, 0, 0)
def _() -> bytes:
    name = f"data/chains/{chain('case-two').chain_id.hex()}/stream.sdcseg"
    return packed({**middle(), stream_name(): two()[name]})


@published("files-something-else-beside-a-stream", "MALFORMED")
def _() -> bytes:
    return packed({**middle(), f"{folder()}/index.db": b"which entries to show"})


@published("files-receipt-that-is-none", "MALFORMED", HERE)
def _() -> bytes:
    return packed({**middle(), f"{folder()}/receipts/9": b"I saw it"})


@published("files-callers-receipt-under-another-name", "MALFORMED", HERE)
def _() -> bytes:
    receipt = chain().receipt(4).replace(b"/segment/", b"/segments/")
    return packed({**middle(), f"{folder()}/callers/1.receipt": receipt})


@published("files-receipt-over-the-limit", "MALFORMED")
def _() -> bytes:
    return packed({**middle(), f"{folder()}/receipts/9": b"old " + b"0" * 131_072})


@published("files-disclosure-that-is-none", "MALFORMED", HERE)
def _() -> bytes:
    return packed({**middle(), f"{folder()}/disclosure.json": b"[]"})


def _flooded(kind: str) -> bytes:
    """An altered entry, and more files of nothing before it than a report keeps findings."""
    there = rows(middle())
    where = at(there, 13)
    there[where] = there[where][0], flip(there[where][1], 260)
    junk = {f"{folder()}/{kind}/{n}": b"x" for n in range(1_001)}
    return packed({**with_rows(middle(), there), **junk})


@published("33-a-thousand-files-of-nothing-in-receipts", "MALFORMED", HERE, 3, 13)
def _() -> bytes:
    return _flooded("receipts")


@published("33-a-thousand-files-of-nothing-in-callers", "MALFORMED", HERE, 3, 13)
def _() -> bytes:
    return _flooded("callers")
