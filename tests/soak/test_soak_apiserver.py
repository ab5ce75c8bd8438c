"""The charts against a real kube-apiserver: what is rendered is applied with server-side validation, and Helm installs.

No kubelet and no controllers: objects are checked, admitted and stored; no pod runs. (That they run is in
tests/charts/test_pod.py.) The first run builds etcd and kube-apiserver, which takes many minutes.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.charts import collecting as collectors
from tests.charts import rendering
from tests.charts.rendering import HERE, Manifest, pods_in
from tests.needs import needs_program
from tests.ports import free_port
from tests.servers.building import APISERVER, ETCD, built
from tests.servers.running import running
from tests.soak.figures import tell

pytestmark = pytest.mark.soak

_START_SECONDS: Final = 180.0
_TOKEN: Final = "of-this-test-alone"
_PLURALS: Final = {
    "StatefulSet": "statefulsets",
    "Deployment": "deployments",
    "ConfigMap": "configmaps",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "NetworkPolicy": "networkpolicies",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Certificate": "certificates",
    "Pod": "pods",
    "Secret": "secrets",
    "Ingress": "ingresses",
    "PodMonitor": "podmonitors",
    "ServiceMonitor": "servicemonitors",
    "PrometheusRule": "prometheusrules",
}
# Definitions of others are not to be had here: anything of these kinds is taken.
_FOREIGN: Final = {
    "Certificate": ("cert-manager.io", "v1"),
    "PodMonitor": ("monitoring.coreos.com", "v1"),
    "ServiceMonitor": ("monitoring.coreos.com", "v1"),
    "PrometheusRule": ("monitoring.coreos.com", "v1"),
}


def _definition(kind: str, group: str, version: str) -> dict[str, Any]:
    names = {"kind": kind, "plural": _PLURALS[kind], "singular": kind.lower()}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    one = {"name": version, "served": True, "storage": True, "schema": schema}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [one]}
    metadata = {"name": f"{names['plural']}.{group}"}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**definition, "metadata": metadata, "spec": spec}


@dataclass(frozen=True, slots=True)
class Install:
    """A chart with values; ``changed``: what an upgrade sets besides."""

    name: str
    chart: Path
    values: Path | None
    changed: str
    manifests: Callable[[], list[Manifest]]


def _sidecar(name: str) -> Install:
    values = HERE / "installs" / f"{name}.yaml"
    return Install(
        f"sidecar-{name}", rendering.SIDECAR, values, "log.level=warning", partial(rendering.manifests_of, name)
    )


def _collector(name: str) -> Install:
    values = HERE / "collectors" / f"{name}.yaml"
    return Install(
        f"collector-{name}",
        collectors.COLLECTOR,
        values,
        "image.pullPolicy=Always",
        partial(collectors.manifests_of, name),
    )


_CONSUMER: Final = Install(
    "consumer",
    HERE / rendering.CONSUMER,
    None,
    "guard.log.level=warning",
    partial(rendering.manifests_of, rendering.CONSUMER),
)
INSTALLS: Final = [*map(_sidecar, rendering.INSTALLS), *map(_collector, collectors.INSTALLS), _CONSUMER]
each_install = pytest.mark.parametrize("install", INSTALLS, ids=[install.name for install in INSTALLS])


@dataclass(frozen=True, slots=True)
class Answered:
    """Status, body and warnings of one request."""

    status: int
    body: dict[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A kube-apiserver on loopback."""

    port: int
    authority: Path
    kubeconfig: Path

    def ask(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Answered:
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind},
            method=method,
        )
        context = ssl.create_default_context(cafile=str(self.authority))
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return Answered(answer.status, json.load(answer), tuple(answer.headers.get_all("Warning", [])))
        except urllib.error.HTTPError as refused:
            return Answered(refused.code, json.load(refused), ())

    def apply(self, manifest: dict[str, Any], namespace: str) -> Answered:
        """Server-side apply; an unknown or doubled field is an error."""
        at = f"{place(manifest, namespace)}/{manifest['metadata']['name']}"
        query = "?fieldManager=test&fieldValidation=Strict"
        return self.ask("PATCH", at + query, manifest, "application/apply-patch+yaml")

    def namespace(self, name: str) -> None:
        """In which only restricted pods are let in."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        made = self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        assert made.status == 201, made


def place(manifest: dict[str, Any], namespace: str) -> str:
    version = manifest["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{_PLURALS[manifest['kind']]}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    etcd, apiserver = built(ETCD), built(APISERVER)
    with tempfile.TemporaryDirectory() as made:
        here = Path(made)
        key = here / "service-accounts.key"
        subprocess.run([needs_program("openssl"), "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (here / "tokens.csv").write_text(f"{_TOKEN},test,test,system:masters\n")
        client, peer, port = free_port(), free_port(), free_port()
        urls = [f"--listen-client-urls=http://127.0.0.1:{client}", f"--advertise-client-urls=http://127.0.0.1:{client}"]
        urls += [
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        ]
        urls += [f"--initial-cluster=default=http://127.0.0.1:{peer}", f"--data-dir={here / 'etcd'}"]
        flags = [
            f"--etcd-servers=http://127.0.0.1:{client}",
            *("--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={here}"),
            *("--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc"),
            *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
            *(f"--token-auth-file={here / 'tokens.csv'}", "--authorization-mode=RBAC"),
            "--disable-admission-plugins=ServiceAccount",  # nobody is there who makes the account `default`
        ]
        with running([etcd, *urls], client), running([apiserver, *flags], port):
            authority, kubeconfig = here / "apiserver.crt", here / "kubeconfig"
            kubeconfig.write_text(yaml.safe_dump(_kubeconfig(port, authority)))
            server = Cluster(port, authority, kubeconfig)
            until = time.monotonic() + _START_SECONDS
            while not ready(server):
                assert time.monotonic() < until, "kube-apiserver does not become ready"
                time.sleep(0.2)
            definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            for kind, (group, version) in _FOREIGN.items():
                assert server.ask("POST", definitions, _definition(kind, group, version)).status == 201
            for name in ("agents", "audit"):  # of the installs called "placed"
                priority = {"metadata": {"name": name}, "value": 1000}
                assert server.ask("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", priority).status == 201
            yield server


def ready(server: Cluster) -> bool:
    try:
        return server.ask("GET", "/apis/apps/v1").status == 200
    except (OSError, ValueError):
        return False


def _kubeconfig(port: int, authority: Path) -> dict[str, Any]:
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "agents"}}],
    }


@each_install
def test_everything_is_taken_with_strict_validation(cluster: Cluster, install: Install) -> None:
    cluster.namespace(f"applied-{install.name}")
    for manifest in install.manifests():
        taken = cluster.apply(manifest, f"applied-{install.name}")
        assert taken.status in (200, 201), taken.body
        assert taken.warnings == (), manifest["kind"]  # also says what Pod Security would refuse of a template's pods


@each_install
def test_pod_security_lets_every_pod_in(cluster: Cluster, install: Install) -> None:
    """As the controllers would make them of the templates."""
    namespace, manifests = f"pods-{install.name}", install.manifests()
    cluster.namespace(namespace)
    claims = {
        claim["metadata"]["name"]
        for each in manifests
        for claim in each.get("spec", {}).get("volumeClaimTemplates", [])
    }
    for name, pod in pods_in(manifests):
        volumes = list(pod["spec"].get("volumes", []))
        for claimed in claims - {volume["name"] for volume in volumes}:
            volumes.append({"name": claimed, "persistentVolumeClaim": {"claimName": f"{claimed}-one"}})
        metadata = {"name": "one", "labels": pod["metadata"]["labels"]}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**pod["spec"], "volumes": volumes}}
        taken = cluster.ask("POST", f"{place(made, namespace)}?dryRun=All&fieldValidation=Strict", made)
        assert (taken.status, taken.warnings) == (201, ()), (name, taken.body)


def test_what_is_wrong_is_refused(cluster: Cluster) -> None:
    cluster.namespace("wrong")
    (manifest,) = [each for each in rendering.manifests_of("trial") if each["kind"] == "StatefulSet"]
    pod = manifest["spec"]["template"]
    pod["spec"]["initContainers"][0]["startupProb"] = {}
    assert "startupProb: field not declared in schema" in cluster.apply(manifest, "wrong").body["message"]
    del pod["spec"]["initContainers"][0]["startupProb"]
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert any("would violate PodSecurity" in warning for warning in cluster.apply(manifest, "wrong").warnings)


def helm(cluster: Cluster, *arguments: str | Path) -> str:
    command = [needs_program("helm"), "--kubeconfig", cluster.kubeconfig, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as home:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"HOME": home}, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@each_install
def test_helm_installs_upgrades_and_removes_it(
    cluster: Cluster, install: Install, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    namespace = f"installed-{install.name}"
    cluster.namespace(namespace)
    chart = rendering.consumer(tmp_path) if install is _CONSUMER else install.chart
    where = ["billing", chart, "--namespace", namespace, *(["--values", install.values] if install.values else [])]
    assert "STATUS: deployed" in helm(cluster, "install", *where)
    assert "REVISION: 2" in helm(cluster, "upgrade", *where, "--set", install.changed)
    assert "uninstalled" in helm(cluster, "uninstall", "billing", "--namespace", namespace)
    tell(request.config, f"helm: {install.name} installed, upgraded and removed on a kube-apiserver")


@pytest.mark.parametrize("install", collectors.INSTALLS)
def test_an_upgrade_keeps_the_certificate_that_helm_made(cluster: Cluster, install: str) -> None:
    namespace = f"kept-{install}"
    cluster.namespace(namespace)
    values = ["--values", HERE / "collectors" / f"{install}.yaml"]
    where = ["fleet", collectors.COLLECTOR, "--namespace", namespace, *values]
    helm(cluster, "install", *where)
    made = certificate(cluster, namespace)
    helm(cluster, "upgrade", *where, "--set", "logLevel=warning")
    assert certificate(cluster, namespace) == made
    assert bool(made) == (install in ("trial", "bucket-by-role", "placed"))  # where tls.mode is generated


def certificate(cluster: Cluster, namespace: str) -> list[dict[str, str]]:
    """Of the Secrets that Helm did not make for itself, the data."""
    found = cluster.ask("GET", f"/api/v1/namespaces/{namespace}/secrets").body["items"]
    return [each["data"] for each in found if each["type"] == "kubernetes.io/tls"]
