"""`sidecar demo`: to its end, with what it promises on the screen, and nothing left behind."""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path

from tests.program import BIN, sidecar


def test_the_demo_shows_what_it_promises_and_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own can be too long for a socket's path
        done = sidecar("demo", TMPDIR=place)
        assert list(Path(place).iterdir()) == []
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^ +\d+\. ", done.stdout, re.MULTILINE)) == 12
    assert done.stdout.count("→ it ran, and the outcome is recorded") >= 4
    assert done.stdout.count("DENY  ") >= 3
    assert "ASK FIRST  payments.refund" in done.stdout
    assert "it ran and failed" in done.stdout
    assert "What really happened: refunded 120 EUR to acme-42, a mail to " in done.stdout
    assert re.search(r"^  OK: \d+ entries, all intact", done.stdout, re.MULTILINE)
    assert "a roll-call of the pinned log" in done.stdout
    assert re.findall(r"(TAMPERED|INCOMPLETE) at segment \d+, seq \d+", done.stdout) == [
        "TAMPERED",
        "TAMPERED",
        "INCOMPLETE",
    ]


def test_kept_files_can_be_verified(tmp_path: Path) -> None:
    done = sidecar("demo", "--keep", tmp_path / "kept here", PATH="/usr/bin:/bin")  # as after `make demo`
    commands = [shlex.split(line) for line in done.stdout.splitlines() if " verify " in line]
    assert [command[1] for command in commands] == ["verify", "collector"]
    assert {Path(program).resolve() for program, *_ in commands} == {(BIN / "sidecar").resolve()}
    for command in commands:
        assert sidecar(*command[1:]).returncode == 0, command
    assert sidecar("demo", "--keep", tmp_path / "kept here").returncode == 2
