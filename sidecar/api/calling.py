"""What a call brings besides its message."""

from __future__ import annotations

import grpc
import grpc.aio
from google.protobuf.message import Message

from sidecar.identity import Shown, Transport
from sidecar.v1 import decision_pb2 as pb

Context = grpc.aio.ServicerContext[bytes, Message]


def peer_of(context: Context) -> str:
    """What the transport knows of the caller, without the port, so that one host is one peer."""
    peer = str(context.peer())
    if peer.startswith(("ipv4:", "ipv6:")):
        peer = peer.rpartition(":")[0]
    return peer[:256] or "unknown"


def shown(context: Context, signature: pb.Signature) -> Shown:
    """What comes with a message besides itself."""
    return Shown(Transport(peer_of(context)), signature.statement, signature.signature)
