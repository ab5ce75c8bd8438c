"""Text from agents, policies and tools, made fit for a line that a person reads."""

from __future__ import annotations

import unicodedata


def plain(text: object) -> str:
    """One line, without what could drive a terminal or turn its direction."""
    return "".join(" " if unicodedata.category(c).startswith("C") else c for c in str(text))
