"""What the door costs, beside a native Decide in the same run: `python -m tests.enforce.measure`.

One caller, in turn: Decide (signed by its agent), Check as Envoy sends it, a request through Envoy that
is asked about, and one on a route without the question. The engine is the same OPA for all.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc

from sidecar.chain.request import Option, Request
from sidecar.enforce.envoy import AUTHORIZATION
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as stubs
from tests.enforce.gateway import AGENT, Gateway, gateway
from tests.enforce.test_door import request as checked
from tests.enforce.upstream import HOST
from tests.people import Signing

CALLS, WARM = 600, 50
ARGUMENTS = b'{"path":"/open/a","body_complete":true}'


def unasked(configuration: dict[str, Any]) -> None:
    """A route on which Envoy does not ask: only here, to know what Envoy costs by itself."""
    (filters,) = configuration["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    routes = filters["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]
    kind = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
    alone = {"envoy.filters.http.ext_authz": {"@type": kind, "disabled": True}}
    routes.insert(
        0, {"match": {"prefix": "/unasked"}, "route": {"cluster": "upstream"}, "typed_per_filter_config": alone}
    )


def native(it: Gateway) -> Callable[[], None]:
    channel = grpc.insecure_channel(f"unix:{it.place}/s.sock")
    head = stubs.LedgerServiceStub(channel).Head(pb.HeadRequest())
    signing, decide = Signing(head.chain_id, head.epoch), stubs.DecisionServiceStub(channel).Decide
    context = b'{"door":{"kind":"measure"}}'
    digest = Request(AGENT, Option("http.get", "http", f"{HOST}/open/a", ARGUMENTS), context).digest()

    def call() -> None:
        signature = signing.sign("request", AGENT, digest)
        asked = pb.DecideRequest(
            agent=AGENT, action="http.get", resource=pb.Resource(type="http", id=f"{HOST}/open/a"), arguments=ARGUMENTS,
            context=context, signature=signature,
        )  # fmt: skip
        began = time.perf_counter()
        answered = decide(asked)
        took.append(time.perf_counter() - began)
        assert answered.effect == pb.EFFECT_ALLOW

    took: list[float] = []
    call.took = took  # type: ignore[attr-defined]
    return call


def check(it: Gateway) -> Callable[[], None]:
    asked = checked(path="/open/a", host=HOST, scheme="http").SerializeToString()
    ask = grpc.insecure_channel(f"unix:{it.place}/door.sock").unary_unary(f"/{AUTHORIZATION}/Check")
    return timed(lambda: ask(asked))


def through(it: Gateway, path: str) -> Callable[[], None]:
    connection = HTTPConnection("127.0.0.1", it.port)

    def get() -> None:
        connection.request("GET", path, headers={"host": HOST})
        response = connection.getresponse()
        assert response.read() and response.status == 200

    return timed(get)


def timed(do: Callable[[], Any]) -> Callable[[], None]:
    took: list[float] = []

    def call() -> None:
        began = time.perf_counter()
        do()
        took.append(time.perf_counter() - began)

    call.took = took  # type: ignore[attr-defined]
    return call


def main() -> None:
    with tempfile.TemporaryDirectory() as place, gateway(Path(place), unasked) as it:
        kinds = {
            "decide": native(it),
            "check": check(it),
            "asked": through(it, "/open/a"),
            "unasked": through(it, "/unasked"),
        }
        for _ in range(CALLS):
            for call in kinds.values():
                call()
        told = {
            name: statistics.median(call.took[WARM:]) * 1e3  # type: ignore[attr-defined]
            for name, call in kinds.items()
        }
    told |= {"check/decide": told["check"] / told["decide"]}
    told |= {"added/decide": (told["asked"] - told["unasked"]) / told["decide"]}
    print(json.dumps({name: round(value, 3) for name, value in told.items()}))


if __name__ == "__main__":
    main()
