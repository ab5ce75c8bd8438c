"""`sidecar evidence`: a window of a ledger, or of all that a collector holds, in one file that anybody checks alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, NoReturn

import click

from sidecar.chain import note
from sidecar.chain.stream import records
from sidecar.cli import account_aside, verify_workers
from sidecar.cli.custodian_key import KEY_METAVAR, key_source, private_keys
from sidecar.cli.log_receipts import beside, timestamp_check
from sidecar.cli.reading import parsed
from sidecar.cli.reports import print_report
from sidecar.cli.sources import progress, size_of
from sidecar.cli.times import TIME
from sidecar.collector.looked_up import LookedUp
from sidecar.collector.reverify import chain_records
from sidecar.collector.runs import Chain, Runs
from sidecar.config import read_file
from sidecar.custody import open_seed
from sidecar.errors import Malformed, UsageError
from sidecar.evidence import ExporterKey, Order, Receipt, Records, Source
from sidecar.evidence import export as write_bundle
from sidecar.ledger import first_kept, has_ledger, ledger_stream
from sidecar.verify import Evidence, parse_disclosure, parse_trust

_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def evidence() -> None:
    """Export what happened, so that somebody else can verify it without us."""


@evidence.command()
@click.argument("path", metavar="PATH|COLLECTOR", type=click.Path(path_type=Path, exists=True))
@click.option("--from", "start", required=True, type=TIME, help="Start of the window.")
@click.option("--to", "end", required=True, type=TIME, help="Its end, which is not in it.")
@click.option("--agent", "agents", multiple=True, metavar="ID", help="Only what concerns this agent. Repeatable.")
@click.option("--case", "name", default="", metavar="NAME", help="What the case is called.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New file for the bundle.")
@click.option(
    "--custodian-key",
    "keys",
    multiple=True,
    type=key_source,
    metavar=KEY_METAVAR,
    help="Disclose the keys of anchored segments with it. Repeatable.",
)
@click.option("--disclosure", type=_file, help="Segment keys that a custodian handed out, to go in.")
@click.option(
    "--profile",
    type=click.Choice(["full", "external"]),
    default="full",
    show_default=True,
    help="external: without openings of personal fields.",
)
@click.option(
    "--subject-keys",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A sidecar's personal.keys_dir: personal fields are opened with it. Repeatable.",
)
@click.option("--trust", type=_file, help="A trust file: its copy goes in, and the bundle is judged by it.")
@click.option("--lean", is_flag=True, help="Without OCSF events and entries.csv: a third less to do.")
@click.option("--certificate-key", type=_file, help="The exporter's key: signs a certificate of custody that goes in.")
@click.option("--receipt", "receipts", multiple=True, type=_file, help="A receipt that a caller kept. Repeatable.")
def export(
    path: Path, start: int, end: int, agents: tuple[str, ...], name: str, out: Path, keys: tuple[str, ...],
    disclosure: Path | None, profile: str, subject_keys: tuple[Path, ...], trust: Path | None,
    lean: bool, certificate_key: Path | None, receipts: tuple[Path, ...],
) -> None:  # fmt: skip
    """Write what chains recorded in a window, and all that is needed to judge it, into one zip file.

    PATH is a ledger directory, also one being written to; COLLECTOR a collector's data directory or configuration.
    The bundle is verified at once: the verdict is printed, and what the bundle does not prove is stated in it. An
    account of it goes in too: a report, the timeline, OCSF events, every entry as CSV. Keys of
    segments go in only where a receipt of the log covers the segment. Exit: 0 once it is written, whatever the verdict.

    \b
    Example:
      sidecar evidence export /var/lib/sidecar --from 2026-11-01 --to 2026-12-01 \\
        --trust trust.json --custodian-key auditor.pem --case 2026-017 --out case.zip
    """
    if keys and disclosure:
        raise UsageError("--custodian-key and --disclosure: give one of them")
    if start >= end or len(name) > 200 or not (name.isprintable() and all(each.isprintable() for each in agents)):
        raise UsageError("--from is before --to, and --case (at most 200 characters) and --agent are printable")
    pinned, private = None if trust is None else read_file(trust, "trust file"), private_keys(keys)
    kind, sources = _sources(path, [read_file(each, "receipt") for each in receipts])
    known = None if trust is None or pinned is None else parsed(trust, pinned, parse_trust)
    order = Order(
        start, end, time.time_ns(), f"sidecar {version('decision-sidecar')}", (kind, str(path.absolute())), name,
        tuple(sorted(set(agents))) or None, profile, private, subject_keys,
        None if disclosure is None else parse_disclosure(read_file(disclosure, "disclosure")), pinned,
        Evidence(partial(open_seed, private) if private else None, trust=known, check_timestamp=timestamp_check(known)),
        key=None if certificate_key is None else _exporter_key(certificate_key),
        lean=lean,
    )  # fmt: skip
    size = max(1, sum(each.size for each in sources))
    verify_workers.collect_rarely()
    notes: list[str] = []
    with (
        new_file(out) as file,
        progress(4 * size, "exporting", quiet=False) as told,
        account_aside.started(out.parent, wanted=(processes := verify_workers.suitable(size)) > 1) as accountant,
        verify_workers.started(processes - 1) as workers,
    ):
        case, report = write_bundle(
            order, sources, file, told or (lambda _: None), workers, notes.append, accountant
        )  # fmt: skip
    print_report(report)
    click.echo("Stated in the bundle as not proved:")
    for each in case.statements:
        click.echo(f"  - {each.text}")
    for trouble in notes:
        click.echo(f"sidecar: {trouble}", err=True)
    click.echo(str(out), err=True)


def _exporter_key(path: Path) -> ExporterKey:
    try:
        return ExporterKey.from_pem(read_file(path, "exporter's key"))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is there, whole, only once all went well; not if SIGINT or SIGTERM ends this either. What an export
    that was killed left is written over."""
    beside_it = path.with_name(f".{path.name}.new")
    if path.exists():
        raise UsageError(f"{path} exists; choose another --out")
    file = _draft(beside_it)

    def end(*_: object) -> NoReturn:
        beside_it.unlink(missing_ok=True)
        os._exit(128 + signal.SIGTERM)  # the processes that help end when their pipes do

    before = signal.signal(signal.SIGTERM, end)
    try:
        with file:
            yield file
            file.flush()
            beside_it.rename(path)
    finally:
        beside_it.unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, before)


