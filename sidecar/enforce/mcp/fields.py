"""Fields of HTTP that each request to a remote server carries, as credentials, from a file (DOORS.md, "MCP")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sidecar.enforce.mcp.private import read_private
from sidecar.errors import UsageError

NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
PLAIN: Final = re.compile(r"[\x20-\x7e]*")
_RESERVED: Final = re.compile(r"(?i)host|accept|connection|transfer-encoding|content-.*|mcp-.*|te|upgrade|keep-alive")

Fields = Sequence[tuple[str, str]]
"""Names and values."""


def read_fields(path: Path) -> Fields:
    """The fields of a file, one `Name: value` a line. UsageError: also where everybody on this host can read them."""
    fields = []
    for number, line in enumerate(read_private("fields", path).splitlines(), 1):
        name, colon, value = line.partition(":")
        if not line.strip():
            continue
        if not colon or not NAME.fullmatch(name) or not PLAIN.fullmatch(value.strip()) or _RESERVED.fullmatch(name):
            raise UsageError(f"{path}, line {number}: give `Name: value`, and none of HTTP's or MCP's own fields")
        fields.append((name, value.strip()))
    return fields
