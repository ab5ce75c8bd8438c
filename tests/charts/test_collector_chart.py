"""charts/collector, rendered by Helm: what comes out is what the program takes, and it runs from it."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sidecar.collector_config import load_collecting
from tests.program import sidecar

from .collecting import COLLECTOR, INSTALLS, WITNESS, configuration, expected, file_of, manifests_of, one, rendered
from .pod_security import violations
from .rendering import HERE, SIDECAR, Manifest, container, helm, template
from .schemas import VERSIONS, validate
from .test_alerts import rules

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
                validate(manifest, version)
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
    selectors += [
        one(manifests, kind)["spec"]["selector"]["matchLabels"] for kind in ("StatefulSet", "PodDisruptionBudget")
    ]
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


def test_it_says_itself_what_it_would_run_with(tmp_path: Path) -> None:
    file = tmp_path / "collector.toml"
    file.write_text(configuration(manifests_of("production")))
    said = sidecar("collector", "serve", "--config", file, "--print-config", COLLECTOR_LOG_LEVEL="debug")
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert f"origin = 'log.example.org/fleet'  # {file}" in lines
    assert "log_level = 'debug'  # COLLECTOR_LOG_LEVEL" in lines
    assert "dev = False  # default" in lines


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


def test_what_is_scraped_is_there() -> None:
    service, monitor = (one(manifests_of("production"), kind) for kind in ("Service", "ServiceMonitor"))
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["path"], endpoint["port"]) == ("/metrics", "web")
    assert "web" in {port["name"] for port in service["spec"]["ports"]}


def test_a_sidecars_pods_are_scraped_where_that_is_asked_for() -> None:
    asked = ["--set", "metrics.podMonitor.enabled=true,metrics.podMonitor.labels.release=prometheus"]
    ran = template(SIDECAR, *asked)
    assert ran.status == 0, ran.err
    manifests = [each for each in yaml.safe_load_all(ran.out) if each]
    monitor, pod = one(manifests, "PodMonitor"), one(manifests, "StatefulSet")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container(pod, "sidecar")["ports"]}
    assert "PodMonitor" not in template(SIDECAR).out


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
