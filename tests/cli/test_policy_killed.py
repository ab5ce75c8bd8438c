"""kill -9 at each step of an activation: what was in force is resumed, and the change is taken up again."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cli.test_policy_from_git import Team, configured
from tests.cli.test_policy_in_force import PATIENCE, shown, until
from tests.faults.load import recorded
from tests.needs import needs_program
from tests.program import Serving, environment, made, serving, sidecar


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


@dataclass(frozen=True, slots=True)
class Opa:
    """OPA as it is, but for one command, which never gets further than to have been reached."""

    place: Path

    def __post_init__(self) -> None:
        (self.place / "bin").mkdir()
        self.let_go()
        program = self.place / "bin" / "opa"
        program.write_text(
            f'#!/bin/sh\nif [ "$1" = "$(cat {self.place}/held)" ]; then : > {self.place}/reached; exec sleep 600; fi\n'
            f'exec {needs_program("opa")} "$@"\n'
        )
        program.chmod(0o755)

    def hold(self, command: str) -> None:
        (self.place / "held").write_text(command)

    def reached(self) -> bool:
        return (self.place / "reached").exists()

    def let_go(self) -> None:
        (self.place / "held").write_text("")
        (self.place / "reached").unlink(missing_ok=True)


STEPS = ("it is fetched", "check", "test", "build", "it is on record")


def at(step: str, server: Serving, ledger: Path, commit: str, opa: Opa) -> bool:
    """Whether it is there. A look at the repository is begun ten times a second; a step of the gate, held, once."""
    if step == "it is fetched":
        return any("git_fetch" in line for line in children(server.process.pid))
    if step == "it is on record":
        return any(payload.get("revision") == commit for _, payload in recorded(ledger))
    return opa.reached()


def test_killed_within_an_activation(tmp_path: Path) -> None:
    team = Team(tmp_path)
    ledger, key = made(tmp_path)
    config = configured(tmp_path, team, {"url": f"file://{team.repository.path}"})
    opa, commits = Opa(tmp_path), [team.push("crm.read", "r0")]
    path = f"{tmp_path / 'bin'}{os.pathsep}{environment()['PATH']}"
    for step in STEPS:
        with serving(ledger, "--config", config, PATH=path) as server:
            until(server, "crm.read", ("ALLOW", f"r{len(commits) - 1}"))
            opa.hold(step)
            commits.append(team.push("crm.read", f"r{len(commits)}", commits[-1]))
            deadline = time.monotonic() + PATIENCE
            while not at(step, server, ledger, commits[-1], opa):
                assert time.monotonic() < deadline, f"never seen: {step}"
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
            opa.let_go()
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
