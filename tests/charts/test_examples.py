"""charts/examples: the policy repository passes its own gate; the workload is rendered, and its agent runs under it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest
import yaml

from sidecar.policy.signer_lines import read_line
from tests.authorities import Authority
from tests.needs import needs_program
from tests.program import environment, made, serving, sidecar

from .collecting import one
from .pod_security import violations
from .rendering import CHARTS, HERE, SIDECAR, Manifest, containers_of, helm, template
from .schemas import VERSIONS, validate

POLICIES: Final = CHARTS / "examples/policy-repository"
AGENT: Final = CHARTS / "examples/workload/files/agent.py"


def test_the_repository_passes_what_its_own_ci_runs() -> None:
    needs_program("opa")
    (job,) = yaml.safe_load((POLICIES / ".github/workflows/policy.yml").read_text())["jobs"].values()
    gates = [step["run"] for step in job["steps"] if step.get("run", "").startswith("sidecar ")]
    assert gates == ["sidecar policy check . --min-coverage 90"]
    run = subprocess.run(gates[0], shell=True, cwd=POLICIES, env=environment(), capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.endswith("passed\n"), run.stdout + run.stderr


def test_a_change_that_lets_an_agent_do_more_does_not_pass(tmp_path: Path) -> None:
    needs_program("opa")
    changed = tmp_path / "policies"
    shutil.copytree(POLICIES, changed)
    rule = changed / "decision.rego"
    rule.write_text(rule.read_text().replace('"billing" in input.agent.roles\n\tinput.action == "crm.read"', "true"))
    said = sidecar("policy", "check", changed)
    assert said.returncode == 1 and "an agent without the role does not" in said.stdout + said.stderr


def test_its_signers_are_read_as_the_sidecar_reads_them() -> None:
    read = [read_line(line) for line in (POLICIES / "allowed_signers").read_text().splitlines()]
    assert len([signer for signer in read if signer is not None]) == 1


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its dependency beside it, as `helm dependency update` leaves it."""
    place = tmp_path_factory.mktemp("charts")
    shutil.copytree(CHARTS / "sidecar", place / "sidecar")
    shutil.copytree(CHARTS / "examples/workload", place / "examples/workload")
    done = helm("dependency", "update", place / "examples/workload")
    assert done.status == 0, done.err
    return place / "examples/workload"


def documents(chart: Path, *arguments: str | Path) -> list[Manifest]:
    ran = template(chart, *arguments)
    assert ran.status == 0, ran.err
    return [document for document in yaml.safe_load_all(ran.out) if document]


def production(chart: Path, tmp_path: Path) -> list[str | Path]:
    """What values-production.yaml says is to be given besides."""
    made(tmp_path)
    assert sidecar("keys", "authority", "--out", tmp_path / "authority.pem").returncode == 0
    (tmp_path / "ca.pem").write_bytes(Authority("collector").pem)
    files = {
        "custody.custodians.auditor": tmp_path / "auditor.pub.pem",
        "retention.authority": tmp_path / "authority.pub.pem",
        "policy.git.allowedSigners": POLICIES / "allowed_signers",
        "collector.caCertificate": tmp_path / "ca.pem",
    }
    given = [part for name, file in files.items() for part in ("--set-file", f"sidecar.{name}={file}")]
    values = chart / "values-production.yaml"
    return ["--values", values, *given, "--set", "sidecar.collector.logKey=log.example.org+9c2f3a10+Abc="]


@pytest.mark.parametrize("kind", ["trial", "production"])
def test_the_workload_is_rendered_with_its_agent_apart_from_the_sidecar(
    workload: Path, tmp_path: Path, kind: str
) -> None:
    found = documents(workload, *(production(workload, tmp_path) if kind == "production" else ()))
    for manifest in found:
        for version in VERSIONS:
            validate(manifest, version)
    pod = one(found, "StatefulSet")["spec"]["template"]
    assert violations(pod) == []
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in containers_of(pod))
    pod = pod["spec"]
    (agent,) = pod["containers"]
    beside = {container["name"]: container for container in pod["initContainers"]}
    assert beside["sidecar"]["restartPolicy"] == "Always"
    users = [each["securityContext"]["runAsUser"] for each in (agent, *beside.values())]
    assert len(set(users)) == len(users) == (3 if kind == "production" else 2)
    mounts = {mount["name"] for mount in agent["volumeMounts"]}
    assert mounts == {"sidecar-socket", "agent"} | ({"agent-key"} if kind == "production" else set())
    assert ("AGENT_KEY" in {variable["name"] for variable in agent["env"]}) == (kind == "production")
    program = one(found, "ConfigMap", "-agent")["data"]["agent.py"]
    assert program == AGENT.read_text()
    assert agent["command"] == ["python3", "/opt/agent/agent.py"]
    assert "dev = true" in str(found) or kind == "production"


