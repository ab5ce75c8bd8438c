"""The ways to a repository: https (git's smart protocol, gitprotocol-http(5)), ssh (the OpenSSH client), a directory.

Runs only in the process of `git_fetch`, which is killed when its time is up: nothing here has a time limit of its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .git_errors import Unreachable, one_line
from .git_settings import GitSettings

_ID: Final = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Refs:
    """What the remote says it has: ids by name. ``peeled`` are the commits that annotated tags lead to."""

    ids: dict[str, str]
    peeled: dict[str, str]


class Remote:
    """A repository elsewhere. Every method raises `Unreachable` with cause and mend, and nothing else foreign."""

    def __init__(
        self, settings: GitSettings, client: Any, path: str, explain: Callable[[Exception], Unreachable]
    ) -> None:
        self._client, self._path, self._explain = client, path, explain
        self._local = settings.address.scheme == "file"

    def refs(self, prefixes: list[str]) -> Refs:
        """The refs whose names begin so."""
        try:
            found = self._client.get_refs(self._path.encode(), ref_prefix=[p.encode() for p in prefixes])
        except Exception as error:
            raise self._explain(error) from None
        if found.object_format not in (None, "sha1"):
            raise Unreachable("the repository names its objects by SHA-256, which is not supported; make it with sha1")
        named = {name.decode(errors="replace"): id.decode("ascii") for name, id in found.refs.items() if id is not None}
        ids = {name: id for name, id in named.items() if not name.endswith("^{}")}
        peeled = {name.removesuffix("^{}"): id for name, id in named.items() if name.endswith("^{}")}
        if self._local:
            peeled |= {name: self._peel(name) for name in ids if name.startswith(tuple(prefixes))}
        if not all(_ID.fullmatch(id) for id in (*ids.values(), *peeled.values())):
            raise Unreachable("the server did not keep to git's protocol: it gave something else for an object's id")
        return Refs(ids, peeled)

    def _peel(self, name: str) -> str:
        from dulwich.repo import Repo

        try:
            with Repo(self._path) as repository:
                return repository.get_peeled(name.encode()).decode("ascii")  # type: ignore[arg-type]
        except Exception as error:
            raise self._explain(error) from None

    def fetch(
        self, wants: list[str], haves: tuple[str, ...], depth: int, write: Callable[[bytes], int]
    ) -> frozenset[str]:
        """Have ``write`` called with a pack of what ``wants`` need beyond ``haves``; commits where history was cut."""
        from dulwich.object_store import ObjectStoreGraphWalker

        ids: Any = [want.encode() for want in wants]
        had: Any = [have.encode() for have in haves]
        walker = ObjectStoreGraphWalker(had, lambda _: [], shallow=set())  # no more haves than these: a bounded request
        try:
            result = self._client.fetch_pack(self._path.encode(), _always(ids), walker, write, depth=depth or None)
        except Unreachable:
            raise
        except Exception as error:
            raise self._explain(error) from None
        cut = walker.shallow | set(result.new_shallow or ())
        return frozenset(id.decode("ascii") for id in cut)


def _always(ids: Any) -> Callable[..., Any]:
    def wants(*_: object, **__: object) -> Any:
        return ids

    return wants


def connect(settings: GitSettings) -> Remote:
    """The way to the repository that ``settings`` name; nothing is sent yet."""
    logging.disable()
    address = settings.address
    if address.scheme == "https":
        from .git_https import https_client

        return Remote(settings, *https_client(settings))
    if address.scheme == "ssh":
        from .git_ssh import ssh_client

        return Remote(settings, *ssh_client(settings))
    from dulwich.client import LocalGitClient

    return Remote(settings, LocalGitClient(thin_packs=False), address.path, _explain_local)


def _explain_local(error: Exception) -> Unreachable:
    from dulwich.errors import NotGitRepository

    if isinstance(error, NotGitRepository):
        return Unreachable("there is no git repository at this path; check the url")
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, OSError):
        return Unreachable(f"the repository cannot be read: {error.strerror or type(error).__name__}")
    return Unreachable(f"the repository cannot be read: {one_line(str(error)) or type(error).__name__}; try git fsck")


def protocol_trouble(error: Exception) -> Unreachable:
    """What is left when a transport has explained what it knows of itself."""
    if isinstance(error, MemoryError):
        raise error
    said = one_line(str(error)) or type(error).__name__
    return Unreachable(f"the server did not keep to git's protocol, or gave up: {said}")
