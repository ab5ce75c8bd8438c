"""Files that hold a secret of the gateway's."""

from __future__ import annotations

from pathlib import Path

from sidecar.errors import UsageError


def read_private(what: str, path: Path, most: int = -1) -> str:
    """The text of a file, of its first ``most`` bytes where that is not negative; ``what``: what is in it.

    Raises:
        UsageError: it cannot be read, is not UTF-8, or everybody on this host can read it.
    """
    try:
        open_to_all = path.stat().st_mode & 0o007
        with path.open("rb") as file:
            text = file.read(most).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the {what} {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if open_to_all:
        raise UsageError(f"every user of this host can read the {what} {path}: chmod o= {path}")
    return text
