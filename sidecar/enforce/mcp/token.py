"""The token that clients of the listener bring (DOORS.md, "Clients over HTTP")."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sidecar.errors import UsageError

_TOKEN: Final = re.compile(r"[\x21-\x7e]{16,4096}")
_MOST: Final = 4_200  # bytes of the file


def read_token(path: Path) -> str:
    """The token in a file. UsageError: it cannot be read, everybody can, or it is too short to be one."""
    try:
        open_to_all = path.stat().st_mode & 0o007
        with path.open("rb") as file:
            text = file.read(_MOST).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the token {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if open_to_all:
        raise UsageError(f"every user of this host can read the token {path}: chmod o= {path}")
    if not _TOKEN.fullmatch(text):
        raise UsageError(f"the token {path} is not 16 to 4096 printable characters without spaces; make another")
    return text
