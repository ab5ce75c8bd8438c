"""Readiness of the real program: false for a cause, true after the mend; live meanwhile."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from sidecar.ledger import Options
from sidecar.probe import ask
from tests.api.tls_files import NAME, Files, server_certificate
from tests.authorities import HOUR, NOW, SERVER, Authority
from tests.cli.test_agents import agents, key_of
from tests.cli.test_observing import scrape, url
from tests.cli.test_policy_from_git import Team, configured, eventually, refusals
from tests.collecting import collecting
from tests.faults.mounts import tmpfs
from tests.program import BIN, environment, made, serving, sidecar

PATIENCE = 60.0


def health(address: str, *more: str) -> tuple[int, str]:
    done = sidecar("health", "--server", address, *more)
    assert not done.stderr
    return done.returncode, done.stdout.strip()


def heard(address: str) -> str:
    """As the program would say it, without a process for it."""
    word = ask(address, live=False, timeout=60.0)
    return "ready" if word.well else f"not ready: {word.cause}"


def until(address: str, pattern: str) -> None:
    """Ask until it is said so."""
    deadline = time.monotonic() + PATIENCE
    while not re.search(pattern, said := heard(address)):
        assert time.monotonic() < deadline, said
        time.sleep(0.02)


def test_a_policy_that_does_not_activate_is_not_ready_until_it_does(tmp_path: Path) -> None:
    """First it is broken, then its registry is: what is local to the repository is waited for."""
    team = Team(tmp_path)
    ledger, _ = made(tmp_path)
    config = configured(tmp_path, team, {"url": f"file://{team.repository.path}"})
    first = team.push("crm.read", "one", broken="policy/broken.rego")
    address = f"unix:{tmp_path}/s.sock"
    command = [BIN / "sidecar", "serve", "--data-dir", ledger, "--listen", address, "--config", config]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment()) as process:
        try:
            until(address, "not ready: no policy is in force yet")
            assert health(address, "--live") == (0, "live")
            unreadable = {"policy/registry.json": '{"format": "sidecar/v1/registry"}'}
            second = team.push("crm.read", "two", first, more=unreadable)
            eventually(ledger, lambda history: second in dict(refusals(history)))
            code, said = health(address)
            assert code == 1 and said.startswith("not ready: no policy is in force yet")
            key_of(tmp_path, "billing")
            agents(tmp_path / "registry.json", "add", "--key", tmp_path / "billing.pub.pem", "billing-agent")
            team.push(
                "crm.read", "three", second, more={"policy/registry.json": (tmp_path / "registry.json").read_text()}
            )
            until(address, "^ready$")
            assert health(address) == (0, "ready")
        finally:
            process.kill()


def test_a_registry_that_breaks_while_it_serves_leaves_it_ready(tmp_path: Path) -> None:
    """The last one stays in force; that the file is another is a metric. At the start a broken one is the end."""
    ledger, _ = made(tmp_path)
    registry = tmp_path / "registry.json"
    key_of(tmp_path, "billing")
    agents(registry, "add", "--key", tmp_path / "billing.pub.pem", "billing-agent")
    whole = registry.read_text()
    with serving(ledger, "--metrics", ":0", dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        for text, refused in (("{}", 1.0), (whole, 0.0)):
            registry.write_text(text)
            deadline = time.monotonic() + PATIENCE
            while scrape(server)["sidecar_registry_broken",] != refused:
                assert time.monotonic() < deadline
            assert heard(server.address) == "ready"


def test_a_disk_without_room_is_not_ready_until_there_is_some() -> None:
    with tmpfs(32) as place:
        ledger, _ = made(place)
        with serving(ledger, "--metrics", "127.0.0.1:0") as server:
            web = url(server).removesuffix("/metrics")
            assert health(web) == health(server.address) == (0, "ready")
            hog = place / "hog"
            hog.write_bytes(bytes(int(scrape(server)["sidecar_ledger_headroom_bytes",]) + Options().reserve_bytes // 4))
            until(server.address, "not ready: the disk is nearly full; make room on it")
            assert health(web)[1] == "not ready: the disk is nearly full; make room on it"
            assert scrape(server)["sidecar_ready",] == 0.0
            assert health(server.address, "--live") == health(web, "--live") == (0, "live")
            hog.unlink()
            until(server.address, "^ready$")
            assert server.stop() == 0
            gone, said = health(server.address)
            assert gone == 1 and "nobody answers" in said


def test_a_start_that_takes_its_time_is_live_and_says_what_it_waits_for(tmp_path: Path) -> None:
    """The SPIFFE agent takes the call and says nothing: for seconds nothing can listen for decisions."""
    ledger, _ = made(tmp_path)
    agent = socket.socket(socket.AF_UNIX)
    agent.bind(f"{tmp_path}/agent.sock")
    agent.listen()
    command = [BIN / "sidecar", "serve", "--data-dir", ledger, "--dev", "--listen", "127.0.0.1:0", "--metrics", ":0"]
    more = {"SIDECAR_SPIFFE_SOCKET": f"{tmp_path}/agent.sock"}
    with agent, subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(**more)) as process:
        try:
            assert process.stderr is not None
            web = next(m[0] for line in process.stderr if (m := re.search(r"http://[0-9.:]+", line)))
            until(web, "not ready: it starts: its certificate is waited for")
            assert health(web, "--live") == (0, "live")
        finally:
            process.kill()


def test_an_ended_certificate_is_not_ready_until_it_is_renewed(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    ca, files = Authority("ca"), Files(tmp_path)
    files.write(ca.issue(dns=[NAME], purposes=[SERVER], end=NOW - HOUR / 2), ca)
    command = [BIN / "sidecar", "serve", "--data-dir", ledger, "--dev", "--listen", "127.0.0.1:0", "--metrics", ":0"]
    more = dict(zip(("SIDECAR_TLS_CERT_FILE", "SIDECAR_TLS_KEY_FILE"), files.paths[:2], strict=True))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(**more)) as process:
        try:
            assert process.stderr is not None
            web = next(m[0] for line in process.stderr if (m := re.search(r"http://[0-9.:]+", line)))
            until(web, "not ready: the sidecar's certificate has ended; renew tls.cert_file")
            files.write(server_certificate(ca), ca)
            until(web, "^ready$")
        finally:
            process.kill()


def test_a_collector_says_whether_it_takes_and_logs(tmp_path: Path) -> None:
    with collecting(tmp_path / "collector") as collector:
        web = collector.url.rstrip("/")
        until(web, "^ready$")
        index = tmp_path / "collector" / "index.db"
        store = tmp_path / "collector" / "store"
        away = tmp_path / "away"
        store.rename(away)
        store.write_text("")
        until(web, "not ready: (objects|the log does not grow)")
        assert health(web, "--live") == (0, "live")
        store.unlink()
        away.rename(store)
        until(web, "^ready$")
        assert index.exists()
        with urllib.request.urlopen(f"{web}/metrics", timeout=60) as answer:
            told = dict(row.rsplit(" ", 1) for row in answer.read().decode().splitlines() if row[0] != "#")
        assert float(told["collector_ready"]) == 1 and float(told["collector_disk_free_bytes"]) > 1 << 20


def test_wrong_use_is_2_and_one_line() -> None:
    done = sidecar("health", "--server", "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "unix:/path" in done.stderr


def test_a_probe_imports_next_to_nothing() -> None:
    code = "import sys, sidecar.cli.health; print(*sorted({n.partition('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"grpc", "cryptography", "google", "lmdb", "asyncio", "http", "ssl"} & set(done.stdout.split())


def test_a_registry_that_cannot_be_used_is_said_while_the_one_before_decides(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    registry, key = tmp_path / "registry.json", key_of(tmp_path, "billing")
    agents(registry, "add", "--key", tmp_path / "billing.pub.pem", "billing-agent")
    right = registry.read_text()
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server, server.guard(key=key) as guard:
        registry.write_text(right.replace('"roles"', '"rolls"'))
        assert server.process.stderr is not None
        line = next(line for line in server.process.stderr if "ready, but" in line)
        assert "the registry's file cannot be used, and the one before stays; run `sidecar agents list` on it" in line
        code, said = health(server.address)
        assert code == 0 and said.startswith("ready, but the registry's file cannot be used"), said
        assert guard.ask("crm.read", ("customer", "c")).seq
        registry.write_text(right)
        deadline = time.monotonic() + PATIENCE
        while ask(server.address, live=False, timeout=60.0).cause:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert server.stop() == 0
