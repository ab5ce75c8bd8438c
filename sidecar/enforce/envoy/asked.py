"""From what Envoy asks to a request of the decision path (proto/DOORS.md, "Envoy")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.chain.request import Option, Request
from sidecar.enforce.envoy import target
from sidecar.enforce.envoy.body import Body, body_of
from sidecar.enforce.envoy.headers import Headers
from sidecar.enforce.envoy.settings import EnvoySettings
from sidecar.enforce.envoy.v3 import ext_authz_pb2 as pb
from sidecar.errors import RequestError

KIND: Final = "envoy"
RESOURCE: Final = "http"
APPROVAL_OF: Final = "x-sidecar-approval-of"
CUT: Final = "body"
"""The field of a refusal for a body that is not there whole."""

UNJUDGED: Final = "unjudged"
_METHOD: Final = re.compile(r"\A[A-Z][A-Z-]{0,31}\Z")
_SCHEMES: Final = frozenset({"http", "https"})
_TRACE: Final = re.compile(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_EXTENSIONS: Final = frozenset({"action", "executor", "route", "body"})


def request_of(attributes: pb.AttributeContext, agent: str, settings: EnvoySettings) -> Request:
    """The request that this agent makes.

    Raises:
        RequestError: what Envoy tells is none, is ambiguous, or is not all that there is.
    """
    http, route = attributes.request.http, _route(attributes.context_extensions)
    _check_raw(http)
    headers = Headers(http.header_map.headers, (*settings.headers, APPROVAL_OF))
    method, scheme = _method(http), http.scheme.lower()
    if scheme not in _SCHEMES:
        raise RequestError("scheme", "is neither http nor https")
    raw_path, query = target.split(http.path)
    host, path = target.host_of(http.host, scheme), target.path_of(raw_path)
    body = None if route.get("body") == UNJUDGED else _body(http, headers, method, settings.body_bytes)
    arguments = {
        "method": method,
        "scheme": scheme,
        "host": host,
        "path": path,
        "raw_path": raw_path,
        "query": query,
        "parameters": target.parameters_of(query),
        "headers": headers.of(settings.headers),
        "body": None if body is None else body.value,
        "body_size": None if body is None else body.size,
        "body_complete": body is not None,
    }
    named = {"route": route.get("route"), "upgrade": _upgrade(headers, route)}
    door = {"kind": KIND, "protocol": http.protocol[:16], **{k: v for k, v in named.items() if v is not None}}
    trace = headers.get("traceparent") or ""
    return Request(
        agent,
        Option(route.get("action") or f"http.{method.lower()}", RESOURCE, f"{host}{path}", _written(arguments)),
        _written({"door": door}),
        trace_parent=trace if _TRACE.match(trace) else "",
        executor=route.get("executor") or settings.gateway,
        approval_of=headers.get(APPROVAL_OF) or "",
    )


def _route(extensions: Mapping[str, str]) -> Mapping[str, str]:
    """What the route's configuration says: a name of its own that is misspelt must not pass for none."""
    unknown = sorted(extensions.keys() - _EXTENSIONS)
    if unknown:
        raise RequestError("context_extensions", f"has an unknown name; known are {', '.join(sorted(_EXTENSIONS))}")
    if extensions.get("body", UNJUDGED) != UNJUDGED:
        raise RequestError("context_extensions.body", f"must be {UNJUDGED}, or not be there")
    return extensions


def _upgrade(headers: Headers, route: Mapping[str, str]) -> str | None:
    """To what the connection is to be turned: what goes through it then is a body that nobody sees."""
    upgrade = headers.get("upgrade")
    if upgrade is not None and route.get("body") != UNJUDGED:
        cause = f"asks for a tunnel, and the route does not say that what goes through is {UNJUDGED}"
        raise RequestError("headers.upgrade", cause)
    return upgrade


def _check_raw(http: pb.AttributeContext.HttpRequest) -> None:
    """Joined headers hide that one occurs twice, and a body made text is not the one that goes on."""
    if http.headers or not http.header_map.headers:
        raise RequestError("headers", "are joined, or not there: set encode_raw_headers in Envoy's ext_authz filter")
    if http.body:
        raise RequestError("body", "is sent as text: set pack_as_bytes in Envoy's ext_authz filter")


def _method(http: pb.AttributeContext.HttpRequest) -> str:
    if not _METHOD.match(http.method) or http.method == "CONNECT":
        raise RequestError("method", "is none that can be judged")
    return http.method


def _body(http: pb.AttributeContext.HttpRequest, headers: Headers, method: str, limit: int) -> Body:
    body = body_of(http.raw_body, headers, method, http.protocol, limit)
    if not body.whole:
        cause = "is not there whole: it was cut at Envoy's limit, or its length is not known; nothing of it was judged"
        raise RequestError(CUT, cause)
    return body


def _written(value: dict[str, Any]) -> bytes:
    return strictjson.dumps(value)
