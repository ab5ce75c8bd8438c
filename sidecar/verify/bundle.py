"""The judgement of an evidence bundle: container, bag, case, then each chain (proto/EVIDENCE.md, "Verification").

Memory is flat: the directory and small files are read whole, streams and documents go by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sidecar.chain import note, tlog_proof
from sidecar.chain.head import Head
from sidecar.chain.logged import Logged
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import Malformed, UsageError
from sidecar.verify import bag
from sidecar.verify.ahead import Worker
from sidecar.verify.archived import MAX_TAR, wasm_of
from sidecar.verify.case import Case, Claim, Part, parse_case
from sidecar.verify.container import STORED, Content, Member, Source, directory
from sidecar.verify.disclosure import Disclosure, parse_disclosure
from sidecar.verify.evidence import Evidence
from sidecar.verify.judge import verify_stream
from sidecar.verify.report import MAX_FINDINGS, Finding, Report, Verdict
from sidecar.verify.trust import Trust, parse_trust

CASE: Final = "data/case.json"
TRUST: Final = "data/trust.json"
OPENINGS: Final = "data/openings.json"
STREAM: Final = "stream.sdcseg"
_CHAINS = re.compile(
    r"data/chains/(?P<chain>[0-9a-f]{64})/(?:(?P<file>stream\.sdcseg|disclosure\.json)|(?P<kind>receipts|callers)/[^/]+)"
)
_POLICY = re.compile(r"data/policies/(?P<digest>[0-9a-f]{64})\.(?P<kind>tar\.gz|wasm)")
_LARGE: Final = 16 * 1024 * 1024
_LIMITS: Final = {
    CASE: _LARGE, bag.MANIFEST: _LARGE, bag.TAGS: _LARGE, OPENINGS: _LARGE, TRUST: 1024 * 1024,
    bag.BAGIT: 65_536, bag.INFO: 65_536, "receipts": 131_072, "callers": 131_072,
    "disclosure.json": 64 * 1024 * 1024, "tar.gz": 8 * 1024 * 1024, "wasm": MAX_TAR,
}  # fmt: skip
_MOST_RECEIPTS: Final = 4_096
_JUDGED: Final = (CASE, TRUST, OPENINGS)

StampCheck = Callable[[Trust | None], Callable[[Timestamp], int] | None]


@dataclass(frozen=True, slots=True)
class BundleReport:
    """The judgement on a bundle. ``findings`` with the chain that each is of, None: of the bundle, in their order;
    ``findings_total`` counts also those not kept. ``chains``: verdict, entries, segments of each."""

    verdict: Verdict
    findings: tuple[tuple[bytes | None, Finding], ...]
    findings_total: int
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]
    notes: tuple[str, ...]
    chains: tuple[tuple[bytes, Verdict, int, int], ...]
    claim: str
    decisions: Mapping[str, int]
    case: Case | None

    @property
    def entries(self) -> int:
        """Entries of all chains."""
        return sum(each[2] for each in self.chains)

    @property
    def segments(self) -> int:
        """Segments of all chains."""
        return sum(each[3] for each in self.chains)

    def first_bad(self) -> tuple[bytes | None, Finding] | None:
        """The first finding, by chain and place, that is worse than UNANCHORED."""
        return next((each for each in self.findings if each[1].verdict > Verdict.UNANCHORED), None)

    def to_json(self) -> Mapping[str, Any]:
        """The report as a JSON object; member names are stable."""
        return {
            "verdict": self.verdict.name,
            "findings": [
                {**finding.to_json(), "chain": None if chain is None else chain.hex()}
                for chain, finding in self.findings
            ],
            "findings_total": self.findings_total,
            "checked": list(self.checked),
            "not_checked": list(self.not_checked),
            "entries": self.entries,
            "segments": self.segments,
            "chains": [
                {"chain": chain.hex(), "verdict": verdict.name, "entries": entries, "segments": segments}
                for chain, verdict, entries, segments in self.chains
            ],
            "claim": self.claim,
            "decisions": dict(self.decisions),
            "notes": list(self.notes),
        }


@dataclass(slots=True)
class _Files:
    """The files of one chain, by name."""

    stream: str | None = None
    disclosure: str | None = None
    receipts: list[str] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)


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
        judge.say(None, Verdict.MALFORMED, str(error))
    return judge.report()


class _Judge:
    def __init__(
        self, source: Source, evidence: Evidence, own_trust: bool, stamp_check: StampCheck,
        progress: Callable[[int], None] | None, workers: Sequence[Worker],
    ) -> None:  # fmt: skip
        self._source, self._evidence, self._own_trust = source, evidence, own_trust
        self._stamp_check, self._progress, self._workers = stamp_check, progress, workers
        self._members: dict[str, Member] = {}
        self._listed: dict[str, str] = {}
        self._unread: set[str] = set()
        self._files: dict[bytes, _Files] = {}
        self._case: Case | None = None
        self._findings: list[tuple[bytes | None, Finding]] = []
        self._worst: tuple[bytes | None, Finding] | None = None
        self._total = self._entries = 0
        self._chains: list[tuple[bytes, Verdict, int, int]] = []
        self._reports: list[Report] = []
        self._left: list[str] = []

    def say(self, chain: bytes | None, verdict: Verdict, reason: str) -> None:
        """A finding that is placed nowhere in its chain, or in the bundle."""
        self._add(chain, Finding(verdict, None, None, reason), 1)

    def _add(self, chain: bytes | None, finding: Finding, total: int) -> None:
        self._total += total
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append((chain, finding))
        if self._worst is None or finding.verdict > self._worst[1].verdict:
            self._worst = chain, finding

    # --- the order of proto/EVIDENCE.md, "Verification"

    def judge(self) -> None:
        """All of it. Raises Malformed where nothing more can be judged."""
        self._members = directory(self._source)
        self._unread = set(self._members)
        for name, member in self._members.items():
            if name.startswith("data/chains/") and name.endswith(f"/{STREAM}") and member.method != STORED:
                raise Malformed(f"bundle: {name} is deflated")
        self._bag()
        content = self._small(CASE, _LIMITS[CASE])
        if content is None:
            raise Malformed("bundle: it has no case.json that can be read")
        self._case = case = parse_case(content)
        self._sort(case)
        evidence = self._trusted()
        for claim in case.claims:
            if claim.chain_id in self._files and self._files[claim.chain_id].stream:
                self._chain(case, claim, evidence)
        self._strangers(evidence, case)
        self._policies()
        for name in sorted(self._unread):
            if name.startswith(bag.PAYLOAD):
                self._finish(Content(self._source, self._members[name]))
        self._unjudged()

    def _bag(self) -> None:
        outside = {name for name in self._members if not name.startswith(bag.PAYLOAD)}
        wrong = sorted(outside ^ {*bag.TAGGED, bag.TAGS})
        if wrong:
            what = "stands outside of data/" if wrong[0] in outside else "is missing"
            self.say(None, Verdict.MALFORMED, f"bag: {wrong[0]} {what}")
        self._listed = self._manifest(bag.TAGS, bag.TAGGED)
        declared = self._small(bag.BAGIT, _LIMITS[bag.BAGIT])
        if declared is not None and declared != bag.DECLARATION:
            self.say(None, Verdict.MALFORMED, f"bag: {bag.BAGIT} is not that of BagIt 1.0")
        self._small(bag.INFO, _LIMITS[bag.INFO])
        payload = [name for name in self._members if name.startswith(bag.PAYLOAD)]
        self._listed |= self._manifest(bag.MANIFEST, payload)

    def _manifest(self, name: str, present: Sequence[str]) -> dict[str, str]:
        data = self._small(name, _LIMITS[name])
        if data is None:
            return {}
        try:
            listed = bag.read_manifest(data, name)
        except Malformed as error:
            self.say(None, Verdict.MALFORMED, str(error))
            return {}
        wrong = bag.missing(listed, present, name)
        if wrong is not None:
            self.say(None, Verdict.MALFORMED, wrong)
        return {each: digest for each, digest in listed.items() if each in self._members}

    def _sort(self, case: Case) -> None:
        """The files by name and limit."""
        claimed = {claim.chain_id for claim in case.claims}
        for name, member in self._members.items():
            policy, placed = _POLICY.fullmatch(name), _CHAINS.fullmatch(name)
            limit = _LIMITS.get(name)
            if policy is not None:
                limit = _LIMITS[policy["kind"]]
            elif placed is not None:
                limit = _LIMITS.get(placed["kind"] or placed["file"])
            elif name.startswith("data/chains/"):
                self.say(None, Verdict.MALFORMED, f"bundle: {name} is nothing that may be there")
            if limit is not None and member.size > limit:
                self.say(None, Verdict.MALFORMED, f"bundle: {name} is over its limit")
            elif placed is not None:
                self._place(placed, name, claimed)
        for chain in sorted(claimed):
            if chain not in self._files or self._files[chain].stream is None:
                self.say(None, Verdict.MALFORMED, f"bundle: chain {chain.hex()} has no stream")
        if case.profile == "external" and OPENINGS in self._members:
            self.say(None, Verdict.MALFORMED, "bundle: profile external, and it has openings of personal fields")

    def _place(self, placed: re.Match[str], name: str, claimed: set[bytes]) -> None:
        chain = bytes.fromhex(placed["chain"])
        if chain not in claimed:
            self.say(None, Verdict.MALFORMED, f"bundle: {name} is of a chain that case.json does not list")
            return
        files = self._files.setdefault(chain, _Files())
        if placed["kind"] is None:
            if placed["file"] == STREAM:
                files.stream = name
            else:
                files.disclosure = name
        elif len(files.receipts) + len(files.callers) >= _MOST_RECEIPTS:
            self.say(None, Verdict.MALFORMED, f"bundle: {name} is one receipt too many")
        else:
            (files.receipts if placed["kind"] == "receipts" else files.callers).append(name)

    def _trusted(self) -> Evidence:
        if not self._own_trust:
            return self._evidence
        data = self._small(TRUST, _LIMITS[TRUST])
        if data is None:
            raise UsageError("the bundle has no copy of a trust file that could be used")
        trust = parse_trust(data)
        self.say(None, Verdict.UNANCHORED, "the trust file is the bundle's own: whoever made it chose what to trust")
        return replace(self._evidence, trust=trust, check_timestamp=self._stamp_check(trust))

    # --- one chain

    def _chain(self, case: Case, claim: Claim, evidence: Evidence) -> None:
        chain, files = claim.chain_id, self._files[claim.chain_id]
        before, seen = self._total, len(self._findings)
        logged, joined, stamps = self._receipts(chain, files.receipts)
        heads = [data for name in files.callers if (data := self._small(name, _LIMITS["callers"])) is not None]
        mine = _own(evidence, chain)
        held = replace(
            mine, disclosure=mine.disclosure or self._disclosure(chain, files.disclosure),
            receipts=[*mine.receipts, *heads], logged=[*mine.logged, *logged],
            consistency=[*mine.consistency, *joined], timestamps=[*mine.timestamps, *stamps],
            part=Part(claim, case.start, case.end, case.agents),
        )  # fmt: skip
        assert files.stream is not None
        content = Content(self._source, self._members[files.stream])
        report = verify_stream(content.read, held, progress=self._told(), workers=self._workers)
        self._entries += report.entries
        worst = max([report.verdict, *(f.verdict for c, f in self._findings[seen:] if c == chain)])
        for finding in report.findings:
            self._add(chain, finding, 0)
        self._total = before + (self._total - before) + report.findings_total
        self._chains.append((chain, worst, report.entries, report.segments))
        self._keep(report)
        self._finish(content)

    def _told(self) -> Callable[[int], None] | None:
        progress, before = self._progress, self._entries
        return None if progress is None else lambda entries: progress(before + entries)

    def _keep(self, report: Report) -> None:
        self._reports.append(replace(report, findings=(), notes=report.notes[:20]))
        several = self._case is not None and len(self._case.claims) > 1
        of = f"chain {report.chain_id.hex()[:16]}: " if several and report.chain_id else ""
        self._left += [of + line for line in report.not_checked[: max(0, MAX_FINDINGS - len(self._left))]]

    def _receipts(self, chain: bytes, names: Sequence[str]) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Receipts, consistency files and timestamps of the log."""
        found: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
        starts = (f"{tlog_proof.KIND}\n".encode(), b"old ", b"{")
        for name in names:
            data = self._small(name, _LIMITS["receipts"])
            kinds = [
                kept for start, kept in zip(starts, found, strict=True) if data is not None and data.startswith(start)
            ]
            if data is not None and not kinds:
                self.say(chain, Verdict.MALFORMED, f"{name} is no receipt, consistency file or timestamp")
            for kept in kinds:
                kept.append(data or b"")
        return found

    def _disclosure(self, chain: bytes, name: str | None) -> Disclosure | None:
        data = None if name is None else self._small(name, _LIMITS["disclosure.json"])
        if data is None:
            return None
        try:
            return parse_disclosure(data)
        except Malformed as error:
            self.say(chain, Verdict.MALFORMED, f"{name}: {error}")
            return None

    def _strangers(self, evidence: Evidence, case: Case) -> None:
        """What the verifier gave for a chain that is not here."""
        claimed = {claim.chain_id for claim in case.claims}
        foreign = [c for c in (*map(_of_head, evidence.receipts), *map(_of_logged, evidence.logged)) if c]
        if any(chain not in claimed for chain in foreign):
            self.say(None, Verdict.TAMPERED, "a receipt that was given is of a chain that the bundle does not hold")

    # --- the rest

    def _policies(self) -> None:
        packed: dict[str, bytes] = {}
        for name in sorted(self._members):
            found = _POLICY.fullmatch(name)
            if found is None or self._members[name].size > _LIMITS[found["kind"]]:
                continue
            data = self._small(name, _LIMITS[found["kind"]])
            if data is not None and found["kind"] == "tar.gz":
                packed = {found["digest"]: data}
                self._named(name, found["digest"], data)
            elif data is not None:
                self._wasm(name, packed.get(found["digest"]), data)

    def _named(self, name: str, digest: str, data: bytes) -> None:
        from hashlib import sha256

        if sha256(data).hexdigest() != digest:
            self.say(None, Verdict.MALFORMED, f"{name}: its content has another digest")

    def _wasm(self, name: str, packed: bytes | None, data: bytes) -> None:
        try:
            if packed is None or wasm_of(packed) != data:
                raise Malformed("it is not the policy.wasm of the bundle beside it")
        except Malformed as error:
            self.say(None, Verdict.MALFORMED, f"{name}: {error}")

    def _small(self, name: str, limit: int) -> bytes | None:
        """A content that is read whole; None: it is not there, is over its limit or not as the directory says."""
        member = self._members.get(name)
        if member is None:
            return None
        if member.size > limit:
            self.say(None, Verdict.MALFORMED, f"bundle: {name} is over its limit")
            return None
        content = Content(self._source, member)
        data = bytearray()
        while piece := content.read(1 << 20):
            data += piece
        return None if self._finish(content) else bytes(data)

    def _finish(self, content: Content) -> str | None:
        """Read the rest, hold it against directory and manifest; what the directory says wrongly of it."""
        name = content.member.name
        content.finish()
        self._unread.discard(name)
        if content.fault is not None:
            self.say(None, Verdict.MALFORMED, f"bundle: {name}: {content.fault}")
        elif self._listed.get(name, content.digest) != content.digest:
            self.say(None, Verdict.MALFORMED, f"bag: {name} is not what the manifest lists")
        return content.fault

    def _unjudged(self) -> None:
        others = [n for n in self._members if n.startswith(bag.PAYLOAD) and n not in _JUDGED]
        others = sorted(
            n.removeprefix(bag.PAYLOAD) for n in others if not _CHAINS.fullmatch(n) and not _POLICY.fullmatch(n)
        )
        if others:
            more = f" and {len(others) - 20} more" if len(others) > 20 else ""
            self._left.append(f"what these files say, which follows from the streams: {', '.join(others[:20])}{more}")

    def report(self) -> BundleReport:
        """The report, once everything was judged that could be."""
        kept = self._findings
        if self._worst is not None and self._worst not in kept:
            kept[-1] = self._worst
        verdict = Verdict.OK if self._worst is None else self._worst[1].verdict
        decisions: dict[str, int] = {}
        for each in self._reports:
            for worth, number in each.decisions.items():
                decisions[worth] = decisions.get(worth, 0) + number
        return BundleReport(
            verdict, tuple(sorted(kept, key=_in_order)), self._total, self._checked(), tuple(self._left),
            tuple(line for each in self._reports for line in each.notes)[:MAX_FINDINGS], tuple(self._chains),
            self._claim(verdict), decisions, self._case,
        )  # fmt: skip

    def _checked(self) -> tuple[str, ...]:
        if self._case is None:
            return ()
        read = len(self._members) - len(self._unread)
        lines = [f"container, manifest and digests of {read} files", "case.json against the streams"]
        return (*lines, *dict.fromkeys(line for each in self._reports for line in each.checked))[:MAX_FINDINGS]

    def _claim(self, verdict: Verdict) -> str:
        if verdict > Verdict.UNANCHORED:
            return f"Nothing beyond the findings: the bundle is {verdict.name}."
        return " ".join(dict.fromkeys(each.claim for each in self._reports))


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


def _in_order(placed: tuple[bytes | None, Finding]) -> tuple[bool, bytes, bool, int, bool, int, int]:
    chain, finding = placed
    segment, seq = finding.segment, finding.seq
    return (
        chain is None, chain or b"", segment is None, segment or 0, seq is None, seq or 0, -finding.verdict
    )  # fmt: skip
