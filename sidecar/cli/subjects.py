"""`sidecar subjects`: whose personal fields are sealed, opening them, and erasing them with the authority's leave."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from sidecar import config as configuration
from sidecar import erasing, files
from sidecar.chain import authority_note, strictjson
from sidecar.chain.acts import Erase
from sidecar.chain.entry import EntryType
from sidecar.chain.payload import chain_id, parse
from sidecar.chain.printable import number_of
from sidecar.chain.recorded import entry
from sidecar.chain.retention import NEVER_ERASED
from sidecar.chain.seeds import custody_of
from sidecar.chain.stream import Kind, records
from sidecar.cli.custodian_key import KEY_METAVAR, key_source, private_keys
from sidecar.cli.options import together
from sidecar.cli.sources import opened
from sidecar.cli.words import plain
from sidecar.config import Config, read_file, write_secret
from sidecar.custody import SubjectKeys, load_authority_private, open_copy, openings_of, wrap_copy
from sidecar.errors import LedgerBusy, Malformed, NotFound, NotPermitted, UsageError
from sidecar.founding import erase_now
from sidecar.ledger import ledger_stream

_PAUSE = 0.1  # seconds between two looks whether a running sidecar has done it

_with_config = together(
    click.option("--config", "file", type=click.Path(path_type=Path), help="The sidecar's TOML file of settings."),
    click.option("--data-dir", help="The ledger's directory."),
)


def _loaded(file: Path | None, data_dir: str | None) -> Config:
    return configuration.load(file, os.environ, {"data_dir": data_dir} if data_dir else {})[0]


@click.group()
def subjects() -> None:
    """See whose personal fields a ledger has sealed; open them; erase them with the authority's leave."""


