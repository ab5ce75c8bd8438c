"""Exports of chains in memory: every window of a chain is whole, and says what it does not prove."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from io import BytesIO

import pytest

from sidecar.chain.stream import Kind, record, records
from sidecar.errors import UsageError
from sidecar.evidence import Order, Records, Source, export
from sidecar.verify import Evidence, Verdict, parse_trust
from tests.conformance.chains import (
    EXPORTED,
    OTHER,
    OURS,
    bundle,
    chain,
    disclosure,
    files,
    notary,
    sealed_at,
    source,
    trust,
    window,
)
from tests.conformance.packing import Files, packed, unpacked
from tests.conformance.published import rows
from tests.conformance.test_conformance import Bytes, judged
from tests.scribe import Scribe

TRUST = trust(chain())


def entries(made: Files) -> list[tuple[Kind, int]]:
    return [(kind, int.from_bytes(body[16:24], "big")) for kind, body in rows(made) if kind in (5, 9)]


def statements(made: Files) -> dict[str, str]:
    said = json.loads(made["data/case.json"])["statements"]
    return {each["kind"]: each["text"] for each in said}


@pytest.mark.parametrize("first", range(8))
def test_every_window_of_a_chain_is_whole(first: int) -> None:
    s = chain()
    for last in range(first, 8):
        found = judged(packed(files(first, last)), TRUST)
        due = "UNANCHORED" if first <= 5 <= last else "OK"  # segment 5 ended by a crash
        assert (found.verdict, found.first_bad) == (due, None), (first, last)
    start, end = window(s, first, first)
    assert [s.headers[seq].segment for _, seq in entries(files(first, first))] == [first] * len(
        entries(files(first, first))
    )
    assert start < end


def test_an_export_for_one_agent_withholds_what_is_of_others_and_nothing_else() -> None:
    s, made = chain(), files(0, 7, agents=(OURS,))
    for kind, seq in entries(made):
        value = s.payloads[seq]
        named = value.get("agent", {}).get("id") or value.get("principal")
        others = value["type"] == "REGISTRY" or named == OTHER
        assert kind is (Kind.BARE if others else Kind.ENTRY), value["type"]
    assert OTHER.encode() not in b"".join(made.values())
    assert judged(packed(made), TRUST).verdict == "UNANCHORED"  # of the crash alone
    said = statements(made)["withheld"]
    assert "without an agent's tag" in said and "executor, approver or delegator" in said


def test_what_is_not_proved_is_stated() -> None:
    s = chain()
    start, end = window(s, 0, 7)
    made = bundle([source(s, notary(s), 3)], start, end + 10**12, keys=disclosure(s))
    said = statements(made)
    assert said["open_tail"].startswith("the last entry is in a segment")
    assert said["recovered"].startswith("segment 5 ended by a crash")
    assert said["missing_outcome"] == "5 allowed decisions have no outcome in this bundle: entries 6, 11, 15, 22, 26"
    assert said["unanchored"] == "no receipt of a log covers segments 4 to 8"
    assert said["after"].startswith("no seal shows what the chain wrote after")
    assert said["keys"].startswith("the keys of 5 segments are not here (they are under no receipt yet)")


def test_keys_are_disclosed_of_anchored_segments_alone() -> None:
    s = chain()
    start, end = window(s, 0, 7)
    made = bundle([source(s, notary(s), 3)], start, end, keys=disclosure(s))
    name = next(each for each in made if each.endswith("disclosure.json"))
    assert [each["segment"] for each in json.loads(made[name])["segments"]] == [0, 1, 2, 3]
    without = bundle([unanchored(s)], start, end, keys=disclosure(s))
    assert not any(each.endswith("disclosure.json") for each in without)
    assert statements(without)["unanchored"] == "no receipt of a log covers any of its segments"


def unanchored(s: Scribe) -> Source:
    return Source(*[source(s, notary(s), 3).open] * 2)


def test_an_agents_export_without_keys_is_not_whole() -> None:
    s = chain()
    start, end = window(s, 3, 4)
    made = bundle([source(s, notary(s), 4)], start, end, agents=(OURS,))
    assert "nothing shows that no entry of the agents was left out" in statements(made)["keys"]
    assert judged(packed(made), TRUST).verdict == "INCOMPLETE"


def test_a_window_in_which_nothing_was_recorded() -> None:
    s = chain()
    with pytest.raises(UsageError, match="no chain recorded anything"):
        bundle([source(s, notary(s), 3)], 1, 2)


def test_an_altered_entry_is_exported_as_it_is_and_found() -> None:
    """Damage is shown, not hidden: also where it would be withheld."""
    s = chain()
    data = s.stream()
    body = next(r.body for r in s.records if r.kind is Kind.ENTRY and r.seq == 11)
    broken = data.replace(body, body[:249] + b"!" + body[250:])

    @contextlib.contextmanager
    def opened(_since: int = 0) -> Iterator[Records]:
        yield records(BytesIO(broken).read)

    start, end = window(s, 3, 4)
    for agents in (None, (OURS,)):
        made = bundle([Source(opened, opened, source(s, notary(s), 4).receipts)], start, end, agents=agents,
                      keys=disclosure(s))  # fmt: skip
        found = judged(packed(made), TRUST)
        assert (found.verdict, found.first_bad) == ("TAMPERED", (s.chain_id.hex(), 3, 11))


def test_the_verdict_is_that_of_the_bundle_as_it_is_handed_over() -> None:
    s = chain()
    start, end = window(s, 3, 4)
    evidence = Evidence(trust=parse_trust(TRUST))
    order = Order(start, end, EXPORTED, "tests", ("ledger", "x"), trust=TRUST, evidence=evidence)
    told: list[int] = []
    with tempfile.TemporaryFile() as file:
        case, report = export(order, [source(s, notary(s), 4)], file, told.append)
        file.seek(0)
        assert judged(file.read(), TRUST).verdict == report.verdict.name == "OK"
    assert report.verdict is Verdict.OK and case.claims[0].entries == report.entries
    assert sum(told) > len(s.stream())


def test_an_external_profile_is_said_to_be_one() -> None:
    s = chain()
    start, end = window(s, 3, 4)
    order = Order(start, end, EXPORTED, "tests", ("ledger", "x"), profile="external")
    with tempfile.TemporaryFile() as file:
        export(order, [source(s, notary(s), 4)], file)
        file.seek(0)
        made = unpacked(file.read())
    assert json.loads(made["data/case.json"])["profile"] == "external" and "data/openings.json" not in made


def test_a_zip_that_every_tool_reads() -> None:
    from zipfile import ZipFile

    made = packed(files(3, 4))
    with ZipFile(BytesIO(made)) as read:
        assert read.testzip() is None
        assert all(each.date_time == (1980, 1, 1, 0, 0, 0) for each in read.infolist())


def test_a_long_epoch_before_the_window_is_followed_seal_by_seal() -> None:
    s = Scribe("long")
    s.open()
    s.policy()
    for _ in range(200):
        s.mono += 60_000_000_000
        s.seal("time")
    s.decision()
    s.close()
    log = notary(s)
    start, end = sealed_at(s, 199) + 1, sealed_at(s, 200)
    made = bundle([source(s, log, 200)], start, end)
    stream = next(content for name, content in made.items() if name.endswith(".sdcseg"))
    kinds = [kind for kind, _ in records(BytesIO(stream).read)]
    assert kinds.count(Kind.CONTEXT_SEAL) == 200 and kinds.count(Kind.ENTRY) == 2
    assert judged(packed(made), trust(s)).verdict == "OK"
    assert Bytes(stream).size < 200 * 2_000
    assert record(Kind.CONTEXT_SEAL, s.seals[0]) in stream
