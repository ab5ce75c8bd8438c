"""`sidecar serve` under TLS: settings that are refused, and what a served one says of itself."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sidecar import config as configuration
from sidecar.client import Effect, Guard, NoDecision, TlsFiles
from sidecar.errors import UsageError
from tests.api.tls_files import NAME, Files, server_certificate
from tests.authorities import HOUR, NOW, Authority
from tests.identity.agents import BILLING, registry_text
from tests.program import BIN, START_SECONDS, environment, made, sidecar

CA = Authority("ca")
ID = "spiffe://a/billing-agent"
QUESTION = ("crm.read", ("customer", "acme-42"))

REFUSED = {
    "a certificate without its key": ('listen = "127.0.0.1:0"\n[tls]\ncert_file = "a"', "set both or neither"),
    "a key without its certificate": ('listen = "127.0.0.1:0"\n[tls]\nkey_file = "a"', "set both or neither"),
    "callers' CA alone": ('listen = "127.0.0.1:0"\n[tls]\nclient_ca_file = "a"', "needs the sidecar's own"),
    "two sources": (
        'listen = "127.0.0.1:0"\n[tls]\ncert_file = "a"\nkey_file = "b"\n[spiffe]\nsocket = "c"',
        "leave one of the two out",
    ),
    "TLS on a unix socket": ('[tls]\ncert_file = "a"\nkey_file = "b"', "TLS is for listen on host:port"),
    "SPIFFE on a unix socket": ('listen = "unix:/x"\n[spiffe]\nsocket = "c"', "TLS is for listen on host:port"),
    "mTLS on a unix socket": ('require = ["mtls"]', "set listen to host:port"),
    "mTLS where callers show no certificate": (
        'listen = "127.0.0.1:0"\nrequire = ["signature", "mtls"]\n[tls]\ncert_file = "a"\nkey_file = "b"',
        "callers show no certificate",
    ),
    "plain on all addresses": ('listen = "0.0.0.0:0"', "without TLS"),
    "plain on all addresses of IPv6": ('listen = "[::]:0"', "without TLS"),
    "plain on a name": ('listen = "sidecar.internal:0"', "without TLS"),
}
NOT_THERE = {
    "files": ('listen = "127.0.0.1:0"\n[tls]\ncert_file = "/a"\nkey_file = "/b"', "cannot read /a"),
    "a SPIFFE agent": ('listen = "127.0.0.1:0"\n[spiffe]\nsocket = "/none.sock"', "see whether the agent runs"),
}


@pytest.mark.parametrize(("settings", "why"), REFUSED.values(), ids=list(REFUSED))
def test_settings_that_cannot_be_meant_are_refused_with_a_mend(tmp_path, settings, why):
    file = tmp_path / "sidecar.toml"
    file.write_text(f'data_dir = "/ledger"\n{settings}\n')
    with pytest.raises(UsageError, match=why):
        configuration.load(file, {}, {})


def test_plain_tcp_that_others_reach_must_be_asked_for_by_name() -> None:
    for flags in {"dev": True}, {"tls_cert_file": "a", "tls_key_file": "b"}, {"spiffe_socket": "c"}:
        config, _ = configuration.load(None, {}, {"data_dir": "/ledger", "listen": "0.0.0.0:0", **flags})
        assert config.listen == "0.0.0.0:0"
    for listen in "127.0.0.1:0", "[::1]:0", "localhost:0", "127.9.9.9:0":
        assert configuration.load(None, {}, {"data_dir": "/ledger", "listen": listen})[0].listen == listen


@pytest.mark.parametrize(("settings", "why"), NOT_THERE.values(), ids=list(NOT_THERE))
def test_material_that_is_not_there_ends_the_start_with_a_mend(tmp_path, settings, why):
    ledger, _ = made(tmp_path)
    file = tmp_path / "sidecar.toml"
    file.write_text(f'data_dir = "{ledger}"\ndev = true\n{settings}\n')
    done = sidecar("serve", "--config", file)
    assert (done.returncode, why in done.stderr.splitlines()[-1]) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_without_a_host_is_loopbacks(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with _served(["--data-dir", str(ledger), "--listen", ":0", "--dev"]) as (process, address):
        assert address.startswith("127.0.0.1:")
        port = f":{int(address.rpartition(':')[2]):04X}"
        tables = [Path(f"/proc/{process.pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        local = [line.split()[1] for table in tables for line in table if line.split()[3] == "0A"]
        assert [where for where in local if where.endswith(port)]
        assert all(where.endswith("0100007F" + port) for where in local if where.endswith(port))


def test_a_served_sidecar_takes_new_files_and_says_what_it_cannot_use(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    server, caller = Files(tmp_path / "server"), Files(tmp_path / "caller")
    for files, shown in (server, server_certificate(CA)), (caller, CA.issue(ID)):
        files.place.mkdir()
        files.write(shown, CA)
    (tmp_path / "registry.json").write_bytes(registry_text(BILLING.entry(spiffe_ids=[{"id": ID}])))
    flags = ["--data-dir", str(ledger), "--listen", "127.0.0.1:0"]
    names = ("SIDECAR_TLS_CERT_FILE", "SIDECAR_TLS_KEY_FILE", "SIDECAR_TLS_CLIENT_CA_FILE")
    believed = {"SIDECAR_REQUIRE": "mtls", "SIDECAR_REGISTRY": str(tmp_path / "registry.json")}
    variables = {**dict(zip(names, server.paths, strict=True)), **believed}
    with _served(flags, **variables) as (process, address):
        with Guard(address, agent="billing-agent", timeout=20, tls=TlsFiles(*caller.paths, NAME)) as guard:
            assert guard.ask(*QUESTION).effect is Effect.ALLOW
            secret = server_certificate(CA)
            server.write(secret, CA).spoil(0, CA.pem)  # the key of another certificate
            assert guard.ask(*QUESTION).effect is Effect.ALLOW
            server.write(secret, CA)
            assert guard.ask(*QUESTION).effect is Effect.ALLOW
        _asked_from_a_shell(address, caller)
        _refused_in_the_handshake(address, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr]
        assert process.wait(START_SECONDS) == 0
    faults = [line for line in lines if line["logger"] == "sidecar.tls"]
    assert [(line["level"], "the ones before stay" in line["message"]) for line in faults] == [("error", True)]
    hidden = secret.key_pem.splitlines()[1].decode()
    assert hidden not in json.dumps(lines)


def _asked_from_a_shell(address: str, caller: Files) -> None:
    shown = [
        part for name, path in zip(("cert", "key", "ca"), caller.paths, strict=True) for part in (f"--tls-{name}", path)
    ]
    who = ["--server", address, "--agent", "billing-agent"]
    what = ["--action", "crm.read", "--resource", "customer:acme-42", "--json"]
    done = sidecar("decide", *who, *what, *shown, "--tls-server-name", NAME)
    assert (done.returncode, json.loads(done.stdout)["effect"]) == (0, "ALLOW"), done.stderr
    decision = json.loads(done.stdout)["decision_id"]
    done = sidecar("outcome", *who, "--status", "executed", decision, *shown, "--tls-server-name", NAME)
    assert "recorded at seq" in done.stdout, done.stderr
    nameless = sidecar("decide", *who, *what, *shown)  # the sidecar's certificate is not for 127.0.0.1
    assert (nameless.returncode, "unreachable" in nameless.stderr or "UNAVAILABLE" in nameless.stderr) == (1, True)
    assert sidecar("decide", *who, *what, "--tls-cert", caller.paths[0]).returncode == 2
    key = caller.place / "stranger.pem"
    assert sidecar("keys", "agent", "--out", key).returncode == 0
    listed = ["approvals", "list", "--server", address, "--by", "billing-agent", "--key", key, *shown]
    answered = sidecar(*listed, "--tls-server-name", NAME).stderr
    assert "UNAUTHENTICATED: signature: by a key" in answered, answered  # the sidecar's word: it was asked over TLS


def _refused_in_the_handshake(address: str, place: Path) -> None:
    for shown in (CA.issue("spiffe://a/x", end=NOW - HOUR / 2), Authority("elsewhere").issue("spiffe://a/x")):
        stranger = Files(place / "caller").write(shown, CA)
        tls = TlsFiles(*stranger.paths, NAME)
        with Guard(address, agent="billing-agent", timeout=20, attempts=1, tls=tls) as guard:
            with pytest.raises(NoDecision) as none:
                guard.ask(*QUESTION)
            assert none.value.cause == "unreachable"
            assert "one side may want TLS, or a certificate" in str(none.value)


@contextmanager
def _served(flags: list[str], **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program and where it listens; killed at the end if it still runs."""
    command = [str(BIN / "sidecar"), "serve", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(**variables)) as process:
        try:
            assert process.stderr is not None
            said = ""
            while "sidecar is ready on " not in said:
                said = process.stderr.readline()
                assert said, "the sidecar did not start"
            yield process, said.split()[-1]
        finally:
            process.kill()
