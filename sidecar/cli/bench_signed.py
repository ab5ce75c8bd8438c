"""`sidecar bench`, signed: what a request's signature adds, made by the SDK and checked by the sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_programs import serving
from sidecar.cli.bench_tls import added
from sidecar.cli.bench_work import AGENT, Work, registry_of
from sidecar.client import AgentKey, Guard

_ALLOWED: Final = 0.00035  # seconds that a signature may add to p50


def measure_signed(findings: Findings, work: Work, place: Path, rounds: int, seconds: float) -> None:
    """p50 through the SDK at one caller on one sidecar, name asserted and request signed call by call."""
    place.mkdir()
    key, registry, settings = AgentKey(Ed25519PrivateKey.generate()), place / "registry.json", place / "sidecar.toml"
    registry.write_text(registry_of(key.spki))
    settings.write_text(f"registry = '{registry}'\n")
    duties = {"log_level": lambda *_: None}
    with serving(place / "ledger", "--config", settings, "--policy", work.wasm_bundle) as served:
        address = f"unix:{served.socket}"
        with (
            Guard(address, agent=AGENT, timeout=30.0, obligations=duties) as asserted,
            Guard(address, agent=AGENT, timeout=30.0, obligations=duties, key=key) as signed,
        ):
            added(findings, {"name asserted": asserted, "request signed": signed}, _ALLOWED, rounds, seconds)
