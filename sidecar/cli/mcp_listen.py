"""`sidecar mcp --listen`: where clients reach the gateway over HTTP, and what they must bring."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sidecar.cli.options import together
from sidecar.errors import UsageError

if TYPE_CHECKING:
    from sidecar.client import FileSource
    from sidecar.enforce.mcp.heads import Reached
    from sidecar.enforce.mcp.sessions import Open
    from sidecar.enforce.shown import Shown

_FILE: Final = click.Path(path_type=Path)
_MODE: Final = 0o660  # whoever may open the socket acts as the agent
_SESSIONS: Final = 32
_LOOK_EVERY: Final = 1.0  # seconds between two looks at the certificate

listening_options = together(
    click.option(
        "--listen",
        default="",
        metavar="ADDR",
        help="Clients reach this at unix:/path or host:port (streamable HTTP), not on standard streams.",
    ),
    click.option(
        "--token-file", "token", metavar="FILE", type=_FILE, help="What each client must bring (Bearer); for host:port."
    ),
    click.option("--listen-cert", "cert", metavar="FILE", type=_FILE, help="Listen over TLS, with this certificate."),
    click.option("--listen-key", "key_file", metavar="FILE", type=_FILE, help="Its private key."),
    click.option(
        "--sessions",
        metavar="N",
        type=click.IntRange(1, 1024),
        help=f"At most so many sessions, each with a server of its own. Default: {_SESSIONS}.",
    ),
)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where clients reach it. ``token``, ``cert``, ``key_file``: files, or None. ``sessions``: at most so many; None:
    as many as there are by default."""

    address: str
    token: Path | None
    cert: Path | None
    key_file: Path | None
    sessions: int | None

    def check(self) -> None:
        """UsageError for what lets others act as the agent, or has no effect."""
        if not self.address:
            if self.token or self.cert or self.key_file or self.sessions:
                raise UsageError("--token-file, --listen-cert, --listen-key and --sessions go with --listen")
            return
        if bool(self.cert) != bool(self.key_file):
            raise UsageError("--listen-cert and --listen-key go together")
        if self.address.startswith("unix:"):
            if self.cert:
                raise UsageError("--listen-cert is for --listen host:port, not for a unix socket; leave one out")
            return
        from sidecar.config import host_and_port, is_loopback

        host, _ = host_and_port("--listen", self.address)
        if not self.token:
            raise UsageError(
                "--token-file is missing: whoever reaches this address acts as the agent; without a token listen on a "
                "unix socket"
            )
        if not self.cert and not is_loopback(host):
            raise UsageError("--listen beyond this host itself is over TLS alone: give --listen-cert and --listen-key")

    async def serve(
        self, open_: Open, schema: Callable[[str], Any], stop: asyncio.Event, say: Callable[[str], object]
    ) -> None:
        """Until ``stop`` is set. UsageError where it cannot be listened."""
        try:
            from sidecar.enforce.mcp.listen import served
            from sidecar.enforce.mcp.renewed import Renewed
            from sidecar.enforce.mcp.sessions import Sessions
            from sidecar.enforce.mcp.token import read_token
            from sidecar.enforce.shown import newest
        except ImportError:
            raise UsageError("--listen needs the extra mcp: pip install 'decision-sidecar[mcp]'") from None
        token = None if self.token is None else Renewed(self.token, read_token, "token", say).current
        shown = self._shown(say)
        with contextlib.closing(self._bound()) as bound:
            reached, told = self._reached(bound, token, None if shown is None else lambda: _ended(shown.current()))
            tls = None if shown is None else newest(lambda: shown.current().context)
            try:
                async with served(Sessions(open_, self.sessions or _SESSIONS, say), bound, tls, reached, schema):
                    say(f"listens on {told}")
                    await _until(stop, reached.ended, say)
            finally:
                self._leave()

    def _leave(self) -> None:
        if self.address.startswith("unix:"):
            Path(self.address.removeprefix("unix:")).unlink(missing_ok=True)

    def _bound(self) -> socket.socket:
        from sidecar.api import bound_unix
        from sidecar.config import host_and_port

        if self.address.startswith("unix:"):
            return bound_unix(Path(self.address.removeprefix("unix:")), _MODE)
        host, port = host_and_port("--listen", self.address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise UsageError(f"cannot listen on {self.address}: {error.strerror or 'no such address'}") from None

    def _reached(
        self, bound: socket.socket, token: Callable[[], str] | None, ended: Callable[[], bool] | None
    ) -> tuple[Reached, str]:
        from sidecar.config import host_and_port
        from sidecar.enforce.mcp.heads import Reached, reached

        if token is None or bound.family == socket.AF_UNIX:
            return Reached(None, frozenset(), token), self.address
        host, port = host_and_port("--listen", self.address)[0], int(bound.getsockname()[1])
        return reached(host, port, token=token, ended=ended), f"{f'[{host}]' if ':' in host else host}:{port}"

    def _shown(self, say: Callable[[str], object]) -> FileSource[Shown] | None:
        if self.cert is None:
            return None
        from sidecar.client import FileSource
        from sidecar.enforce.shown import to_show

        return FileSource((str(self.cert), str(self.key_file), ""), to_show, say)


def _ended(shown: Shown) -> bool:
    return shown.not_after <= time.time()


async def _until(stop: asyncio.Event, ended: Callable[[], bool], say: Callable[[str], object]) -> None:
    """Until ``stop`` is set; says when the certificate has ended, and when there is a newer one."""
    said = False
    while not stop.is_set():
        if ended() is not said:
            said = not said
            say(
                "the certificate of --listen has ended, and nobody is answered; renew --listen-cert"
                if said
                else "the certificate of --listen is good again, and clients are answered"
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY):
                await stop.wait()
