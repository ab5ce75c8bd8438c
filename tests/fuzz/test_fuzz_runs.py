"""Entries held together in runs: the report is the one that judging them one by one makes, whatever is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import strictjson
from sidecar.chain.entry import LAYOUT, EntryType, Header
from sidecar.chain.stream import Kind
from sidecar.errors import Malformed
from sidecar.verify import ChainOpenings, Disclosure, Evidence, Openings, Report, Verdict, verify_stream
from sidecar.verify.run import LONGEST, in_order, see
from sidecar.verify.state import State
from tests.fuzz.examples import fuzz
from tests.fuzz.test_fuzz_streams import changed_entry, tampered
from tests.scribe import Near, Record, Scribe, registered, registry_text, stream


def written() -> Scribe:
    """Segments of nothing but what runs are made of, between others."""
    s = Scribe("runs")
    s.open()
    s.policy()
    s.seal("count")
    for effect in ("ALLOW", "DENY"):
        for n in range(3):
            decision = s.decision(effect, proof="mtls" if n == 1 else "asserted")
            if effect == "ALLOW":
                s.outcome(decision)
            s.rejected()
        s.seal("count")
    s.decision("REQUIRE_APPROVAL")
    s.clock(5_000_000_000)
    s.decision()
    s.close()
    s.open()
    s.seal("time")
    s.outcome(s.decision(bulk=3_000))
    s.decision()
    s.head()
    return s


LEDGER = written()
ORDINARY = [r for r in LEDGER.records if r.kind is Kind.ENTRY and r.body[8] in (3, 4, 6)]
DECISIONS = [seq for seq, value in LEDGER.payloads.items() if "effect" in value]
PARTIES = {
    "nobody": Evidence(receipts=[LEDGER.receipt(seq) for seq in DECISIONS[::3]]),
    "custodian": LEDGER.keyed,
    "auditor": Evidence(disclosure=Disclosure(LEDGER.chain_id, LEDGER.keys)),
}


def report(data: bytes, evidence: Evidence) -> tuple[Report, tuple[str, ...]]:
    """The report, and what was not checked but for that opening."""
    found = verify_stream(BytesIO(data).read, evidence)
    left = tuple(line for line in found.not_checked if not line.startswith("openings whose entries"))
    return dataclasses.replace(found, not_checked=()), left


def assert_same(
    records: list[Record], evidence: Evidence, chain_id: bytes = LEDGER.chain_id, workers: Sequence[Near] = ()
) -> Report:
    """Together and one by one: so are they judged where there is any opening, even of an entry that is not there."""
    elsewhere = Openings({chain_id: ChainOpenings({2**62: b""})})
    data = stream(records)
    found = report(data, evidence)
    assert found == report(data, dataclasses.replace(evidence, openings=elsewhere))
    if workers:
        assert verify_stream(BytesIO(data).read, evidence) == verify_stream(
            BytesIO(data).read, evidence, workers=workers
        )
    return found[0]


@pytest.mark.parametrize("party", PARTIES)
@given(data=st.data())
@fuzz(80)
def test_a_ledger_changed_anywhere(party: str, data: st.DataObject) -> None:
    assert_same(data.draw(tampered(LEDGER.records)), PARTIES[party])


@pytest.mark.parametrize("party", PARTIES)
@given(data=st.data())
@fuzz(80)
def test_an_entry_changed_within_a_run(party: str, data: st.DataObject) -> None:
    it = data.draw(st.sampled_from(ORDINARY))
    records = list(LEDGER.records)
    try:
        records[records.index(it)] = dataclasses.replace(it, body=data.draw(changed_entry(it.body)))
    except Malformed:
        return
    assert_same(records, PARTIES[party])


class Clumsy(Scribe):
    """Gets fields of headers wrong, under right links, tags and signatures."""

    def __init__(self, wrong: dict[int, tuple[int, int]]) -> None:
        super().__init__("clumsy")
        self._wrong = wrong

    def append(self, header: Header, salt: bytes, payload: bytes, raw: bytes | None = None) -> int:
        values = list(LAYOUT.unpack(header.encode()))
        if self.seq in self._wrong:
            at, value = self._wrong[self.seq]
            values[at] = value
        return super().append(header, salt, payload, LAYOUT.pack(*values))


WRONG = {
    "no": {},
    "a reference to what follows": {4: (16, 5), 6: (16, 5)},
    "a reference of a rejected request": {5: (16, 2)},
    "a flag": {5: (3, 1)},
    "alg": {5: (2, 2)},
    "type": {5: (1, 12)},
    "magic": {5: (0, b"SDCREC\0\2")},
    "length": {5: (10, 1)},
    "a count of fields": {5: (11, 1)},
    "zero": {5: (15, 1)},
    "a boot-time clock that stands still": {5: (13, 0)},
    "a boot-time clock at its end": {5: (13, 2**64 - 1)},
    "a wall clock that stepped": {5: (12, 0)},
    "a wall clock at its start": {5: (12, -(2**63))},
    "an agent's tag": {5: (17, b"t" * 16)},
}


@pytest.mark.parametrize("party", ["nobody", "custodian", "auditor"])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_writer_gets_wrong(wrong: str, party: str) -> None:
    s = Clumsy(WRONG[wrong])
    s.open()
    s.seal("count")
    for _ in range(6):
        s.rejected() if wrong == "a reference of a rejected request" else s.decision()
    s.head()
    disclosure = Evidence(disclosure=Disclosure(s.chain_id, s.keys))
    evidence = {"nobody": Evidence(), "custodian": s.keyed, "auditor": disclosure}[party]
    found = assert_same(s.records, evidence, s.chain_id, [Near()])
    assert (found.first_bad() is not None) == (wrong != "no")


def test_what_follows_close() -> None:
    """In a run of its own: CLOSE is the last entry of the one before."""
    s = Scribe("closed")
    s.open()
    s.seal("count")
    for _ in range(LONGEST - 1):
        s.rejected()
    closed = s.write(EntryType.CLOSE, b'{"type":"CLOSE","reason":"shutdown"}')
    for _ in range(3):
        s.decision()
    s.head()
    found = assert_same(s.records, s.keyed, s.chain_id)
    assert [each.seq for each in found.findings if each.verdict is Verdict.TAMPERED] == [closed + 1]


def decisions(s: Scribe, *, proof: str = "mtls", attributes: dict[str, str] | None = None) -> list[int]:
    """Some that make a run, of an agent as the last registry has it."""
    agent = registered("billing-agent", proof)
    agent["attributes"] = agent["attributes"] if attributes is None else attributes
    found = [s.decision(proof=proof, agent=agent) for _ in range(5)]
    s.seal("count")
    return found


@pytest.mark.parametrize("length", [0, 600])
def test_an_agent_that_was_in_order_is_not_when_the_registry_changes(length: int) -> None:
    """Who is the same to the byte as one before is held against the registry only once; the long are not remembered."""
    s = Scribe("registries")
    team = {"team": "x" * length}
    s.open()
    s.registry(registry_text(attributes=team))
    s.seal("count")
    first = s.registered
    decisions(s, attributes=team)
    decisions(s, attributes=team)
    for other in ("second", "third"):
        s.registry(registry_text(attributes=team, owner=other))
    s.seal("count")
    s.registered = first
    late = decisions(s, attributes=team)
    s.head()
    found = assert_same(s.records, s.keyed, s.chain_id, [Near()])
    tampered = [(each.seq, each.reason) for each in found.findings if each.verdict is Verdict.TAMPERED]
    assert tampered == [(seq, "the registry that it names was not in force") for seq in late]
    assert found.decisions["authenticated_in_transit"] == 15


def test_an_agent_s_tag_is_looked_at_though_the_agent_is_known() -> None:
    s = Scribe("tags")
    s.open()
    s.seal("count")
    good = decisions(s)
    wrong = s.write(EntryType.DECISION, strictjson.dumps(s.decision_value("ALLOW", "mtls")), agent="another")
    s.decision(proof="mtls")
    s.head()
    found = assert_same(s.records, s.keyed, s.chain_id, [Near()])
    assert [each.seq for each in found.findings if each.verdict is Verdict.TAMPERED] == [wrong] != good[-1:]


def test_receipts_of_what_is_not_recorded() -> None:
    """Signed by the segment's key, for other bytes at their places."""
    other, s = Scribe("runs"), Scribe("runs")
    for each in (other, s):
        each.open()
        each.seal("count")
        for _ in range(3):
            each.decision("DENY" if each is other else "ALLOW")
        each.head()
    evidence = dataclasses.replace(s.keyed, receipts=[other.receipt(seq) for seq in (2, 3)])
    found = assert_same(s.records, evidence, s.chain_id)
    assert [each.seq for each in found.findings if each.verdict is Verdict.FORK] == [2, 3]


def test_a_run_is_held_together_at_all() -> None:
    """Whatever else: what these tests compare are two ways, and not one."""
    state = State(LEDGER.keyed)
    state.chain_id = LEDGER.chain_id
    state.begin_segment(2, None)
    bodies = [r.body for r in LEDGER.records if r.kind is Kind.ENTRY and r.segment == 2]
    state.seq, state.epoch = LAYOUT.unpack_from(bodies[0])[5], 0
    state.leaf = LAYOUT.unpack_from(bodies[0])[8]
    state.clock.begin_epoch()
    headers, _ = see(bodies)
    assert headers is not None and len(headers.leaves) == len(bodies) > 5
    assert not in_order(state, headers, bodies)  # the clock waits for the epoch's first entry
    state.clock.resume(None)
    assert in_order(state, headers, bodies)
    assert not in_order(state, headers, bodies)  # their clocks were read
