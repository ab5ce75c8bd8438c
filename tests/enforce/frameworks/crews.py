"""CrewAI in an environment of its own, since it forces other versions: made once a machine; `crew.py` runs in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.enforce.frameworks.doors import AGENT, Call, Desk
from tests.kept import kept
from tests.needs import cannot_run
from tests.people import key
from tests.program import environment

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "decision-sidecar-tests"
QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}


def python() -> Path:
    """Its interpreter: the packages of crewai.txt and nothing else, as they are listed there."""
    wanted = HERE / "crewai.txt"
    return kept(CACHE / f"crewai-{sha256(wanted.read_bytes()).hexdigest()[:16]}", _bring) / "bin" / "python"


def _bring(made: Path) -> None:
    wanted = HERE / "crewai.txt"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    pip = [sys.executable, "-m", "pip", "--python", made / "bin" / "python", "install", "--quiet"]
    flags = ["--disable-pip-version-check", "--no-deps", "--no-compile"]
    done = subprocess.run([*pip, *flags, "-r", wanted], capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        cannot_run(f"needs CrewAI: pip could not get {wanted.name}: {done.stderr.strip()[-200:]}")


def secret(directory: Path) -> Path:
    """The agent's key in a file."""
    path = directory / "billing-agent.pem"
    path.write_bytes(key(AGENT).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


class Crews:
    """One process that plays one story after another."""

    def __init__(self, directory: Path) -> None:
        command = [python(), HERE / "crew.py", secret(directory)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        surroundings = environment(PYTHONPATH=str(REPOSITORY), HOME=str(directory), **QUIET)
        self._process = subprocess.Popen(command, env=surroundings, text=True, **pipes)
        self.error = ""

    def __enter__(self) -> Crews:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def __call__(self, desk: Desk, turns: Iterable[Sequence[Call]], how: str, **story: Any) -> list[str]:
        """What the model was told, in the order of the calls; ``error``: what the crew raised. ``turns``: as doors'."""
        place = {"address": desk.address, "place": str(desk.place), "timeout": desk.timeout, "attempts": desk.attempts}
        told: list[str] = self._played({**place, "how": how, **story}, turns)
        return told

    def example(self, script: Path, directory: Path) -> str:
        """What a script writes that is run there as it stands."""
        written: str = self._played({"example": str(script), "directory": str(directory)}, ())
        assert not self.error
        return written

    def _played(self, story: dict[str, Any], turns: Iterable[Sequence[Call]]) -> Any:
        self._say(story)
        script, said = iter(turns), []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@turn"):
                self._say(next(script, None))
            elif line.startswith("@end "):
                result, self.error = json.loads(line.removeprefix("@end "))
                return result
            said.append(line)
        raise AssertionError("".join(said))

    def _say(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
