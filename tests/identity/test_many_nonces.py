"""Ten thousand nonces over the wire (ten times that in `make soak`): memory is bounded, a replay is refused."""

from __future__ import annotations

import json
from pathlib import Path

from tests.identity.flood import REPLAYED, Flood, flood
from tests.program import sidecar

A_NONCE = 200  # bytes that one takes, at most


def check(found: Flood, count: int) -> None:
    """Each replay was refused, counted and recorded, and all the rest took no more memory than nonces take."""
    assert {code for code, _ in found.replays} == {"UNAUTHENTICATED"}
    assert {said for _, said in found.replays} == {"signature: its nonce was used before; sign anew, with a random one"}
    assert (len(found.replays), found.counted) == (REPLAYED, REPLAYED)
    shown = sidecar("show", found.ledger, "--json").stdout.splitlines()
    payloads = [json.loads(line)["payload"] for line in shown]
    rejected = [each for each in payloads if each["type"] == "REJECTED"]
    assert sum(each["count"] for each in rejected) == REPLAYED
    early, late = found.anon
    assert late - early < count * A_NONCE + (4 << 20)


def test_thousands_of_nonces_and_replays_among_them(tmp_path: Path) -> None:
    check(flood(tmp_path, 4_000), 4_000)
