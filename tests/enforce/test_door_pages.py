"""docs/AUTHZEN.md and docs/ENVOY.md, typed as they stand in an empty directory, but for Envoy's port."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.enforce.finding import envoy
from tests.needs import needs_program
from tests.ports import free_port
from tests.test_readme import in_background, shell

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def programs() -> None:
    needs_program("curl")
    needs_program("opa")


@contextmanager
def started(text: str, place: Path) -> Iterator[None]:
    """All that is typed, the last line in the background until it is ready."""
    *preparation, serving = text.strip().splitlines()
    shell("\n".join(preparation), place)
    with in_background(serving.removesuffix(" &"), place):
        yield


def typed(page: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", (REPOSITORY / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


def test_a_pep_asks_on_a_socket(tmp_path: Path) -> None:
    start, ask = typed("AUTHZEN.md")
    with started(start, tmp_path):
        answer, timeline = shell(ask, tmp_path).split("\n", 1)
        assert answer.startswith('{"decision":true')
        assert "ALLOW  crm.read customer:acme-42 via authzen" in timeline
        assert shell(ask.replace("crm.read", "payments.transfer"), tmp_path).startswith('{"decision":false')


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def before(text: str, place: Path, port: int) -> Iterator[None]:
    """Envoy, as it is typed but at another port, until it answers and while it is needed."""
    *preparation, command = text.strip().splitlines()
    shell("\n".join([f'CLONE="{REPOSITORY}"', *preparation]), place)
    file = place / "envoy.yaml"
    file.write_text(file.read_text().replace("port_value: 15001", f"port_value: {port}"))
    words = command.removesuffix(" &").split()[1:]
    with subprocess.Popen([envoy(), *words, "--concurrency", "1", "--disable-hot-restart"], cwd=place) as process:
        try:
            end = time.monotonic() + PATIENCE
            while not answers(port):
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.02)
            yield
        finally:
            process.kill()


def test_an_agent_gets_out_through_envoy(tmp_path: Path) -> None:
    start, gateway, ask = typed("ENVOY.md")
    port = free_port()
    with started(start, tmp_path), before(gateway, tmp_path, port):
        denied, allowed, timeline = shell(ask.replace(":15001", f":{port}"), tmp_path).split("\n", 2)
        told = json.loads(denied)
        assert (told["error"], told["message"]) == ("denied", "no rule allows this")
        assert "decision_id" not in allowed  # Envoy's own words: nobody is behind it here
        assert "ALLOW  http.get http:api.example.com/orders/7 via envoy" in timeline
    assert (tmp_path / "credential.yaml").stat().st_mode & 0o077 == 0
    assert (tmp_path / "run").stat().st_mode & 0o007 == 0
