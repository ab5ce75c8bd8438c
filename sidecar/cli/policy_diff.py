"""`sidecar policy diff`: which recorded decisions come out otherwise under another revision of the policy."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from sidecar.chain.entry import EntryType, Header
from sidecar.chain.printable import number_of
from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind, records
from sidecar.chain.strictjson import dumps
from sidecar.cli.sealed import put_back, read_openings
from sidecar.cli.sources import opened, say_what_is_gone, with_progress
from sidecar.cli.words import plain
from sidecar.decide import policy_inputs
from sidecar.errors import NotFound, UsageError, WrongState
from sidecar.policy import (
    STARTER_ENTRYPOINT,
    Engine,
    OpaProgram,
    Policy,
    Rerun,
    deciding,
    find_opa,
    read_bundle,
    read_policy,
    rerun,
)
from sidecar.verify import Openings

_SECONDS = 5.0  # for one evaluation
_AT_ONCE = 16
_TOGETHER = 256  # inputs held in memory
_SHORTEST = 7  # characters of a revision or digest


@dataclass(slots=True)
class _Recorded:
    """What a ledger holds of policies: revisions and digests by entry, and the bundles."""

    revisions: dict[str, str] = field(default_factory=dict)  # revision -> digest, the last one wins
    digests: set[str] = field(default_factory=set)
    bundles: dict[str, bytes] = field(default_factory=dict)

    def bundle(self, name: str) -> bytes | None:
        """The bundle of a revision or digest, by its first characters."""
        if len(name) < _SHORTEST:
            return None
        named = {digest for revision, digest in self.revisions.items() if revision.startswith(name)}
        named |= {digest for digest in self.digests if digest.startswith(name)}
        if len(named) > 1:
            raise UsageError(f"{name} begins the names of {len(named)} revisions; give more of it")
        return self.bundles.get(named.pop()) if named else None


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--ledger", type=click.Path(path_type=Path, exists=True), required=True, help="Whose decisions.")
@click.option("--agent", metavar="ID", help="Only decisions for this agent.")
@click.option("--entrypoint", default=STARTER_ENTRYPOINT, show_default=True, metavar="RULE", help="Which rule decides.")
@click.option("--engine", type=click.Choice(["wasm", "opa"]), default="wasm", show_default=True, help="Who evaluates.")
@click.option(
    "--openings", "opening", type=click.Path(path_type=Path, exists=True), help="Openings of personal fields."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def diff(
    before: str, after: str, ledger: Path, agent: str | None, entrypoint: str, engine: str, opening: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Re-run recorded inputs under two policies and list the decisions that come out otherwise.

    A and B are each a directory of Rego, a bundle file, or a policy that the ledger holds: its revision (commit) or its
    bundle's digest, of which 7 characters are enough. Alternatives are compared too. Exit: 0 nothing differs; 1
    decisions differ; 2 usage.

    \b
    Example:
      sidecar policy diff 4f2c91a policies/ --ledger /var/lib/sidecar
    """
    program = find_opa()
    logging.getLogger("sidecar.opa").setLevel(logging.ERROR)
    recorded = _policies(ledger)
    policies = [_named(name, recorded) for name in (before, after)]
    flips: list[dict[str, Any]] = []
    inputs = Inputs(agent, None if opening is None else read_openings(opening))
    with opened(ledger) as read, with_progress(ledger, read, "re-running", quiet=as_json) as counted:
        count = asyncio.run(
            _compare(program, policies, inputs.recorded(counted), entrypoint, engine, flips, as_json=as_json)
        )
    if as_json:
        click.echo(dumps({"compared": count, "differ": len(flips), "sealed": inputs.sealed, "decisions": flips}))
    else:
        compared = number_of(count, "decision or alternative", "decisions and alternatives")
        click.echo(f"{compared} compared; otherwise: {len(flips)}")
        if inputs.sealed:
            decisions = number_of(inputs.sealed, "decision")
            click.echo(f"{decisions} cannot be re-run: personal fields are sealed; give --openings")
    say_what_is_gone(ledger)
    sys.exit(1 if flips else 0)


def _policies(ledger: Path) -> _Recorded:
    """Attachments, and the POLICY entries that name them."""
    found = _Recorded()
    with opened(ledger, rare=True) as read:
        for kind, body in records(read):
            if kind is Kind.ATTACHMENT:
                digest = hashlib.sha256(body).hexdigest()
                found.bundles[digest] = body
                found.digests.add(digest)
            elif kind is Kind.ENTRY and body[8:9] == bytes((EntryType.POLICY,)):
                _, payload = entry(body)
                if payload["bundle_digest"]:
                    found.revisions[payload["revision"]] = payload["bundle_digest"]
    return found


