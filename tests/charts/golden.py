"""What each install renders, kept for review. `python -m tests.charts.golden` writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.charts.rendering import CONSUMER, HERE, INSTALLS, text_of

ALL: Final = (*INSTALLS, CONSUMER)


def file_of(install: str) -> Path:
    return HERE / "golden" / f"{install}.yaml"


def expected(install: str) -> str:
    """Without trailing blanks, which editors take away."""
    return "\n".join(line.rstrip() for line in text_of(install).splitlines()) + "\n"


def renew() -> None:
    """Every file is written, and those of installs that are no more are removed."""
    for old in (HERE / "golden").glob("*.yaml"):
        old.unlink()
    for install in ALL:
        file_of(install).write_text(expected(install))


if __name__ == "__main__":
    renew()
