"""Sealed personal fields: not re-run and not shown without openings, whole with them, in no document ever."""

from __future__ import annotations

import asyncio
import copy
import json
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.stream import Kind, records
from sidecar.cli.sealed import put_back
from sidecar.decide import policy_inputs
from sidecar.evidence import Found, Range, Replay, Tally, text, timeline
from sidecar.policy import find_opa
from sidecar.verify import Openings
from tests.evidence.bundled import exported
from tests.evidence.commands import here
from tests.evidence.recorded import STARTER, Payload, decisions_of, recorded_ledger
from tests.evidence.test_documents import text_of
from tests.scribe import ACTIVATED, Record
from tests.sealing import EMAIL, SUBJECT, Discreet, Taken

TAKEN: list[Taken] = [
    ("/request/arguments", "/fields", b'["name"]'), ("/request/idempotency_key", "", None),
    ("/reasons/0/message", "", None), ("/result/reasons/0/message", "", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def decision(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return decisions_of(recorded_ledger(tmp_path_factory.mktemp("recorded")))[0]


@pytest.fixture(scope="module")
def s(decision: Payload) -> Discreet:
    s = Discreet()
    s.open()
    s.records.insert(0, Record(Kind.ATTACHMENT, STARTER, 0))
    s.write(EntryType.POLICY, strictjson.dumps({**ACTIVATED, **decision["policy"]}))
    value = copy.deepcopy(decision)
    value["request"]["idempotency_key"] = "key of the request 4711"
    s.sealed(EntryType.DECISION, value, TAKEN)
    s.close()
    return s


def run(s: Discreet, openings: Openings | None) -> tuple[list[Found], Tally]:
    async def whole() -> tuple[list[Found], Tally]:
        replay = Replay(policy_inputs, find_opa, restore=partial(put_back, openings=openings))
        return [each async for each in replay.run(records(BytesIO(s.stream()).read))], replay.tally

    return asyncio.run(whole())


def test_what_is_sealed_is_re_run_with_openings_alone(s: Discreet, tmp_path: Path) -> None:
    found, tally = run(s, None)
    assert [(f.kind, f.why) for f in found] == [
        ("not re-run", "what the policy saw or said has 4 sealed personal values")
    ]
    assert tally.exit_code == 3
    assert run(s, s.opened())[1].exit_code == 0
    other = s.opened(at3=b"x" * 200)
    assert run(s, other)[1].unreadable == 1  # an opening that is not this entry's opens nothing
    file, openings = tmp_path / "ledger", tmp_path / "openings.json"
    file.write_bytes(s.stream())
    openings.write_bytes(s.opened().encode())
    assert here("replay", file, "--openings", openings).returncode == 0


def test_the_account_names_what_is_sealed_and_shows_it_with_openings(s: Discreet) -> None:
    told = timeline(records(BytesIO(s.stream()).read), Range())
    said = "\n".join(text(told, 200))
    assert "sealed        4 personal values, not shown: /reasons/0/message, /request/arguments/fields," in said
    assert 'arguments     {"fields":""}' in said and "a role of this agent grants" not in said
    with_them = timeline(records(BytesIO(s.stream()).read), Range(), restore=partial(put_back, openings=s.opened()))
    shown = "\n".join(text(with_them, 200))
    assert (
        'arguments     {"fields":["name"]}' in shown
        and "sealed" not in shown
        and "a role of this agent grants" in shown
    )


def test_sealed_values_are_in_no_document_and_an_erasure_is_told(tmp_path: Path) -> None:
    s = Discreet()
    s.open()
    s.policy()
    s.registry()
    s.personal_outcome(s.signed_personal_decision())
    s.tombstone()
    s.close()
    files = exported(s)
    events = [json.loads(line) for line in files["events.ocsf.jsonl"].splitlines()]
    assert [len(e["unmapped"].get("sealed", ())) for e in events] == [0, 0, 0, 0, 6, 4, 0, 0]
    rows = json.loads(files["timeline.json"])["rows"]
    decided = next(row for row in rows if row["kind"] == "decision")
    assert (len(decided["sealed"]), len(decided["outcomes"][0]["sealed"]), decided["gaps"]) == (6, 4, [])
    assert [row["subject"] for row in rows if row["kind"] == "erasure"] == [SUBJECT.hex()]
    read = text_of(files["report.pdf"], tmp_path)
    assert "Personal values that are sealed 10" in read and "Erasures 1" in read
    for name in ("events.ocsf.jsonl", "timeline.json", "entries.csv"):
        assert EMAIL.strip('"').encode() not in files[name], name
    assert EMAIL.strip('"') not in read
