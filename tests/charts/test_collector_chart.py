"""charts/collector, rendered by Helm: what comes out is what the program takes, and it runs from it."""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.chain.note import VerifierKey
from sidecar.collecting import load_collecting
from tests.authorities import CLIENT, SERVER, Authority
from tests.collector.stores import ACCESS, SECRET, bucket, moto
from tests.program import BIN, START_SECONDS, environment, made, serving, sidecar
from tests.scribe import public, signing_key
from tests.servers.running import postgres

from .collecting import COLLECTOR, INSTALLS, WITNESS, configuration, expected, file_of, manifests_of, one, rendered
from .pod_security import violations
from .rendering import HERE, Manifest, helm
from .test_alerts import rules
from .test_sidecar_chart import VERSIONS

FOREIGN: Final = {"Certificate", "ServiceMonitor", "PrometheusRule"}  # of operators: Kubernetes has no schema of them


@pytest.mark.parametrize("install", INSTALLS)
def test_helm_finds_nothing_to_say(install: str) -> None:
    ran = helm("lint", "--strict", COLLECTOR, "--values", HERE / "collectors" / f"{install}.yaml")
    assert ran.status == 0, ran.out
    assert not re.search(r"\[(WARNING|ERROR|INFO)\]", ran.out), ran.out


@pytest.mark.parametrize("install", INSTALLS)
def test_what_is_rendered_was_reviewed(install: str) -> None:
    assert file_of(install).read_text() == expected(install), "renew with `python -m tests.charts.collecting`"


@pytest.mark.parametrize("install", INSTALLS)
def test_every_manifest_is_valid_and_every_pod_restricted(install: str) -> None:
    for manifest in manifests_of(install):
        if manifest["kind"] not in FOREIGN:
            for version in VERSIONS:
                assert kubernetes_validate.validate(manifest, version, strict=True) == version
    for pod in pods(manifests_of(install)):
        assert violations(pod) == []
        assert pod["spec"]["automountServiceAccountToken"] is False
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "envFrom" not in container and not [each for each in container.get("env", ()) if "valueFrom" in each]


def pods(manifests: list[Manifest]) -> list[Manifest]:
    return [one(manifests, "StatefulSet")["spec"]["template"], one(manifests, "Pod")]


