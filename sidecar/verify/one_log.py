"""Whether all checkpoints that receipts rest on are of one log that only grew (proto/LOG.md, rule 5)."""

from __future__ import annotations

from itertools import pairwise

from sidecar.chain import merkle
from sidecar.chain.consistency import Consistency
from sidecar.chain.printable import number_of
from sidecar.errors import Malformed, ProofRejected, SignatureInvalid
from sidecar.verify.coverage import Coverage
from sidecar.verify.policy import Policy, Vouched
from sidecar.verify.report import Findings, Verdict


class OneLog:
    """Collects checkpoints and the files that join them."""

    def __init__(self, policy: Policy, findings: Findings, coverage: Coverage) -> None:
        self._policy, self._findings, self._coverage = policy, findings, coverage
        self._known: dict[tuple[str, int], Vouched] = {}
        self._resting: set[tuple[str, int]] = set()
        self._above: dict[tuple[str, int], set[int]] = {}

    def rest_on(self, vouched: Vouched) -> None:
        """A receipt counts by this checkpoint."""
        self._learn(vouched)
        self._resting.add((vouched.checkpoint.origin, vouched.checkpoint.size))

    def _learn(self, vouched: Vouched) -> None:
        new = vouched.checkpoint
        old = self._known.setdefault((new.origin, new.size), vouched)
        if old.checkpoint.root != new.root:
            self._say(Verdict.FORK, f"log {new.origin} signed two trees of {number_of(new.size, 'entry', 'entries')}")

    def _say(self, verdict: Verdict, reason: str) -> None:
        self._findings.add(verdict, None, None, reason)

    def join(self, files: list[tuple[int, Consistency]]) -> None:
        """Read the consistency files, given with their numbers, the smaller trees first."""
        judged = [(number, file, new) for number, file in files if (new := self._newer(number, file)) is not None]
        for number, file, new in sorted(judged, key=lambda each: (each[1].old, each[2].checkpoint.size)):
            self._join(number, file, new)

    def _newer(self, number: int, file: Consistency) -> Vouched | None:
        try:
            return self._policy.judge(file.checkpoint)
        except (Malformed, SignatureInvalid) as error:
            self._say(Verdict.TAMPERED, f"consistency file {number}: {error}")
            return None

    def _join(self, number: int, file: Consistency, new: Vouched) -> None:
        origin, size = new.checkpoint.origin, new.checkpoint.size
        old = self._known.get((origin, file.old))
        if old is None:
            entries = number_of(file.old, "entry", "entries")
            self._coverage.leave(f"consistency file {number}: no receipt rests on a checkpoint of {entries}")
            return
        try:
            merkle.verify_consistency(file.old, size, old.checkpoint.root, new.checkpoint.root, file.proof)
        except (Malformed, ProofRejected) as error:
            entries = number_of(size, "entry", "entries")
            self._say(Verdict.FORK, f"log {origin}: its tree of {entries} does not extend {file.old:,}: {error}")
            return
        self._learn(new)
        self._above.setdefault((origin, file.old), set()).add(size)

    def finish(self) -> None:
        """Every checkpoint that is rested on must be joined to the next larger one."""
        for origin in {origin for origin, _ in self._resting}:
            sizes = sorted(size for name, size in self._resting if name == origin)
            for old, new in pairwise(sizes):
                if not self._joined(origin, old, new):
                    entries = number_of(new, "entry", "entries")
                    missing = f"that its tree of {entries} extends that of {old:,}: no consistency proof"
                    self._say(Verdict.INCOMPLETE, f"log {origin}: nothing shows {missing}")

    def _joined(self, origin: str, old: int, new: int) -> bool:
        both = self._known[origin, old].witnesses.keys() & self._known[origin, new].witnesses.keys()
        return bool(both) or bool(self._reach(origin, old) & self._reach(origin, new))

    def _reach(self, origin: str, size: int) -> set[int]:
        """The sizes of trees that this one is a prefix of, itself among them."""
        found, waiting = {size}, [size]
        while waiting:
            for above in self._above.get((origin, waiting.pop()), ()):
                if above not in found:
                    found.add(above)
                    waiting.append(above)
        return found
