"""What is kept of a chain, as objects: its enrolment, its runs, attachments, evidence (proto/SHIPPING.md, "What is
kept")."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from sidecar.chain import note, payload, strictjson
from sidecar.chain.entry import EntryType, Header, StoredEntry
from sidecar.chain.epoch import EpochNote
from sidecar.chain.head import Head
from sidecar.chain.limits import MAX_ATTACHMENT
from sidecar.chain.parcel import MAX_GENESIS, MAX_PACKED, Record, unpack
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind
from sidecar.chain.tile import number_path
from sidecar.collector import objects
from sidecar.collector.held import TAGGED, Held
from sidecar.collector.storage import Storage
from sidecar.collector.storage.port import create_same
from sidecar.errors import Malformed, StorageError

MAGIC = b"SDCRUN\x00\x01"
_LENGTH = struct.Struct(">I")
_SIGNATURE = 64
_HELD_BYTES = 65_536
_RUN_BYTES = MAX_PACKED + _HELD_BYTES + 128
KeepUntil = Callable[[], int | None]


@dataclass(frozen=True, slots=True)
class Chain:
    """An enrolled chain. ``spiffe``: the id that may ship it, or None: whoever has its identity key."""

    chain_id: bytes
    identity: bytes
    genesis: bytes
    spiffe: str | None

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
        return cls(payload.chain_id(genesis), bytes.fromhex(value["identity"]), genesis, spiffe)


@dataclass(frozen=True, slots=True)
class Run:
    """What one parcel brought, and where the chain stood before."""

    before: Held
    signature: bytes
    parcel: bytes

    def encode(self) -> bytes:
        """The object's bytes."""
        held = self.before.encode()
        return MAGIC + _LENGTH.pack(len(held)) + held + self.signature + self.parcel


class Runs:
    """Objects of all chains on one store. All methods raise StorageError; any thread."""

    def __init__(self, storage: Storage, keep_until: KeepUntil = lambda: None) -> None:
        self._storage, self._keep_until = storage, keep_until

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

    def add(self, run: Run) -> bool:
        """Keep the next run, durably; False: there is one in its place."""
        name = self._name(run.before.chain_id, run.before.run)
        return self._storage.create(name, run.encode(), keep_until=self._keep_until())

    def read(self, chain: Chain, number: int) -> Run | None:
        """A run; None: there is none."""
        name = self._name(chain.chain_id, number)
        data = self._storage.read(name, _RUN_BYTES)
        if data is None:
            return None
        try:
            at = len(MAGIC) + _LENGTH.size
            (length,) = _LENGTH.unpack_from(data, len(MAGIC))
            if data[: len(MAGIC)] != MAGIC or length > _HELD_BYTES:
                raise Malformed("it does not start as one")
            before = Held.decode(data[at : at + length], chain.chain_id, chain.identity)
            signed = at + length
            return Run(before, data[signed : signed + _SIGNATURE], data[signed + _SIGNATURE :])
        except (Malformed, struct.error) as error:
            raise StorageError(f"{name} is damaged: {error}") from None

    def newest(self, chain: Chain, known: int = -1) -> int:
        """The number of the newest run; −1: none."""
        return objects.newest(
            lambda n: self._storage.read(self._name(chain.chain_id, n), _RUN_BYTES) is not None, known
        )

    def from_place(self, chain: Chain, place: tuple[int, int], newest: int) -> Iterator[Record]:
        """What is held from a place on: epoch notes, entries, seals."""
        low, high = 0, newest
        while low < high:
            middle = (low + high + 1) // 2
            run = self.read(chain, middle)
            if run is None:
                raise StorageError(f"run {middle} of chain {chain.chain_id.hex()} is gone")
            low, high = (middle, high) if run.before.place <= place else (low, middle - 1)
        for number in range(low, newest + 1):
            run = self.read(chain, number)
            if run is None:
                raise StorageError(f"run {number} of chain {chain.chain_id.hex()} is gone")
            yield from _from(run, place)

    def records(self, run: Run) -> list[Record]:
        """A run's records."""
        try:
            return unpack(run.parcel)
        except Malformed as error:
            raise StorageError(f"a run of chain {run.before.chain_id.hex()} is damaged: {error}") from None

    # --- attachments and evidence

    def attach(self, digest: bytes, body: bytes) -> None:
        """Keep an attachment; of one digest once."""
        name = f"attachment/{digest.hex()}"
        if not self._storage.create(name, zlib.compress(body, 1), keep_until=self._keep_until()):
            return

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

    def _name(self, chain_id: bytes, number: int) -> str:
        return f"chain/{chain_id.hex()}/{number_path(number)}"


def same_form(record: Record) -> Record:
    """What of a record is compared with another in its place: entries without payload."""
    return (record[0], record[1][:TAGGED]) if record[0] is Kind.ENTRY else record


def place_of(record: Record) -> tuple[int, int] | None:
    """Where a record stands; None for what stands nowhere. Raises Malformed."""
    kind, body = record
    if kind is Kind.ENTRY:
        header = Header.decode(StoredEntry.parse(body).header)
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


def _from(run: Run, place: tuple[int, int]) -> Iterator[Record]:
    for record in unpack(run.parcel):
        if record[0] in (Kind.EPOCH, Kind.ENTRY, Kind.SEAL):
            at = place_of(record)
            assert at is not None
            if at >= place:
                yield record
