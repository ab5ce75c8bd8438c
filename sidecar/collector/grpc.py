"""The collector on gRPC (proto/sidecar/v1/collector.proto): messages in, `Ingest` and `Proofs` asked, messages out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio

from sidecar.chain.parcel import MAX_PACKED
from sidecar.collector.ingest import Ingest, Where
from sidecar.collector.proofs import Proofs
from sidecar.errors import CallerUnproved, CertificateEnded, CollectorRefused, SidecarError, UsageError
from sidecar.v1 import collector_pb2 as pb
from sidecar.v1 import collector_pb2_grpc

log = logging.getLogger("sidecar.collector")

_AT_ONCE = 16  # parcels being looked at; each takes up to 27 MB
_CALLS = 128  # under way; each message is held whole, so 1.3 GB of them at the very most
_ANSWER = TypeVar("_ANSWER", pb.EnrolResponse, pb.WhereResponse, pb.ShipResponse, pb.ReceiptsResponse)


class Service(collector_pb2_grpc.CollectorServicer):
    """``who(context)`` gives the caller's SPIFFE id ("" for none), or raises CallerUnproved, CertificateEnded."""

    def __init__(self, ingest: Ingest, proofs: Proofs, who: Callable[[Any], str]) -> None:
        self._ingest, self._proofs, self._who = ingest, proofs, who
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolResponse:
        def do(spiffe: str) -> pb.EnrolResponse:
            self._ingest.enrol(request.genesis, request.token, request.signature, spiffe)
            return pb.EnrolResponse()

        return await self._answer(context, do, pb.EnrolResponse())

    async def Where(self, request: pb.WhereRequest, context: Any) -> pb.WhereResponse:
        def do(spiffe: str) -> pb.WhereResponse:
            found = self._ingest.where(request.chain_id, spiffe)
            return pb.WhereResponse(acknowledgement=found.acknowledgement, segment=found.segment, seq=found.seq)

        return await self._answer(context, do, pb.WhereResponse())

    async def Ship(self, request: pb.ShipRequest, context: Any) -> pb.ShipResponse:
        def do(spiffe: str) -> pb.ShipResponse:
            try:
                return _shipped(self._ingest.ship(request.chain_id, request.parcel, request.signature, spiffe))
            except CollectorRefused as refusal:
                if refusal.code != "GAP":
                    raise
                answer = _shipped(self._ingest.where(request.chain_id, spiffe))
                answer.refusal.CopyFrom(_refusal(refusal))
                return answer

        async with self._room:
            return await self._answer(context, do, pb.ShipResponse())

    async def Receipts(self, request: pb.ReceiptsRequest, context: Any) -> pb.ReceiptsResponse:
        def do(spiffe: str) -> pb.ReceiptsResponse:
            self._ingest.where(request.chain_id, spiffe)  # whether this caller may ask
            found = self._proofs.of(request.chain_id, list(request.entries), request.since)
            return pb.ReceiptsResponse(
                proofs=found.proofs,
                roll_call=found.roll_call,
                consistency=found.consistency,
                timestamps=found.timestamps,
            )

        return await self._answer(context, do, pb.ReceiptsResponse())

    async def _answer(self, context: Any, do: Callable[[str], _ANSWER], empty: _ANSWER) -> _ANSWER:
        try:
            return await asyncio.to_thread(do, self._who(context))
        except CallerUnproved as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except CertificateEnded as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except CollectorRefused as refusal:
            log.warning("refused: %s", refusal)
            empty.refusal.CopyFrom(_refusal(refusal))
        except SidecarError as error:
            log.error("cannot answer: %s", error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the collector's storage cannot be used now")
        return empty


def _shipped(found: Where) -> pb.ShipResponse:
    return pb.ShipResponse(acknowledgement=found.acknowledgement, segment=found.segment, seq=found.seq)


def _refusal(refusal: CollectorRefused) -> pb.CollectorRefusal:
    return pb.CollectorRefusal(code=pb.Refused.Value(f"REFUSED_{refusal.code}"), message=refusal.cause[:1024])


class Server:
    """Listens on ``address``, host:port; without ``credentials`` in the clear."""

    def __init__(self, service: Service, address: str, credentials: grpc.ServerCredentials | None) -> None:
        options: Sequence[tuple[str, int]] = (
            ("grpc.max_receive_message_length", MAX_PACKED + 65_536),
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", 16),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 2_000),  # sidecars ask whether it is there still
            ("grpc.keepalive_time_ms", 60_000),  # and it asks them, so that what is gone holds no connection
            ("grpc.keepalive_timeout_ms", 10_000),
        )
        self._address, self._credentials = address, credentials
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_CALLS)
        collector_pb2_grpc.add_CollectorServicer_to_server(service, self._server)

    async def start(self) -> str:
        """Listen; gives the address in use. Raises UsageError."""
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError:
            raise UsageError(f"cannot listen on {self._address}: it is in use or not of this host") from None
        await self._server.start()
        return f"{self._address.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Take no more calls; those under way have two seconds."""
        await self._server.stop(2.0)
