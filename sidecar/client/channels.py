"""Which channel a call goes over: one, until the TLS material changes; then a new one for all new calls.

The channel before is closed once the calls on it have ended.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, Final, Generic, TypeVar

import grpc

from sidecar.client.material import Source
from sidecar.client.refusals import NoDecision
from sidecar.client.retry import Patience
from sidecar.client.target import CHANNEL_OPTIONS, dialled
from sidecar.client.tls import Tls, TlsFiles, check_tls, open_source
from sidecar.errors import UsageError

Channel = TypeVar("Channel")

_HANDSHAKE_MS: Final = 5_000  # gRPC takes its least pause for the time that a connection may take, TLS included


class Line(Generic[Channel]):
    """An open channel, the credentials it was made of, and how many calls are on it. ``methods``: for its user."""

    def __init__(self, channel: Channel, made_of: grpc.ChannelCredentials | None) -> None:
        self.channel: Final = channel
        self.made_of: Final = made_of
        self.methods: dict[str, Any] = {}
        self.calls = 0


class Channels(Generic[Channel]):
    """Channels to one address. ``secure`` and ``insecure`` are gRPC's functions that open one. Any thread.

    Raises UsageError for settings that cannot be meant and for files that cannot be used.
    """

    def __init__(
        self, patience: Patience, tls: Tls | None, secure: Callable[..., Channel], insecure: Callable[..., Channel]
    ) -> None:
        self._patience, self._tls, self._secure, self._insecure = patience, tls, secure, insecure
        self._options: dict[str, int | str] = dict(CHANNEL_OPTIONS)
        if tls is not None:
            check_tls(tls, patience.address)
            self._options["grpc.min_reconnect_backoff_ms"] = _HANDSHAKE_MS
            if tls.server_name:
                self._options["grpc.ssl_target_name_override"] = tls.server_name
        self._lock = Lock()
        self._source: Source[grpc.ChannelCredentials] | None = None
        self._line: Line[Channel] | None = None
        self._old: list[Line[Channel]] = []
        if isinstance(tls, TlsFiles):
            self._source = open_source(tls)

    @property
    def prepared(self) -> bool:
        """Whether a call finds its material at once."""
        return self._tls is None or self._source is not None

    def prepare(self) -> None:
        """Have the first material; waits for the SPIFFE agent. NoDecision when there is no SVID in time."""
        with self._lock:
            if self._tls is None or self._source is not None:
                return
            try:
                source = open_source(self._tls)
                source.wait(self._patience.timeout)
            except UsageError as error:
                raise NoDecision("unreachable", str(error)) from None
            self._source = source

    def take(self) -> Line[Channel]:
        """The line for a new call; `give_back` it. Raises as `prepare`."""
        self.prepare()
        with self._lock:
            made_of = self._source.current() if self._source else None
            if self._line is None or self._line.made_of is not made_of:
                self._old += [self._line] if self._line else []
                self._line = Line(self._open(made_of), made_of)
            self._line.calls += 1
            return self._line

    def give_back(self, line: Line[Channel]) -> list[Channel]:
        """The call has ended. Gives the channels that are to be closed now."""
        with self._lock:
            line.calls -= 1
            idle = [old for old in self._old if old.calls == 0]
            self._old = [old for old in self._old if old.calls]
        return [old.channel for old in idle]

    def superseded(self, line: Line[Channel]) -> bool:
        """Whether a new call would go over another line."""
        return self._source is not None and self._source.current() is not line.made_of

    def end(self) -> list[Channel]:
        """Gives all channels, to be closed whatever is on them; a call afterwards opens another."""
        with self._lock:
            source, self._source = self._source, None
            lines, self._line, self._old = [*self._old, *([self._line] if self._line else [])], None, []
        if source is not None:
            source.close()
        return [line.channel for line in lines]

    def _open(self, made_of: grpc.ChannelCredentials | None) -> Channel:
        address = dialled(self._patience.address)
        if made_of is None:
            return self._insecure(address, options=[*self._options.items()])
        return self._secure(address, made_of, options=[*self._options.items()])