def test_what_selects_the_collector_selects_no_test() -> None:
    manifests = manifests_of("production")
    collector, test = (pod["metadata"]["labels"] for pod in pods(manifests))
    selectors = [each["spec"]["selector"] for each in manifests if each["kind"] == "Service"]
    selectors += [one(manifests, kind)["spec"]["selector"]["matchLabels"] for kind in ("StatefulSet", "ServiceMonitor")]
    selectors += [one(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    selectors += [one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
    for selector in selectors:
        assert selector.items() <= collector.items()
        assert not selector.items() <= test.items()


@pytest.mark.parametrize("install", INSTALLS)
def test_the_program_takes_the_configuration(tmp_path: Path, install: str) -> None:
    text = configuration(manifests_of(install))
    file = tmp_path / "collector.toml"
    file.write_text(text)
    config = load_collecting(file, {}, {})
    assert config.listen == "0.0.0.0:7473" and not config.dev
    if install == "production":
        assert config.s3_prefix == 'a & "b"/' and config.retention_days == 2557
        assert config.tls_client_ca_file == "/etc/collector/client-ca/ca.crt"
        assert config.witnesses == (f"{WITNESS} http://witness.example.org:7380/add",)


@pytest.mark.parametrize("install", INSTALLS)
def test_every_file_that_is_configured_is_mounted(install: str) -> None:
    documents = manifests_of(install)
    pod = one(documents, "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    named = [
        path
        for value in _strings(tomllib.loads(configuration(documents)))
        for path in [value]
        if path.startswith(("/etc/", "/run/"))
    ]
    paths = [variable["value"] for variable in container.get("env", ())]
    assert all(path.startswith("/etc/collector/") for path in paths)
    for path in [*named, *paths, "/etc/collector/collector.toml", "/var/lib/collector"]:
        assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {
        claim["metadata"]["name"] for claim in one(documents, "StatefulSet")["spec"].get("volumeClaimTemplates", ())
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    # A subPath is never renewed: it is for the configuration alone, which is read once.
    assert [m["mountPath"] for m in container["volumeMounts"] if "subPath" in m] == ["/etc/collector/collector.toml"]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def test_a_changed_configuration_starts_it_anew_and_the_same_does_not() -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = one(rendered(values), "StatefulSet")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/configuration"])

    assert checksum({}) == checksum({}) != checksum({"logLevel": "debug"})


def test_the_public_sees_the_log_and_no_metrics() -> None:
    (rule,) = one(manifests_of("production"), "Ingress")["spec"]["rules"]
    assert {path["path"]: path["pathType"] for path in rule["http"]["paths"]} == {
        "/checkpoint": "Exact",
        "/tile": "Prefix",
    }


def test_it_may_reach_what_it_is_configured_to_reach_and_no_more() -> None:
    def ports(install: str) -> set[int]:
        egress = one(manifests_of(install), "NetworkPolicy")["spec"]["egress"]
        return {port["port"] for rule in egress for port in rule["ports"]}

    assert ports("trial") == {53}
    assert ports("production") == {53, 80, 443, 5432, 7380, 9000}


def test_the_alerts_are_those_of_the_files_without_what_is_disabled() -> None:
    groups = one(manifests_of("production"), "PrometheusRule")["spec"]["groups"]
    given = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert set(given) == {rule["alert"] for rule in rules()} - {"SidecarNotEnforced"}
    for rule in rules():
        if rule["alert"] in given:
            url = f"https://wiki.example.org/alarms#{rule['alert'].lower()}"
            assert given[rule["alert"]] == {**rule, "annotations": {**rule["annotations"], "runbook_url": url}}


def test_notes_say_what_was_installed(tmp_path: Path) -> None:
    chart = tmp_path / "collector"  # Helm shows notes only with a cluster: so they are shown in a ConfigMap
    shutil.copytree(COLLECTOR, chart)
    text = (chart / "templates/NOTES.txt").read_text()
    shown = (
        '{{- define "shown" -}}'
        + text
        + '{{- end }}\nkind: ConfigMap\ndata: {notes: {{ include "shown" . | toJson }}}\n'
    )
    (chart / "templates/shown.yaml").write_text(shown)

    def notes(install: str) -> str:
        values = HERE / "collectors" / f"{install}.yaml"
        ran = helm("template", "fleet", chart, "-n", "audit", "--values", values, "--show-only", "templates/shown.yaml")
        assert ran.status == 0, ran.err
        return str(yaml.safe_load(ran.out)["data"]["notes"])

    trial = notes("trial")
    for told in ("To try only", "register --config", "Keep a copy of the log's key", "Nobody is told of a fork"):
        assert told in trial, told
    production = notes("production")
    assert "helm test fleet -n audit" in production and "keeps the log log.example.org/fleet" in production
    assert not re.search("To try only|register|Keep a copy|Nobody is told|retentionDays", production)
    assert "storage.retentionDays is 0" in notes("bucket-by-role")


WRONG: Final = [
    ("tls.mode=mtls", "/tls/mode"),
    ("origin=a b", "/origin"),
    ("persistence.size=big", "/persistence/size"),
    ("service.grpcPort=0", "/service/grpcPort"),
    ("retentionDays=7", "additional properties 'retentionDays' not allowed"),
    ("silenceSeconds=never", "/silenceSeconds"),
    ("witnesses={http://witness.example.org}", "/witnesses/0"),
    ("webhook=alerts.example.org", "/webhook"),
    ("image.digest=latest", "/image/digest"),
    ("tls.mode=secret", "tls.secretName is not set"),
    ("tls.mode=certManager", "tls.certManager.issuerRef.name is not set"),
    ("tls.mode=spiffe,tls.clientCa.secretName=ca", "tls.clientCa.secretName is set"),
    ("enrolSpiffe={spiffe://example.org/ns/*/sa/x}", "enrolSpiffe needs callers' certificates"),
    ("storage.kind=s3", "storage.s3.bucket is not set"),
    ("storage.retentionDays=7", "storage.retentionDays is set"),
    ("index.kind=postgres", "index.postgres.secretName is not set"),
    ("index.postgres.secretName=pg", "index.postgres.secretName is set"),
    ("timestamps.urls={http://tsa.example.org}", "timestamps.rootsConfigMap is not set"),
    ("persistence.enabled=false", "persistence.enabled is false"),
    ("ingress.enabled=true", "ingress.host is not set"),
    ("monitoring.rules.enabled=true,monitoring.rules.disabled={Nope}", "monitoring.rules.disabled names Nope"),
]


@pytest.mark.parametrize(("setting", "told"), WRONG, ids=[setting for setting, _ in WRONG])
def test_a_wrong_value_is_named(setting: str, told: str) -> None:
    ran = helm("template", "fleet", COLLECTOR, "--set", setting)
    assert ran.status != 0 and told in ran.err, ran.err


# --- as processes


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
        with running(kubelet, documents) as (address, _, log_key):
            theirs = authority.issue("spiffe://example.org/ns/agents/sa/sidecar", purposes=[CLIENT])
            for name, data in (("tls.crt", theirs.chain), ("tls.key", theirs.key_pem), ("ca.crt", authority.pem)):
                (tmp_path / name).write_bytes(data)
            made(tmp_path)
            settings = {
                "SIDECAR_COLLECTOR_ADDRESS": f"localhost:{address.rpartition(':')[2]}",
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
