"""Sidecar and collector under a real SPIRE: each proves itself by its SVID; shipping goes on while they are renewed."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.client import WorkloadSource
from tests.collecting import Collecting, collecting
from tests.collector.test_log import ORIGIN
from tests.collector.test_shipping import decide, refuses, until, verdict
from tests.identity.test_spire import end_of
from tests.program import made, serving, sidecar
from tests.spire import DOMAIN, Spire, program_of_its_own, spire

NAME = "collector.internal"
SECONDS = 5  # of an SVID
ID = f"spiffe://{DOMAIN}/ns/billing/sa/sidecar"


@dataclass(frozen=True, slots=True)
class Fleet:
    """A collector that runs under SPIRE; programs that SPIRE knows as sidecars, and what they need."""

    spire: Spire
    collector: Collecting
    own: Path
    place: Path
    programs: dict[str, tuple[Path, str, str]]
    more: dict[str, str]

    def settings(self, name: str = NAME) -> Path:
        """A sidecar's configuration."""
        config = self.place / "sidecar.toml"
        spiffe = (f'spiffe_socket = "{self.spire.workload_api}"', f'spiffe_trust_domain = "{DOMAIN}"')
        config.write_text("segment_entries = 2\n" + self.collector.settings(*spiffe, f'server_name = "{name}"'))
        return config


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)  # short: there are sockets in it
        ids = {"billing": ID, "strange": f"spiffe://{DOMAIN}/ns/x/y/sa/sidecar"}
        ids["neighbour"] = f"spiffe://{DOMAIN}/ns/crm/sa/sidecar"
        made_of = {name: program_of_its_own(place, name) for name in ("collector", *ids)}
        programs = {name: (program, "-m", "sidecar") for name, (program, _) in made_of.items()}
        more = made_of["collector"][1]

        def register(here: Spire) -> None:
            here.register(f"spiffe://{DOMAIN}/collector", programs["collector"][0], "-dns", NAME, seconds=SECONDS)
            here.register(f"spiffe://{DOMAIN}/looker", Path(sys.executable), seconds=SECONDS)
            for name, spiffe_id in ids.items():
                here.register(spiffe_id, programs[name][0], seconds=SECONDS)

        with spire(place, register) as running:
            own = place / "collector.toml"
            own.write_text(
                f'origin = "{ORIGIN}"\nroll_call_seconds = 0.2\nenrol_spiffe = ["spiffe://{DOMAIN}/ns/*/sa/sidecar"]\n'
                f'[spiffe]\nsocket = "{running.workload_api}"\n'
            )
            with collecting(place / "held", "--config", own, program=programs["collector"], **more) as collector:
                yield Fleet(running, collector, own, place, programs, more)
                assert collector.stop() == 0


def test_who_ships_is_proved_by_an_svid_that_is_renewed_meanwhile(fleet: Fleet, tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    looking = WorkloadSource(str(fleet.spire.workload_api), end_of)
    looking.wait()
    try:
        first = looking.current()
        with serving(ledger, "--config", fleet.settings(), program=fleet.programs["billing"], **fleet.more) as server:
            decide(server, 1)
            receipts = ledger / "receipts"
            until(lambda: bool(list(receipts.glob("seal-0-*"))))
            until(lambda: looking.current() > first and time.time() > first)  # all that were shown first have ended
            decide(server, 2)
            until(lambda: bool(list(receipts.glob("seal-1-*"))))
            assert server.stop() == 0
    finally:
        looking.close()
    flags = ["--config", fleet.own, "--data-dir", fleet.collector.place]
    assert sidecar("collector", "trust", *flags, "--out", tmp_path / "trust.json").returncode == 0
    report = verdict(ledger, tmp_path / "trust.json", "--custodian-key", key)
    assert report["verdict"] == "OK", report
    code, said = refuses(ledger, fleet.settings(), program=fleet.programs["neighbour"], **fleet.more)
    assert code == 2 and "NOT_ALLOWED" in said


def test_an_id_that_no_rule_lets_in_and_a_collector_that_is_not_the_one_meant(fleet: Fleet, tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    code, said = refuses(ledger, fleet.settings(), program=fleet.programs["strange"], **fleet.more)
    assert code == 2 and "NOT_ALLOWED" in said
    code, said = refuses(ledger, fleet.settings("other.internal"), program=fleet.programs["billing"], **fleet.more)
    assert code == 2 and "does not answer" in said, said
