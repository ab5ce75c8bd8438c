"""kill -9 at each step of an activation: what was in force is resumed, and the change is taken up again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_policy_from_git import Team, configured
from tests.cli.test_policy_in_force import PATIENCE, shown, until
from tests.program import Serving, made, serving, sidecar


def children(process: int) -> list[str]:
    """The command lines of a process's children and theirs."""
    found: list[str] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            pids = (task / "children").read_text().split()
        except OSError:
            continue
        for pid in pids:
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found += [line, *children(int(pid))]
            except OSError:
                continue
    return found


def runs(word: str) -> Callable[[Serving, Path, str], bool]:
    return lambda server, ledger, commit: any(word in line for line in children(server.process.pid))


def recorded(server: Serving, ledger: Path, commit: str) -> bool:
    return any(e["revision"] == commit for e in shown(ledger)["history"])


STEPS = {
    "while it is fetched": runs("git_fetch"),
    "in the gate's check": runs("opa check"),
    "in the gate's build": runs("opa build"),
    "as soon as it is on record": recorded,
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_within_an_activation(tmp_path: Path, step: str) -> None:
    team = Team(tmp_path)
    ledger, key = made(tmp_path)
    config = configured(tmp_path, team, {"url": f"file://{team.repository.path}"})
    first = team.push("crm.read", "one")
    with serving(ledger, "--config", config) as server:
        until(server, "crm.read", ("ALLOW", "one"))
        second = team.push("crm.write", "two", first)
        deadline = time.monotonic() + PATIENCE
        while not STEPS[step](server, ledger, second):
            assert time.monotonic() < deadline, "the step was never seen"
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with serving(ledger, "--config", config) as server:
        until(server, "crm.write", ("ALLOW", "two"))
        assert server.stop() == 0
    history = [(e["event"], e["revision"]) for e in shown(ledger)["history"]]
    assert history[0] == ("activated", first) and history[1:] in (
        [("resumed", first), ("activated", second)],
        [("activated", second), ("resumed", second)],
    )
    assert sidecar("verify", ledger, "--custodian-key", key).stdout.startswith("UNANCHORED\n")
