"""The door that a request came through is told in every form."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.request import recorded
from sidecar.chain.stream import records
from sidecar.evidence import Range, text, timeline
from tests.conformance.cases import CASES
from tests.evidence.commands import here
from tests.scribe import EXECUTOR, Scribe, vouched_story


def told() -> Scribe:
    """The story, and a decision through the door Envoy."""
    s = vouched_story()
    value = s.decision_value("ALLOW", "gateway", executor=EXECUTOR)
    value["request"]["context"] = '{"door":{"kind":"envoy","route":"pay\\u001b[2J"}}'
    value["request_digest"] = recorded(value).digest().hex()
    s.write(EntryType.DECISION, strictjson.dumps(value), agent="billing-agent")
    s.head()
    return s


def test_in_a_timeline() -> None:
    account = timeline(records(BytesIO(told().stream()).read), Range(None, None, "billing-agent"))
    doors = [row["door"] for row in account.to_json()["rows"] if row["kind"] == "decision"]
    assert doors == [None, None, None, {"kind": "envoy", "route": "pay\x1b[2J"}]
    lines = list(text(account, 200))
    assert any("refund invoice:inv-1 via envoy" in line for line in lines)
    assert any("asked by" in line and "named by the gateway payments-gateway" in line for line in lines)
    assert any("through" in line and 'the door envoy {"route":"pay' in line for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_to_programs_who_was_named_by_whom() -> None:
    account = timeline(records(BytesIO(told().stream()).read), Range(None, None, None))
    agents = [row["agent"] for row in account.to_json()["rows"] if row["kind"] == "decision"]
    assert {agent["gateway"] for agent in agents} == {"payments-gateway"}
    assert json.dumps(agents)


def test_in_show(tmp_path: Path) -> None:
    (tmp_path / "stream.bin").write_bytes(told().stream())
    lines = here("show", tmp_path / "stream.bin").stdout.splitlines()
    assert any("billing-agent (gateway payments-gateway) refund invoice:inv-1 through" in line for line in lines)
    assert "through payments-gateway via envoy: " in lines[-1]
    whole = here("show", tmp_path / "stream.bin", "--seq", "8").stdout
    assert "asked by billing-agent with the role billing, named by the gateway payments-gateway" in whole
    assert "through the door envoy" in whole


def test_a_bundle_says_that_nobody_signed() -> None:
    with zipfile.ZipFile(BytesIO(CASES["good-gateway"].make())) as bundle:
        (case,) = (name for name in bundle.namelist() if name.endswith("data/case.json"))
        said = {each["kind"]: each["text"] for each in json.loads(bundle.read(case))["statements"]}
    assert said["vouched"] == "3 decisions are of agents whom a gateway named"
