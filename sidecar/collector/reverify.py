"""Verifying again everything that is held: each chain's runs by the judge, the index against the log's objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256

from sidecar.chain import authority_note, merkle, note
from sidecar.chain.acts import AcceptLoss
from sidecar.chain.note import VerifierKey
from sidecar.chain.parcel import Record
from sidecar.chain.rollcall import Standing
from sidecar.chain.stream import MAGIC, Kind, reader, record
from sidecar.collector import objects
from sidecar.collector.held import Held, Taking, named_by
from sidecar.collector.index import Index
from sidecar.collector.rebuild import reindex
from sidecar.collector.runs import Chain, Run, Runs, place_of
from sidecar.collector.standings import joined
from sidecar.collector.storage import Storage
from sidecar.errors import CollectorRefused, Malformed, SignatureInvalid, StorageError
from sidecar.verify import Evidence, Report, verify_stream

_FOLLOWED = (Kind.EPOCH, Kind.ENTRY, Kind.BARE, Kind.SEAL)


def verify_chain(runs: Runs, chain: Chain, evidence: Evidence, progress: Callable[[int], None] | None) -> Report:
    """The judge's report on what is held of a chain.

    Raises:
        StorageError: a run is missing, damaged, or was never signed by the chain's identity key.
    """
    return verify_stream(reader(_stream(runs, chain)), evidence, progress=progress)


def _stream(runs: Runs, chain: Chain) -> Iterator[bytes]:
    yield MAGIC
    yield from (record(*each) for each in chain_records(runs, chain))


def chain_records(runs: Runs, chain: Chain) -> Iterator[Record]:
    """A chain as a ledger has it (proto/LEDGER.md, "Stream"), of all that is held of it; without what was lost.

    Raises:
        StorageError: a run is missing, damaged, or was never signed by the chain's identity key.
    """
    attachments, cuts = _looked_over(runs, chain)
    for digest in sorted(attachments):
        body = runs.attachment(digest)
        if body is None:
            raise StorageError(f"attachment {digest.hex()} is gone")
        yield Kind.ATTACHMENT, body
    for grant in sorted(runs.grants(chain.chain_id), key=lambda grant: sha256(grant).digest()):
        yield Kind.AUTHORITY, grant
    held = Held(chain.chain_id, chain.identity)
    open_segment: list[Record] = []
    for number, run in enumerate(runs.all(chain)):
        if run.before != held and not _is_cut(run, held):
            raise StorageError(f"run {number} of chain {chain.chain_id.hex()} does not go on from the one before")
        try:
            note.verify_signature(chain.identity, run.signature, run.message)
            records = runs.records(run)
            held = replace(Taking(run.before, stored=True).take(records), run=number + 1)
        except (SignatureInvalid, CollectorRefused) as error:
            raise StorageError(f"run {number} of chain {chain.chain_id.hex()}: {error}") from None
        limit = min((place for run_number, place in cuts if run_number > number), default=None)
        for each in records:
            if each[0] is Kind.AUTHORITY or _is_lost(each, limit):
                continue
            open_segment.append(each)
            if each[0] is Kind.SEAL:
                yield from _framed(open_segment, headed=b"\nreason crash\n" in each[1])
                open_segment = []
    heads = [at for at, (kind, _) in enumerate(open_segment) if kind is Kind.HEAD]
    # What no head covers yet was vouched for by the identity key alone.
    yield from _framed(open_segment[: heads[-1] + 1] if heads else [], headed=True)


def _is_cut(run: Run, held: Held) -> bool:
    """Whether this run says that a loss was accepted; that its grant is the authority's is for the judge to see."""
    goes_on = run.before.run == held.run and run.before.cuts[:-1] == held.cuts
    return goes_on and run.before.cuts[-1:] == ((held.run, *run.before.place),)


def _is_lost(each: Record, limit: tuple[int, int] | None) -> bool:
    place = None if limit is None else place_of(each)
    if place is None or limit is None:
        return False
    return place > limit if each[0] is Kind.HEAD else place >= limit


