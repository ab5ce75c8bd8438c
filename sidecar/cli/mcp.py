"""`sidecar mcp`: a gateway in front of one MCP server; each tool call is decided before the server gets it."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from sidecar.cli.mcp_listen import Listening, listening_options
from sidecar.cli.options import together
from sidecar.cli.over_tls import over_tls
from sidecar.client import AgentKey, AsyncGuard, Signer, TlsFiles
from sidecar.enforce.mcp import (
    LATE,
    Catalog,
    Client,
    Deciding,
    Fields,
    Gateway,
    Limits,
    Pinning,
    Pins,
    Renewed,
    Saying,
    ServerProcess,
    StandardClient,
    counted,
    load_pins,
    pinned,
    read_fields,
    survey,
)
from sidecar.errors import UsageError

if TYPE_CHECKING:
    from sidecar.enforce.mcp.remote import RemoteServer

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MIB: Final = 1 << 20
_CLIENT_BYTES: Final = 4 * _MIB
_REPORT_SECONDS: Final = 5.0
_FILE: Final = click.Path(path_type=Path)
_SECONDS: Final = click.FloatRange(0, 86_400, min_open=True)


@dataclass(frozen=True, slots=True)
class _Behind:
    """The MCP server: a command to start, or a URL. ``fields``: what each request there carries now."""

    name: str
    command: tuple[str, ...]
    upstream: str
    ca: Path | None
    fields: Callable[[], Fields]
    most: int

    async def start(self, schema: Callable[[str], Any]) -> ServerProcess | RemoteServer:
        """``schema``: of a tool by its name, for what HTTP repeats of its arguments. UsageError."""
        if self.command:
            return await ServerProcess.start(self.command, self.most)
        try:
            from sidecar.enforce.mcp.http import place
            from sidecar.enforce.mcp.remote import RemoteServer
        except ImportError:
            raise UsageError("--upstream needs the extra mcp: pip install 'decision-sidecar[mcp]'") from None
        return RemoteServer(place(self.upstream, self.ca), self.fields, self.most, schema, _say)


@dataclass(frozen=True, slots=True)
class _Asking:
    """The sidecar, and how it is asked."""

    address: str
    agent: str
    key: str | None
    tls: TlsFiles | None
    timeout: float
    wait: float

    def guard(self) -> AsyncGuard:
        key = None if self.key is None else _signer(self.key)
        return AsyncGuard(self.address, agent=self.agent, timeout=self.timeout, key=key, tls=self.tls)


_behind = together(
    click.option(
        "--name", metavar="NAME", help="What policies call the MCP server. Default: its program's or host's name."
    ),
    click.option(
        "--upstream", default="", metavar="URL", help="In the place of COMMAND: a remote server (streamable HTTP)."
    ),
    click.option("--upstream-ca", "ca", metavar="FILE", type=_FILE, help="The certificate of URL is under this CA."),
    click.option(
        "--header-file",
        "fields",
        metavar="FILE",
        type=_FILE,
        help="What each request to URL carries, lines `Name: value`: credentials that the agent never sees.",
    ),
    click.option(
        "--max-result",
        "most",
        default=64,
        show_default=True,
        metavar="MIB",
        type=click.IntRange(1, 1024),
        help="The longest message that it may send.",
    ),
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
)


_pinning = together(
    click.option(
        "--pins",
        required=True,
        metavar="FILE",
        type=_FILE,
        help="What the server may tell a model.",
    ),
    click.option("--trust-first", is_flag=True, help="If there is no such FILE, pin what the server tells first."),
    click.option(
        "--review-pins",
        "review",
        is_flag=True,
        help="Print how what it tells now differs from the pins, and end: 1 if it does.",
    ),
    click.option(
        "--accept-pins",
        "accept",
        is_flag=True,
        help="Pin what the server tells now, and end.",
    ),
)


@click.command()
@click.option("--server", "address", metavar="ADDR", help="The sidecar: unix:/path or host:port.")
@click.option("--agent", metavar="ID", help="Who asks.")
@click.option("--key", metavar="FILE|PKCS11-URI", help="The agent's private key, to sign with.")
@_pinning
@_behind
@click.option("--timeout", default=2.0, show_default=True, metavar="SECONDS", type=_SECONDS, help="For a decision.")
@click.option(
    "--wait-approval",
    "wait",
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0, 86_400),
    help="Hold a call that needs an approval so long; 0: it is refused, and made again.",
)
@click.option(
    "--call-timeout",
    "call",
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    type=_SECONDS,
    help="For the server's answer.",
)
@click.option(
    "--record-result",
    "body",
    default=0,
    show_default=True,
    metavar="BYTES",
    type=click.IntRange(0, _MIB),
    help="Results up to this size are recorded; of larger ones size and digest.",
)
@listening_options
@over_tls
def mcp(
    address: str | None,
    agent: str | None,
    key: str | None,
    pins: Path,
    trust_first: bool,
    review: bool,
    accept: bool,
    timeout: float,
    wait: float,
    call: float,
    body: int,
    tls: TlsFiles | None,
    listen: str,
    token: Path | None,
    cert: Path | None,
    key_file: Path | None,
    sessions: int | None,
    **behind: Any,
) -> None:
    """Stand between an MCP client and an MCP server: what the agent may not do does not reach it.

    \b
    Example, in the client's configuration, in the place of {"command": "npx", "args": ["-y", "some-server"]}:
      {"command": "sidecar", "args": ["mcp", "--server", "unix:/run/sidecar.sock", "--agent", "desk-agent",
        "--key", "/etc/sidecar/desk-agent.pem", "--pins", "/etc/sidecar/files.pins.json", "--name", "files",
        "--", "npx", "-y", "some-server"]}
    """
    server = _server(**behind)
    if review or accept:
        sys.exit(asyncio.run(_pin(pins, server, accept=accept)))
    if address is None or agent is None:
        raise UsageError("--server and --agent are missing: where is the sidecar, and who asks it?")
    at = Listening(listen, token, cert, key_file, sessions)
    at.check()
    asking = _Asking(address, agent, key, tls, timeout, wait)
    limits = Limits(call, min(call, LATE), body)
    sys.exit(0 if asyncio.run(_serve(asking, server, pins, limits, at, trust_first=trust_first)) else 1)


def _server(
    name: str | None, command: tuple[str, ...], upstream: str, ca: Path | None, fields: Path | None, most: int
) -> _Behind:
    if bool(command) == bool(upstream):
        raise UsageError(
            "which MCP server? Its command after --, as `sidecar mcp … -- npx -y some-server`, or --upstream URL"
        )
    if command and (ca or fields):
        raise UsageError("--upstream-ca and --header-file go with --upstream")
    found = urlsplit(upstream).hostname or "" if upstream else Path(command[0]).name
    named = name or re.sub(r"[^A-Za-z0-9._-]", "-", found)
    if not _NAME.fullmatch(named):
        raise UsageError("--name is 1 to 64 letters, digits, '.', '_' and '-', and begins with a letter or a digit")
    carries = (lambda: ()) if fields is None else Renewed(fields, read_fields, "--header-file", _say).current
    return _Behind(named, command, upstream, ca, carries, most * _MIB)


async def _serve(
    asking: _Asking, behind: _Behind, path: Path, limits: Limits, at: Listening, *, trust_first: bool
) -> bool:
    known = load_pins(path, behind.name)
    if known is None and not trust_first:
        raise UsageError(f"{path} does not exist: run this with --accept-pins once, or with --trust-first")
    deciding = Deciding(asking.guard(), behind.name, asking.wait, _say)
    pinning = Pinning(behind.name, known, path, _say)

    def schema(tool: str) -> Any:
        return pinning.pins.schema(tool)

    async def opened(client: Client) -> Gateway:
        server = await behind.start(schema)
        return Gateway(
            behind.name, client, server, deciding, Catalog(behind.name, pinning, deciding, _say), limits, _say
        )

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        if at.address:
            await at.serve(opened, schema, stop, _say)
            return True
        return await (await opened(await StandardClient.open(_CLIENT_BYTES))).run(stop)
    finally:
        await deciding.finish(_REPORT_SECONDS)


async def _pin(path: Path, behind: _Behind, *, accept: bool) -> int:
    known = load_pins(path, behind.name) or Pins(behind.name, {}, {})
    server = await behind.start(known.schema)
    try:
        about, listed = await survey(server)
    finally:
        await server.end()
    now = pinned(behind.name, about, listed)
    differences = known.differences(about, listed)
    click.echo("\n".join(differences) if differences else f"as they are pinned: {counted(listed)}")
    if accept:
        now.write(path)
        click.echo(f"pinned {counted(listed)} of {behind.name} in {path}")
    return 1 if differences and not accept else 0


def _signer(source: str) -> Signer:
    """The key named; a token's, where it is one: that takes a while to import."""
    if not source.lower().startswith("pkcs11:"):
        return AgentKey.from_file(source)
    from sidecar.cli.signer_key import signer

    return signer(source)


_say = Saying(lambda line: click.echo(f"sidecar mcp: {line}", err=True))
