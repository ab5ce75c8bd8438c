"""Making a bundle: streams first, then what vouches for them, then the verdict, then the documents.

Nothing is held in memory but notes and small files; what is written is verified as anybody would, before documents say
anything of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from sidecar.chain.payload import policy_time
from sidecar.chain.printable import number_of
from sidecar.chain.stream import MAGIC, Kind, reader, record
from sidecar.custody import PrivateKey, SubjectKeys, disclose, openings_of
from sidecar.errors import UsageError
from sidecar.evidence.account import Accountant, Ask, Here
from sidecar.evidence.bundle_file import FileSource, Told
from sidecar.evidence.certificate import ExporterKey
from sidecar.evidence.documents import DOCUMENTS
from sidecar.evidence.external import EXTERNAL
from sidecar.evidence.facts import Facts
from sidecar.evidence.growing import Grown
from sidecar.evidence.made import Made
from sidecar.evidence.receipts import Needed, needed
from sidecar.evidence.source import Records, Source
from sidecar.evidence.stream import Writer
from sidecar.evidence.survey import Survey
from sidecar.evidence.zipped import Zipped
from sidecar.verify import (
    MAX_OPENINGS,
    ChainOpenings,
    Disclosure,
    Evidence,
    Openings,
    Verdict,
    Worker,
    parse_disclosure,
)
from sidecar.verify.bundle import StampCheck, verify_bundle
from sidecar.verify.bundle_report import BundleReport
from sidecar.verify.case import MAX_STATEMENTS, Case, Claim, Statement
from sidecar.verify.container import directory


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted. Times are ns since 1970; ``start`` to ``end`` (excluded) the window; ``agents`` None: everything,
    else sorted. ``source``: kind and place, as `case.json` has them. ``keys`` or ``disclosure`` give segment keys;
    ``subject_keys``: directories of data subjects' keys, by which profile ``full`` opens personal fields.
    ``trust``: a trust file's bytes, to be copied in; ``evidence``: what the verdict is judged by. ``key`` signs the
    certificate of custody. ``lean``: without events and entries, a third of the work.
    """

    start: int
    end: int
    exported: int
    exporter: str
    source: tuple[str, str]
    name: str = ""
    agents: tuple[str, ...] | None = None
    profile: str = "full"
    keys: Sequence[PrivateKey] = ()
    subject_keys: Sequence[Path] = ()
    disclosure: Disclosure | None = None
    trust: bytes | None = None
    evidence: Evidence = field(default_factory=Evidence)
    stamp_check: StampCheck = lambda _: None
    key: ExporterKey | None = None
    lean: bool = False


def export(
    order: Order, sources: Sequence[Source], out: BinaryIO, told: Told = lambda _: None, workers: Sequence[Worker] = (),
    note: Callable[[str], object] = lambda _: None, accountant: Accountant | None = None,
) -> tuple[Case, BundleReport]:  # fmt: skip
    """Write a bundle to a new file, open for reading and writing. ``told``: bytes that were read, in all passes.
    ``note`` takes what whoever exports should be told. ``accountant``: who makes the account of the streams, perhaps
    while they are written and verified; None: it is made here, afterwards.

    Raises:
        UsageError: nothing of the window is there, it does not fit a bundle, or who helped has ended.
        CustodyError: a key does not open the seeds.
        Malformed: a chain that cannot be followed.
    """
    making = _Making(order, Zipped(out), told)
    for source in sources:
        making.survey(source)
    with tempfile.TemporaryFile() as events, tempfile.TemporaryFile() as entries:
        accountant = accountant or Here(events, entries)
        accountant.begin(making.asked(), out)
        case = making.write(accountant.grown)
        report = verify_bundle(FileSource(out, told), order.evidence, stamp_check=order.stamp_check, workers=workers)
        account = accountant.finish(told, sound=_sound(case, report))
        made = Made(
            case, report, account, FileSource(out, told), directory(FileSource(out)), making.digests,
            order.key, None if order.trust is None else sha256(order.trust).hexdigest(),
            order.evidence.check_timestamp, note,
        )  # fmt: skip
        making.documents(made)
    return case, report