def _framed(segment: list[Record], *, headed: bool) -> Iterator[Record]:
    """A segment's records as a ledger has them: the last head, where it has one, after all entries."""
    heads = [body for kind, body in segment if kind is Kind.HEAD]
    for kind, body in segment:
        if kind is Kind.SEAL and headed and heads:
            yield Kind.HEAD, heads[-1]
        if kind in _FOLLOWED:
            yield kind, body
    if headed and heads and segment[-1][0] is not Kind.SEAL:
        yield Kind.HEAD, heads[-1]


def _looked_over(runs: Runs, chain: Chain) -> tuple[set[bytes], list[tuple[int, tuple[int, int]]]]:
    """What entries name by digest, and after which runs the chain goes on from where."""
    found: set[bytes] = set()
    cuts: list[tuple[int, tuple[int, int]]] = []
    for number, run in enumerate(runs.all(chain)):
        for kind, body in runs.records(run):
            if kind is Kind.ENTRY:
                found |= named_by(body)
            elif kind is Kind.AUTHORITY:
                _check_loss(chain, body, run)
                cuts.append((number, run.before.place))
    return found, cuts


def _check_loss(chain: Chain, record: bytes, run: Run) -> None:
    name = f"run {run.before.run} of chain {chain.chain_id.hex()}"
    try:
        act = authority_note.verify(record, chain.chain_id, chain.authority or b"").act
    except (Malformed, SignatureInvalid) as error:
        raise StorageError(f"{name} goes on after a loss that the authority did not accept: {error}") from None
    if not isinstance(act, AcceptLoss) or act.kept != (*run.before.place, run.before.leaf):
        raise StorageError(f"{name} goes on at another place than where the authority accepted a loss")


def verify_log(storage: Storage, index: Index, fresh: Index, key: VerifierKey) -> list[str]:
    """What is wrong with the index, by what an index rebuilt into ``fresh`` says; the log itself is checked on the way.

    The index may be behind, after a power cut, or ahead, where the collector runs meanwhile.

    Raises:
        LogRefused, StorageError: the log's objects are not what its checkpoints say.
    """
    reindex(storage, fresh, key)
    told, true = index.tip(), fresh.tip()
    if told is None or true is None:
        return []
    wrong = []
    if told.number <= true.number and objects.read_checkpoint(storage, told.number) != told.checkpoint:
        wrong.append(f"the index has another checkpoint {told.number} than the objects")
    for number in range(min(told.number, true.number) + 1):
        held = objects.read_batch(storage, number, key)
        leaves = [merkle.leaf_hash(each) for each in held.entries()] if held is not None else []
        if index.positions(leaves) != fresh.positions(leaves):
            wrong.append(f"the index has other places for what batch {number} logged")
    for standing in fresh.standings():
        found = index.standing(standing.chain_id)
        line = None if found is None else found[0]
        if _contradicts(line, standing, level=told.number == true.number):
            wrong.append(f"the index says less, or another thing, of chain {standing.chain_id.hex()} than the log")
    return wrong


def _contradicts(line: Standing | None, true: Standing, *, level: bool) -> bool:
    """``level``: the index has come as far as the objects."""
    if line is None:
        return level
    if level:
        return joined(true, line) != line
    return line.sealed == true.sealed and line.seal != true.seal


def verify_line(runs: Runs, index: Index, chain: Chain) -> str:
    """What a chain's line in the index claims that is not held; "": nothing. It may be behind, after a crash.

    Raises:
        StorageError: index or runs cannot be read.
    """
    found = index.standing(chain.chain_id)  # before the runs are looked at: these only grow
    newest = runs.newest(chain)
    run = runs.read(chain, newest) if newest >= 0 else None
    held = Held(chain.chain_id, chain.identity)
    if run is not None:
        held = Taking(run.before, stored=True).take(runs.records(run))
    if found is None:
        return ""
    line = found[0]
    if (line.seq or 0) > max(0, held.seq - 1) or (line.sealed or 0) > held.segment or line.epoch > held.epoch:
        return "the index claims more of it than is held"
    if line.seq == held.seq - 1 and line.leaf != held.leaf:
        return "the index has another last entry of it"
    return ""
