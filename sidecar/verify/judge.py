"""The judgement on a stream: bytes in, report out (proto/LEDGER.md, "Verification").

Nothing is read but what ``read`` gives, nothing is written, and no more is remembered than a few entries, whatever
the stream's length. What the stream contains never raises: it becomes a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from sidecar.chain.stream import Kind, records
from sidecar.errors import Malformed
from sidecar.verify.ahead import Worker, ahead
from sidecar.verify.claims import judge_part, reaches_end
from sidecar.verify.context import Context
from sidecar.verify.coverage import claim
from sidecar.verify.entries import Entries
from sidecar.verify.epochs import Epochs
from sidecar.verify.evidence import Evidence
from sidecar.verify.report import Report, Verdict
from sidecar.verify.run import runs
from sidecar.verify.segments import Segments
from sidecar.verify.state import Phase, State
from sidecar.verify.window import IN_CONTEXT, Broken, Window

Record = tuple[Kind, bytes]

_EARLY = frozenset({Kind.GENESIS, Kind.EPOCH, Kind.OPEN, Kind.REGISTRY_BEFORE})
_MOST_EARLY = 5  # records before the first seal of a context

PROGRESS_EVERY = 1_000
"""Entries between two calls of ``progress``."""


def verify_stream(
    read: Callable[[int], bytes],
    evidence: Evidence = Evidence(),  # noqa: B008  frozen, and empty
    *,
    progress: Callable[[int], None] | None = None,
    workers: Sequence[Worker] = (),
) -> Report:
    """Judge a stream: a whole ledger, or one segment file.

    ``read(n)`` gives at most n bytes, and none only at the end. ``progress`` is called with the number of entries read
    so far, every :data:`PROGRESS_EVERY`. ``workers`` read payloads ahead; without any, the report is the same. What
    ``read``, ``workers`` and the evidence's ``open_seed`` raise passes through, except `Malformed` from ``read`` and
    `CustodyError` from ``open_seed``, which are findings.
    """
    judge = _Judge(evidence)
    try:
        judge.read(records(read), workers, progress)
    except Malformed as error:
        judge.broken(str(error))
    except Broken:
        judge.broken(None)
    return judge.report()


class _Judge:
    def __init__(self, evidence: Evidence) -> None:
        self._s = State(evidence)
        self._epochs = Epochs(self._s)
        self._entries = Entries(self._s, self._epochs)
        self._segments = Segments(self._s, self._entries)
        self._context = Context(self._s, self._epochs)
        self._part = evidence.part
        self._end_alone = False

    def read(self, stream: Iterator[Record], workers: Sequence[Worker], progress: Callable[[int], None] | None) -> None:
        s, told = self._s, 0
        if self._part is not None and self._part.claim.first_segment > 0:
            stream = self._after_context(stream, self._part.claim.first_segment)
        elif self._part is None:
            stream = self._or_end(stream)
        for kind, bodies, seen in ahead(runs(stream), workers):
            if s.phase is Phase.DONE:
                raise Malformed("a record follows the seal of a segment file")
            if seen is not None:
                self._entries.feed_all(bodies, seen)
            elif kind is Kind.BARE:
                self._entries.feed(bodies[0], bare=True)
            else:
                self._other(kind, bodies[0])
            if progress is not None and s.coverage.entries >= told + PROGRESS_EVERY:
                told += PROGRESS_EVERY
                progress(told)

    def _or_end(self, stream: Iterator[Record]) -> Iterator[Record]:
        """A stream that may be that of a ledger which keeps its end: its context has seals where a file's has one."""
        context: list[Record] = []
        for record in stream:
            context.append(record)
            if record[0] is Kind.CONTEXT_SEAL and context[0][0] is Kind.GENESIS:
                self._end_alone = True
                yield from self._after_context(chain(context, stream), 0)
                return
            if context[0][0] is not Kind.GENESIS or record[0] not in _EARLY or len(context) > _MOST_EARLY:
                break
        yield from chain(context, stream)

    def _after_context(self, stream: Iterable[Record], first: int) -> Iterator[Record]:
        """What follows the context of a window that claims to start with the segment ``first``."""
        window, records = Window(self._s, self._epochs), iter(stream)
        self._s.context = first
        for record in records:
            if record[0] not in IN_CONTEXT:
                window.end()
                self._s.start = self._s.segment
                if self._end_alone:
                    what = f"entries before {self._s.seq} are not here: the ledger keeps its end only, from segment"
                    self._s.findings.add(Verdict.INCOMPLETE, 0, 0, f"{what} {self._s.segment} on")
                yield record
                yield from records
                return
            window.feed(record[0], record[1])
        raise Malformed("the stream ends in its context")

    def _other(self, kind: Kind, body: bytes) -> None:
        s = self._s
        if kind is Kind.ATTACHMENT:
            if s.phase is Phase.CONTEXT:
                raise Malformed("an attachment among the context records")
            if s.coverage.entries:
                s.attachments.end()
            s.attachments.feed(body)
            return
        if kind is Kind.AUTHORITY:
            if s.phase is Phase.CONTEXT:
                raise Malformed("an authority note among the context records")
            s.attachments.end()
            if s.coverage.entries:
                s.authority.end()
            s.authority.feed(body)
            return
        first = s.phase is Phase.START and not s.attachments.begun
        starts_file = first and kind is Kind.GENESIS and self._part is None and not self._end_alone
        if s.phase is not Phase.CONTEXT and not starts_file:
            s.attachments.end()
            s.authority.end()
        if s.phase is Phase.CONTEXT or starts_file:
            self._context.feed(kind, body)
        elif kind is Kind.EPOCH:
            self._entries.settle(None, None)
            self._epochs.feed(body)
        elif kind is Kind.HEAD:
            self._segments.head(body)
        elif kind is Kind.SEAL:
            self._segments.seal(body)
        else:
            s.say(Verdict.MALFORMED, s.seq, f"a context record {kind.name} where none may be")

    def broken(self, reason: str | None) -> None:
        """The stream cannot be read on; ``reason`` None: why is said already."""
        self._s.coverage.broken = True
        self._entries.settle(None, None)
        if reason is not None:
            self._s.say(Verdict.MALFORMED, self._s.seq, reason)

    def report(self) -> Report:
        s = self._s
        self._entries.finish()
        self._epochs.finish()
        self._segments.finish()
        s.principals.finish()
        s.approvals.finish()
        s.outcomes.finish()
        s.personal.finish()
        s.context = None
        to_end = s.coverage.whole or self._end_alone if self._part is None else reaches_end(s, self._part)
        s.receipts.finish(to_end=to_end and not s.coverage.broken, first=s.start)
        s.anchors.finish(to_end=to_end, broken=s.coverage.broken, following=s.seq, first=s.start)
        pinned = s.evidence.trust is not None and s.evidence.trust.policy is not None
        s.authority.finish(anchored=s.coverage.anchored, pinned=pinned)
        if self._part is not None:
            judge_part(s, self._part)
        s.coverage.last_seq = s.seq - 1 if s.coverage.entries else None
        verdict = s.findings.worst()
        return Report(
            verdict,
            s.findings.in_order(),
            s.findings.total,
            s.coverage.checked(s.evidence),
            s.coverage.not_checked(s.evidence),
            tuple(s.coverage.notes),
            s.coverage.entries,
            s.coverage.segments,
            s.chain_id,
            claim(verdict, s.coverage),
            s.principals.decisions,
        )
