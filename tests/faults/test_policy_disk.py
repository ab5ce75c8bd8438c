"""The ledger's disk fills up while a policy is fetched: decisions go on, and the policy comes once there is room."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from sidecar.chain.entry import EntryType
from tests.cli.test_policy_from_git import Team, configured
from tests.cli.test_policy_in_force import PATIENCE, ask, until
from tests.faults.load import recorded
from tests.faults.mounts import tmpfs
from tests.program import made, serving, sidecar


def test_a_repository_that_would_fill_the_disk(tmp_path: Path) -> None:
    team = Team(tmp_path)
    with tmpfs(128) as disk:
        ledger, key = made(disk)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(58 << 20))
        flags = ("--config", configured(tmp_path, team, {"url": f"file://{team.repository.path}"}))
        first = team.push("crm.read", "one")
        with serving(ledger, *flags) as server:
            until(server, "crm.read", ("ALLOW", "one"))
            second = team.push("crm.write", "two", first, more={"policy/notes.txt": os.urandom(8 << 20).hex()})
            assert server.process.stderr is not None
            patience = threading.Timer(PATIENCE, server.process.kill)
            patience.start()
            with server.guard() as guard:
                for _ in range(3):  # looks that fail, and decisions between them
                    assert any("left to the ledger; make room" in line for line in server.process.stderr)
                    assert ask(guard, "crm.read") == ("ALLOW", "one")
            patience.cancel()
            ballast.unlink()
            until(server, "crm.write", ("ALLOW", "two"))
            assert server.stop() == 0
        policies = [(p["event"], p["revision"]) for h, p in recorded(ledger) if h.type is EntryType.POLICY]
        assert policies == [("activated", first), ("activated", second)]
        assert sidecar("verify", ledger, "--custodian-key", key).stdout.startswith("UNANCHORED\n")
