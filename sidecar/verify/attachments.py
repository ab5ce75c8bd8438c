"""What entries name by digest, and whether it is here (proto/LEDGER.md rule 9). What is in it is not judged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from sidecar.chain.entry import EntryType
from sidecar.chain.limits import MAX_ATTACHMENT
from sidecar.chain.stream import attachment_of
from sidecar.errors import Malformed
from sidecar.verify.coverage import Coverage
from sidecar.verify.report import Findings, Verdict

REMEMBERED: Final = 100_000
"""The most attachments of one stream: a bound on memory."""


class Attachments:
    """The attachments of the stream."""

    def __init__(self, findings: Findings, coverage: Coverage) -> None:
        self._findings, self._coverage = findings, coverage
        self._read: set[str] = set()
        self._last = ""
        self._over = False

    def feed(self, body: bytes) -> None:
        """One attachment record.

        Raises:
            Malformed: it is over the limit, out of its place or order, or one too many.
        """
        digest = hashlib.sha256(body).hexdigest()
        if self._over or digest <= self._last:
            raise Malformed("an attachment that stands where it must not, or not in its order")
        if len(body) > MAX_ATTACHMENT or len(self._read) >= REMEMBERED:
            raise Malformed("an attachment that is too large, or one too many")
        self._last = digest
        self._read.add(digest)

    @property
    def begun(self) -> bool:
        """Whether an attachment was read, or a record that comes after them."""
        return self._over or bool(self._last)

    def end(self) -> None:
        """Another record than context and attachments was read."""
        self._over = True

    def named(self, kind: EntryType, value: Mapping[str, Any], segment: int, seq: int) -> None:
        """A POLICY entry may name its bundle."""
        due = attachment_of(kind, value)
        if due and due not in self._read:
            if not self._coverage.single:
                self._findings.add(Verdict.INCOMPLETE, segment, seq, "the bundle that it names is not here")
            else:
                self._coverage.leave(f"bundle of entry {seq}: it is not here")