def _named(name: str, recorded: _Recorded) -> Policy:
    packed = None if Path(name).exists() else recorded.bundle(name)
    if packed is not None:
        return read_bundle(packed)
    if not Path(name).exists():
        raise NotFound(f"{name} is neither a directory, nor a bundle file, nor a policy that the ledger holds")
    return read_policy(Path(name))


Asked = tuple[str, int, int, dict[str, Any]]  # decision id, seq, option (0: the action itself), document


class Inputs:
    """What the policy was asked for each recorded decision, of one agent or of all. ``sealed``: how many cannot be
    re-run, since nobody opened their personal fields."""

    def __init__(self, agent: str | None = None, openings: Openings | None = None) -> None:
        self._agent, self._openings = agent, openings
        self.sealed = 0

    def recorded(self, read: Callable[[int], bytes]) -> Iterator[Asked]:
        """From a stream."""
        for kind, body in records(read):
            if kind is Kind.ENTRY and body[8:9] == bytes((EntryType.DECISION,)):
                header, payload = entry(body)
                if self._agent is None or payload["agent"]["id"] == self._agent:
                    yield from self._options(header, payload)

    def _options(self, header: Header, payload: dict[str, Any]) -> Iterator[Asked]:
        put_back(header, payload, self._openings)
        try:
            documents = policy_inputs(payload)
        except WrongState:
            self.sealed += 1
            return
        for option, document in enumerate(documents):
            yield payload["decision_id"], header.seq, option, document


async def _compare(
    program: OpaProgram,
    policies: list[Policy],
    asked: Iterable[Asked],
    entrypoint: str,
    engine: str,
    flips: list[dict[str, Any]],
    *,
    as_json: bool,
) -> int:
    count = 0
    async with contextlib.AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(deciding(program, policy, entrypoint, engine)) for policy in policies
        ]
        async for (decision, seq, option, document), was, now in run_again(first, second, asked):
            count += 1
            if _said(was) == _said(now):
                continue
            flips.append(_flip(decision, seq, option, document, was, now))
            if not as_json:
                for line in _lines(flips[-1]):
                    click.echo(line)
    return count


async def run_again(first: Engine, second: Engine, asked: Iterable[Asked]) -> AsyncIterator[tuple[Asked, Rerun, Rerun]]:
    """What each input gives under both. Some at a time, so that memory stays flat however long the ledger is."""
    rest = iter(asked)
    while some := list(itertools.islice(rest, _TOGETHER)):
        was, now = [
            [result async for result in rerun(engine, (one[3] for one in some), timeout=_SECONDS, at_once=_AT_ONCE)]
            for engine in (first, second)
        ]
        for each in zip(some, was, now, strict=True):
            yield each


def _said(result: Rerun) -> tuple[str, tuple[str, ...], str]:
    return result.effect, result.codes, dumps([[o.kind, o.parameters] for o in result.verdict.obligations]).decode()


def _flip(decision: str, seq: int, option: int, document: dict[str, Any], was: Rerun, now: Rerun) -> dict[str, Any]:
    return {
        "decision_id": decision,
        "seq": seq,
        "alternative": option - 1 if option else None,
        "agent": document["agent"]["id"],
        "action": document["action"],
        "resource": document["resource"],
        "before": _side(was),
        "after": _side(now),
    }


def _side(result: Rerun) -> dict[str, Any]:
    reasons = [{"code": reason.code, "message": reason.message} for reason in result.verdict.reasons]
    return {"effect": result.effect, "cause": result.cause, "reasons": reasons}


def _lines(flip: dict[str, Any]) -> Iterator[str]:
    target = f"{flip['resource']['type']}:{flip['resource']['id']}"
    which = "" if flip["alternative"] is None else f", alternative {flip['alternative']}"
    asked = f"{plain(flip['agent'])} {plain(flip['action'])} {plain(target)}"
    yield f"{flip['decision_id']} (entry {flip['seq']}{which})  {asked}"
    for side in ("before", "after"):
        because = "; ".join(f"{plain(r['message'])} ({plain(r['code'])})" for r in flip[side]["reasons"])
        yield f"  {side:<6} {flip[side]['effect']}: {because or 'no reason given'}"
