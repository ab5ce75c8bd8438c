"""What a bundle claims of a stream, held against what the stream holds (proto/EVIDENCE.md, "Verification", 5)."""

from __future__ import annotations

from sidecar.chain.payload import policy_time
from sidecar.chain.printable import without_zeros
from sidecar.verify.case import Part
from sidecar.verify.report import Verdict
from sidecar.verify.state import State


def reaches_end(state: State, part: Part) -> bool:
    """Whether the stream claims to end where its chain does, not before: its last seal is before the window's end."""
    sealed = state.anchors.sealed_at
    return sealed is None or sealed < part.end


def judge_part(state: State, part: Part) -> None:
    """Chain, segments, entries and window of one stream, at its end."""
    if state.chain_id is not None and state.chain_id != part.claim.chain_id:
        state.findings.add(Verdict.TAMPERED, None, None, "the stream is of another chain than its place in the bundle")
    if state.coverage.broken:
        return
    _segments(state, part)
    _window(state, part)
    _bare(state, part)


def _segments(state: State, part: Part) -> None:
    claim, findings = part.claim, state.findings
    if state.start != claim.first_segment:
        reason = f"the stream starts with segment {state.start}, and {claim.first_segment} is claimed"
        findings.add(Verdict.INCOMPLETE, claim.first_segment, None, reason)
    last = state.last_segment
    if last != claim.last_segment:
        reason = f"the stream ends with segment {last}, and {claim.last_segment} is claimed"
        findings.add(Verdict.INCOMPLETE, min(last, claim.last_segment) + 1, None, reason)
    if state.coverage.entries != claim.entries:
        reason = f"entries that the stream holds: {state.coverage.entries:,}, not {claim.entries:,} as is claimed"
        findings.add(Verdict.INCOMPLETE, None, None, reason)


def _window(state: State, part: Part) -> None:
    before = state.opened_at
    if before is not None and before >= part.start:
        reason = "it was sealed within the window and is not here"
        state.findings.add(Verdict.INCOMPLETE, state.start - 1, None, reason)
    anchors, claimed = state.anchors, part.claim.through
    shown = max((t for t in (anchors.sealed_at, anchors.shown(state.seq)) if t is not None), default=None)
    after = anchors.last_sealed + 1
    if claimed is not None and (shown is None or shown < claimed):
        reason = f"everything up to {_told(claimed)} is claimed to be here, and nothing shows that"
        state.findings.add(Verdict.INCOMPLETE, after, None, reason)
    elif shown is None or shown < part.end:
        since = "what the chain wrote" if shown is None else f"what the chain wrote after {_told(shown)}"
        reason = f"{since} may be missing: the window ends at {_told(part.end)}"
        state.findings.add(Verdict.UNANCHORED, after, None, reason)


def _told(time: int) -> str:
    return without_zeros(policy_time(time))


def _bare(state: State, part: Part) -> None:
    coverage = state.coverage
    if part.agents is None or not coverage.bare:
        return
    if coverage.tagless:
        coverage.leave(
            "whether withheld entries that bear no tag (asserted agents, rejected requests, registries) concern the "
            f"agents of the case: {coverage.tagless:,}"
        )
    coverage.leave(f"what withheld entries say, and that their tags are those of who asked: {coverage.bare:,}")
    coverage.leave("entries of other agents that name one of the case as executor, approver or delegator")
