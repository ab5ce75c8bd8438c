"""`sidecar mcp`: a gateway in front of one MCP server; each tool call is decided before the server gets it."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from sidecar.cli.over_tls import over_tls
from sidecar.client import AgentKey, AsyncGuard, Signer, TlsFiles
from sidecar.enforce.mcp import (
    LATE,
    Catalog,
    Deciding,
    Gateway,
    Limits,
    Pins,
    ServerProcess,
    StandardClient,
    load_pins,
    pinned,
    survey,
)
from sidecar.errors import UsageError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MIB: Final = 1 << 20
_CLIENT_BYTES: Final = 4 * _MIB


@dataclass(frozen=True, slots=True)
class _Settings:
    address: str
    agent: str
    key: str | None
    pins: Path
    name: str
    trust_first: bool
    timeout: float
    wait: float
    call: float
    most: int
    body: int
    tls: TlsFiles | None
    command: tuple[str, ...]


@click.command(context_settings={"ignore_unknown_options": False})
@click.option("--server", "address", metavar="ADDR", help="The sidecar: unix:/path or host:port.")
@click.option("--agent", metavar="ID", help="Who asks.")
@click.option("--key", metavar="FILE|PKCS11-URI", help="The agent's private key, to sign with.")
@click.option(
    "--pins", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The tools as they were allowed."
)
@click.option("--name", metavar="NAME", help="What policies call the MCP server. Default: its program's name.")
@click.option("--trust-first", is_flag=True, help="If there is no such FILE, pin what the server lists first.")
@click.option(
    "--review-pins",
    "review",
    is_flag=True,
    help="Print how the server's tools differ from the pins, and end: 1 if they do.",
)
@click.option("--accept-pins", "accept", is_flag=True, help="Pin the server's tools as they are now, and end.")
@click.option("--timeout", default=2.0, show_default=True, metavar="SECONDS", help="For a decision.")
@click.option(
    "--wait-approval",
    "wait",
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Hold a call that needs an approval; 0: it is refused, and made again.",
)
@click.option(
    "--call-timeout", "call", default=600.0, show_default=True, metavar="SECONDS", help="For the server's answer."
)
@click.option(
    "--max-result", "most", default=64, show_default=True, metavar="MIB", help="The longest message of the server's."
)
@click.option(
    "--record-result",
    "body",
    default=0,
    show_default=True,
    metavar="BYTES",
    help="Results up to this size are recorded; of others size and digest.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@over_tls
def mcp(
    address: str | None,
    agent: str | None,
    key: str | None,
    pins: Path,
    name: str | None,
    trust_first: bool,
    review: bool,
    accept: bool,
    timeout: float,
    wait: float,
    call: float,
    most: int,
    body: int,
    command: tuple[str, ...],
    tls: TlsFiles | None,
) -> None:
    """Stand between an MCP client and the MCP server COMMAND; what the agent may not do does not reach it.

    \b
    Example, in the client's configuration in the place of {"command": "npx", "args": ["-y", "some-server"]}:
      {"command": "sidecar", "args": ["mcp", "--server", "unix:/run/sidecar.sock", "--agent", "desk-agent",
        "--key", "/etc/sidecar/desk-agent.pem", "--pins", "/etc/sidecar/files.pins.json", "--name", "files",
        "--", "npx", "-y", "some-server"]}
    """
    if not command:
        raise UsageError("which MCP server? Put its command after --, as: sidecar mcp … -- npx -y some-server")
    named = name or re.sub(r"[^A-Za-z0-9._-]", "-", Path(command[0]).name)
    if not _NAME.fullmatch(named):
        raise UsageError("--name is 1 to 64 letters, digits, '.', '_' and '-', and begins with a letter or a digit")
    if not 1 <= most <= 1024 or not 0 <= body <= _MIB or not 0 <= wait <= 86_400 or not 0 < call <= 86_400:
        raise UsageError(
            "--max-result is 1 to 1024, --record-result 0 to 1048576, "
            "--wait-approval 0 to 86400, --call-timeout more than 0 to 86400"
        )
    if review or accept:
        sys.exit(asyncio.run(_pin(pins, named, command, most * _MIB, accept=accept)))
    if address is None or agent is None:
        raise UsageError("--server and --agent are missing: where is the sidecar, and who asks it?")
    settings = _Settings(
        address, agent, key, pins, named, trust_first, timeout, wait, call, most * _MIB, body, tls, command
    )  # fmt: skip
    sys.exit(0 if asyncio.run(_serve(settings)) else 1)


async def _serve(given: _Settings) -> bool:
    known = load_pins(given.pins, given.name)
    if known is None and not given.trust_first:
        raise UsageError(
            f"{given.pins} does not exist: run this with --accept-pins once, to pin the tools, or with --trust-first"
        )
    signer = None if given.key is None else _signer(given.key)
    guard = AsyncGuard(given.address, agent=given.agent, timeout=given.timeout, key=signer, tls=given.tls)
    deciding = Deciding(guard, given.name, given.wait, _say)
    catalog = Catalog(
        given.name, known or Pins(given.name, {}), given.pins if known is None else None, deciding, _say
    )  # fmt: skip
    server = await ServerProcess.start(given.command, given.most)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await StandardClient.open(_CLIENT_BYTES)
    limits = Limits(given.call, min(given.call, LATE), given.body)
    return await Gateway(given.name, client, server, deciding, catalog, limits, _say).run(stop)


async def _pin(path: Path, name: str, command: Sequence[str], most: int, *, accept: bool) -> int:
    known = load_pins(path, name) or Pins(name, {})
    server = await ServerProcess.start(command, most)
    try:
        tools = await survey(server)
    finally:
        await server.end()
    now = pinned(name, tools)
    differences = known.differences(tools)
    click.echo("\n".join(differences) if differences else f"{len(tools)} tools, as they are pinned")
    if accept:
        now.write(path)
        click.echo(f"pinned {len(tools)} tools of {name} in {path}")
    return 1 if differences and not accept else 0


def _signer(source: str) -> Signer:
    """The key named; a token's, where it is one: that takes a while to import."""
    if not source.lower().startswith("pkcs11:"):
        return AgentKey.from_file(source)
    from sidecar.cli.signer_key import signer

    return signer(source)


def _say(line: str) -> None:
    click.echo(f"sidecar mcp: {line}", err=True)
