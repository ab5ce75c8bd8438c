"""Evidence bundles and everything in them that is parsed: damaged, cut, mixed. Never an exception, never OK."""

from __future__ import annotations

import contextlib
from io import BytesIO
from zipfile import ZipFile

from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Malformed
from sidecar.verify import Evidence, Verdict, parse_trust, verify_bundle
from sidecar.verify.bag import read_manifest, write_manifest
from sidecar.verify.case import parse_case
from sidecar.verify.container import Content, directory, most_from, well_named
from tests.conformance.chains import chain, trust
from tests.conformance.mutations import mutation
from tests.conformance.packing import bagged, deflated, items, packed, stored, unpacked, zipped
from tests.conformance.published import middle, of_agent, stream_name
from tests.conformance.test_conformance import Bytes
from tests.fuzz.examples import fuzz, hostile

WHOLE, AGENT = packed(middle()), packed(of_agent())
MIXED = zipped([stored(n, c) if n == stream_name() else deflated(n, c) for n, c in bagged(middle()).items()])
TRUST = parse_trust(trust(chain()))
EVIDENCE = Evidence(trust=TRUST)
CASE = middle()["data/case.json"]


@given(hostile([WHOLE, AGENT, MIXED]))
@fuzz(150)
def test_whole_bundles(data: bytes) -> None:
    report = verify_bundle(Bytes(data), EVIDENCE)
    assert report.verdict is Verdict.OK or report.first_bad() is not None
    assert (report.verdict is Verdict.OK) == (data in (WHOLE, AGENT, MIXED))


@given(st.integers(10_000, 2**40))
@fuzz(60)
def test_mutations_have_a_verdict_that_their_exit_code_and_findings_agree_on(seed: int) -> None:
    _, data = mutation(seed)
    report = verify_bundle(Bytes(data), EVIDENCE)
    worst = max((finding.verdict for _, finding in report.findings), default=Verdict.OK)
    assert report.verdict is worst and report.findings_total >= len(report.findings)
    assert (report.first_bad() is None) == (report.verdict <= Verdict.UNANCHORED)


@given(hostile([WHOLE, MIXED]), st.integers(1, 70_000))
@fuzz(150)
def test_a_container_is_refused_or_says_of_each_content_whether_it_is_right(data: bytes, step: int) -> None:
    source = Bytes(data)
    try:
        members = directory(source)
    except Malformed:
        return
    ends = 0
    for member in members.values():
        assert member.offset + member.packed <= len(data) and member.offset > ends
        ends = member.offset
        content, read = Content(source, member), 0
        while piece := content.read(step):
            assert 0 < len(piece) <= step
            read += len(piece)
        assert content.fault is not None or read == member.size
        assert read <= max(member.size + 1, member.packed)


@given(st.dictionaries(st.text("abcXY.-_/0", min_size=1, max_size=12), st.binary(max_size=300), max_size=6))
@fuzz(150)
def test_what_is_written_is_read_again(files: dict[str, bytes]) -> None:
    data = zipped([(deflated if len(c) % 2 else stored)(name, c) for name, c in files.items()])
    try:
        members = directory(Bytes(data))
    except Malformed:
        folded = [n.lower() for n in unpacked_names(data)]
        nested = any(a.startswith(f"{b}/") for a in folded for b in folded)
        named = all(well_named(n) for n in unpacked_names(data))
        assert len(set(folded)) < len(folded) or nested or not named
        return
    for name, member in members.items():
        content = Content(Bytes(data), member)
        assert b"".join(iter(lambda read=content.read: read(7), b"")) == files[name] and content.fault is None  # type: ignore[misc]


def unpacked_names(data: bytes) -> list[str]:
    with ZipFile(BytesIO(data)) as read:
        return read.namelist()


@given(hostile([CASE, of_agent()["data/case.json"]]))
@fuzz(400)
def test_cases(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert parse_case(parse_case(data).encode()) == parse_case(data)


@given(hostile([bagged(middle())["manifest-sha256.txt"]]))
@fuzz(300)
def test_manifests(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert write_manifest(read_manifest(data, "m")) == data


def test_a_bomb_is_inflated_no_further_than_it_may_be() -> None:
    members = [*items(bagged(middle())), deflated("data/zeros", bytes(1 << 20))]
    bomb = zipped([*members[:-1], members[-1].lies(size=most_from(len(members[-1].data)))])
    assert verify_bundle(Bytes(bomb), EVIDENCE).verdict is Verdict.MALFORMED


def test_nothing_is_lost_between_packing_and_reading() -> None:
    assert unpacked(WHOLE) == bagged(middle())
