"""Large files that nobody judges, read on a thread while the streams are judged: what is told of them is the same."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from sidecar.verify import Evidence, parse_trust
from sidecar.verify.bundle import verify_bundle
from sidecar.verify.bundle_report import BundleReport
from tests.page import bundles
from tests.scribe import Near


class Held:
    """A bundle in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    bundle, trust = bundles.long(tmp_path_factory.mktemp("beside"), 3_000)
    return bundle, trust.read_bytes()


def judged(data: bytes, trust: bytes, *, beside: bool) -> BundleReport:
    return verify_bundle(Held(data), Evidence(trust=parse_trust(trust)), workers=[Near()] if beside else [])


@pytest.mark.parametrize("place", ["nowhere", "events.ocsf.jsonl", "stream.sdcseg", "case.json"])
def test_the_report_is_the_same(given: tuple[Path, bytes], place: str) -> None:
    bundle, trust = given
    data = bytearray(bundle.read_bytes())
    with ZipFile(bundle) as read:
        large = [each for each in read.infolist() if each.filename.endswith("events.ocsf.jsonl")]
        assert large[0].file_size > 1 << 20
        for member in read.infolist():
            if member.filename.endswith(place):
                data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 1
    alone, helped = (judged(bytes(data), trust, beside=beside) for beside in (False, True))
    assert helped == alone
    assert (alone.verdict.name == "OK") == (place == "nowhere")
