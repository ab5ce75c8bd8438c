"""The Dockerfile as a list of instructions, and what .dockerignore leaves of the directory it is built in.

Reads what ours uses of the language and refuses the rest, so that no step is passed over in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

HOME = Path(__file__).parents[2]

KNOWN = (
    *("FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "SHELL", "LABEL"),
    *("USER", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"),
)
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """``flags``: those before the rest, as ``--from=build``; ``rest``: as written, joined to one line."""

    word: str
    flags: dict[str, str]
    rest: str


def parse(text: str) -> list[Instruction]:
    """The instructions in their order. Raises AssertionError for one that is not known here."""
    found, joined = [], ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        joined += line.removesuffix("\\").strip() + " "
        if not line.endswith("\\"):
            found.append(_instruction(joined.strip()))
            joined = ""
    assert not joined, "the last line goes on"
    return found


def _instruction(line: str) -> Instruction:
    word, _, rest = line.partition(" ")
    assert word in KNOWN, f"{word} is not known here"
    flags = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        name, _, value = flag.removeprefix("--").partition("=")
        flags[name] = value
        rest = rest.lstrip()
    return Instruction(word, flags, rest)


def expanded(text: str, known: dict[str, str]) -> str:
    """``text`` with its variables; an unknown one is an error, not empty."""
    return _VARIABLE.sub(lambda found: known[found[1] or found[2]], text)


def ignored(patterns: list[str], path: str) -> bool:
    """Whether .dockerignore keeps ``path`` out: the last pattern that matches it, or a directory above it, says so."""
    out = False
    for pattern in patterns:
        keep, plain = pattern.startswith("!"), pattern.lstrip("!").rstrip("/")
        above = [str(each) for each in (PurePosixPath(path), *PurePosixPath(path).parents) if str(each) != "."]
        if any(_matches(plain, each) for each in above):
            out = not keep
    return out


def _matches(pattern: str, path: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch(PurePosixPath(path).name, pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


def dockerignore() -> list[str]:
    """Its patterns."""
    lines = (HOME / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
