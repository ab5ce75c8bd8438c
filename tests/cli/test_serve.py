"""A sidecar's life as an operator sees it: start, answer, stop, crash, be refused, with the real program."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from sidecar.cli.serve import announce
from sidecar.client import Denied, Guard, NoDecision
from sidecar.config import load
from tests.program import made, serving, sidecar


def verdict(ledger: Path, key: Path, *more: str | Path) -> dict[str, object]:
    done = sidecar("verify", ledger, "--custodian-key", key, "--json", *more)
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return {**value, "exit": done.returncode}


def test_stop_seals_and_a_restart_goes_on(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    for _ in range(2):
        with serving(ledger) as server, server.guard() as guard:
            guard.check("crm.read", ("customer", "acme-42"))
            with pytest.raises(Denied):
                guard.check("deploy.rollout", ("service", "payments"))
            assert server.stop() == 0
            assert not server.socket.exists()
    report = verdict(ledger, key)
    assert (report["verdict"], report["exit"], report["segments"]) == ("UNANCHORED", 4, 3)
    shown = sidecar("show", ledger).stdout
    assert shown.count("CLOSE") == 3
    assert shown.count("ALLOW billing-agent (asserted)") == 2


def test_interrupting_is_an_orderly_stop_too(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger) as server:
        assert server.stop(signal.SIGINT) == 0


def test_a_killed_sidecar_loses_no_answer_and_recovers(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    receipts = []
    for _ in range(2):
        with serving(ledger) as server, server.guard(attempts=1) as guard:
            receipts.append(guard.check("crm.read", ("customer", "acme-42")).receipt)
            server.stop(signal.SIGKILL)
            with pytest.raises(NoDecision):
                guard.check("crm.read", ("customer", "acme-42"))
    files = []
    for number, receipt in enumerate(receipts):
        file = tmp_path / f"receipt-{number}"
        file.write_bytes(receipt)
        files += ["--receipt", file]
    report = verdict(ledger, key, *files)
    assert report["verdict"] == "UNANCHORED", report["findings"]
    with serving(ledger) as server:
        assert server.stop() == 0
    assert verdict(ledger, key, *files)["verdict"] == "UNANCHORED"
    assert sidecar("show", ledger).stdout.count("ALLOW billing-agent") == 2


def test_verify_works_while_the_sidecar_writes(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    with serving(ledger) as server, server.guard() as guard:
        for number in range(30):
            guard.check("crm.read", ("customer", f"c-{number}"))
            if number % 10 == 0:
                assert verdict(ledger, key)["verdict"] == "UNANCHORED"


def test_a_second_sidecar_on_one_ledger_is_refused(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger):
        second = sidecar("serve", "--data-dir", ledger, "--listen", f"unix:{tmp_path}/second.sock", "--dev")
        assert second.returncode == 1
        assert second.stderr.count("\n") == 1
        assert "another process" in second.stderr


def test_a_second_sidecar_on_one_socket_is_refused(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    assert sidecar("init", "--data-dir", tmp_path / "other").returncode == 0
    with serving(ledger) as server:
        second = sidecar("serve", "--data-dir", tmp_path / "other", "--listen", server.address, "--dev")
        assert second.returncode == 2
        assert "another process listens there" in second.stderr


def test_without_a_ledger_nothing_is_made_by_chance(tmp_path: Path) -> None:
    done = sidecar("serve", "--data-dir", tmp_path / "ledger", "--dev")
    assert done.returncode != 0
    assert "sidecar init" in done.stderr
    assert not (tmp_path / "ledger").exists()


def test_a_ledger_cut_short_is_told_in_one_line(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    file = ledger / "ledger.mdb"
    whole = file.read_bytes()
    for size in (6_000, 12_288, len(whole) // 2):
        file.write_bytes(whole[:size])
        done = sidecar("serve", "--data-dir", ledger, "--dev")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "ledger.mdb is cut short; keep it, and run `sidecar verify`" in done.stderr
        assert file.read_bytes() == whole[:size]


def test_init_on_serve_takes_custodians_or_dev(tmp_path: Path) -> None:
    done = sidecar("serve", "--data-dir", tmp_path / "ledger", "--init")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "custodians" in done.stderr
    with serving(tmp_path / "ledger", "--init") as server:
        assert any("ledger.custodian.pem; move it off this host" in line for line in server.said)
        assert server.stop() == 0
    key = tmp_path / "ledger.custodian.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert verdict(tmp_path / "ledger", key)["verdict"] == "UNANCHORED"


def test_development_mode_that_others_reach_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    def said(address: str, **flags: bool) -> int:
        caplog.clear()
        announce(load(None, {}, {"data_dir": "/ledger", **flags})[0], address)
        return caplog.text.count(f"development mode: whoever reaches {address} asks in any name")

    assert [said(each, dev=True) for each in ("unix:/x", "127.0.0.1:1", "[::1]:1", "0.0.0.0:1", "[::]:1")] == [
        0,
        0,
        0,
        1,
        1,
    ]
    assert said("0.0.0.0:1") == 0


def test_without_dev_asserted_names_are_refused(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    config = tmp_path / "config.toml"
    config.write_text("dev = false\n")
    with serving(ledger, "--config", config, SIDECAR_DEV="false") as server:
        assert server.process.poll() is None
    # the flag --dev of `serving` wins over file and environment; without any of them:
    shown = sidecar("serve", "--data-dir", ledger, "--config", config, "--print-config").stdout
    assert f"dev = False  # {config}" in shown


def test_print_config_names_each_origin(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.toml"
    file.write_text('segment_seconds = 5\nengine = "wasm"\n')
    done = sidecar(
        "serve",
        "--config",
        file,
        "--data-dir",
        "d",
        "--print-config",
        SIDECAR_SEGMENT_SECONDS="7",
        SIDECAR_ENGINE="opa",
    )
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "segment_seconds = 7.0  # SIDECAR_SEGMENT_SECONDS" in lines
    assert "engine = 'opa'  # SIDECAR_ENGINE" in lines
    assert "data_dir = 'd'  # --data-dir" in lines
    assert "custody_mode = 'any'  # default" in lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("segment_second = 5\n", "segment_second"),
        ("segment_seconds = 'x'\n", "segment_seconds"),
        ("segment_seconds = 600\n", "segment_seconds"),
        ("engine = 'cedar'\n", "engine"),
        ("dev = 1\n", "dev"),
        ("not toml", "TOML"),
        ("custodians = 'one.pem'\n", "custodians"),
        ("max_request_bytes = 99999999\n", "max_request_bytes"),
        ("socket_mode = 'rw'\n", "socket_mode"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "sidecar.toml"
    file.write_text(text)
    done = sidecar("serve", "--config", file, "--data-dir", tmp_path / "ledger")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bundle_that_is_none_is_refused(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    (tmp_path / "bundle.tar.gz").write_bytes(b"not a bundle")
    done = sidecar("serve", "--data-dir", ledger, "--dev", "--policy", tmp_path / "bundle.tar.gz")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_an_opa_that_is_not_there_is_not_ready_and_denies(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    socket = tmp_path / "s.sock"
    import subprocess

    from tests.program import BIN, environment

    command = [
        BIN / "sidecar", "serve", "--data-dir", ledger, "--listen", f"unix:{socket}", "--dev",
        "--engine", "opa", "--opa", f"unix:{tmp_path}/no-opa.sock",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stderr is not None
            assert any("not ready" in line for line in process.stderr)
            with Guard(f"unix:{socket}", agent="billing-agent", timeout=20.0) as guard:
                with pytest.raises(Denied) as denied:
                    guard.check("crm.read", ("customer", "acme-42"))
                assert denied.value.reasons[0].code == "engine_unavailable"
        finally:
            process.kill()
    assert "DENY billing-agent" in sidecar("show", ledger).stdout