def registered(place: Path) -> Path:
    """The policy repository with a registry of keys that somebody has."""
    policies = place / "policies"
    shutil.copytree(POLICIES, policies)
    (policies / "registry.json").unlink()
    for name, kind, role in (("billing-agent", "agent", "billing"), ("ann", "approver", "finance-lead")):
        assert sidecar("keys", "agent", "--out", place / f"{name}.pem").returncode == 0
        add = ["--registry", policies / "registry.json", "--key", place / f"{name}.pub.pem"]
        assert sidecar("agents", "add", *add, "--kind", kind, "--role", role, name).returncode == 0
    return policies


def test_the_agent_does_what_the_repository_allows_and_waits_for_an_approval(tmp_path: Path) -> None:
    needs_program("opa")
    policies = registered(tmp_path)
    ledger, custodian = made(tmp_path)
    with serving(ledger, "--policy", policies, dev=False) as server:

        def approve(lines: Iterable[str]) -> None:
            for line in lines:
                said.append(line)
                waiting = re.match(r"(\S+) waits for somebody", line)
                if waiting:
                    by = ["--server", server.address, "--by", "ann", "--key", tmp_path / "ann.pem", "--yes"]
                    approvals.append(sidecar("approvals", "approve", *by, waiting[1]))

        said: list[str] = []
        approvals: list[subprocess.CompletedProcess[str]] = []
        environ = environment(
            DECISION_SIDECAR=server.address, AGENT_KEY=str(tmp_path / "billing-agent.pem"), APPROVAL_SECONDS="60"
        )
        with subprocess.Popen(
            [sys.executable, AGENT, "--rounds", "1"], stdout=subprocess.PIPE, text=True, env=environ
        ) as agent:
            assert agent.stdout is not None
            reading = threading.Thread(target=approve, args=(agent.stdout,))
            reading.start()
            assert agent.wait(120) == 0
            reading.join()
        assert server.stop() == 0
    assert [each.returncode for each in approvals] == [0], approvals
    told = "".join(said)
    assert told.count("read customer acme-42") == 3
    assert re.findall(r"paid (\d+) EUR", told) == ["40", "1200"]
    assert "not done: " in told.splitlines()[-1]
    verified = sidecar("verify", ledger, "--custodian-key", custodian)
    assert verified.stdout.startswith("UNANCHORED\n")
    shown = sidecar("show", ledger).stdout
    assert shown.count("OUTCOME   executed") == 5


def test_one_command_takes_the_place_of_a_container(workload: Path, tmp_path: Path) -> None:
    """charts/once.py, as docs/RECOVER.md uses it: the container's volumes, users and configuration, alone."""
    found = documents(workload, *production(workload, tmp_path), "--set", "sidecar.collector.acceptLossConfigMap=loss")
    stateful = one(found, "StatefulSet")
    asked = ["sidecar", "--", "loss", "--config", "/etc/sidecar/sidecar.toml", "--request", "-"]
    run = [sys.executable, CHARTS / "once.py", *asked]
    done = subprocess.run(run, input=json.dumps(stateful), capture_output=True, text=True, check=True)
    pod = json.loads(done.stdout)
    for version in VERSIONS:
        validate(pod, version)
    assert violations(pod) == []
    (container,) = pod["spec"]["containers"]
    assert container["args"] == asked[2:] and "startupProbe" not in container and "restartPolicy" not in container
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    claim = volumes["sidecar-ledger"]["persistentVolumeClaim"]["claimName"]
    assert claim == "sidecar-ledger-billing-sidecar-0"
    assert volumes["sidecar-loss"] == {"name": "sidecar-loss", "configMap": {"name": "loss"}}
    configured = [each["data"]["sidecar.toml"] for each in found if "sidecar.toml" in each.get("data", {})]
    assert 'accept_loss_file = "/etc/sidecar-loss/loss.note"' in configured[0]
    wrong = subprocess.run(
        [sys.executable, CHARTS / "once.py", "nobody", "x"], input=json.dumps(stateful), capture_output=True, text=True
    )
    assert wrong.returncode == 1 and "there are opa, sidecar, agent" in wrong.stderr


def test_what_the_page_says_to_set_is_rendered(tmp_path: Path) -> None:
    """Each of the chart's README, on top of an image, a custodian and a registry."""
    said = re.findall(r"^```yaml\n(.*?)^```$", (SIDECAR / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    envoy = f"egress.redirect.envoy.configuration={SIDECAR.parent / 'envoy' / 'envoy.yaml'}"
    for text, more in zip(said, (("--set-file", envoy), (), ()), strict=True):
        (tmp_path / "said.yaml").write_text(text)
        base = HERE / "installs" / "token.yaml"
        ran = template(SIDECAR, "--values", base, "--values", tmp_path / "said.yaml", *more)
        assert ran.status == 0, ran.err
        assert {"StatefulSet", "NetworkPolicy"} <= {each["kind"] for each in yaml.safe_load_all(ran.out) if each}
