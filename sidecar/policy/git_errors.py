"""What can go wrong with a repository, inside the process that reads it; `git_source` hears of it in one line."""

from __future__ import annotations

from typing import Final

_MOST: Final = 400


class Unreachable(Exception):
    """The place cannot be reached or read: becomes `PolicySourceError`. The message is one line: cause; mend."""


class Damaged(Exception):
    """The cache, or what the server sent, contradicts itself. It is fetched anew once; then the server is at fault."""


def one_line(text: str | bytes) -> str:
    """What another program said, as a short printable line."""
    plain = text.decode(errors="replace") if isinstance(text, bytes) else text
    return " ".join("".join(c if c.isprintable() else " " for c in plain[: 4 * _MOST]).split())[:_MOST]
