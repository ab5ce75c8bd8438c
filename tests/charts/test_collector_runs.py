"""charts/collector run as it is rendered: as a process, with its files where the kubelet would put them."""

from __future__ import annotations

import base64
import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.chain.note import VerifierKey
from tests.authorities import CLIENT, SERVER, Authority
from tests.collector.stores import ACCESS, SECRET, bucket, moto
from tests.collector.test_shipping import until
from tests.program import BIN, START_SECONDS, environment, made, serving, sidecar
from tests.scribe import public, signing_key
from tests.servers.running import postgres

from .collecting import configuration, one, rendered


class Kubelet:
    """The files of a pod under a directory, put there as the kubelet does: a link that is exchanged in one step."""

    def __init__(self, root: Path) -> None:
        self._root, self._times = root, 0

    def put(self, path: str, files: dict[str, bytes]) -> None:
        mount = self._root / path.lstrip("/")
        mount.mkdir(parents=True, exist_ok=True)
        self._times += 1
        held = mount / f"..{self._times}"
        held.mkdir()
        for name, data in files.items():
            (held / name).write_bytes(data)
            if not (mount / name).is_symlink():
                (mount / name).symlink_to(f"..data/{name}")
        (mount / "..new").symlink_to(held.name)
        (mount / "..new").replace(mount / "..data")

    def here(self, text: str) -> str:
        """A text with the pod's paths and ports as they are on this machine."""
        for path in ("/etc/collector", "/var/lib/collector", "/etc/test"):
            text = text.replace(path, f"{self._root}{path}")
        return text.replace("0.0.0.0:7473", "127.0.0.1:0").replace("0.0.0.0:7474", "127.0.0.1:0")


def secret(documents: list[dict[str, Any]]) -> dict[str, bytes]:
    return {name: base64.b64decode(data) for name, data in one(documents, "Secret")["data"].items()}


