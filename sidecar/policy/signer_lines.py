"""One line of an allowed signers file (ssh-keygen(1), ALLOWED SIGNERS)."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .ssh_keys import KINDS, SshKey, Unreadable, read_key

NAMESPACE: Final = "git"
_LONGEST_LINE: Final = 16 << 10
_PRINCIPALS: Final = re.compile(r'[ \t]*(?:"([^"]*)"|([^" \t]+))[ \t]+')
_OPTION: Final = re.compile(r'([A-Za-z-]+)(?:="((?:[^"\\]|\\.)*)")?(,|[ \t]+)')
_TIME: Final = re.compile(r"(\d{8})(?:(\d{4})(\d\d)?)?(Z|UTC)?", re.ASCII | re.IGNORECASE)
_KNOWN: Final = ("namespaces", "valid-after", "valid-before")


class OddLine(ValueError):
    """A line that cannot be taken; says what to mend."""


@dataclass(frozen=True, slots=True)
class AllowedSigner:
    """``principals``: as in the file. ``after`` and ``before``: from and to when the key is valid, both included."""

    principals: str
    key: SshKey
    namespaces: str | None
    after: datetime | None
    before: datetime | None

    def signs_commits(self) -> bool:
        """Whether its namespaces admit git's."""
        return self.namespaces is None or _admits(self.namespaces, NAMESPACE)

    def valid(self, at: datetime) -> bool:
        """Whether the line counts at this time; both of its ends do."""
        return (self.after is None or self.after <= at) and (self.before is None or at <= self.before)

    @property
    def validity(self) -> str:
        """In words, for the years that it has."""
        since = f" from {self.after:%Y-%m-%dT%H:%M:%SZ}" if self.after else ""
        return since + (f" to {self.before:%Y-%m-%dT%H:%M:%SZ}" if self.before else "")


def read_line(line: str) -> AllowedSigner | None:
    """What the line allows; None for an empty one or a comment. Raises `OddLine`."""
    text = line.strip(" \t\r")
    if not text or text.startswith("#"):
        return None
    if len(text) > _LONGEST_LINE:
        raise OddLine(f"is longer than {_LONGEST_LINE} characters")
    if not text.replace("\t", " ").isprintable():
        raise OddLine("holds characters that cannot be printed")
    named = _PRINCIPALS.match(text)
    if named is None:
        raise OddLine("is not PRINCIPALS [OPTIONS] KEYTYPE KEY")
    rest = text[named.end() :]
    options, rest = ({}, rest) if rest.split()[0] in KINDS else _options(rest)
    after, before = _time(options, "valid-after"), _time(options, "valid-before")
    if after and before and before <= after:
        raise OddLine("has a valid-before that is not after its valid-after")
    return AllowedSigner(_principals(named[1] or named[2] or ""), _key(rest), options.get("namespaces"), after, before)


def _principals(text: str) -> str:
    parts = text.split(",")
    if not all(parts):
        raise OddLine("has an empty principal")
    if any(part.startswith("!") for part in parts):
        raise OddLine("excludes a principal with !, which says nothing about a key; leave it out")
    return text


def _options(text: str) -> tuple[dict[str, str], str]:
    found: dict[str, str] = {}
    more = True
    while more:
        option = _OPTION.match(text)
        name = option[1].lower() if option else ""
        if name == "cert-authority":
            raise OddLine("is a certificate authority, which is not supported; list the keys themselves")
        if option is None or name not in _KNOWN or option[2] is None:
            kinds = ", ".join(KINDS)
            raise OddLine(f'has neither a key of a known kind ({kinds}) nor options ({", ".join(_KNOWN)}="…") there')
        if name in found:
            raise OddLine(f"has {name} twice")
        found[name] = option[2].replace('\\"', '"')
        text, more = text[option.end() :], option[3] == ","
    return found, text


def _key(text: str) -> SshKey:
    kind, encoded = (*text.split(maxsplit=2), "", "")[:2]
    try:
        blob = base64.b64decode(encoded, validate=True)
        if not encoded or base64.b64encode(blob).decode() != encoded:
            raise Unreadable("is not base64")
        key = read_key(blob)
    except Unreadable as error:
        raise OddLine(f"has a key that {error}") from None
    except ValueError:
        raise OddLine("has a key that is not base64") from None
    if key.kind != kind:
        raise OddLine(f"says {kind[:64]!r} of a key that is {key.kind}")
    return key


def _time(options: dict[str, str], name: str) -> datetime | None:
    if name not in options:
        return None
    found = _TIME.fullmatch(options[name])
    if found is None:
        raise OddLine(f"has a {name} that is not YYYYMMDDZ, YYYYMMDDHHMMZ or YYYYMMDDHHMMSSZ")
    if found[4] is None:
        raise OddLine(f"has a {name} in the local time of whoever reads it; put a Z behind it, for UTC")
    try:
        return datetime.strptime(f"{found[1]}{found[2] or '0000'}{found[3] or '00'}", "%Y%m%d%H%M%S").replace(
            tzinfo=UTC
        )
    except ValueError:
        raise OddLine(f"has a {name} that no calendar has") from None


def _admits(patterns: str, name: str) -> bool:
    """A pattern list (ssh_config(5), PATTERNS): ``*``, ``?``, and ``!`` before a pattern that must not match."""
    matching = [pattern for pattern in patterns.split(",") if _matches(pattern.removeprefix("!"), name)]
    return bool(matching) and not any(pattern.startswith("!") for pattern in matching)


def _matches(pattern: str, name: str) -> bool:
    """In time linear in the pattern for a name of fixed length."""
    reached = {0}
    for letter in pattern:
        if letter == "*":
            reached = set(range(min(reached, default=len(name) + 1), len(name) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(name) and letter in ("?", name[at])}
    return len(name) in reached
