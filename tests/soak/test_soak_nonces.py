"""Nonces over the wire, as `identity/test_many_nonces.py`, up to what one key may use in a window.

SIDECAR_SOAK_NONCES (99,990): so many, and a few besides.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.identity.flood import flood
from tests.identity.test_many_nonces import check
from tests.soak.figures import tell, wanted

pytestmark = pytest.mark.soak


def test_a_hundred_thousand_nonces(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    count, started = wanted("NONCES", 99_990), time.monotonic()
    found = flood(tmp_path, count)
    early, late = (each / 1e6 for each in found.anon)
    took = time.monotonic() - started
    tell(
        pytestconfig,
        f"nonces: RssAnon {early:.1f} MB after a tenth of {count:,}, {late:.1f} MB after all ({took:.0f} s)",
    )
    check(found, count)