@contextlib.contextmanager
def running(kubelet: Kubelet, documents: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """The collector's container as a process: where sidecars find it, where its log is, and the log's key."""
    (container,) = one(documents, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    Path(kubelet.here("/etc/collector/collector.toml")).write_text(kubelet.here(configuration(documents)))
    command = [BIN / "sidecar", *map(kubelet.here, container["args"])]
    given = environment(**{each["name"]: kubelet.here(each["value"]) for each in container.get("env", ())})
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=given) as process:
        try:
            assert process.stderr is not None
            ready = next(line for line in process.stderr if "is ready" in line)
            key = next(line for line in process.stderr if line.startswith("log key ")).split()[2]
            words = ready.split()
            until(lambda: sidecar("health", "--server", words[-1]).returncode == 0)  # as a kubelet's probe waits
            yield words[5].rstrip(","), words[-1], key
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(START_SECONDS) == 0
        finally:
            process.kill()


TRIAL: Final = {"tls": {"dnsNames": ["localhost"]}, "rollCallSeconds": 0.2}


def test_a_trial_runs_takes_a_sidecar_in_and_renews_its_certificate(tmp_path: Path) -> None:
    documents, kubelet = rendered(TRIAL), Kubelet(tmp_path / "pod")
    arguments = one(documents, "Pod")["spec"]["containers"][0]["args"]
    at = kubelet.here("/etc/collector/collector.toml")
    kubelet.put("/etc/collector/tls", secret(documents))
    with running(kubelet, documents) as (address, url, key):
        port = address.rpartition(":")[2]

        def helm_test() -> subprocess.CompletedProcess[str]:
            asked = [
                kubelet.here(each)
                .replace("http://fleet-collector.audit.svc:7474", url)
                .replace("fleet-collector.audit.svc:7473", f"localhost:{port}")
                for each in arguments
            ]
            return sidecar(*asked, f"--log-key={key}")

        kubelet.put("/etc/test", secret(documents))
        passed = helm_test()
        assert passed.returncode == 0 and passed.stdout.count("✓") == 3, passed.stdout + passed.stderr

        token = sidecar(
            "collector", "register", "--config", kubelet.here("/etc/collector/collector.toml"), "--out", "-"
        )
        (tmp_path / "token").write_text(token.stdout)
        made(tmp_path)
        settings = {
            "SIDECAR_COLLECTOR_ADDRESS": f"localhost:{port}",
            "SIDECAR_COLLECTOR_LOG_KEY": key,
            "SIDECAR_COLLECTOR_TOKEN_FILE": str(tmp_path / "token"),
            "SIDECAR_COLLECTOR_TLS_CA_FILE": kubelet.here("/etc/test/ca.crt"),
            "SIDECAR_COLLECTOR_LINGER": "60",
        }
        with serving(tmp_path / "ledger", **settings) as server:
            with server.guard() as guard:
                guard.check("crm.read", ("customer", "acme-42"), {})
            assert server.stop() == 0
        assert "log fleet-collector.audit.svc/log, 0 entries" not in helm_test().stdout

        another = sidecar("collector", "check", url, "--origin", "log.example.org/fleet")
        assert another.returncode == 1 and "✗ log" in another.stdout
        theirs = VerifierKey("fleet-collector.audit.svc/log", public(signing_key("another")))
        forged = sidecar("collector", "check", url, "--log-key", str(theirs))
        assert forged.returncode == 1 and "✗ log" in forged.stdout

        # Another certificate of another CA, as when a Secret changes: used without a restart.
        renewed = secret(rendered(TRIAL))
        kubelet.put("/etc/collector/tls", renewed)
        refused = helm_test()
        assert refused.returncode == 1 and "✗ certificate" in refused.stdout
        kubelet.put("/etc/test", renewed)
        assert helm_test().returncode == 0
    gone = sidecar("collector", "check", url)
    assert gone.returncode == 1 and "✗ ready" in gone.stdout and "Traceback" not in gone.stderr
    trust = tmp_path / "trust.json"
    assert sidecar("collector", "trust", "--config", at, "--out", trust).returncode == 0
    verified = sidecar("verify", tmp_path / "ledger", "--trust", trust)
    assert verified.stdout.startswith("OK\n"), verified.stdout


def test_production_runs_on_a_bucket_and_a_database_and_lets_in_by_certificate(tmp_path: Path) -> None:
    """tls.mode secret, clientCa, enrolSpiffe, logKey, S3 and PostgreSQL: all by reference, nothing on a volume."""
    kubelet, authority = Kubelet(tmp_path / "pod"), Authority("fleet")
    key = signing_key("log").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    kubelet.put("/etc/collector/log", {"log-key.pem": key})
    own = authority.issue("spiffe://example.org/ns/audit/sa/collector", dns=["localhost"], purposes=[SERVER])
    kubelet.put("/etc/collector/tls", {"tls.crt": own.chain, "tls.key": own.key_pem})
    kubelet.put("/etc/collector/client-ca", {"ca.crt": authority.pem})
    kubelet.put(
        "/etc/collector/s3",
        {"credentials": f"[default]\naws_access_key_id={ACCESS}\naws_secret_access_key={SECRET}\n".encode()},
    )
    with moto() as endpoint, postgres() as database:
        kubelet.put("/etc/collector/postgres", {"connection": database.address().encode()})
        documents = rendered(
            {
                "origin": "log.example.org/fleet",
                "logKey": {"secretName": "log-key"},
                "storage": {
                    "kind": "s3",
                    "retentionDays": 1,
                    "s3": {
                        "bucket": bucket(endpoint).name,
                        "endpoint": endpoint,
                        "region": "us-east-1",
                        "credentialsSecret": "s3",
                    },
                },
                "index": {"kind": "postgres", "postgres": {"secretName": "pg"}},
                "persistence": {"enabled": False},
                "tls": {"mode": "secret", "secretName": "tls", "clientCa": {"secretName": "sidecar-ca"}},
                "enrolSpiffe": ["spiffe://example.org/ns/*/sa/sidecar"],
                "rollCallSeconds": 0.2,
            }
        )
        at = kubelet.here("/etc/collector/collector.toml")
        variables = one(documents, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["env"]
        with running(kubelet, documents) as (address, url, log_key):
            theirs = authority.issue("spiffe://example.org/ns/agents/sa/sidecar", purposes=[CLIENT])
            for name, data in (("tls.crt", theirs.chain), ("tls.key", theirs.key_pem), ("ca.crt", authority.pem)):
                (tmp_path / name).write_bytes(data)
            made(tmp_path)
            port = address.rpartition(":")[2]
            at_port = ["--address", f"localhost:{port}", "--tls-ca-file", tmp_path / "ca.crt"]
            assert sidecar("collector", "check", url, *at_port).returncode == 0  # though it shows no certificate itself
            settings = {
                "SIDECAR_COLLECTOR_ADDRESS": f"localhost:{port}",
                "SIDECAR_COLLECTOR_LOG_KEY": log_key,
                "SIDECAR_COLLECTOR_TLS_CA_FILE": str(tmp_path / "ca.crt"),
                "SIDECAR_COLLECTOR_TLS_CERT_FILE": str(tmp_path / "tls.crt"),
                "SIDECAR_COLLECTOR_TLS_KEY_FILE": str(tmp_path / "tls.key"),
                "SIDECAR_COLLECTOR_LINGER": "60",
            }
            with serving(tmp_path / "ledger", **settings) as server:
                with server.guard() as guard:
                    guard.check("crm.read", ("customer", "acme-42"), {})
                assert server.stop() == 0
        assert {each.name for each in Path(kubelet.here("/var/lib/collector")).iterdir()} == {"log.vkey"}
        shutil.rmtree(kubelet.here("/var/lib/collector"))  # an emptyDir, and the pod is another
        given = {each["name"]: kubelet.here(each["value"]) for each in variables}
        with running(kubelet, documents):
            trust = tmp_path / "trust.json"
            assert sidecar("collector", "trust", "--config", at, "--out", trust, **given).returncode == 0
        verified = sidecar("verify", tmp_path / "ledger", "--trust", trust)
        assert verified.stdout.startswith("OK\n"), verified.stdout
