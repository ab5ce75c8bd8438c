"""`sidecar collector prune|hold|certificate`: what goes from a collector, what must not, and the proof of what went."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from sidecar.chain import pruning_certificate, strictjson
from sidecar.chain.acts import Prune
from sidecar.chain.authority_note import Grant
from sidecar.chain.entry import leaf, tagged
from sidecar.chain.logged import Logged
from sidecar.chain.merkle import leaf_hash
from sidecar.chain.note import VerifierKey, parse, parse_vkey
from sidecar.chain.printable import number_of
from sidecar.chain.pruning_certificate import Certificate
from sidecar.chain.stream import Kind
from sidecar.chain.strictjson import dumps
from sidecar.cli.collector import load_present, settings
from sidecar.cli.prune import DAY_NS, check, granted, proposal
from sidecar.collecting import log_key, open_index, open_storage
from sidecar.collector import FleetLog, pruning
from sidecar.collector.pruning import CASE, Hold
from sidecar.collector.reverify import chain_records
from sidecar.collector.runs import Chain, Runs
from sidecar.collector_config import Collecting
from sidecar.config import read_file, write_secret
from sidecar.custody import load_authority
from sidecar.errors import Malformed, SignatureInvalid, UsageError
from sidecar.verify import Evidence, Trust
from sidecar.verify.policy import Policy


def _chain_id(_: Any, __: Any, value: Any) -> Any:
    try:
        found = [bytes.fromhex(each) for each in ((value,) if isinstance(value, str) else value or ())]
    except ValueError:
        found = [b""]
    if any(len(each) != 32 for each in found):
        raise click.BadParameter("a chain id is 64 hex digits")
    return found if isinstance(value, tuple) else (found[0] if found else None)


@click.command()
@settings
@click.option("--chain", callback=_chain_id, help="With --request: the chain's id.")
@click.option("--request", type=click.Path(path_type=Path), help="Write a request for the authority to this new file.")
@click.option("--days", type=click.IntRange(0), help="With --request: of segments sealed at least so long ago.")
@click.option("--reason", help="With --request: why.")
@click.option("--note", type=click.Path(path_type=Path), help="Prune what this authority note allows.")
@click.option("--out", type=click.Path(path_type=Path), help="With --note: new file for the pruning certificate.")
def prune(
    file: Path | None,
    chain: bytes | None,
    request: Path | None,
    days: int | None,
    reason: str | None,
    note: Path | None,
    out: Path | None,
    **flags: Any,
) -> None:
    """Take payloads of a chain out of the store; first ask its authority for leave. The collector may go on running.

    Never under a legal hold, before the retention profile of the chain allows it, or of segments that are not in the
    log. What remains is verified first. The certificate says what went, by whose leave, and what remains.

    \b
    Example:
      sidecar collector prune --config c.toml --chain 5d1c… --days 2200 --reason 'six years' --request prune.json
      sidecar authority sign prune.json --key authority.pem --out prune.note     # elsewhere
      sidecar collector prune --config c.toml --note prune.note --out prune.certificate
    """
    config = load_present(file, **flags)
    runs = Runs(open_storage(config))
    if (request is None) == (note is None):
        raise UsageError("give either --request, to ask the authority, or --note, to do what it allowed")
    if request is not None:
        if chain is None or days is None or not reason:
            raise UsageError("--request needs --chain, --days and --reason")
        if out is not None:
            raise UsageError("--out is for the certificate of what --note pruned: leave it out with --request")
        act = proposal(chain_records(runs, _held(runs, chain)), time.time_ns() - days * DAY_NS, reason)
        write_secret(request, act.encode())
        click.echo(f"{request}: segments up to {act.runs[-1].last}; have it signed: sidecar authority sign {request}")
        return
    if chain is not None or days is not None or reason is not None:
        raise UsageError("--chain, --days and --reason are for --request: the note says what goes")
    if note is None or out is None:
        raise UsageError("--note needs --out: the certificate is the only proof that pruning was allowed")
    if out.exists():
        raise UsageError(f"{out} exists; choose another --out")
    grant, act = granted(note)
    _prune(config, runs, grant, act, out)


def _prune(config: Collecting, runs: Runs, grant: Grant, act: Prune, out: Path) -> None:
    chain = _held(runs, act.chain_id)
    pruning.refuse_unauthorised(chain, grant)
    pruning.refuse_held(runs, chain.chain_id)
    pruning.refuse_early(runs, chain, act, grant, time.time_ns())
    entries, last = 0, b""
    for kind, body in chain_records(runs, chain):
        if kind in (Kind.ENTRY, Kind.BARE):
            entries, last = entries + 1, body
    check(chain_records(runs, chain), grant, act, _evidence(config, runs, chain))
    done = pruning.carry_out(runs, chain, grant, act)
    certificate = Certificate(
        chain.chain_id, chain.authority or b"", grant.hash, pruning_certificate.segments_of(act), act.runs[-1].seal,
        done.payloads, done.size, entries, leaf(*tagged(last)), time.time_ns(),
    )  # fmt: skip
    data = pruning_certificate.certify(certificate, grant.record, config.name, log_key(config))
    runs.certify(chain.chain_id, data)
    write_secret(out, data)
    click.echo(f"{number_of(done.payloads, 'payload')} pruned, {done.size:,} bytes; certificate {out}")


def _held(runs: Runs, chain_id: bytes) -> Chain:
    chain = runs.chain(chain_id)
    if chain is None:
        raise UsageError(f"chain {chain_id.hex()} is not enrolled here")
    return chain


def _evidence(config: Collecting, runs: Runs, chain: Chain) -> Evidence:
    """The receipt of the chain's last seal that is in this collector's own log."""
    key = log_key(config)
    index = open_index(config)
    try:
        log = FleetLog(open_storage(config), index, config.name, key)
        texts = [parse(body).text.encode() for kind, body in chain_records(runs, chain) if kind is Kind.SEAL]
        places = index.positions([leaf_hash(text) for text in texts])
        last = [text for text in texts if leaf_hash(text) in places][-1:]
        logged = [log.receipt(places[leaf_hash(text)], Logged.parse(text)) for text in last]
    finally:
        index.close()
    policy = Policy.parse(f"log {VerifierKey(config.name, key.public_key().public_bytes_raw())}\nquorum none\n")
    return Evidence(trust=Trust({chain.chain_id: chain.identity}, policy), logged=logged)


@click.command()
@settings
@click.argument("case", required=False)
@click.option("--chain", "chains", multiple=True, callback=_chain_id, help="Only of this chain. Repeatable.")
@click.option("--reason", default="", help="Why; it is kept.")
@click.option("--release", is_flag=True, help="End the hold of this case.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def hold(
    file: Path | None,
    case: str | None,
    chains: list[bytes],
    reason: str,
    release: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Put a case under legal hold: nothing of its chains, by default of all, is pruned until it is released.

    Without CASE: list the holds. Each word on a case is an object of its own, which nobody can change.

    \b
    Example:
      sidecar collector hold --config c.toml case-17 --chain 5d1c… --reason 'letter of 3 March'
    """
    if case is None and (chains or reason or release):
        raise UsageError("--chain, --reason and --release are about a CASE: name it")
    runs = Runs(open_storage(load_present(file, **flags)))
    if case is not None:
        if not CASE.match(case):
            raise UsageError("a case is named by at most 64 letters, digits, dots, underscores and hyphens")
        if not reason:
            raise UsageError("--reason is needed: who reads this later must know why")
        runs.hold(case, Hold(case, not release, tuple(chains), reason, time.time_ns()).encode())
    found = [each for each in pruning.holds(runs) if case in (None, each.case)]
    if as_json:
        click.echo(dumps({"holds": [strictjson.parse_object(each.encode()) for each in found]}))
        return
    for each in found:
        what = "all chains" if not each.chains else ", ".join(chain.hex() for chain in each.chains)
        click.echo(f"{each.case}  {'HELD' if each.held else 'released'}  {what}  {each.reason}")


