"""What a collector tells Prometheus: how much of what it holds is not in the log. The page of metrics has it all."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from sidecar.chain.limits import ZERO32
from sidecar.collector.alarms import Alarms
from sidecar.collector.held import Held
from sidecar.collector.index import open_sqlite
from sidecar.collector.unanchored import Unanchored
from sidecar.collector.watch import Around, metrics
from sidecar.config import Config
from sidecar.shipping import Shipping
from tests.api.tls_files import Files
from tests.authorities import Authority
from tests.collector.test_log import VKEY
from tests.collector.test_shipping_vectors import CHAIN, KEYS, LOG, NOW, STEPS, TOKEN, Clocked, load
from tests.vectors.make_shipping import ORIGIN

PAGE = Path(__file__).parent.parent.parent / "docs" / "METRICS.md"
SECOND = 1_000_000_000


class Party:
    name, refused = "witness.example.org", 2

    def age(self) -> float:
        return 7.0


def page(collector: Clocked, now: int = NOW) -> dict[str, float]:
    parties: list[Any] = [Party()]
    made = metrics(
        collector.ingest, collector.sequencer, collector.alarms, parties, Around("1", True, 5, 9.0), now
    ).decode()
    samples = [s for family in text_string_to_metric_families(made) for s in family.samples]
    return {s.name + "".join(s.labels.values()): s.value for s in samples}


def shipped(collector: Clocked, parcel: str) -> None:
    step = next(each for each in STEPS if (each["parcel"], each["refused"]) == (parcel, ""))
    collector.ingest.ship(CHAIN, load(f"{parcel}.parcel"), bytes.fromhex(step["signature"]), "")


def test_what_is_held_and_not_in_the_log_is_counted(tmp_path: Path) -> None:
    collector = Clocked(tmp_path)
    try:
        assert page(collector)["collector_unanchored_entries"] == 0
        collector.ingest.enrol(load("genesis.json"), TOKEN, bytes.fromhex(KEYS["enrolment"]), "")
        shipped(collector, "first")
        held = collector.ingest.books()[0].held
        assert 0 < held.first < held.seq  # a sealed segment, and entries of the next
        deadline = time.monotonic() + 60
        while (found := page(collector, NOW + 5 * SECOND))["collector_unanchored_entries"] != held.seq - held.first:
            assert found["collector_unanchored_entries"] == held.seq  # until the seal is in the log
            assert time.monotonic() < deadline
        assert found["collector_unanchored_age_seconds"] == found["collector_silence_seconds"] == 5
        assert (found["collector_ready"], found["collector_disk_free_bytes"]) == (1, 5)
        collector.alarms.sound("FORK", CHAIN, "two histories")
        told = page(collector)
        assert told["collector_alarms_totalFORK"] == told["collector_alarms_keptFORK"] == 1
    finally:
        collector.close()
    index = open_sqlite(tmp_path / "index.db")  # another run: the alarms stay
    try:
        again = Alarms(index, ORIGIN, LOG, None, lambda: NOW)
        assert (again.kept["FORK"], again.raised["FORK"]) == (1, 0)
    finally:
        index.close()


def test_a_segment_counts_until_its_seal_is_in_the_log() -> None:
    held = replace(Held(ZERO32, ZERO32), segment=3, first=30, seq=34)
    blind = Unanchored(held, (), 2 * SECOND)
    assert blind.look(held, None, 5 * SECOND) == (4, 3.0)
    later = replace(held, segment=4, first=35, seq=41)
    blind.took(later, (), 4 * SECOND)
    assert blind.look(later, 2, 5 * SECOND) == (11, 3.0)  # segment 3 is sealed, and its seal not logged
    assert blind.look(later, 3, 5 * SECOND) == (6, 1.0)
    assert blind.look(replace(later, segment=5, first=41), 4, 5 * SECOND) == (0, 0.0)


def test_when_the_certificate_for_the_collector_ends(tmp_path: Path) -> None:
    ca, files = Authority("ca"), Files(tmp_path)
    issued = ca.issue("spiffe://a/sidecar")
    files.write(issued, ca)
    cert, key, roots = files.paths
    shipping = Shipping(
        Config(
            data_dir="d", collector_address="127.0.0.1:1", collector_log_key=str(VKEY), collector_tls_ca_file=roots,
            collector_tls_cert_file=cert, collector_tls_key_file=key,
        )
    )  # fmt: skip
    try:
        assert shipping.certificate_end == issued.certificate.not_valid_after_utc.timestamp()
        Path(cert).unlink()
        assert math.isnan(shipping.certificate_end)
    finally:
        shipping.let_go()


def test_the_page_of_metrics_says_what_each_means(tmp_path: Path) -> None:
    said = re.findall(r"^\| `(collector_\w+)", PAGE.read_text(), re.MULTILINE)
    collector = Clocked(tmp_path)
    try:
        served = {re.sub("(_total|_kept)[A-Z]+$", r"\1", name.removesuffix(Party.name)) for name in page(collector)}
    finally:
        collector.close()
    assert sorted(said) == sorted(served - {"collector_build_info1"} | {"collector_build_info"})