def _sound(case: Case, report: BundleReport) -> bool:
    """Whether every payload was judged, and found to be the one that its header commits to, and strict JSON.

    A payload that is not makes the verdict TAMPERED or MALFORMED; FORK is of receipts and of the log.
    """
    return report.verdict < Verdict.TAMPERED and report.entries == sum(claim.entries for claim in case.claims)


class _Making:
    def __init__(self, order: Order, zipped: Zipped, told: Told) -> None:
        self._order, self._zipped, self._told = order, zipped, told
        self._writers: dict[bytes, tuple[Source, Writer, int]] = {}
        self._claims: list[Claim] = []
        self._statements: list[Statement] = []
        self._policies: set[str] = set()
        self._openings: dict[bytes, ChainOpenings] = {}

    def survey(self, source: Source) -> None:
        """Whether anything of the window is in this chain, and what."""
        with source.rare() as records:
            chosen = Survey(self._order.start, self._order.end, source.first).take(records, self._told)
        if chosen is not None:
            writer = Writer(source, chosen, self._order.agents, self._told)
            self._writers[chosen.chain_id] = source, writer, chosen.first
            if chosen.cut:
                what = f"the segments of the window before segment {chosen.first} are no longer kept in this ledger"
                self._statements.append(Statement(chosen.chain_id, "cut", f"{what}: export from the collector"))

    def asked(self) -> Ask:
        """What is wanted of an account. Raises UsageError where nothing of the window is there."""
        if not self._writers:
            raise UsageError("no chain recorded anything in this window; look at --from and --to")
        order, chains = self._order, tuple(chain_id.hex() for chain_id in sorted(self._writers))
        signer = order.key.id if order.key else ""
        return Ask(chains, order.exporter, signer, external=order.profile == EXTERNAL, lean=order.lean)

    def write(self, grown: Callable[[Grown], object]) -> Case:
        """Everything but the documents, as a whole bundle. ``grown``: how far each stream is, by rising chain."""
        for chain_id in sorted(self._writers):
            self._chain(f"data/chains/{chain_id.hex()}", *self._writers[chain_id], grown)
        order = self._order
        if self._openings:
            self._zipped.add("data/openings.json", Openings(self._openings).encode())
        if order.trust is not None:
            self._zipped.add("data/trust.json", order.trust)
        case = Case(
            order.name, order.start, order.end, order.agents, order.profile, order.exporter, order.exported,
            order.source, tuple(self._claims), tuple(self._statements[:MAX_STATEMENTS]),
        )  # fmt: skip
        self._zipped.add("data/case.json", case.encode())
        self._zipped.finish(self._info())
        return case

    def digests(self) -> dict[str, str]:
        """SHA-256 of the files that are written by now, by name."""
        return self._zipped.digests()

    def documents(self, made: Made) -> None:
        """What is made of the bundle once its verdict is known."""
        for document in DOCUMENTS:
            for name, content in document(made):
                if isinstance(content, bytes):
                    self._zipped.add(f"data/{name}", content)
                else:
                    self._zipped.take(f"data/{name}", content)
        self._zipped.finish(self._info())

    def _info(self) -> str:
        order = self._order
        named = f"External-Identifier: {order.name}\n" if order.name else ""
        return f"Bagging-Date: {policy_time(order.exported)[:10]}\nBag-Software-Agent: {order.exporter}\n{named}"

    # --- one chain

    def _chain(self, place: str, source: Source, writer: Writer, first: int, grown: Callable[[Grown], object]) -> None:
        order, facts = self._order, writer.facts
        with self._zipped.stored(f"{place}/stream.sdcseg", grown) as entry:
            writer.write(entry.write)
        shown = None if facts.sealed_at is None else min(facts.sealed_at, order.end)
        through = shown if shown is not None and shown > order.start else None
        to_end = facts.sealed_at is None or facts.sealed_at < order.end
        receipts = [*source.receipts, *source.prove(list(facts.latest)[::-1])]
        found = needed(receipts, first, facts.last_segment, to_end=to_end, hash_of=facts.hash_of)
        for number, data in enumerate(found.files, 1):
            self._zipped.add(f"{place}/receipts/{number:04d}.{_kind(data)}", data)
        for number, data in enumerate(source.callers, 1):
            self._zipped.add(f"{place}/callers/{number:04d}.receipt", data)
        self._claims.append(Claim(facts.chain_id, first, facts.last_segment, facts.entries, through))
        self._statements += facts.statements(order.end, through, order.agents)
        self._statements += [Statement(facts.chain_id, "unanchored", text) for text in found.left]
        self._disclose(place, source, writer, found)
        if facts.sealed_fields:
            self._open(f"{place}/stream.sdcseg", facts)
        for body in writer.attached():
            self._policy(body)

    def _open(self, stream: str, facts: Facts) -> None:
        """Openings of the personal fields in a stream, where there are keys for them and they may go in."""
        keys = [each for each in self._order.subject_keys if SubjectKeys.chain_of(each) == facts.chain_id]
        why = "the profile is external" if self._order.profile != "full" else "no keys of data subjects were given"
        if keys and self._order.profile == "full":
            with self._zipped.again(stream) as read:
                found = openings_of(read, keys[0]).chains[facts.chain_id]
            held = Openings({**self._openings, facts.chain_id: found})
            if len(held.encode()) > MAX_OPENINGS:
                why = "they do not fit the bundle"
            elif found.entries:
                self._openings[facts.chain_id] = found
                why = "" if found.complete else "some were erased, by TOMBSTONEs that this bundle does not hold"
            else:
                why = "all of them were erased"
        if why:
            fields = number_of(facts.sealed_fields, "personal field is", "personal fields are")
            what = f"{fields} sealed, and not all openings are here: {why}"
            self._statements.append(Statement(facts.chain_id, "sealed", what))

    def _policy(self, body: bytes) -> None:
        digest = sha256(body).hexdigest()
        if digest in self._policies:
            return
        self._policies.add(digest)
        self._zipped.add(f"data/policies/{digest}.tar.gz", body)

    def _disclose(self, place: str, source: Source, writer: Writer, found: Needed) -> None:
        """Keys of those segments only that are under a receipt: whoever holds a key can make tags for its segment."""
        facts = writer.facts
        anchored = -1 if found.anchored is None else found.anchored
        wanted = [segment for segment in facts.committed if segment <= anchored]
        given = self._keys(source, facts.chain_id, wanted)
        told = {} if given is None else {s: given.segments[s] for s in wanted if s in given.segments}
        if told:
            disclosure = Disclosure(facts.chain_id, told)
            self._zipped.add(f"{place}/disclosure.json", disclosure.encode())
        without = facts.last_segment - min(self._writers[facts.chain_id][2], facts.last_segment) + 1 - len(told)
        if without:
            why = "no custodian's key and no disclosure was given" if given is None else "they are under no receipt yet"
            self._statements.append(Statement(facts.chain_id, "keys", self._unkeyed(without, why)))

    def _unkeyed(self, segments: int, why: str) -> str:
        said = f"the keys of {number_of(segments, 'segment')} are not here ({why}), so that tags are not checked there"
        if self._order.agents is None:
            return said
        return f"{said}, and nothing shows that no entry of the agents was left out of them"

    def _keys(self, source: Source, chain_id: bytes, wanted: list[int]) -> Disclosure | None:
        order = self._order
        if order.disclosure is not None:
            return order.disclosure if order.disclosure.chain_id == chain_id else None
        if not order.keys:
            return None
        if not wanted:
            return Disclosure(chain_id, {})
        with source.rare() as records:
            return parse_disclosure(disclose(reader(_framed(records, wanted[-1])), order.keys, wanted))


def _kind(data: bytes) -> str:
    """The ending of a file of the log's, as a ledger has them."""
    return {b"o": "tlog-consistency", b"{": "timestamp"}.get(data[:1], "tlog-proof")


def _framed(records: Records, last: int) -> Iterator[bytes]:
    """What of a chain's stream custodians need for the keys up to a segment."""
    yield MAGIC
    segment = 0
    for kind, body in records:
        if kind in (Kind.EPOCH, Kind.SEAL) or (kind is Kind.ENTRY and body[8] in (1, 2)):
            yield record(kind, body)
        segment += kind is Kind.SEAL
        if segment > last:
            return