def _draft(place: Path) -> BinaryIO:
    """An empty file that no other export writes while this one has it open."""
    try:
        with contextlib.ExitStack() as closing:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            file = closing.enter_context(os.fdopen(descriptor, "r+b", 1 << 20))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), place.stat()):
                raise BlockingIOError  # it was renamed before it was locked
            file.truncate()
            closing.pop_all()
            return file
    except BlockingIOError:
        raise UsageError(f"another export is writing {place}; choose another --out") from None
    except OSError as error:
        raise UsageError(f"cannot write {place}: {error.strerror}") from None


def _sources(path: Path, callers: Sequence[bytes]) -> tuple[str, list[Source]]:
    """What kind of place it is, and its chains."""
    if path.is_dir() and has_ledger(path):
        files = [Receipt(each.name, partial(read_file, each, "receipt")) for each in beside(path)]
        first = first_kept(path)
        opening = partial(_ledger, path), partial(_ledger, path, rare=True)
        return "ledger", [Source(*opening, files, callers, size_of(path), first)]
    return "collector", _collected(path, callers)


def _collected(path: Path, callers: Sequence[bytes]) -> list[Source]:
    """Every chain that a collector holds, from its objects; its index is not asked."""
    from sidecar.collecting import LOG_KEY_FILE, open_storage  # for a ledger none of it is wanted
    from sidecar.collector_config import load_collecting

    flags = {"data_dir": str(path)} if path.is_dir() else {}
    config = load_collecting(None if path.is_dir() else path, os.environ, {**flags, "dev": True})
    try:
        key = note.parse_vkey(read_file(Path(config.data_dir) / LOG_KEY_FILE, "log's key").decode().strip())
    except (Malformed, UnicodeDecodeError, UsageError) as error:
        raise UsageError(f"{path} is no ledger and no collector: {error}") from None
    storage = open_storage(config)
    runs, log = Runs(storage), LookedUp(storage, key, len(config.witnesses))
    chains = [chain for chain_id in sorted(runs.chains()) if (chain := runs.chain(chain_id)) is not None]
    return [
        Source(
            partial(_chain, runs, each),
            partial(_chain, runs, each),
            callers=_of(callers, each.chain_id),
            prove=partial(_proved, log, each.chain_id),
        )
        for each in chains
        if runs.read(each, 0) is not None
    ]


@contextlib.contextmanager
def _chain(runs: Runs, chain: Chain, _since: int = 0) -> Iterator[Records]:
    yield chain_records(runs, chain)


def _of(callers: Sequence[bytes], chain_id: bytes) -> list[bytes]:
    """The callers' receipts of one chain."""
    return [data for data in callers if f"\nchain {chain_id.hex()}\n".encode() in data]


def _proved(log: LookedUp, chain_id: bytes, texts: Sequence[str]) -> list[Receipt]:
    found = log.prove(chain_id, texts)
    pairs = [
        ("seal.tlog-proof", found.seal),
        ("roll-call.tlog-proof", found.roll_call),
        (f"{found.size}.tlog-consistency", found.joined),
        *((f"{found.stamped}-{number}.timestamp", stamp) for number, stamp in enumerate(found.stamps)),
    ]
    return [Receipt(name, partial(bytes, data)) for name, data in pairs if data]


@contextlib.contextmanager
def _ledger(path: Path, since: int = 0, *, rare: bool = False) -> Iterator[Records]:
    with ledger_stream(path, since=since, rare=rare) as read:
        yield records(read)
