"""A request's headers as Envoy lists them: each judged one at most once, and none that says another length."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sidecar.enforce.envoy.v3 import ext_authz_pb2 as pb
from sidecar.errors import RequestError

MAX_VALUE: Final = 8_192
PARTIAL: Final = "x-envoy-auth-partial-body"
"""By which Envoy says whether it cut the body; where the caller sent one too there are two."""

_ONCE: Final = frozenset(
    {
        "host",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "upgrade",
        "traceparent",
        PARTIAL,
    }
)
INSTEAD: Final = frozenset(
    {
        *("x-http-method-override", "x-http-method", "x-method-override", "x-forwarded-method", "x-original-method"),
        *("x-original-url", "x-original-uri", "x-rewrite-url", "x-forwarded-uri", "x-forwarded-path"),
        *("x-forwarded-prefix", "x-forwarded-host", "x-original-host", "x-host", "forwarded"),
    }
)
"""By which some servers take a request for another: in the place of its method, its path or its host."""

_LENGTH: Final = re.compile(r"\A(?:0|[1-9][0-9]{0,15})\Z")
_JSON: Final = re.compile(r"\A\s*application/(?:[a-z0-9.!#$&^_-]+\+)?json\s*(?:;\s*charset\s*=\s*\"?utf-8\"?\s*)?\Z")


class Headers:
    """``judged``: the names that are judged and recorded besides those that say what the body is.

    Raises:
        RequestError: one of these occurs twice or cannot be read, the length of the body is ambiguous, or there is one
            of :data:`INSTEAD` that is not judged.
    """

    def __init__(self, listed: Iterable[pb.HeaderValue], judged: Iterable[str]) -> None:
        self._values: dict[str, str] = {}
        wanted = _ONCE | set(judged)
        instead = INSTEAD - wanted
        for each in listed:
            name = each.key.lower()
            spelt = name.replace("_", "-")
            if spelt in instead:
                raise RequestError(f"headers.{spelt}", "may be read in the place of what is judged, and is not judged")
            if spelt not in wanted:
                continue
            if name != spelt:
                raise RequestError("headers", "has one that some servers take for another: with an underscore")
            if name in self._values:
                raise RequestError(f"headers.{name}", "occurs twice")
            self._values[name] = _text(name, each.raw_value)
        self._check_length()

    def get(self, name: str) -> str | None:
        """A header's value."""
        return self._values.get(name)

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Those of these names that are there."""
        return {name: self._values[name] for name in names if name in self._values}

    @property
    def length(self) -> int | None:
        """What the request says of its body's length."""
        said = self._values.get("content-length")
        return None if said is None else int(said)

    @property
    def chunked(self) -> bool:
        """Whether it says that its length will show."""
        return "transfer-encoding" in self._values

    @property
    def json(self) -> bool:
        """Whether the body is JSON in UTF-8, unpacked, by its own word."""
        if self._values.get("content-encoding", "identity") != "identity":
            return False
        return bool(_JSON.match(self._values.get("content-type", "").lower()))

    def _check_length(self) -> None:
        length, coding = self._values.get("content-length"), self._values.get("transfer-encoding")
        if length is not None and (coding is not None or not _LENGTH.match(length)):
            raise RequestError("headers.content-length", "is no number, or there is a transfer-encoding besides")
        if coding is not None and coding.lower() != "chunked":
            raise RequestError("headers.transfer-encoding", "is not chunked alone")


def _text(name: str, value: bytes) -> str:
    if len(value) > MAX_VALUE or not all(0x20 <= byte < 0x7F or byte == 0x09 for byte in value):
        raise RequestError(f"headers.{name}", f"is longer than {MAX_VALUE} bytes, or not printable ASCII")
    if value.strip(b" \t") != value:
        raise RequestError(f"headers.{name}", "begins or ends with a space, which some servers take away")
    return value.decode()
