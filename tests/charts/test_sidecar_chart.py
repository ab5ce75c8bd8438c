"""charts/sidecar over a matrix of installs: what Helm renders is valid, restricted, and understood by the sidecar."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sidecar.identity import RegistryFile
from tests.program import sidecar

from .golden import ALL, expected, file_of
from .pod_security import violations
from .rendering import (
    CONSUMER,
    HERE,
    INSTALLS,
    SIDECAR,
    Manifest,
    configuration_of,
    container,
    containers_of,
    helm,
    manifests_of,
    of_kind,
    pods_of,
    template,
    workload_of,
)
from .schemas import VERSIONS, validate

FOREIGN = {"Certificate"}  # cert-manager's: Kubernetes has no schema of it
OURS = ("sidecar", "opa")
EVERY_POD = [(install, name) for install in ALL for name in ("workload", "test")]


def test_there_are_a_dozen_installs() -> None:
    assert len(INSTALLS) >= 12
    assert {path.stem for path in (HERE / "golden").glob("*.yaml")} == set(ALL)


@pytest.mark.parametrize("install", INSTALLS)
def test_helm_finds_nothing_to_say(install: str) -> None:
    ran = helm("lint", "--strict", SIDECAR, "--values", HERE / "installs" / f"{install}.yaml")
    assert ran.status == 0, ran.out
    assert not re.search(r"\[(WARNING|ERROR|INFO)\]", ran.out), ran.out


@pytest.mark.parametrize("install", ALL)
def test_what_is_rendered_was_reviewed(install: str) -> None:
    assert file_of(install).read_text() == expected(install), "renew with `python -m tests.charts.golden`"


@pytest.mark.parametrize("install", ALL)
def test_every_manifest_is_valid(install: str) -> None:
    for manifest in manifests_of(install):
        if manifest["kind"] in FOREIGN:
            continue
        for version in VERSIONS:
            validate(manifest, version)


def test_what_is_not_valid_is_found() -> None:
    (manifest,) = of_kind("trial", "StatefulSet")
    manifest["spec"]["template"]["spec"]["initContainers"][0]["restartPolicies"] = "Always"
    for version in VERSIONS:
        with pytest.raises(jsonschema.ValidationError, match="restartPolicies"):
            validate(manifest, version)


@pytest.mark.parametrize("install", ALL)
def test_every_pod_is_restricted(install: str) -> None:
    for name, pod in pods_of(install):
        if install == "redirect" and not name.startswith("Pod/"):
            pod = without_the_rules_container(pod)
        assert violations(pod) == [], name
        spec = pod["spec"]
        assert (spec["automountServiceAccountToken"], spec["securityContext"]["runAsNonRoot"]) == (False, True)
        for each in containers_of(pod):
            assert each["securityContext"]["readOnlyRootFilesystem"] is True
            assert each["securityContext"]["runAsUser"] > 0


def without_the_rules_container(pod: Manifest) -> Manifest:
    """The one that makes the rules of egress.redirect: what is wrong with it is what the chart says, and no more."""
    spec = pod["spec"]
    (rules, *rest) = spec["initContainers"]
    assert rules["name"] == "egress" and "restartPolicy" not in rules
    context = rules["securityContext"]
    assert (context["capabilities"], context["runAsUser"]) == ({"drop": ["ALL"], "add": ["NET_ADMIN"]}, 0)
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert [mount["name"] for mount in rules["volumeMounts"]] == ["sidecar-egress"]
    assert len(violations(pod)) == 4, violations(pod)
    return {**pod, "spec": {**spec, "initContainers": rest}}


@pytest.mark.parametrize("install", ALL)
def test_the_three_are_different_users_and_the_workload_mounts_only_the_socket(install: str) -> None:
    pod = workload_of(install)
    users = {each["name"]: each["securityContext"]["runAsUser"] for each in containers_of(pod)}
    assert len(set(users.values())) == len(users)
    sidecar, own = container(pod, "sidecar"), pod["spec"]["containers"]
    group = sidecar["securityContext"]["runAsGroup"]
    assert pod["spec"]["securityContext"]["fsGroup"] != group  # the fsGroup is every container's
    assert "supplementalGroups" not in pod["spec"]["securityContext"]
    for each in own:
        assert each["securityContext"]["runAsGroup"] != group
        mounts = [mount for mount in each["volumeMounts"] if mount["name"].startswith("sidecar-")]
        if install == "gateway":  # the workload is Envoy
            mount = {"name": "sidecar-door", "mountPath": "/run/sidecar", "readOnly": True, "subPath": "door"}
            assert mounts == [mount]
        else:
            socket = {"name": "sidecar-socket", "mountPath": "/run/sidecar", "readOnly": True}
            door = {"name": "sidecar-authzen", "mountPath": "/run/sidecar-authzen", "readOnly": True, "subPath": "door"}
            assert mounts == [socket, *([door] if install == "authzen-socket" else [])]  # there the workload is the PEP
    if "opa" in users:
        opa = container(pod, "opa")
        assert opa["securityContext"]["runAsGroup"] == group
        assert [mount["name"] for mount in opa["volumeMounts"]] == ["sidecar-opa"]


@pytest.mark.parametrize("install", ALL)
def test_no_secret_is_in_an_environment_variable(install: str) -> None:
    for _, pod in pods_of(install):
        for each in containers_of(pod):
            assert "envFrom" not in each
            assert not [env for env in each.get("env", []) if "secretKeyRef" in env.get("valueFrom", {})]
            if each["name"] in OURS:
                assert "env" not in each
    for manifest in of_kind(install, "ConfigMap"):
        assert "PRIVATE" not in json.dumps(manifest)
    assert not of_kind(install, "Secret")


@pytest.mark.parametrize("install", ALL)
def test_sidecars_are_native_with_three_probes_and_before_the_workload(install: str) -> None:
    for _, pod in pods_of(install):
        order = [each["name"] for each in pod["spec"]["initContainers"] if each.get("restartPolicy") == "Always"]
        assert order in (
            ["sidecar"],
            ["opa", "sidecar"],
            ["sidecar", "envoy"],
        )  # the order of the start: the sidecar is ready only with OPA
        sidecar = container(pod, "sidecar")
        asked = {kind: sidecar[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
        ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
        host, _, port = settings(install, pod)["metrics"].rpartition(":")
        assert (host in ("0.0.0.0", "[::]"), int(port)) == (True, ports["metrics"])
        assert {kind: probe["port"] for kind, probe in asked.items()} == dict.fromkeys(asked, "metrics")
        assert [asked[kind]["path"] for kind in ("startup", "readiness", "liveness")] == [
            "/readyz",
            "/readyz",
            "/healthz",
        ]


def configuration(install: str, pod: Manifest) -> dict[str, str]:
    (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "sidecar-configuration"]
    return configuration_of(install, volume["configMap"]["name"])


def settings(install: str, pod: Manifest) -> dict[str, Any]:
    return tomllib.loads(configuration(install, pod)["sidecar.toml"])


@pytest.mark.parametrize("install", ALL)
def test_the_sidecar_understands_its_configuration(install: str, tmp_path: Path) -> None:
    """`sidecar serve --print-config` with the arguments of the manifest."""
    for name, pod in pods_of(install):
        file = tmp_path / "sidecar.toml"
        file.write_text(configuration(install, pod)["sidecar.toml"])
        arguments = [a.replace("/etc/sidecar/sidecar.toml", str(file)) for a in container(pod, "sidecar")["args"]]
        ran = sidecar(*arguments, "--print-config")
        assert ran.returncode == 0, f"{name}: {ran.stderr}"
        said = dict(line.split("  # ")[0].split(" = ", 1) for line in ran.stdout.splitlines())
        assert said["data_dir"] == "'/var/lib/sidecar/ledger'"


@pytest.mark.parametrize("install", ALL)
def test_every_file_in_the_configuration_is_mounted(install: str) -> None:
    for name, pod in pods_of(install):
        sidecar = container(pod, "sidecar")
        mounts = {each["mountPath"]: each["name"] for each in sidecar["volumeMounts"]}
        volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
        claims = {"sidecar-ledger", "sidecar-subjects"} - volumes.keys()
        for path in paths(settings(install, pod)):
            at = max((mount for mount in mounts if f"{path}/".startswith(f"{mount}/")), key=len, default=None)
            assert at, f"{name}: {path} is in no mount"
            volume = volumes.get(mounts[at])
            if volume is None:
                assert mounts[at] in claims
            elif "configMap" in volume and volume["configMap"]["name"] != "fleet-registry":
                assert path.removeprefix(f"{at}/") in configuration_of(install, volume["configMap"]["name"]), path
            else:
                assert volume.keys() & {"secret", "csi", "emptyDir", "ephemeral", "configMap"}


def paths(table: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += [] if name == "personal" else paths(value)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text.removeprefix("unix:").startswith("/"):
                found.append(text.removeprefix("unix:"))
    return found


@pytest.mark.parametrize("install", ALL)
def test_what_selects_pods_selects_these_and_no_test(install: str) -> None:
    labels = workload_of(install)["metadata"]["labels"]
    tests = [pod["metadata"]["labels"] for name, pod in pods_of(install) if name.startswith("Pod/")]
    wanted = [each["spec"]["selector"] for each in of_kind(install, "Service")]
    wanted += [each["spec"]["selector"]["matchLabels"] for each in of_kind(install, "PodDisruptionBudget")]
    wanted += [each["spec"]["selector"]["matchLabels"] for each in of_kind(install, "StatefulSet", "Deployment")]
    for selector in wanted:
        assert selector.items() <= labels.items()
        assert not [test for test in tests if selector.items() <= test.items()]
    for policy in of_kind(install, "NetworkPolicy")[:1]:  # which is for the test's pod too; the others are for agents
        (rule,) = policy["spec"]["podSelector"]["matchExpressions"]
        assert (rule["operator"], rule["key"]) == ("In", "decision-sidecar/of")
        assert {each[rule["key"]] for each in (labels, *tests)} <= set(rule["values"])


def test_what_may_leave_the_pod() -> None:
    (policy,) = of_kind("production", "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    out = [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]
    assert out == [[53, 53], [7473], [443], [443]]  # names, the collector, the policies, the workload's own rule
    ports = {
        name: of_kind(name, "NetworkPolicy")[0]["spec"]["egress"][-1]["ports"][0]["port"] for name in ("opa", "shadow")
    }
    assert ports == {"opa": 2222, "shadow": 22}
    (trial,) = of_kind("trial", "NetworkPolicy")
    assert len(trial["spec"]["egress"]) == 1


def test_envoy_in_the_pod_is_the_only_one_with_the_credentials() -> None:
    pod = workload_of("redirect")
    (gateway,) = [each for each in pod["spec"]["volumes"] if each["name"] == "sidecar-gateway"]
    secrets = [each["secret"]["name"] for each in gateway["projected"]["sources"] if "secret" in each]
    assert secrets == ["payments-credential"]
    for volume, users in (("sidecar-gateway", ["envoy"]), ("sidecar-door", ["sidecar", "envoy"])):
        assert [e["name"] for e in containers_of(pod) if volume in str(e["volumeMounts"])] == users
    assert container(pod, "envoy")["securityContext"]["runAsUser"] == 10012
    mount = {"name": "sidecar-gateway", "mountPath": "/etc/hosts", "subPath": "hosts", "readOnly": True}
    assert mount in container(pod, "envoy")["volumeMounts"]  # where api.example.com is not Envoy itself
    assert settings("redirect", pod)["doors"]["envoy"] == {
        "gateway": "edge", "agent": "billing-agent", "headers": ["x-hint"],
        "listen": "unix:/run/sidecar-door/door/envoy.sock",
    }  # fmt: skip
    configuration = configuration_of("redirect", "billing-sidecar-egress")
    assert configuration["egress.nft"] == (SIDECAR / "files" / "egress.nft").read_text()
    assert configuration["envoy.yaml"] == (SIDECAR.parent / "envoy" / "envoy.yaml").read_text()
    assert pod["spec"]["hostAliases"] == [{"ip": "192.0.2.1", "hostnames": ["api.example.com"]}]


def test_pods_start_anew_for_other_rules_of_egress() -> None:
    def stamp(*more: str) -> str:
        ran = template(SIDECAR, "--values", HERE / "installs" / "redirect.yaml", *more)
        (workload,) = [e for e in yaml.safe_load_all(ran.out) if e["kind"] == "StatefulSet"]
        return str(workload["spec"]["template"]["metadata"]["annotations"]["decision-sidecar/configuration"])

    changed = (HERE.parents[1] / "charts" / "envoy" / "envoy.yaml").read_text() + "# more\n"
    assert stamp() != stamp("--set-literal", f"egress.redirect.envoy.configuration={changed}")


def test_agents_of_a_gateway_reach_it_and_names_alone() -> None:
    own, *agents = of_kind("gateway", "NetworkPolicy")
    assert [each["spec"]["podSelector"]["matchLabels"] for each in agents] == [
        {"app": "shopper"}, {"app": "billing", "tier": "back"},
    ]  # fmt: skip
    labels = workload_of("gateway")["metadata"]["labels"]
    for each in agents:
        assert each["spec"]["policyTypes"] == ["Egress"]
        gateway, names = each["spec"]["egress"]
        (peer,) = gateway["to"]
        assert peer.keys() == {"podSelector"} and peer["podSelector"]["matchLabels"].items() <= labels.items()
        assert gateway["ports"] == [{"protocol": "TCP", "port": 8443}]
        assert {port["port"] for port in names["ports"]} == {53}
    let_in = own["spec"]["ingress"][1]
    assert [each["podSelector"] for each in let_in["from"]] == [each["spec"]["podSelector"] for each in agents]
    ran = template(
        SIDECAR, "--values", HERE / "installs" / "gateway.yaml", "--set", "egress.gateway.dns=false",
        "--show-only", "templates/network.yaml",
    )  # fmt: skip
    _, *silent = yaml.safe_load_all(ran.out)
    assert [len(each["spec"]["egress"]) for each in silent] == [1, 1]


def test_peps_come_to_a_port_of_their_own_or_by_a_socket() -> None:
    peps = settings("authzen", workload_of("authzen"))["doors"]["authzen"]
    assert peps == {
        "gateway": "todo-backend", "agent": "billing-agent", "url": "https://billing-sidecar-authzen.agents.svc:7444",
        "listen": "0.0.0.0:7444", "tls_cert_file": "/run/identity/tls.crt", "tls_key_file": "/run/identity/tls.key",
        "tls_client_ca_file": "/run/identity/ca.crt",
    }  # fmt: skip
    (policy,) = of_kind("authzen", "NetworkPolicy")
    assert policy["spec"]["ingress"][1]["ports"] == [{"protocol": "TCP", "port": 7444}]
    assert [sorted(each) for each in policy["spec"]["ingress"][1]["from"]] == [
        ["podSelector"], ["namespaceSelector", "podSelector"],
    ]  # fmt: skip
    (service,) = [e for e in of_kind("authzen", "Service") if e["metadata"]["name"] == "billing-sidecar-authzen"]
    (port,) = service["spec"]["ports"]
    ports = {each["name"]: each["containerPort"] for each in container(workload_of("authzen"), "sidecar")["ports"]}
    assert ports[port["targetPort"]] == port["port"] == 7444
    (certificate,) = of_kind("authzen", "Certificate")
    assert "billing-sidecar-authzen.agents.svc" in certificate["spec"]["dnsNames"]
    door = settings("authzen-socket", workload_of("authzen-socket"))["doors"]["authzen"]
    assert door == {
        "gateway": "todo-backend", "agent": "", "url": "", "listen": "unix:/run/sidecar-authzen/door/authzen.sock"
    }  # fmt: skip
    assert "authzen" not in str(of_kind("authzen-socket", "Service", "NetworkPolicy")[0]["spec"])
    ran = template(
        SIDECAR, "--values", HERE / "installs" / "authzen.yaml", "--set", "identity.kind=spiffe",
        "--show-only", "templates/configuration.yaml",
    )  # fmt: skip
    assert 'spiffe_socket = "/run/spiffe/spire-agent.sock"' in ran.out and "tls_cert_file" not in ran.out


def test_a_registry_comes_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "registry.json"
    file.write_text(configuration_of("token", "billing-sidecar-registry")["registry.json"])
    registry = RegistryFile(file).look()
    assert registry is not None
    assert list(registry.principals) == ["billing-agent"]


def test_pods_start_anew_for_the_configuration_and_not_for_the_registry() -> None:
    def stamp(*more: str) -> str:
        ran = template(SIDECAR, "--values", HERE / "installs" / "token.yaml", *more)
        (workload,) = [each for each in yaml.safe_load_all(ran.out) if each["kind"] == "StatefulSet"]
        return workload["spec"]["template"]["metadata"]["annotations"]["decision-sidecar/configuration"]

    assert stamp() == stamp("--set-json", 'registry.json="{}"')
    assert stamp() != stamp("--set", "enforcement=shadow")


def test_a_chart_that_depends_on_ours_has_the_pod_from_its_templates() -> None:
    pod, (workload,) = workload_of(CONSUMER), of_kind(CONSUMER, "Deployment")
    assert workload["metadata"]["name"] == "billing"  # its own, and no second one of ours
    assert [each["name"] for each in containers_of(pod)] == ["opa", "sidecar", "billing"]
    assert not of_kind(CONSUMER, "StatefulSet", "ServiceAccount")
    for _, other in pods_of("ephemeral"):
        ours = {name: other["spec"][name] for name in ("securityContext", "automountServiceAccountToken")}
        assert ours == {name: pod["spec"][name] for name in ours}


def test_helms_test_asks_and_verifies_in_a_pod_of_its_own() -> None:
    (pod,) = [pod for name, pod in pods_of("production") if name.startswith("Pod/")]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert [each["name"] for each in containers_of(pod)] == ["sidecar", "ask", "verify"]
    assert "collector" not in settings("production", pod)
    (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "sidecar-ledger"]
    assert "emptyDir" in volume
    asked = container(pod, "ask")["args"]
    assert asked[0] == "decide"
    assert "--key=/etc/test-key/agent.pem" in asked
    without = [install for install in ALL if not any(name.startswith("Pod/") for name, _ in pods_of(install))]
    assert without == ["both-custodians", "ephemeral", "opa", "placed", "shadow", "spiffe-tls", "token", CONSUMER]


def test_notes_say_what_was_installed(tmp_path: Path) -> None:
    chart = tmp_path / "sidecar"  # Helm shows notes only with a cluster: so they are shown in a ConfigMap
    shutil.copytree(SIDECAR, chart)
    text = (chart / "templates" / "NOTES.txt").read_text()
    shown = (
        '{{- define "shown" -}}'
        + text
        + '{{- end }}\nkind: ConfigMap\ndata:\n  notes: {{ include "shown" . | toJson }}\n'
    )
    (chart / "templates" / "shown.yaml").write_text(shown)

    def notes(install: str) -> str:
        values = HERE / "installs" / f"{install}.yaml"
        ran = template(chart, "--values", values, "--show-only", "templates/shown.yaml")
        assert ran.status == 0, ran.err
        return str(yaml.safe_load(ran.out)["data"]["notes"])

    assert "A TRIAL" in notes("trial")
    assert "helm -n agents test billing" in notes("trial")
    assert "DEVELOPMENT" in notes("development")
    assert "what was decided cannot be proved afterwards" in notes("development")
    production = notes("production")
    assert not re.search("TRIAL|DEVELOPMENT|UNANCHORED|No `helm test`", production)
    assert "No `helm test`" in notes("token")
    assert "enforcement is shadow" in notes("shadow")
    assert "pod-security.kubernetes.io/enforce=privileged" in notes("redirect")
    assert "enforces no NetworkPolicies" in notes("gateway")
