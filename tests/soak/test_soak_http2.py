"""HTTP/2 that no client would send, through Envoy, again and again. SIDECAR_SOAK_HTTP2_SECONDS: for how long (300)."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import pytest

from tests.enforce.arrived import as_decided
from tests.enforce.gateway import gateway
from tests.enforce.test_envoy_http2 import anything, at_once, done, internal
from tests.soak.figures import tell, wanted

pytestmark = pytest.mark.soak
BATCH = 100


def test_what_arrives_is_what_was_decided(pytestconfig: pytest.Config) -> None:
    seconds, started, sent, arrived = wanted("HTTP2_SECONDS", 300), time.monotonic(), 0, 0
    rng = random.Random(seed := int(started * 1e6))
    while time.monotonic() - started < seconds:
        with tempfile.TemporaryDirectory() as place, gateway(Path(place), internal) as it:
            answered = 0
            for _ in range(20):
                answered += sum(done(told) for told in at_once(it, [anything(rng) for _ in range(BATCH)]))
                sent += BATCH
            as_decided(it, it.service.acts)
            assert answered == len(it.service.acts), f"seed {seed}"
            arrived += answered
    took = time.monotonic() - started
    tell(pytestconfig, f"HTTP/2: {sent} requests in {took:.0f} s, {arrived} arrived, each as it was decided")
