"""The process that looks at a repository: network and git's formats in, a policy or a cause out.

    python -P -c "..." PARENT MEMORY FILE CPU     # started by `git_source`, which gives it the task on standard input

It may be killed at any moment and loses nothing but its cache. It bounds its own memory, CPU and files before it reads
a byte of the server's, and ends with the thread that started it. Its answer is one line of JSON, and the bytes that it
speaks of:

    {"kind": "same"}
    {"kind": "found", "commit": {...}, "raw": LENGTH, "follows": true, "files": [["p.rego", LENGTH], ...]}
    {"kind": "refused", "revision": "...", "findings": [{"file", "line", "message"}, ...]}
    {"kind": "unreachable", "message": "..."}

On standard error it says what it is doing, a line each time, for when it does not come to an end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .findings import Refused, bounded
from .git_errors import Damaged, Unreachable, one_line
from .git_remote import Refs, Remote, connect
from .git_settings import GitSettings
from .git_store import Cache, disk_trouble
from .git_tree import parse_commit, read_policy
from .source import Commit

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_MOST_TAGS: Final = 8
_SPACES: Final = ("refs/heads/", "refs/tags/")


def main() -> None:
    """Do the task on standard input; answer on standard output."""
    bound_itself(*map(int, sys.argv[1:5]))
    task = json.load(sys.stdin.buffer)
    settings = GitSettings.from_json(task["settings"])
    parts: list[bytes] = []
    try:
        cache = Cache(Path(task["cache"]), settings.url, settings.max_bytes, task["leave_free"])
        answer, parts = _look(settings, cache, task["seen"], task["active"])
    except Refused as error:
        findings = [finding.to_json() for finding in bounded(list(error.findings))]
        answer = {"kind": "refused", "revision": error.revision, "findings": findings}
    except Unreachable as error:
        answer = {"kind": "unreachable", "message": str(error)}
    except MemoryError:
        answer = {
            "kind": "unreachable",
            "message": "the repository needs more memory than a look may take; make it smaller",
        }
    except OSError as error:
        answer = {"kind": "unreachable", "message": disk_trouble(error, Path(task["cache"]))}
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode(errors="replace") + b"\n")
    sys.stdout.buffer.writelines(parts)
    sys.stdout.buffer.flush()


def bound_itself(parent: int, memory: int, file: int, cpu: int) -> None:
    """Bound memory, the size of a file and CPU seconds, and die with the parent."""
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0 or os.getppid() != parent:
        raise SystemExit("not tied to the life of the sidecar")
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, file), (resource.RLIMIT_CPU, cpu)):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.umask(0o077)
    warnings.simplefilter("ignore")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # if memory runs out, this process goes before the sidecar


def say(stage: str) -> None:
    """Say what comes now."""
    os.write(2, f"* {stage}\n".encode())


def _look(settings: GitSettings, cache: Cache, seen: str, active: str) -> tuple[dict[str, Any], list[bytes]]:
    remote = connect(settings)
    say("waiting for the server to name its refs")
    tip = _find(remote, settings)
    if seen and tip.commit == seen:
        return {"kind": "same"}, []
    with cache as opened:
        look = _Look(settings, remote, opened, tip, active)
        try:
            return look.run(seen)
        except (Refused, Unreachable, MemoryError, OSError):
            raise
        except Exception:
            opened.clear()  # whatever it is that cannot be read: it is only a cache
        try:
            return look.run(seen)
        except (Refused, Unreachable, MemoryError, OSError):
            raise
        except Exception as error:
            opened.clear()
            said = one_line(str(error)) if isinstance(error, Damaged) else f"unreadable data ({type(error).__name__})"
            raise Unreachable(f"the server sent what is no sound repository: {said}; try git fsck there") from None


@dataclass(frozen=True, slots=True)
class _Tip:
    """What to fetch: an id, and the commit it leads to as the server says."""

    id: str
    commit: str


def _find(remote: Remote, settings: GitSettings) -> _Tip:
    """What the ref is at the remote now."""
    ref = settings.ref
    if settings.is_commit:
        return _Tip(ref, ref)
    if not ref:
        refs = remote.refs(["HEAD"])
        return _tip(refs, "HEAD", "the repository is empty, or its HEAD names no branch; push one, or name a ref")
    names = [ref] if ref.startswith("refs/") else [space + ref for space in _SPACES]
    refs = remote.refs(names)
    found = [name for name in names if name in refs.ids]
    if len(found) > 1:
        raise Unreachable(f"there is a branch and a tag {ref}; name one of them: {' or '.join(found)}")
    return _tip(refs, found[0] if found else "", f"there is no branch or tag {ref}; push it, or correct the ref")


def _tip(refs: Refs, name: str, otherwise: str) -> _Tip:
    if name not in refs.ids:
        raise Unreachable(otherwise)
    return _Tip(refs.ids[name], refs.peeled.get(name, refs.ids[name]))


class _Look:
    """One look, with an open cache."""

    def __init__(self, settings: GitSettings, remote: Remote, cache: Cache, tip: _Tip, active: str) -> None:
        self._settings, self._remote, self._cache, self._tip, self._active = settings, remote, cache, tip, active

    def run(self, seen: str) -> tuple[dict[str, Any], list[bytes]]:
        cache = self._cache
        if not cache.has(self._tip.id):
            self._fetch(0 if cache.state.whole else self._settings.depth)
        say("while reading the policy from the repository")
        id = self._peeled(self._tip.id)
        if id == seen:
            return {"kind": "same"}, []
        try:
            commit, tree = parse_commit(id, cache.read(id, "commit"))
            files = read_policy(cache.read, tree, self._settings.subdirectory, self._settings.limits)
        except Refused as error:
            raise Refused(*error.findings, revision=id) from None
        return _found(commit, files, self._follows(id))

    def _peeled(self, id: str) -> str:
        """The commit a tag leads to."""
        for _ in range(_MOST_TAGS):
            kind = self._cache.kind(id)
            if kind == "commit":
                return id
            if kind != "tag":
                raise Unreachable(f"the ref leads to a {kind}, not to a commit; name another")
            id = self._cache.read(id, "tag").split(b"\n", 1)[0].removeprefix(b"object ").decode("ascii")
        raise Unreachable(f"the ref is a tag of a tag of a tag, more than {_MOST_TAGS} deep; name another")

    def _follows(self, id: str) -> bool | None:
        if not self._active:
            return None
        known = self._cache.follows(id, self._active)
        if known is None and not self._cache.state.whole:
            self._fetch(0)
            known = self._cache.follows(id, self._active)
        return bool(known)

    def _fetch(self, depth: int) -> None:
        """Fetch the tip: what is new, where the whole history is here, or else into an empty cache."""
        say("waiting for the repository's objects")
        cache, id = self._cache, self._tip.id
        if not cache.state.whole:
            cache.clear()
        try:
            self._receive([id], depth)
        except Unreachable:
            if not self._settings.is_commit:
                raise
            self._fetch_all()

    def _fetch_all(self) -> None:
        """Every branch and tag: a server may refuse to send a commit that none of them is at."""
        refs = self._remote.refs(list(_SPACES))
        wants = sorted({id for name, id in refs.ids.items() if name.startswith(_SPACES)})
        if wants:
            self._receive(wants, 0)
        if not self._cache.has(self._tip.id):
            raise Unreachable(f"the commit {self._tip.id} is not in the repository, or in no branch; correct the ref")

    def _receive(self, wants: list[str], depth: int) -> None:
        haves = self._cache.state.heads
        self._cache.receive(wants, lambda write: self._remote.fetch(wants, haves, depth, write), whole=depth == 0)


def _found(commit: Commit, files: Mapping[str, bytes], follows: bool | None) -> tuple[dict[str, Any], list[bytes]]:
    texts = {name: getattr(commit, name) for name in ("id", "author", "committer", "authored", "committed", "subject")}
    answer = {
        "kind": "found",
        "commit": texts,
        "raw": len(commit.raw),
        "follows": follows,
        "files": [[path, len(content)] for path, content in files.items()],
    }
    return answer, [commit.raw, *files.values()]
