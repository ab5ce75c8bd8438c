"""`sidecar demo`: the product in under a minute, from nothing. Everything is real; only the agent's world is small."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from sidecar.cli import demo_story as story
from sidecar.cli.demo_tampering import TAMPERINGS
from sidecar.cli.log_receipts import held
from sidecar.cli.sources import opened
from sidecar.cli.words import plain
from sidecar.client import Alternative, Decision, Denied, Guard, Obligation, Refused
from sidecar.custody import load_private, open_seed
from sidecar.errors import UsageError
from sidecar.verify import Evidence, Report, SeedOpener, parse_trust, verify_stream

_START_SECONDS = 30.0


@click.command()
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep ledger and keys in a new DIR.")
def demo(keep: Path | None) -> None:
    """Watch an agent being judged, the record being shipped and verified, and three forgeries being found.

    \b
    Example:
      sidecar demo --keep ./demo
    """
    if keep is not None and keep.exists():
        raise UsageError(f"{keep} exists already; choose another --keep")
    with _workplace(keep) as place:
        run(place)
        _next_steps(place if keep is not None else None)


@contextlib.contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    place = Path(tempfile.mkdtemp(prefix="sidecar-demo-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def run(place: Path) -> None:
    """The whole demo in an empty directory. Raises SidecarError where something is not as it should be."""
    _title("1. A sidecar beside an agent, and a collector elsewhere")
    ledger, key, socket = place / "ledger", place / "auditor.pem", place / "sidecar.sock"
    collector, trust = place / "collector", place / "trust.json"
    _program("keys", "custodian", "--out", str(key))
    _program("init", "--data-dir", str(ledger), "--custodian", str(place / "auditor.pub.pem"))
    click.echo("  A new ledger, an auditor's key that can check it, and the starter policy compiled to Wasm.")
    with _collecting(collector) as shipping:
        click.echo("  A collector with a log of its own: what it has taken, nobody can change unseen.")
        with _serving(ledger, socket, shipping):
            receipt = _agent_at_work(f"unix:{socket}")
        _program("collector", "trust", "--data-dir", str(collector), "--dev", "--out", str(trust))
    (place / "receipt.txt").write_bytes(receipt)
    _title("3. Is the record true?")
    opener = _opener(key)
    report = _verified(ledger, opener, receipt, trust)
    _print_verdict(report)
    _title("4. Three forgeries, on copies")
    stream = _copy(ledger)
    for tampering in TAMPERINGS:
        _forge(tampering.title, tampering.forge(stream), opener, receipt)


def _agent_at_work(address: str) -> bytes:
    _title(f"2. {story.AGENT} makes {len(story.CALLS)} tool calls")
    world = story.World()
    first = b""
    duties = dict.fromkeys(("log_level", "notify", "mask_fields"), _met)
    with Guard(address, agent=story.AGENT, timeout=10.0, obligations=duties) as guard:
        for number, call in enumerate(story.CALLS, start=1):
            click.echo(f"\n  {number:>2}. {call.intent}")
            decision = _one_call(guard, call, world)
            if call.action == "payments.refund":
                first = decision.receipt
    refunds, mails = ", ".join(world.refunds), ", ".join(world.mails)
    click.echo(f"\n  What really happened: refunded {refunds}, a mail to {mails}, {len(world.tickets)} ticket.")
    return first


def _met(obligation: Obligation, _decision: Decision) -> None:
    click.echo(f"      obliged to {plain(obligation.kind)} {plain(dict(obligation.parameters))}")


def _one_call(guard: Guard, call: story.Call, world: story.World) -> Decision:
    alternatives = [Alternative(call.instead[0], call.instead[1], call.instead[2])] if call.instead else []
    asked = guard.guarded(call.action, call.resource, call.arguments, purpose=call.purpose, alternatives=alternatives)
    try:
        with asked as permit:
            decision = permit.decision
            _verdict("ALLOW", "green", decision)
            permit.respond(call.tool(world))
            click.echo("      → it ran, and the outcome is recorded")
    except Refused as refusal:
        decision = refusal.decision
        _verdict("DENY", "red", decision) if isinstance(refusal, Denied) else _verdict("ASK FIRST", "yellow", decision)
        click.echo("      → it did not run")
    except ConnectionError as error:
        click.echo(f"      → it ran and failed: {error}; the failure is recorded")
    return decision


def _verdict(word: str, colour: str, decision: Decision) -> None:
    click.echo(f"      {click.style(word, fg=colour, bold=True)}  {plain(decision.action)}")
    for reason in decision.reasons:
        click.echo(f"      because {plain(reason.message)}")
    for other in decision.alternatives:
        click.echo(f"      instead, {plain(dict(other.alternative.arguments))}: {other.effect.value}")


def _verified(ledger: Path, opener: SeedOpener, receipt: bytes, trust: Path) -> Report:
    logs = held(ledger, [])
    evidence = Evidence(
        open_seed=opener,
        receipts=[receipt],
        trust=parse_trust(trust.read_bytes()),
        logged=logs.logged,
        consistency=logs.consistency,
    )
    with opened(ledger) as read:
        return verify_stream(read, evidence)


def _print_verdict(report: Report) -> None:
    if report.verdict.name != "OK":
        raise UsageError(f"the demo's ledger is {report.verdict.name}; please report this")
    click.echo(f"  {click.style(report.verdict.name, fg='green', bold=True)}: {report.entries} entries, all intact.")
    for line in report.checked:
        click.echo(f"  checked: {line}")
    click.echo(
        "\n  OK: every hash, HMAC and signature holds, the caller's receipt is in its place, and the collector's log,\n"
        "  whose key the auditor pinned, has each seal and says where the ledger ends. Whoever has this disk and\n"
        "  the identity key can neither rewrite that nor cut its end off. Here the collector runs on the same machine\n"
        "  for the demo's sake: it belongs where neither the agent nor the sidecar can reach its key."
    )


def _forge(title: str, forged: bytes, opener: SeedOpener, receipt: bytes) -> None:
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return forged[at - size : at]

    report = verify_stream(read, Evidence(open_seed=opener, receipts=[receipt]))
    bad = report.first_bad()
    if bad is None:
        raise UsageError(f"the demo's forgery was not found: {title}")
    place = f"segment {bad.segment}" + (f", seq {bad.seq}" if bad.seq is not None else "")
    click.echo(f"\n  {title}")
    click.echo(f"      {click.style(report.verdict.name, fg='red', bold=True)} at {place}: {bad.reason}")


def _copy(ledger: Path) -> bytes:
    with opened(ledger) as read:
        chunks = iter(lambda: read(1 << 20), b"")
        return b"".join(chunks)


def _opener(key: Path) -> SeedOpener:
    private = [load_private(key.read_bytes())]
    return functools.partial(open_seed, private)


@contextlib.contextmanager
def _collecting(place: Path) -> Iterator[dict[str, str]]:
    """Gives the settings of a sidecar that ships there."""
    anywhere = ["--listen", "127.0.0.1:0", "--web", "127.0.0.1:0"]
    quick = {"COLLECTOR_ROLL_CALL_SECONDS": "0.3"}
    with _running(["collector", "serve", "--data-dir", str(place), "--dev", *anywhere], quick) as ready:
        address = ready.partition("is ready on ")[2].partition(",")[0]
        key = (place / "log.vkey").read_text().strip()
        yield {"COLLECTOR_ADDRESS": address, "COLLECTOR_LOG_KEY": key, "COLLECTOR_PERIOD": "0.1"}


@contextlib.contextmanager
def _serving(ledger: Path, socket: Path, shipping: dict[str, str]) -> Iterator[None]:
    settings = {f"SIDECAR_{name}": value for name, value in shipping.items()}
    with _running(["serve", "--data-dir", str(ledger), "--listen", f"unix:{socket}", "--dev"], settings):
        yield


@contextlib.contextmanager
def _running(arguments: list[str], settings: dict[str, str]) -> Iterator[str]:
    """One of our programs that serves; gives the line in which it said that it is ready."""
    command = [sys.executable, "-m", "sidecar", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "COLLECTOR_"))}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**clean, **settings}) as process:
        try:
            yield _wait_until_ready(process)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_START_SECONDS)
            process.kill()


def _wait_until_ready(process: subprocess.Popen[str]) -> str:
    said = ""
    for line in process.stderr or ():
        if "is ready" in line:
            return line
        said = line.strip()
    raise UsageError(f"the demo's sidecar or collector did not start: {said or 'it said nothing'}")


def _program(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "sidecar", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise UsageError(f"`sidecar {arguments[0]}` failed: {done.stderr.strip()}")


def _title(text: str) -> None:
    click.echo()
    click.echo(click.style(text, bold=True))


def _next_steps(place: Path | None) -> None:
    _title("What to try next")
    program = _called()
    if place is None:
        click.echo(f"  {program} demo --keep ./demo")
        click.echo("      keeps the ledger, the auditor's key and a receipt, to look into")
        click.echo("  README.md, In fifteen minutes\n      a registered agent and a proved decision")
        return
    kept = shlex.quote(str(place))
    for line in (
        f"{program} verify {kept}/ledger --trust {kept}/trust.json --custodian-key {kept}/auditor.pem",
        f"{program} collector verify --data-dir {kept}/collector --dev",
        f"{program} show {kept}/ledger --agent {story.AGENT}",
        f"{program} serve --data-dir {kept}/ledger --dev",
    ):
        click.echo(f"  {line}")


def _called() -> str:
    """How a shell here would start this program: after `make demo` it lies in a directory that is not on PATH."""
    beside = Path(sys.executable).with_name("sidecar")
    return "sidecar" if shutil.which("sidecar") or not beside.exists() else shlex.quote(os.path.relpath(beside))
