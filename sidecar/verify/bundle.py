"""The judgement of an evidence bundle: container, bag, case, then each chain (proto/EVIDENCE.md, "Verification").

Memory is flat: the directory and small files are read whole, streams and documents go by.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from sidecar.chain import note, tlog_proof
from sidecar.chain.head import Head
from sidecar.chain.logged import Logged
from sidecar.chain.printable import number_of
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import Malformed, UsageError
from sidecar.verify.ahead import Worker
from sidecar.verify.bundle_files import CASE, LIMITS, OPENINGS, TRUST, Files, OfChain
from sidecar.verify.bundle_report import BundleReport, Collected
from sidecar.verify.case import Case, Claim, Part, parse_case
from sidecar.verify.container import Source
from sidecar.verify.disclosure import Disclosure, parse_disclosure
from sidecar.verify.evidence import Evidence
from sidecar.verify.judge import verify_stream
from sidecar.verify.openings import parse_openings
from sidecar.verify.report import MAX_FINDINGS, Report, Verdict
from sidecar.verify.trust import Trust, parse_trust

StampCheck = Callable[[Trust | None], Callable[[Timestamp], int] | None]


def verify_bundle(
    source: Source,
    evidence: Evidence,
    *,
    own_trust: bool = False,
    stamp_check: StampCheck = lambda _: None,
    progress: Callable[[int], None] | None = None,
    workers: Sequence[Worker] = (),
) -> BundleReport:
    """Judge a bundle by what the verifier holds: ``evidence``, in which ``part`` is not used.

    ``own_trust``: use the bundle's copy of the trust file, which makes UNANCHORED the best verdict. ``stamp_check``
    gives what checks timestamps under a trust file. ``progress``, ``workers`` and what passes through as for
    `verify_stream`; what the bundle contains never raises.
    """
    judge = _Judge(source, evidence, own_trust, stamp_check, progress, workers)
    try:
        judge.judge()
    except Malformed as error:
        judge.found.say(None, Verdict.MALFORMED, str(error))
    return judge.report()


class _Judge:
    def __init__(
        self, source: Source, evidence: Evidence, own_trust: bool, stamp_check: StampCheck,
        progress: Callable[[int], None] | None, workers: Sequence[Worker],
    ) -> None:  # fmt: skip
        self._source, self._evidence, self._own_trust = source, evidence, own_trust
        self._stamp_check, self._progress, self._workers = stamp_check, progress, workers
        self._files: Files | None = None
        self._case: Case | None = None
        self.found = Collected()
        self._entries = 0
        self._chains: list[tuple[bytes, Verdict, int, int]] = []
        self._reports: list[Report] = []
        self._left: list[str] = []

    # --- the order of proto/EVIDENCE.md, "Verification"

    def judge(self) -> None:
        """All of it. Raises Malformed where nothing more can be judged."""
        self._files = files = Files(self._source, self.found)
        files.read_bag()
        content = files.small(CASE, LIMITS[CASE])
        if content is None:
            raise Malformed("bundle: it has no case.json that can be read")
        self._case = case = parse_case(content)
        files.sort(case)
        evidence = self._opened(files, self._trusted(files))
        with files.beside() if self._workers else contextlib.nullcontext():
            for claim in case.claims:
                of_chain = files.chains.get(claim.chain_id)
                if of_chain is not None and of_chain.stream is not None:
                    self._chain(case, claim, evidence, files, of_chain)
            self._strangers(evidence, case)
            files.read_rest()
        self._left += [*_absent(evidence, case), *files.unjudged()]

    def _trusted(self, files: Files) -> Evidence:
        if not self._own_trust:
            return self._evidence
        data = files.small(TRUST, LIMITS[TRUST])
        if data is None:
            raise UsageError("the bundle has no copy of a trust file that could be used")
        trust = parse_trust(data)
        self.found.say(
            None, Verdict.UNANCHORED, "the trust file is the bundle's own: whoever made it chose what to trust"
        )
        return replace(self._evidence, trust=trust, check_timestamp=self._stamp_check(trust))

    def _opened(self, files: Files, evidence: Evidence) -> Evidence:
        """With the bundle's openings, where the verifier holds none of its own."""
        data = files.small(OPENINGS, LIMITS[OPENINGS])
        if data is None or evidence.openings is not None:
            return evidence
        try:
            return replace(evidence, openings=parse_openings(data))
        except Malformed as error:
            self.found.say(None, Verdict.MALFORMED, f"{OPENINGS}: {error}")
            return evidence

    # --- one chain

    def _chain(self, case: Case, claim: Claim, evidence: Evidence, files: Files, mine: OfChain) -> None:
        chain = claim.chain_id
        logged, joined, stamps = self._receipts(chain, files, mine.receipts)
        heads = [data for name in mine.callers if (data := files.small(name, LIMITS["callers"])) is not None]
        held = _own(evidence, chain)
        held = replace(
            held, disclosure=held.disclosure or self._disclosure(chain, files, mine.disclosure),
            receipts=[*held.receipts, *heads], logged=[*held.logged, *logged],
            consistency=[*held.consistency, *joined], timestamps=[*held.timestamps, *stamps],
            part=Part(claim, case.start, case.end, case.agents),
        )  # fmt: skip
        assert mine.stream is not None
        content = files.content(mine.stream)
        report = verify_stream(content.read, held, progress=self._told(), workers=self._workers)
        for finding in report.findings:
            self.found.add(chain, finding)
        self.found.total += report.findings_total
        self._entries += report.entries
        self._chains.append((chain, max(report.verdict, self.found.of(chain)), report.entries, report.segments))
        self._keep(report)
        files.finish(content)

    def _told(self) -> Callable[[int], None] | None:
        progress, before = self._progress, self._entries
        return None if progress is None else lambda entries: progress(before + entries)

    def _keep(self, report: Report) -> None:
        self._reports.append(replace(report, findings=(), notes=report.notes[:20]))
        several = self._case is not None and len(self._case.claims) > 1
        of = f"chain {report.chain_id.hex()[:16]}: " if several and report.chain_id else ""
        self._left += [of + line for line in report.not_checked[: max(0, MAX_FINDINGS - len(self._left))]]

    def _receipts(self, chain: bytes, files: Files, names: Sequence[str]) -> tuple[list[bytes], ...]:
        """Receipts, consistency files and timestamps of the log."""
        found: tuple[list[bytes], ...] = ([], [], [])
        starts = (f"{tlog_proof.KIND}\n".encode(), b"old ", b"{")
        for name in names:
            data = files.small(name, LIMITS["receipts"])
            kinds = [
                kept for start, kept in zip(starts, found, strict=True) if data is not None and data.startswith(start)
            ]
            if data is not None and not kinds:
                self.found.say(chain, Verdict.MALFORMED, f"{name} is no receipt, consistency file or timestamp")
            for kept in kinds:
                kept.append(data or b"")
        return found

    def _disclosure(self, chain: bytes, files: Files, name: str | None) -> Disclosure | None:
        data = None if name is None else files.small(name, LIMITS["disclosure.json"])
        if data is None:
            return None
        try:
            return parse_disclosure(data)
        except Malformed as error:
            self.found.say(chain, Verdict.MALFORMED, f"{name}: {error}")
            return None

    def _strangers(self, evidence: Evidence, case: Case) -> None:
        """What the verifier gave for a chain that is not here."""
        claimed = {claim.chain_id for claim in case.claims}
        foreign = [c for c in (*map(_of_head, evidence.receipts), *map(_of_logged, evidence.logged)) if c]
        if any(chain not in claimed for chain in foreign):
            self.found.say(
                None, Verdict.TAMPERED, "a receipt that was given is of a chain that the bundle does not hold"
            )

    # --- the rest

    def report(self) -> BundleReport:
        """The report, once everything was judged that could be."""
        verdict = self.found.worst()
        decisions: dict[str, int] = {}
        for each in self._reports:
            for worth, number in each.decisions.items():
                decisions[worth] = decisions.get(worth, 0) + number
        return BundleReport(
            verdict, self.found.in_order(), self.found.total, self._checked(), tuple(self._left),
            tuple(line for each in self._reports for line in each.notes)[:MAX_FINDINGS], tuple(self._chains),
            self._claim(verdict), decisions, self._case,
        )  # fmt: skip

    def _checked(self) -> tuple[str, ...]:
        if self._case is None or self._files is None:
            return ()
        lines = [
            f"container, manifest and digests of {number_of(self._files.read, 'file')}",
            "case.json against the streams",
        ]
        return (*lines, *dict.fromkeys(line for each in self._reports for line in each.checked))[:MAX_FINDINGS]

    def _claim(self, verdict: Verdict) -> str:
        if verdict > Verdict.UNANCHORED or self._case is None:
            return f"Nothing beyond the findings: the bundle is {verdict.name}."
        return " ".join(dict.fromkeys((self._case.scope(), *(each.claim for each in self._reports))))


def _absent(evidence: Evidence, case: Case) -> list[str]:
    """What the verifier expects chains for, and this bundle has none."""
    known = set() if evidence.trust is None else evidence.trust.chains.keys()
    absent = sorted(known - {claim.chain_id for claim in case.claims})
    named = ", ".join(chain.hex() for chain in absent[:20])
    return [f"chains of the trust file that this bundle does not hold ({len(absent)}): {named}"] if absent else []


def _own(evidence: Evidence, chain: bytes) -> Evidence:
    """What the verifier holds that may be of this chain."""
    given = evidence.disclosure
    return replace(
        evidence,
        disclosure=given if given is not None and given.chain_id == chain else None,
        receipts=[data for data in evidence.receipts if _of_head(data) in (None, chain)],
        logged=[data for data in evidence.logged if _of_logged(data) in (None, chain)],
    )


def _of_head(data: bytes) -> bytes | None:
    try:
        return Head.parse(note.parse(data).text).chain_id
    except Malformed:
        return None


def _of_logged(data: bytes) -> bytes | None:
    try:
        return Logged.parse(TlogProof.parse(data).extra or b"").chain_id
    except Malformed:
        return None
