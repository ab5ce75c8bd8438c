"""The token that clients of the listener bring (DOORS.md, "Clients over HTTP")."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sidecar.enforce.mcp.private import read_private
from sidecar.errors import UsageError

_TOKEN: Final = re.compile(r"[\x21-\x7e]{16,4096}")
_MOST: Final = 4_200  # bytes of the file


def read_token(path: Path) -> str:
    """The token in a file. UsageError: it cannot be read, everybody can, or it is too short to be one."""
    text = read_private("token", path, _MOST).strip()
    if not _TOKEN.fullmatch(text):
        raise UsageError(f"the token {path} is not 16 to 4096 printable characters without spaces; make another")
    return text
