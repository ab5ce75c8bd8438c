"""What is kept of a chain, as objects: its enrolment, its runs, attachments, evidence (proto/SHIPPING.md, "What is
kept")."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

from sidecar.chain import note, payload, strictjson
from sidecar.chain.authority_note import MAX_GRANT
from sidecar.chain.entry import TAGGED, EntryType, Header, tagged
from sidecar.chain.epoch import EpochNote
from sidecar.chain.head import Head
from sidecar.chain.limits import MAX_ATTACHMENT
from sidecar.chain.parcel import MAX_GENESIS, MAX_PACKED, Record, digest_message, unpack
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind
from sidecar.chain.tile import number_path
from sidecar.collector import objects
from sidecar.collector.held import Held
from sidecar.collector.storage import Storage
from sidecar.collector.storage.port import create_same
from sidecar.errors import Malformed, StorageError

MAGIC = b"SDCRUN\x00\x01"
PRUNED_MAGIC = b"SDCPRN\x00\x01"
_LENGTH = struct.Struct(">I")
_SIGNATURE, _DIGEST = 64, 32
_PLACED = (Kind.EPOCH, Kind.ENTRY, Kind.BARE, Kind.SEAL)
_HELD_BYTES = 65_536
_RUN_BYTES = MAX_PACKED + _HELD_BYTES + 128
KeepUntil = Callable[[], int | None]
KeepRun = Callable[["Chain"], int | None]


@dataclass(frozen=True, slots=True)
class Chain:
    """An enrolled chain. ``spiffe``: the id that may ship it, or None: whoever has its identity key; ``authority``: the
    authority's key, if it has one; ``retention``: the name of its profile."""

    chain_id: bytes
    identity: bytes
    genesis: bytes
    spiffe: str | None
    authority: bytes | None = None
    retention: str = ""

    def encode(self) -> bytes:
        """As it is stored."""
        genesis = base64.b64encode(self.genesis).decode()
        named = {"chain": self.chain_id.hex(), "identity": self.identity.hex(), "genesis": genesis}
        return strictjson.dumps({**named, "spiffe": self.spiffe})

    @classmethod
    def decode(cls, data: bytes) -> Chain:
        """Read it. Raises StorageError: the object is damaged."""
        try:
            value = strictjson.parse_object(data)
            genesis = base64.b64decode(value["genesis"])
            made = cls.of(genesis, value["spiffe"])
            if made.encode() != data:
                raise Malformed("not as it was written")
            return made
        except (Malformed, KeyError, ValueError, TypeError) as error:
            raise StorageError(f"a stored enrolment is damaged: {error}") from None

    @classmethod
    def of(cls, genesis: bytes, spiffe: str | None) -> Chain:
        """The chain that starts with this payload. Raises Malformed."""
        value = payload.parse(EntryType.GENESIS, genesis)
        authority = None if value["authority"] is None else bytes.fromhex(value["authority"])
        identity, profile = bytes.fromhex(value["identity"]), value["retention"]
        return cls(payload.chain_id(genesis), identity, genesis, spiffe, authority, profile)


@dataclass(frozen=True, slots=True)
class Run:
    """What one parcel brought, and where the chain stood before. ``digest``: of the parcel that the identity key
    signed, where payloads were pruned of it since."""

    before: Held
    signature: bytes
    parcel: bytes
    digest: bytes | None = None

    def encode(self) -> bytes:
        """The object's bytes."""
        held = self.before.encode()
        start = MAGIC if self.digest is None else PRUNED_MAGIC
        return start + _LENGTH.pack(len(held)) + held + self.signature + (self.digest or b"") + self.parcel

    @property
    def message(self) -> bytes:
        """What the identity key signed."""
        return digest_message(self.before.chain_id, self.digest or sha256(self.parcel).digest())

    @classmethod
    def decode(cls, data: bytes, chain: Chain) -> Run:
        """Read an object. Raises Malformed."""
        try:
            at = len(MAGIC) + _LENGTH.size
            (length,) = _LENGTH.unpack_from(data, len(MAGIC))
            pruned = data[: len(MAGIC)] == PRUNED_MAGIC
            if not (pruned or data[: len(MAGIC)] == MAGIC) or length > _HELD_BYTES:
                raise Malformed("it does not start as one")
            before = Held.decode(data[at : at + length], chain.chain_id, chain.identity)
        except struct.error:
            raise Malformed("it is cut short") from None
        signed = at + length
        rest = signed + _SIGNATURE + (_DIGEST if pruned else 0)
        digest = data[signed + _SIGNATURE : rest] if pruned else None
        return cls(before, data[signed : signed + _SIGNATURE], data[rest:], digest)


