"""kill -9 at each step of an activation: what was in force is resumed, and the change is taken up again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.cli.test_policy_from_git import Team, configured
from tests.cli.test_policy_in_force import PATIENCE, shown, until
from tests.faults.load import recorded as entries
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
    return any(payload.get("revision") == commit for _, payload in entries(ledger))


STEPS = {
    "while it is fetched": runs("git_fetch"),
    "in the gate's check": runs("opa check"),
    "in the gate's tests": runs("opa test"),
    "in the gate's build": runs("opa build"),
    "as soon as it is on record": recorded,
}


def test_killed_within_an_activation(tmp_path: Path) -> None:
    team = Team(tmp_path)
    ledger, key = made(tmp_path)
    config = configured(tmp_path, team, {"url": f"file://{team.repository.path}"})
    commits = [team.push("crm.read", "r0")]
    for step, seen in STEPS.items():
        with serving(ledger, "--config", config) as server:
            until(server, "crm.read", ("ALLOW", f"r{len(commits) - 1}"))
            commits.append(team.push("crm.read", f"r{len(commits)}", commits[-1]))
            deadline = time.monotonic() + PATIENCE
            while not seen(server, ledger, commits[-1]):
                assert time.monotonic() < deadline, f"never seen: {step}"
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    with serving(ledger, "--config", config) as server:
        until(server, "crm.read", ("ALLOW", f"r{len(commits) - 1}"))
        assert server.stop() == 0
    history = [(e["event"], e["revision"]) for e in shown(ledger)["history"]]
    assert [revision for event, revision in history if event == "activated"] == commits, "each once, in their order"
    in_force = ""
    for event, revision in history:
        assert event == "activated" or (event, revision) == ("resumed", in_force)
        in_force = revision
    assert [event for event, _ in history].count("resumed") == len(STEPS)
    assert sidecar("verify", ledger, "--custodian-key", key).stdout.startswith("UNANCHORED\n")
