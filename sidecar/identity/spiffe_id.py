"""SPIFFE ids, strictly (SPIFFE-ID specification, sections 2.1 to 2.4).

spiffe://trust.domain/path/of/workload
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sidecar.errors import Malformed

MAX_ID = 2048  # bytes
MAX_TRUST_DOMAIN = 255  # bytes
_SCHEME = "spiffe://"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")  # so: no port, no user, no upper case
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")  # so: no query, no fragment, no percent-encoding


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """``path`` is "" or begins with a slash."""

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """An id as the specification spells it; there is one spelling. Raises Malformed."""
        if len(text.encode(errors="replace")) > MAX_ID:
            raise Malformed(f"a SPIFFE id has at most {MAX_ID} bytes")
        if not text.startswith(_SCHEME):
            raise Malformed("a SPIFFE id begins with spiffe://")
        domain, slash, path = text.removeprefix(_SCHEME).partition("/")
        if not _TRUST_DOMAIN.fullmatch(domain) or len(domain) > MAX_TRUST_DOMAIN:
            raise Malformed("a trust domain is 1 to 255 of a-z, 0-9, dot, dash and underscore, without a port or user")
        if slash and not all(_SEGMENT.fullmatch(s) and s not in (".", "..") for s in path.split("/")):
            raise Malformed("a SPIFFE id's path is of segments of letters, digits, dot, dash and underscore")
        return cls(domain, slash + path)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"