@click.command()
@click.argument("certificate", type=click.Path(path_type=Path))
@click.option("--log-key", required=True, help="The log's verifier key.")
@click.option("--authority", required=True, type=click.Path(path_type=Path), help="The authority's public key, PEM.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def certificate(certificate: Path, log_key: str, authority: Path, as_json: bool) -> None:
    """Check a pruning certificate, offline: who pruned what, when, and by whose leave.

    \b
    Example:
      sidecar collector certificate prune.certificate --log-key log.example.org+… --authority authority.pub.pem
    """
    try:
        key, public = parse_vkey(log_key), load_authority(read_file(authority, "authority key"))
        read, grant = pruning_certificate.verify(read_file(certificate, "certificate"), key, public)
    except (Malformed, SignatureInvalid) as error:
        raise UsageError(f"{certificate}: {error}") from None
    act = grant.act
    assert isinstance(act, Prune)
    if as_json:
        said = {
            "chain": read.chain_id.hex(), "segments": read.segments, "payloads": read.payloads, "bytes": read.size,
            "entries": read.entries, "leaf": read.leaf.hex(), "time": str(read.time), "reason": act.reason,
            "allowed": str(grant.note.time),
        }  # fmt: skip
        click.echo(dumps(said))
        return
    click.echo(f"verified: the log's key says it pruned {number_of(read.payloads, 'payload')} ({read.size:,} bytes)")
    click.echo(f"of chain {read.chain_id.hex()}, segments {read.segments}, by the authority's leave: {act.reason}")
    entries = number_of(read.entries, "entry remains", "entries remain")
    click.echo(f"{entries} as leaves of the chain, up to leaf {read.leaf.hex()}")
