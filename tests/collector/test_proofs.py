"""Under which checkpoints a collector proves anything: those that all of its witnesses cosigned."""

from __future__ import annotations

from pathlib import Path

from sidecar.chain import cosignature, note
from sidecar.chain.note import Signature
from sidecar.collector import FleetLog
from sidecar.collector.index import open_sqlite
from sidecar.collector.proofs import Proofs
from sidecar.collector.sequencer import Sequencer
from tests.collector.memory import MemoryStorage
from tests.collector.test_log import KEY, ORIGIN, notes
from tests.scribe import signing_key


def line(signed: bytes, name: str) -> Signature:
    return cosignature.cosign(note.parse(signed).text, f"{name}.example/w", signing_key("witness", name), 5)


def test_a_witness_that_is_one_no_more_does_not_stand_for_one_that_is(tmp_path: Path) -> None:
    """Its line is stored with the newest checkpoint when the collector starts with two others."""
    storage, index = MemoryStorage(), open_sqlite(tmp_path / "index.db")
    before = FleetLog(storage, index, ORIGIN, KEY)
    before.append(notes(3))
    before.cosigned(before.signed, line(before.signed, "former"))
    fleet = FleetLog(storage, index, ORIGIN, KEY)
    signed = fleet.signed
    assert len(note.parse(signed).signatures) == 2
    sequencer = Sequencer(fleet, storage, index, roll_seconds=3_600, now=lambda: 1, on_refused=lambda _: None)
    proofs = Proofs(sequencer, index, 2)
    proofs.cosigned(signed, line(signed, "one"))
    assert proofs.shown() == b""
    proofs.cosigned(signed, line(signed, "two"))
    shown = note.parse(proofs.shown())
    assert [each.name for each in shown.signatures] == [ORIGIN, "one.example/w", "two.example/w"]
    sequencer.close()
    index.close()