@subjects.command(name="list")
@_with_config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_(file: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Print each data subject that has a key: what the chain calls them, and who they are.

    \b
    Example:
      sidecar subjects list --data-dir /var/lib/sidecar
    """
    config = _loaded(file, data_dir)
    keys = SubjectKeys.read(erasing.keys_directory(config), _genesis(config)[0])
    for subject, who in keys.subjects():
        named = strictjson.parse(who)
        said = strictjson.dumps({"subject": subject.hex(), "who": named}).decode()
        click.echo(said if as_json else f"{subject.hex()}  {plain(named) if named is not None else '(nobody named)'}")


@subjects.command()
@click.argument("who", required=False)
@_with_config
@click.option("--subject", metavar="HEX", help="What the chain calls them, in place of WHO.")
@click.option("--reason", help="Why; it stays for ever, so it must name nobody.")
@click.option("--request", type=click.Path(path_type=Path), help="Write a request for the authority to this new file.")
@click.option("--note", type=click.Path(path_type=Path), help="Erase what this authority note allows.")
@click.option("--authority-key", type=click.Path(path_type=Path), help="Sign with this key, and erase at once.")
@click.option(
    "--wait", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds for a running sidecar."
)
def erase(
    who: str | None, file: Path | None, data_dir: str | None, subject: str | None, reason: str | None,
    request: Path | None, note: Path | None, authority_key: Path | None, wait: float,
) -> None:  # fmt: skip
    """Destroy the key of one data subject, so that nobody can read their fields again, and put that on record.

    WHO is seen in the list of processes; --subject says nothing of the person. The authority must allow it. Works
    beside a running sidecar, which does it within a second, and without one. Copies of the keys that you made
    (`sidecar subjects export`) are yours to replace.

    \b
    Example:
      sidecar subjects erase 4711 --data-dir /var/lib/sidecar --reason 'ticket 12' --request erase.json
      sidecar authority sign erase.json --key authority.pem --out erase.note     # elsewhere
      sidecar subjects erase --data-dir /var/lib/sidecar --note erase.note
    """
    if [request, note, authority_key].count(None) != 2:
        raise UsageError("give one of --request, to ask the authority, --note, what it allowed, and --authority-key")
    config = _loaded(file, data_dir)
    if note is not None:
        grant = read_file(note, "authority note")
    else:
        act = _act(config, who, subject, reason)
        if request is not None:
            write_secret(request, act.encode())
            click.echo(f"{request}: erase {act.subject.hex()}; have it signed: sidecar authority sign {request}")
            return
        assert authority_key is not None
        private = load_authority_private(read_file(authority_key, "authority key"))
        grant = authority_note.compose(act, time.time_ns(), private)
    click.echo(f"erased: TOMBSTONE at entry {_done(config, grant, wait)}")


def _act(config: Config, who: str | None, subject: str | None, reason: str | None) -> Erase:
    if (who is None) == (subject is None) or not reason:
        raise UsageError("name the data subject, by WHO or by --subject, and give a --reason that names nobody")
    chain, genesis = _genesis(config)
    if genesis["retention"] in NEVER_ERASED:
        raise UsageError(f"the chain has the retention profile {genesis['retention']}: nothing of it may be erased")
    if genesis["authority"] is None:
        raise UsageError("GENESIS names no authority, so nobody can allow an erasure in this chain")
    try:
        return Erase(chain, _subject(config, chain, who, subject), reason)
    except Malformed as error:
        raise UsageError(str(error)) from None


def _subject(config: Config, chain: bytes, who: str | None, subject: str | None) -> bytes:
    """What the chain calls them. A text that reads as a number may be that number, too."""
    keys = SubjectKeys.read(erasing.keys_directory(config), chain)
    if who is None:
        named = {each.hex(): each for each, _ in keys.subjects()}
        found = [named[subject]] if subject in named else []
    else:
        texts = {strictjson.dumps(who), who.encode()}
        found = [each for text in texts if (each := keys.named(text)) is not None]
    if not found:
        raise NotFound("no such data subject has a key: no personal field is sealed for it, or it was erased")
    if len(found) > 1:
        raise UsageError("a text and a number are named so: see `sidecar subjects list`, and give --subject")
    return found[0]


def _done(config: Config, grant: bytes, wait: float) -> str:
    """Have it done, by whoever has the ledger open; gives the seq of the TOMBSTONE."""
    act = erasing.leave(config, grant)
    until = time.monotonic() + wait
    try:
        erase_now(config)
    except LedgerBusy:
        while act.exists():
            if time.monotonic() >= until:
                raise UsageError(f"the running sidecar has not erased it in time; it is left for it in {act}") from None
            time.sleep(_PAUSE)
    refused, done = act.with_suffix(".refused"), act.with_suffix(".done")
    answer = refused if refused.exists() else done
    said = answer.read_text()
    answer.unlink()
    if answer is refused:
        raise NotPermitted(f"nothing was erased: {said}")
    return said


@subjects.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--keys", required=True, type=click.Path(path_type=Path, exists=True), help="The sidecar's personal.keys_dir."
)
@click.option("--subject", "only", multiple=True, metavar="HEX", help="Only of this data subject. Repeatable.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File for the openings (0600).")
def openings(path: Path, keys: Path, only: tuple[str, ...], out: Path) -> None:
    """Write the openings of sealed personal fields, for `sidecar verify --openings` and `sidecar show --openings`.

    Whoever has the file can read these fields, and no others.

    \b
    Example:
      sidecar subjects openings /var/lib/sidecar --keys /var/lib/sidecar/subjects --out openings.json
    """
    try:
        wanted = {bytes.fromhex(each) for each in only}
    except ValueError:
        raise UsageError("--subject is not what `sidecar subjects list` shows") from None
    with opened(path) as read:
        found = openings_of(read, keys, subjects=wanted or None)
    write_secret(out, found.encode())
    entries = sum(len(each.entries) for each in found.chains.values())
    click.echo(f"{out}: openings of {number_of(entries, 'entry', 'entries')}")


@subjects.command()
@_with_config
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="File for the copy; an older one is replaced."
)
def export(file: Path | None, data_dir: str | None, out: Path) -> None:
    """Copy the keys of all data subjects, for the case that this machine is lost. Only custodians can open the copy.

    Replace it after each erasure, and keep no older one: it could bring back what was erased.

    \b
    Example:
      sidecar subjects export --data-dir /var/lib/sidecar --out /mnt/elsewhere/subjects.keys
    """
    config = _loaded(file, data_dir)
    chain, genesis = _genesis(config)
    keys = SubjectKeys.read(erasing.keys_directory(config), chain)
    files.put(out, wrap_copy(keys.copy(), custody_of(genesis), chain, os.urandom))
    click.echo(f"{out}: keys of {number_of(len(keys.subjects()), 'data subject')}")


@subjects.command()
@click.argument("copy", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_with_config
@click.option(
    "--custodian-key",
    "sources",
    multiple=True,
    required=True,
    type=key_source,
    metavar=KEY_METAVAR,
    help="A custodian's private key. Repeatable.",
)
def restore(copy: Path, file: Path | None, data_dir: str | None, sources: tuple[str, ...]) -> None:
    """Put the keys of a copy back, where there are none, before the sidecar starts.

    What was erased since the copy was made is erased again at the start: TOMBSTONEs in the ledger name it.

    \b
    Example:
      sidecar subjects restore subjects.keys --data-dir /var/lib/sidecar --custodian-key auditor.pem
    """
    config = _loaded(file, data_dir)
    chain, genesis = _genesis(config)
    try:
        held, left = open_copy(read_file(copy, "copy of the keys"), private_keys(sources), custody_of(genesis), chain)
    except Malformed as error:
        raise UsageError(f"{copy}: {error}") from None
    SubjectKeys.restore(erasing.keys_directory(config), chain, held)
    if left:
        click.echo(
            f"sidecar: {copy} ends in {number_of(left, 'byte')} that are no whole key: one that was being written, and "
            "was never used, or the file was cut", err=True,
        )  # fmt: skip
    click.echo(f"{erasing.keys_directory(config)}: keys of {number_of(len(held), 'data subject')}")


def _genesis(config: Config) -> tuple[bytes, dict[str, Any]]:
    """The chain's id, and what GENESIS says: the first entry, or what stands for it where a ledger keeps its end."""
    with ledger_stream(Path(config.data_dir)) as read:
        for kind, body in records(read):
            if kind is Kind.GENESIS:
                return chain_id(body), parse(EntryType.GENESIS, body)
            if kind is Kind.ENTRY:
                header, value = entry(body)
                if header.type is EntryType.GENESIS:
                    return header.chain_id, value
                break
    raise Malformed("the ledger has no GENESIS; run `sidecar verify`")