class Runs:
    """Objects of all chains on one store. ``keep_until`` gives the POSIX second before which nobody can remove what is
    stored now; ``keep_run``, the same of a chain's runs. All methods raise StorageError; any thread."""

    def __init__(self, storage: Storage, keep_until: KeepUntil = lambda: None, keep_run: KeepRun | None = None) -> None:
        self._storage, self._keep_until = storage, keep_until
        self._keep_run = keep_run or (lambda _: keep_until())

    # --- enrolment

    def chain(self, chain_id: bytes) -> Chain | None:
        """An enrolled chain, or None."""
        data = self._storage.read(f"enrolled/{chain_id.hex()}", 2 * MAX_GENESIS)
        return None if data is None else Chain.decode(data)

    def chains(self) -> Iterator[bytes]:
        """The ids of all enrolled chains, in no order."""
        for name in self._storage.names("enrolled/"):
            yield bytes.fromhex(name.removeprefix("enrolled/"))

    def claim(self, name: str, chain_id: bytes) -> bytes:
        """Bind ``name`` (an identity key's or a token's) to a chain; gives the chain it is bound to, now or before."""
        if self._storage.create(name, chain_id.hex().encode(), keep_until=self._keep_until()):
            return chain_id
        held = self._storage.read(name, 64)
        if held is None:
            raise StorageError(f"{name} cannot be created and is not there")
        return bytes.fromhex(held.decode())

    def enrol(self, chain: Chain) -> None:
        """Keep an enrolment; the first one of a chain stays."""
        self._storage.create(f"enrolled/{chain.chain_id.hex()}", chain.encode(), keep_until=self._keep_until())

    # --- runs

    def add(self, chain: Chain, run: Run) -> bool:
        """Keep the next run, durably; False: there is one in its place."""
        name = self._name(chain.chain_id, run.before.run)
        return self._storage.create(name, run.encode(), keep_until=self._keep_run(chain))

    def read(self, chain: Chain, number: int) -> Run | None:
        """A run; None: there is none."""
        name = self._name(chain.chain_id, number)
        data = self._data(chain.chain_id, number)
        if data is None:
            return None
        try:
            return Run.decode(data, chain)
        except Malformed as error:
            raise StorageError(f"{name} is damaged: {error}") from None

    def kept(self, chain: Chain, number: int) -> Run:
        """A run that was kept. Raises StorageError where it is gone, too."""
        run = self.read(chain, number)
        if run is None:
            raise StorageError(f"run {number} of chain {chain.chain_id.hex()} is gone")
        return run

    def all(self, chain: Chain) -> Iterator[Run]:
        """Every run, from the first on."""
        number = 0
        while (run := self.read(chain, number)) is not None:
            yield run
            number += 1

    def _data(self, chain_id: bytes, number: int) -> bytes | None:
        """A run's object; where it was pruned and is gone, what was put in its place."""
        data = self._storage.read(self._name(chain_id, number), _RUN_BYTES)
        if data is not None:
            return data
        generations = self._generations(chain_id, number)
        return self._storage.read(generations[-1], _RUN_BYTES) if generations else None

    def _generations(self, chain_id: bytes, number: int) -> list[str]:
        start = f"pruned/{chain_id.hex()}/{number_path(number)}/"
        return sorted(self._storage.names(start), key=lambda name: int(name.removeprefix(start)))

    def replace(self, run: Run) -> None:
        """Keep a pruned run, durably, then remove what it is instead of. Raises StorageError: not yet; do it again."""
        chain_id, number = run.before.chain_id, run.before.run
        before = self._generations(chain_id, number)
        place = f"pruned/{chain_id.hex()}/{number_path(number)}/"
        name = f"{place}{int(before[-1].removeprefix(place)) + 1 if before else 0}"
        create_same(self._storage, name, run.encode())
        for old in (self._name(chain_id, number), *before):
            self._storage.remove(old)

    def newest(self, chain: Chain, known: int = -1) -> int:
        """The number of the newest run; −1: none."""
        return objects.newest(lambda n: self._data(chain.chain_id, n) is not None, known)

    def from_place(self, chain: Chain, place: tuple[int, int], held: Held) -> Iterator[Record]:
        """What is held from a place on: epoch notes, entries, seals; without what was lost."""
        starts = [0, *(run for run, _, _ in held.cuts)]
        limits = [cut[1:] for cut in held.cuts]
        for i, start in enumerate(starts):
            end = starts[i + 1] if i + 1 < len(starts) else held.run
            limit = min(limits[i:], default=None)
            if end > start and (limit is None or place < limit):
                for record, at in self._between(chain, place, start, end - 1):
                    if limit is not None and at >= limit:
                        break
                    yield record

    def first_after(self, chain_id: bytes, sealed: int | None) -> int | None:
        """wall_ns of the first entry held after a segment, None: there is none. Raises StorageError."""
        chain = self.chain(chain_id)
        newest = -1 if chain is None else self.newest(chain)
        run = self.read(chain, newest) if chain is not None and newest >= 0 else None
        if chain is None or run is None:
            return None
        held = replace(run.before, run=newest + 1)
        place = (0 if sealed is None else sealed + 1, 0)
        for kind, body in self.from_place(chain, place, held):
            if kind in (Kind.ENTRY, Kind.BARE):
                return Header.decode(tagged(body)[0]).wall_ns
        return None

    def _between(
        self, chain: Chain, place: tuple[int, int], low: int, newest: int
    ) -> Iterator[tuple[Record, tuple[int, int]]]:
        high = newest
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.kept(chain, middle).before.place <= place else (low, middle - 1)
        for number in range(low, newest + 1):
            yield from _from(self.kept(chain, number), place)

    def records(self, run: Run) -> list[Record]:
        """A run's records."""
        try:
            return unpack(run.parcel)
        except Malformed as error:
            raise StorageError(f"a run of chain {run.before.chain_id.hex()} is damaged: {error}") from None

    # --- attachments and evidence

    def attach(self, digest: bytes, body: bytes) -> None:
        """Keep an attachment; of one digest once."""
        packed = zlib.compress(body, 1)
        self._storage.create(f"attachment/{digest.hex()}", packed, keep_until=self._keep_until())

    def attachment(self, digest: bytes) -> bytes | None:
        """An attachment, held against its digest."""
        packed = self._storage.read(f"attachment/{digest.hex()}", MAX_ATTACHMENT + 65_536)
        if packed is None:
            return None
        try:
            body = zlib.decompressobj().decompress(packed, MAX_ATTACHMENT + 1)
        except zlib.error:
            body = b""
        if sha256(body).digest() != digest:
            raise StorageError(f"attachment {digest.hex()} is damaged")
        return body

    def keep_evidence(self, data: bytes) -> tuple[str, bool]:
        """Keep what was refused, and how it is called; False: it is known already."""
        name = f"evidence/{sha256(data).hexdigest()}"
        return name, self._storage.create(name, data, keep_until=self._keep_until())

    # --- tokens

    def register(self, token: bytes, expires: int) -> None:
        """Let a token in until then, POSIX seconds."""
        create_same(self._storage, f"token/{sha256(token).hexdigest()}", strictjson.dumps({"expires": expires}))

    def token_expires(self, token: bytes) -> int | None:
        """Until when a token lets a chain in; None: there is no such token."""
        data = self._storage.read(f"token/{sha256(token).hexdigest()}", 1_024)
        return None if data is None else int(strictjson.parse_object(data)["expires"])

    # --- with the authority's leave

    def allow(self, chain_id: bytes, grant: bytes) -> None:
        """Keep an authority's grant."""
        name = f"authority/{chain_id.hex()}/{sha256(grant).hexdigest()}"
        create_same(self._storage, name, grant, keep_until=self._keep_until())

    def grants(self, chain_id: bytes) -> list[bytes]:
        """All grants for a chain."""
        found = []
        for name in sorted(self._storage.names(f"authority/{chain_id.hex()}/")):
            grant = self._storage.read(name, MAX_GRANT)
            if grant is None or sha256(grant).hexdigest() != name.rpartition("/")[2]:
                raise StorageError(f"{name} is damaged")
            found.append(grant)
        return found

    def certify(self, chain_id: bytes, certificate: bytes) -> None:
        """Keep a certificate of what was pruned."""
        name = f"certificate/{chain_id.hex()}/{sha256(certificate).hexdigest()}"
        create_same(self._storage, name, certificate, keep_until=self._keep_until())

    def hold(self, case: str, data: bytes) -> None:
        """Keep the next word on a case. Raises StorageError also where somebody else was first."""
        start = f"hold/{case}/"
        number = len(list(self._storage.names(start)))
        if not self._storage.create(f"{start}{number}", data, keep_until=self._keep_until()):
            raise StorageError(f"somebody else has just changed the hold of case {case}; look, and ask again")

    def holds(self) -> dict[str, bytes]:
        """The last word on each case."""
        newest: dict[str, int] = {}
        for name in self._storage.names("hold/"):
            _, case, number = name.split("/")
            newest[case] = max(newest.get(case, 0), int(number))
        return {case: self._storage.read(f"hold/{case}/{n}", 65_536) or b"" for case, n in sorted(newest.items())}

    def _name(self, chain_id: bytes, number: int) -> str:
        return f"chain/{chain_id.hex()}/{number_path(number)}"


def same_form(record: Record) -> Record:
    """What of a record is compared with another in its place: entries without payload."""
    return (Kind.ENTRY, record[1][:TAGGED]) if record[0] in (Kind.ENTRY, Kind.BARE) else record


def place_of(record: Record) -> tuple[int, int] | None:
    """Where a record stands; None for what stands nowhere. Raises Malformed."""
    kind, body = record
    if kind in (Kind.ENTRY, Kind.BARE):
        header = Header.decode(tagged(body)[0])
        return header.segment, header.seq
    if kind is Kind.EPOCH:
        epoch = EpochNote.parse(note.parse(body).text)
        return epoch.segment, epoch.seq
    if kind is Kind.SEAL:
        seal = Seal.parse(note.parse(body).text)
        return seal.segment, seal.first + seal.count
    if kind is Kind.HEAD:
        head = Head.parse(note.parse(body).text)
        return head.segment, head.seq + 1
    return None


def _from(run: Run, place: tuple[int, int]) -> Iterator[tuple[Record, tuple[int, int]]]:
    for record in unpack(run.parcel):
        if record[0] in _PLACED:
            at = place_of(record)
            assert at is not None
            if at >= place:
                yield record, at
