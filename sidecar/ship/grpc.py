"""The link over gRPC (proto/sidecar/v1/collector.proto)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from sidecar.chain.parcel import MAX_PACKED
from sidecar.errors import CollectorRefused, CollectorUnavailable
from sidecar.ship.link import Proved, Where
from sidecar.v1 import collector_pb2 as pb
from sidecar.v1 import collector_pb2_grpc

_OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", MAX_PACKED),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # what one try to connect may take, a handshake with it
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # While a call waits: a collector that was killed while nothing got through never says that it is gone.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),  # a channel made anew is a connection made anew
]
_ANSWER = TypeVar("_ANSWER", pb.EnrolResponse, pb.WhereResponse, pb.ShipResponse, pb.ReceiptsResponse)


class GrpcLink:
    """``credentials`` are asked for at each new connection (None: in the clear); ``seconds``: for one call."""

    def __init__(
        self,
        address: str,
        credentials: Callable[[], grpc.ChannelCredentials | None],
        server_name: str = "",
        seconds: float = 20.0,
    ) -> None:
        self._address, self._credentials, self._seconds = address, credentials, seconds
        self._options: list[tuple[str, Any]] = [*_OPTIONS]
        if server_name:
            self._options.append(("grpc.ssl_target_name_override", server_name))
        self._made_of: grpc.ChannelCredentials | None = None
        self._channel: grpc.Channel | None = None
        self._expires: float | None = None

    def enrol(self, genesis: bytes, token: bytes, signature: bytes) -> None:
        """As `Link.enrol`."""
        request = pb.EnrolRequest(genesis=genesis, token=token, signature=signature)
        self._ask(lambda stub: stub.Enrol(request, timeout=self._left()))

    def where(self, chain_id: bytes) -> Where:
        """As `Link.where`."""
        return _where(self._ask(lambda stub: stub.Where(pb.WhereRequest(chain_id=chain_id), timeout=self._left())))

    def ship(self, chain_id: bytes, parcel: bytes, signature: bytes) -> Where:
        """As `Link.ship`."""
        request = pb.ShipRequest(chain_id=chain_id, parcel=parcel, signature=signature)
        return _where(self._ask(lambda stub: stub.Ship(request, timeout=self._left()), passing=pb.REFUSED_GAP))

    def receipts(self, chain_id: bytes, entries: list[bytes], since: int) -> Proved:
        """As `Link.receipts`."""
        request = pb.ReceiptsRequest(chain_id=chain_id, entries=entries, since=since)
        found = self._ask(lambda stub: stub.Receipts(request, timeout=self._left()))
        return Proved(tuple(found.proofs), found.roll_call, found.consistency, tuple(found.timestamps))

    def expire(self, seconds: float) -> None:
        """After so many seconds no call goes on, nor is one begun: who asked is about to end."""
        self._expires = time.monotonic() + seconds

    def close(self) -> None:
        """As `Link.close`."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _left(self) -> float:
        """Seconds for a call that begins now."""
        if self._expires is None:
            return self._seconds
        left = self._expires - time.monotonic()
        if left <= 0:
            raise CollectorUnavailable("there was no more time to ask the collector")
        return min(self._seconds, left)

    def _stub(self) -> Any:
        credentials = self._credentials()
        if self._channel is None or credentials is not self._made_of:
            self.close()
            self._made_of = credentials
            if credentials is None:
                self._channel = grpc.insecure_channel(self._address, options=self._options)
            else:
                self._channel = grpc.secure_channel(self._address, credentials, options=self._options)
        return collector_pb2_grpc.CollectorStub(self._channel)

    def _ask(self, call: Callable[[Any], _ANSWER], passing: int = 0) -> _ANSWER:
        try:
            answer = call(self._stub())
        except grpc.RpcError as error:
            why = error.code().name if isinstance(error, grpc.Call) else "UNKNOWN"
            if why == "DEADLINE_EXCEEDED":
                self.close()  # a connection to a host that is gone stays open, and silent, for a quarter of an hour
            raise CollectorUnavailable(f"the collector at {self._address} does not answer ({why})") from None
        except ValueError:  # the channel was closed meanwhile
            raise CollectorUnavailable("asking the collector was broken off") from None
        code = answer.refusal.code
        if code not in (0, passing):
            name = pb.Refused.Name(code) if code in pb.Refused.values() else "REFUSED_UNSPECIFIED"
            raise CollectorRefused(name.removeprefix("REFUSED_"), answer.refusal.message)
        return answer


def _where(answer: pb.WhereResponse | pb.ShipResponse) -> Where:
    return Where(answer.acknowledgement, answer.segment, answer.seq)
