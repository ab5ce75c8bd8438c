"""CrewAI in an environment of its own, since it forces other versions: what was decided is what happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.enforce.frameworks.doors import AGENT
from tests.enforce.frameworks.place import Place, started
from tests.needs import cannot_run
from tests.people import key
from tests.policy.processes import stop
from tests.program import environment, serving, sidecar

pytestmark = pytest.mark.soak  # the environment is a gigabyte; it is made once a machine

VERSION = "1.15.30"
KEPT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "decision-sidecar-tests" / f"crewai-{VERSION}"
REPOSITORY = Path(__file__).resolve().parents[2]
QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}
CREW = REPOSITORY / "tests" / "enforce" / "frameworks" / "crew.py"


def python() -> Path:
    """The interpreter of an environment with CrewAI and what `sidecar.client` needs, made if it is not there yet."""
    program = KEPT / "bin" / "python"
    if (KEPT / "made").exists():
        return program
    shutil.rmtree(KEPT, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", KEPT], check=True)
    install = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = [f"crewai=={VERSION}", "cryptography", "grpcio", "orjson", "protobuf"]
    done = subprocess.run([*install, *wanted], capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        cannot_run(f"needs CrewAI: pip could not get crewai {VERSION}: {done.stderr.strip()[-200:]}")
    (KEPT / "made").touch()
    return program


def crew(place: Place, directory: Path, calls: Sequence[tuple[str, str]], **how: Any) -> tuple[str, list[str]]:
    """What the model heard, and the files there are."""
    secret, work = directory / "agent.pem", directory / "work"
    work.mkdir(exist_ok=True)
    secret.write_bytes(key(AGENT).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    secret.chmod(0o600)
    story = json.dumps({"calls": [[tool, {"name": name}] for tool, name in calls], **how})
    done = subprocess.run(
        [python(), CREW, place.server.address, secret, work, story],
        env=environment(PYTHONPATH=str(REPOSITORY), HOME=str(directory), **QUIET),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    heard = [line.removeprefix("HEARD ") for line in done.stdout.splitlines() if line.startswith("HEARD ")]
    assert done.returncode == 0 and heard, done.stderr + done.stdout
    return "\n".join(json.loads(heard[0])), sorted(path.name for path in work.iterdir())


def test_a_crew(tmp_path: Path) -> None:
    """Beside a hook that raises, which CrewAI takes for leave."""
    python()
    ledger, auditor, settings = started(tmp_path)
    with serving(ledger, "--policy", tmp_path / "policy", dev=False, **settings) as server:
        place = Place(ledger, auditor, server)
        calls = [("write", "one"), ("write", "forbidden"), ("awrite", "two"), ("write", "ask"), ("fail", "broken")]
        heard, files = crew(place, tmp_path, calls)
        assert files == ["broken", "one", "two"]
        for said in ("wrote one", "Not done: the tool write is denied", "wrote two", "needs an approval"):
            assert said in heard
        assert place.of("one") == place.of("two") == [("crewai", "ALLOW", "EXECUTED")]
        assert place.of("forbidden") == [("crewai", "DENY", "")]
        assert {each[1:] for each in place.of("broken")} == {("ALLOW", "FAILED")}  # CrewAI tries again by itself
        stop(server.process.pid)
        slow, files = crew(place, tmp_path, [("write", "slow")], timeout=0.5)
        assert "none within 0.5 s" in slow and "slow" not in files
        server.stop(signal.SIGKILL)
        down, files = crew(place, tmp_path, [("write", "down")], timeout=0.5)
        assert "no decision was given" in down and files == ["broken", "one", "two"]
    timeline = sidecar("timeline", ledger, "--agent", AGENT)
    assert timeline.returncode == 0 and "crewai" in timeline.stdout


def test_its_example_runs(tmp_path: Path) -> None:
    ledger, _, settings = started(tmp_path)
    (tmp_path / "billing-agent.pem").write_bytes(
        key(AGENT).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (tmp_path / "billing-agent.pem").chmod(0o600)
    with serving(ledger, "--policy", tmp_path / "policy", dev=False, **settings) as server:
        (ledger / "sidecar.sock").symlink_to(server.socket)
        done = subprocess.run(
            [python(), REPOSITORY / "docs" / "frameworks" / "with_crewai.py"],
            cwd=tmp_path, env=environment(PYTHONPATH=str(REPOSITORY), HOME=str(tmp_path), **QUIET),
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert "acme-42: Acme GmbH" in done.stdout, done.stderr + done.stdout
