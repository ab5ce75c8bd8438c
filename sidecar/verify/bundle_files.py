"""The files of an evidence bundle: which there may be, and whether they are what the bag lists.

proto/EVIDENCE.md, "Bag" and "Files". Each content is read once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from sidecar.errors import Malformed
from sidecar.verify import bag
from sidecar.verify.bundle_report import Collected
from sidecar.verify.case import Case
from sidecar.verify.container import STORED, Content, Member, Source, directory
from sidecar.verify.report import Verdict

CASE: Final = "data/case.json"
TRUST: Final = "data/trust.json"
OPENINGS: Final = "data/openings.json"
STREAM: Final = "stream.sdcseg"
_CHAINS = re.compile(
    r"data/chains/(?P<chain>[0-9a-f]{64})/(?:(?P<file>stream\.sdcseg|disclosure\.json)|(?P<kind>receipts|callers)/[^/]+)"
)
_LARGE: Final = 16 * 1024 * 1024
LIMITS: Final = {
    CASE: _LARGE, bag.MANIFEST: _LARGE, bag.TAGS: _LARGE, OPENINGS: _LARGE, TRUST: 1024 * 1024,
    bag.BAGIT: 65_536, bag.INFO: 65_536, "receipts": 131_072, "callers": 131_072,
    "disclosure.json": 64 * 1024 * 1024,
}  # fmt: skip
_MOST_RECEIPTS: Final = 4_096
_WORTH_A_THREAD: Final = 1024 * 1024
_JUDGED: Final = (CASE, TRUST, OPENINGS)


@dataclass(slots=True)
class OfChain:
    """The files of one chain, by name."""

    stream: str | None = None
    disclosure: str | None = None
    receipts: list[str] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)


class Files:
    """Opens a container; what is wrong with its files goes to ``found``. ``chains`` once they are sorted.

    Raises:
        Malformed: the container is not of the shape that is allowed: nothing else can be judged.
    """

    def __init__(self, source: Source, found: Collected) -> None:
        self._source, self._found = source, found
        self.members = directory(source)
        self._unread = set(self.members)
        self._listed: dict[str, str] = {}
        self._begun: dict[str, Future[Content]] = {}
        self._given_up = False
        self.chains: dict[bytes, OfChain] = {}
        for name, member in self.members.items():
            if name.startswith("data/chains/") and name.endswith(f"/{STREAM}") and member.method != STORED:
                raise Malformed(f"bundle: {name} is deflated")

    @property
    def read(self) -> int:
        """How many were read."""
        return len(self.members) - len(self._unread)

    def content(self, name: str) -> Content:
        """A member's content; :meth:`finish` it."""
        return Content(self._source, self.members[name])

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Read the large files that nobody judges on a thread meanwhile, which inflates and hashes beside Python."""
        large = [self.members[name] for name in self._others() if self.members[name].size >= _WORTH_A_THREAD]
        with ThreadPoolExecutor(1, "bundle-files") as thread:
            self._begun = {member.name: thread.submit(self._whole, member) for member in large}
            try:
                yield
            finally:
                self._given_up = True
                thread.shutdown(cancel_futures=True)

    def _whole(self, member: Member) -> Content:
        content = Content(self._source, member)
        while not self._given_up and content.read(1 << 20):
            pass
        return content

    def read_rest(self) -> None:
        """Hold what nobody read against directory and manifest."""
        for name in sorted(self._unread):
            if name.startswith(bag.PAYLOAD):
                begun = self._begun.get(name)
                self.finish(self.content(name) if begun is None else begun.result())

    def _others(self) -> list[str]:
        """What follows from the streams, and nobody judges."""
        others = (n for n in self.members if n.startswith(bag.PAYLOAD) and n not in _JUDGED)
        return sorted(n for n in others if not _CHAINS.fullmatch(n))

    def read_bag(self) -> None:
        """The bag's own files, and what they list."""
        outside = {name for name in self.members if not name.startswith(bag.PAYLOAD)}
        wrong = sorted(outside ^ {*bag.TAGGED, bag.TAGS})
        if wrong:
            what = "stands outside of data/" if wrong[0] in outside else "is missing"
            self._found.say(None, Verdict.MALFORMED, f"bag: {wrong[0]} {what}")
        self._listed = self._manifest(bag.TAGS, bag.TAGGED)
        declared = self.small(bag.BAGIT, LIMITS[bag.BAGIT])
        if declared is not None and declared != bag.DECLARATION:
            self._found.say(None, Verdict.MALFORMED, f"bag: {bag.BAGIT} is not that of BagIt 1.0")
        self.small(bag.INFO, LIMITS[bag.INFO])
        payload = [name for name in self.members if name.startswith(bag.PAYLOAD)]
        self._listed |= self._manifest(bag.MANIFEST, payload)

    def _manifest(self, name: str, present: Sequence[str]) -> dict[str, str]:
        data = self.small(name, LIMITS[name])
        if data is None:
            return {}
        try:
            listed = bag.read_manifest(data, name)
        except Malformed as error:
            self._found.say(None, Verdict.MALFORMED, str(error))
            return {}
        wrong = bag.missing(listed, present, name)
        if wrong is not None:
            self._found.say(None, Verdict.MALFORMED, wrong)
        return {each: digest for each, digest in listed.items() if each in self.members}

    def sort(self, case: Case) -> None:
        """The files by name and limit."""
        claimed = {claim.chain_id for claim in case.claims}
        for name, member in self.members.items():
            placed = _CHAINS.fullmatch(name)
            limit = LIMITS.get(name)
            if placed is not None:
                limit = LIMITS.get(placed["kind"] or placed["file"])
            elif name.startswith("data/chains/"):
                self._found.say(None, Verdict.MALFORMED, f"bundle: {name} is nothing that may be there")
            if limit is not None and member.size > limit:
                self._found.say(None, Verdict.MALFORMED, f"bundle: {name} is over its limit")
            elif placed is not None:
                self._place(placed, name, claimed)
        for chain in sorted(claimed):
            if chain not in self.chains or self.chains[chain].stream is None:
                self._found.say(None, Verdict.MALFORMED, f"bundle: chain {chain.hex()} has no stream")
        if case.profile == "external" and OPENINGS in self.members:
            self._found.say(None, Verdict.MALFORMED, "bundle: profile external, and it has openings of personal fields")

    def _place(self, placed: re.Match[str], name: str, claimed: set[bytes]) -> None:
        chain = bytes.fromhex(placed["chain"])
        if chain not in claimed:
            self._found.say(None, Verdict.MALFORMED, f"bundle: {name} is of a chain that case.json does not list")
            return
        files = self.chains.setdefault(chain, OfChain())
        if placed["kind"] is None:
            if placed["file"] == STREAM:
                files.stream = name
            else:
                files.disclosure = name
        elif len(files.receipts) + len(files.callers) >= _MOST_RECEIPTS:
            self._found.say(None, Verdict.MALFORMED, f"bundle: {name} is one receipt too many")
        else:
            (files.receipts if placed["kind"] == "receipts" else files.callers).append(name)

    def small(self, name: str, limit: int) -> bytes | None:
        """A content that is read whole; None: it is not there, is over its limit or not as the directory says."""
        member = self.members.get(name)
        if member is None:
            return None
        if member.size > limit:
            self._found.say(None, Verdict.MALFORMED, f"bundle: {name} is over its limit")
            return None
        content = Content(self._source, member)
        data = bytearray()
        while piece := content.read(1 << 20):
            data += piece
        return None if self.finish(content) else bytes(data)

    def finish(self, content: Content) -> str | None:
        """Read the rest, hold it against directory and manifest; what the directory says wrongly of it."""
        name = content.member.name
        content.finish()
        self._unread.discard(name)
        if content.fault is not None:
            self._found.say(None, Verdict.MALFORMED, f"bundle: {name}: {content.fault}")
        elif self._listed.get(name, content.digest) != content.digest:
            self._found.say(None, Verdict.MALFORMED, f"bag: {name} is not what the manifest lists")
        return content.fault

    def unjudged(self) -> list[str]:
        """What is not checked, in words."""
        others = [name.removeprefix(bag.PAYLOAD) for name in self._others()]
        if not others:
            return []
        more = f" and {len(others) - 20} more" if len(others) > 20 else ""
        return [f"what these files say (what is true of it, the streams say): {', '.join(others[:20])}{more}"]
