"""However many findings there are, a report tells the worst and the first bad one, of a stream and of a bundle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.verify import MAX_FINDINGS, Verdict
from sidecar.verify.bundle_report import Collected, in_order
from sidecar.verify.report import Finding, Findings
from tests.fuzz.examples import fuzz

PLACED = st.tuples(st.sampled_from(Verdict), st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))


@given(
    st.lists(st.tuples(st.sampled_from([bytes(32), b"\1" * 32, None]), PLACED), min_size=1, max_size=6),
    st.integers(0, 5), st.integers(MAX_FINDINGS - 3, MAX_FINDINGS + 3),
)  # fmt: skip
@fuzz(15)
def test_the_worst_and_the_first_bad_are_told_however_many_are_found(
    found: list[tuple[bytes | None, tuple[Verdict, int | None, int | None]]], at: int, many: int
) -> None:
    flood = [(bytes(32), (Verdict.UNANCHORED, 5, 5))] * many
    rows = [*found[:at], *flood, *found[at:]]
    of_bundle, of_stream = Collected(), Findings()
    for chain, placed in rows:
        of_bundle.add(chain, Finding(*placed, "x"))
        of_stream.add(*placed, "x")
    last = (True, b"", True, 0, True, 0, 0)
    for kept, all_of_it in (
        (of_bundle.in_order(), rows),
        ([(None, each) for each in of_stream.in_order()], [(None, placed) for _, placed in rows]),
    ):
        assert len(kept) == min(MAX_FINDINGS, len(rows))
        told = [in_order(each) for each in kept]
        due = [in_order((chain, Finding(*placed, "x"))) for chain, placed in all_of_it]
        assert told == sorted(told) and min(each[-1] for each in told) == min(each[-1] for each in due)
        bad = [[each for each in keys if -each[-1] > Verdict.UNANCHORED] for keys in (told, due)]
        assert min(bad[0], default=last) == min(bad[1], default=last)
    assert of_bundle.worst() is of_stream.worst() is max(verdict for _, (verdict, _, _) in rows)
    for chain in {chain for chain, _ in rows}:
        assert of_bundle.of(chain) is max(placed[0] for other, placed in rows if other == chain)
