"""Policies from a git repository: each look is a process of its own (`git_fetch`), bounded, killed when its time is up.

Nothing of the server's is read in the sidecar's own process but the answer: files, which the gate judges, and the
commit object, which must hash to the commit's id. Credentials are read by that process, from their files, each time;
they pass through no argument, no environment and no message.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

from sidecar.errors import PolicySourceError, UsageError

from .findings import Finding, Refused
from .git_errors import one_line
from .git_settings import GitSettings
from .git_store import object_id
from .killing import kill_group
from .source import Candidate, Commit

__all__ = ["GitSettings", "GitSource"]

# The room's own __init__ would load the engines, half a second of CPU and much address space at each look.
_START: Final = """
import sys, types
room = types.ModuleType("sidecar.policy")
room.__path__ = [sys.argv.pop(1)]
sys.modules["sidecar.policy"] = room
from sidecar.policy.git_fetch import main
main()
"""
_HERE: Final = Path(__file__).parent
_MEMORY: Final = 1 << 30  # besides the packs, which are mapped
_SLACK: Final = 48 << 20  # of a file, beyond what was asked for: an index, or the answer's first line
_MOST_HEAD: Final = 32 << 20  # 4,000 paths of 1,000 characters


class GitSource:
    """A repository that is looked at again and again; implements `Source`."""

    def __init__(self, settings: GitSettings, cache: Path, *, leave_free: int = 0) -> None:
        """``cache``: a directory for nothing else, made where it is missing; it can be thrown away at any time.

        ``leave_free``: bytes of its disk that a fetch does not touch: it ends in time, for others write there too.

        Raises `UsageError` where a part that this needs is not installed.
        """
        if importlib.util.find_spec("dulwich") is None:
            raise UsageError("policies from git need a part that is not installed: pip install decision-sidecar[git]")
        if settings.address.scheme == "ssh" and shutil.which("ssh") is None:
            raise UsageError("policies from git over ssh need the program ssh; install the OpenSSH client")
        self._settings, self._cache, self._leave_free = settings, cache.absolute(), leave_free

    @property
    def place(self) -> str:
        """The repository, ref and subdirectory, without secrets."""
        return self._settings.place

    def look(self, seen: str, active: str) -> Candidate | None:
        """What the ref leads to now, or None where it is still the commit ``seen``. Blocks for ``timeout`` at most.

        One call at a time. Raises `PolicySourceError` and `Refused`, as `Source.look`.
        """
        if seen and seen == self._settings.ref:
            return None
        with _memory_file("task") as task, _memory_file("answer") as answer, _memory_file("said") as said:
            cache = {"cache": str(self._cache), "leave_free": self._leave_free}
            text = {"settings": self._settings.to_json(), "seen": seen, "active": active, **cache}
            task.write(json.dumps(text).encode())
            task.seek(0)
            status = self._run(task, answer, said)
            answer.seek(0)
            if status:
                raise self._trouble(f"the process that reads it ended early ({_ending(status)}); try again later")
            return self._candidate(answer)

    def _run(self, task: BinaryIO, answer: BinaryIO, said: BinaryIO) -> int:
        """The process's exit status; it and what it started are gone afterwards."""
        settings = self._settings
        file = max(settings.max_bytes, settings.limits.bytes) + _SLACK
        bounds = [os.getpid(), _MEMORY + 3 * settings.max_bytes, file, int(2 * settings.timeout) + 2]
        command = [sys.executable, "-P", "-c", _START, str(_HERE), *map(str, bounds)]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(_HERE.parent.parent)}
        process = subprocess.Popen(
            command, stdin=task, stdout=answer, stderr=said, env=environment, cwd="/", start_new_session=True
        )
        try:
            return process.wait(settings.timeout)
        except subprocess.TimeoutExpired:
            raise self._trouble(f"not done within {settings.timeout:g} s, {_last(said)}; try again later") from None
        finally:
            if process.returncode is None:
                kill_group(process)

    def _candidate(self, answer: BinaryIO) -> Candidate | None:
        try:
            found = json.loads(answer.readline(_MOST_HEAD))
            if found["kind"] == "same":
                return None
            if found["kind"] == "found":
                return _candidate_of(found, answer)
            if found["kind"] == "refused":
                raise Refused(*(Finding(**one) for one in found["findings"]), revision=found["revision"])
            message = str(found["message"])
        except (ValueError, KeyError, TypeError):
            message = "the process that reads it gave no proper answer; try again later"
        raise self._trouble(message)

    def _trouble(self, message: str) -> PolicySourceError:
        return PolicySourceError(f"{self.place}: {one_line(message)}")


def _candidate_of(found: dict[str, Any], rest: BinaryIO) -> Candidate:
    raw = _exactly(rest, found["raw"])
    commit = Commit(raw=raw, **found["commit"])
    if object_id("commit", raw) != commit.id:
        raise ValueError("the commit is not the one it is said to be")
    files = {str(path): _exactly(rest, length) for path, length in found["files"]}
    return Candidate(commit.id, files, None, commit, found["follows"])


def _exactly(stream: BinaryIO, length: int) -> bytes:
    content = stream.read(length)
    if len(content) != length:
        raise ValueError("the answer is cut short")
    return content


def _memory_file(name: str) -> BinaryIO:
    """A file that no disk has to hold."""
    return os.fdopen(os.memfd_create(f"sidecar-{name}"), "w+b")


def _last(said: BinaryIO) -> str:
    """What the process was about when its time was up."""
    said.seek(0)
    stages = [line[2:] for line in said.read(1 << 16).splitlines() if line.startswith(b"* ")]
    return one_line(stages[-1])[:80] if stages else "still starting"


def _ending(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "too much CPU"
    return f"signal {-status}" if status < 0 else f"status {status}"
