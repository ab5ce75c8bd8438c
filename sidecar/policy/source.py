"""Where policies come from: the port, and what a source finds there.

A source is asked again and again. It answers with a `Candidate`, which nobody has judged yet: trust (`signers`) and the
gate (`gate`) come after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Commit:
    """What a git commit says of itself, bounded and printable; nothing of it is proved.

    ``id``: 40 or 64 hex digits. ``author`` and ``committer``: ``Name <address>``. ``authored`` and ``committed``: RFC
    3339 in UTC. ``subject``: the message's first line. ``raw``: the object's bytes, over which its signature goes.
    """

    id: str
    author: str
    committer: str
    authored: str
    committed: str
    subject: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy as found at its source.

    ``revision``: the commit's id, or ``sha256:`` and a digest over what was found where there is no commit; equal
    revisions are equal policies. ``files``: the policy's sources by path, as `tree.read_tree` gives them; empty where
    ``bundle``, a bundle file's bytes, was found instead. ``follows``: whether the revision asked for as ``active`` is
    this commit's ancestor, or itself; None where that means nothing (no commit, or nothing active).
    """

    revision: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    bundle: bytes | None = field(default=None, repr=False)
    commit: Commit | None = None
    follows: bool | None = None


class Source(Protocol):
    """A place that policies come from. Implementations: `GitSource`, `PathSource`."""

    @property
    def place(self) -> str:
        """The place as people know it, without secrets: a URL and ref, or a path."""
        ...

    def look(self, seen: str, active: str) -> Candidate | None:
        """What is there now, or None where it is still the revision ``seen`` last time. Blocks: call it on a thread.

        ``active``: the revision in force, "" for none. Raises `PolicySourceError` when the place cannot be reached or
        read (try again later); `Refused` when what is there may not be read as a policy at all, each finding with its
        file, and with ``revision`` set where it is known.
        """
        ...
