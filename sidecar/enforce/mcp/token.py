"""The token that clients of the listener bring, in a file that may change (DOORS.md, "Clients over HTTP")."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidecar.errors import UsageError
from sidecar.files import signature

_TOKEN: Final = re.compile(r"[\x21-\x7e]{16,4096}")
_MOST: Final = 4_200  # bytes of the file


class TokenFile:
    """The token, read again when its file changes; what cannot be used is told to ``trouble``, once, and the one before
    stays. Raises UsageError when made of a file that cannot be used."""

    def __init__(self, path: Path, trouble: Callable[[str], object]) -> None:
        self._path, self._trouble = path, trouble
        self._seen = signature(path)
        self._token = read_token(path)

    def current(self) -> str:
        """The newest that can be used."""
        seen = signature(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._token = read_token(self._path)
            except UsageError as error:
                self._trouble(f"the new token cannot be used, the one before stays: {error}")
        return self._token


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
