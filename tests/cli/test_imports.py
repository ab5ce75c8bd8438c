"""What a command imports before it does anything: a person waits for that each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.cli import COMMANDS, cli
from tests.program import made

# What takes long to import, and what only those who serve, decide or write need.
CLIENTS = {"grpc", "google.protobuf"}
ENGINES = {"wasmtime", "yaml", "sidecar.policy", "sidecar.decide"}
SERVERS = {"uvloop", "prometheus_client", "http.server", "sidecar.api", "sidecar.main", "sidecar.collecting"}
WRITING = {"lmdb", "asyncio", "ssl", "sidecar.ledger.ledger"}


def imported(*arguments: str | Path, says: str = "Usage: ") -> set[str]:
    """All that a process of the program has imported when it ends; ``says``: its first word."""
    code = "import atexit, sys; atexit.register(lambda: print('@', *sys.modules)); from sidecar.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.stdout.startswith(says), done.stderr
    return set(done.stdout.rpartition("@")[2].split())


def test_the_list_of_commands_imports_none() -> None:
    found = imported("--help")
    assert {name for name in found if name.startswith("sidecar.")} == {"sidecar.cli", "sidecar.errors"}
    assert not {"cryptography", "msgspec", "orjson", "json", "asyncio", "logging"} & found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_each_what_it_says_itself(name: str) -> None:
    load = COMMANDS[name]
    assert load.__doc__ == load().get_short_help_str(1000)
    command = cli.get_command(cli.make_context("sidecar", [name]), name)
    assert command is not None and command.name == name


def test_judging_a_ledger_imports_neither_clients_nor_engines_nor_what_writes(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    found = imported("verify", ledger, "--custodian-key", key, says="UNANCHORED")
    assert not (CLIENTS | ENGINES | SERVERS | WRITING | {"sidecar.evidence"}) & found


@pytest.mark.parametrize("command", ["show", "keys", "timeline"])
def test_reading_imports_no_more(command: str) -> None:
    found = imported(command, "--help")
    assert f"sidecar.cli.{command}" in found
    assert not (CLIENTS | ENGINES | SERVERS | WRITING) & found


@pytest.mark.parametrize("command", ["init", "evidence"])
def test_founding_and_exporting_import_neither_clients_nor_engines(command: str) -> None:
    found = imported(command, "--help")
    assert f"sidecar.cli.{command}" in found
    assert not (CLIENTS | ENGINES | SERVERS) & found
