"""Our verifier against the published bundles, through the protocol that any other is driven by."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecar.verify import Evidence, parse_trust, verify_bundle
from tests.conformance.cases import CASES, TRUST
from tests.conformance.driving import Answer, answer_of, ask, due
from tests.conformance.make import TABLE, table
from tests.conformance.mutations import mutations
from tests.conformance.once import published
from tests.scribe import SOAK

ROWS = json.loads(TABLE.read_text())
OURS = (sys.executable, "-m", "sidecar")
THROUGH_THE_PROGRAM = ("good-agent", "good-crashed", "container-bomb", "31-no-tag-keys", "02-entry-deleted")


class Bytes:
    """A bundle in memory."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


def judged(bundle: bytes, trust: bytes) -> Answer:
    """Our verifier's answer, without the program around it."""
    report = verify_bundle(Bytes(bundle), Evidence(trust=parse_trust(trust)))
    return answer_of(json.loads(json.dumps(report.to_json())))


def test_the_table_is_that_of_the_bundles() -> None:
    assert TABLE.read_text() == table(), "run python -m tests.conformance.make"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory)


@pytest.mark.parametrize("name", sorted(CASES))
def test_published_bundle(made: Path, name: str) -> None:
    row = ROWS[name]
    assert judged((made / f"{name}.zip").read_bytes(), (made / row["trust"]).read_bytes()) == due(row)


@pytest.mark.parametrize("name", THROUGH_THE_PROGRAM)
def test_through_the_protocol(made: Path, name: str) -> None:
    assert ask(OURS, made / f"{name}.zip", made / ROWS[name]["trust"]) == due(ROWS[name])


def test_making_them_again_makes_the_same(made: Path) -> None:
    name = "good-agent"
    assert CASES[name].make() == CASES[name].make() == (made / f"{name}.zip").read_bytes()


def test_mutations_are_never_ok_where_bytes_of_the_file_changed() -> None:
    """None of them is an exception either, and none is slow: a bundle is small."""
    trust = TRUST["trust.json"]()
    began = time.process_time()
    for name, bundle in mutations(0, 3_000 if SOAK else 80):
        found = judged(bundle, trust)
        if "byte-of-file" in name or "byte-of-note" in name or "byte-of-entry" in name:
            assert found.verdict not in ("OK", "UNANCHORED"), name
    assert time.process_time() - began < (3_000 if SOAK else 80)


def test_a_bomb_takes_no_memory(made: Path) -> None:
    bundle = made / "container-bomb.zip"
    limited = 400 << 20
    done = subprocess.run(
        [*OURS, "verify", str(bundle), "--json"],
        capture_output=True, check=False, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limited, limited)),
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (1, "MALFORMED")
