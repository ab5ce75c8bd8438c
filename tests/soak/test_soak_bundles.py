"""Evidence bundles over long runs: damage by chance, and the memory that an export takes.

SIDECAR_SOAK_MUTATIONS (20,000): bundles that are judged. SIDECAR_SOAK_EXPORTED (60,000): entries of an exported chain.
"""

from __future__ import annotations

import contextlib
import tempfile
import tracemalloc
from collections.abc import Iterator

import pytest

from sidecar.chain.stream import Kind
from sidecar.evidence import Order, Records, Source, export
from sidecar.evidence.telling import MOST_ROWS
from sidecar.verify import Evidence, Verdict, parse_trust, verify_bundle
from tests.conformance.cases import TRUST
from tests.conformance.chains import EXPORTED
from tests.conformance.mutations import mutations
from tests.conformance.test_conformance import Bytes
from tests.scribe import Scribe
from tests.soak.figures import wanted

pytestmark = pytest.mark.soak
MOST_BYTES = 48 << 20
ROUND = 200


def test_mutations() -> None:
    """None raises, none is worse or better than its findings, memory does not grow."""
    evidence = Evidence(trust=parse_trust(TRUST["trust.json"]()))
    tracemalloc.start()
    try:
        for number, (name, data) in enumerate(mutations(10**6, wanted("MUTATIONS", 20_000))):
            report = verify_bundle(Bytes(data), evidence)
            worst = max((finding.verdict for _, finding in report.findings), default=Verdict.OK)
            assert report.verdict is worst, name
            if number == ROUND:
                early = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - early < 4 << 20
    finally:
        tracemalloc.stop()


def test_export_in_flat_memory() -> None:
    """The chain is made as it is read, so that all that is held is the export's."""
    entries = wanted("EXPORTED", 60_000)
    assert entries > MOST_ROWS, "a short timeline is held whole"

    @contextlib.contextmanager
    def opened(_since: int = 0) -> Iterator[Records]:
        yield _written(entries)

    order = Order(1, 2**62, EXPORTED, "soak", ("ledger", "soak"))
    with tempfile.TemporaryFile() as file:
        tracemalloc.start()
        try:
            case, report = export(order, [Source(opened, opened)], file)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert report.verdict is Verdict.UNANCHORED and case.claims[0].entries >= entries
    assert most < MOST_BYTES, f"{most >> 20} MiB"


def _written(entries: int) -> Records:
    s = Scribe("soak")
    s.open()
    for number in range(entries):
        s.decision("DENY", bulk=500)
        if number % 1_000 == 999:
            s.seal("count")
        if len(s.records) > 100:
            yield from ((r.kind, r.body) for r in s.records)
            s.records.clear()
            s.payloads.clear()
            s.headers.clear()
    s.close()
    yield from ((r.kind, r.body) for r in s.records if r.kind is not Kind.ATTACHMENT)
