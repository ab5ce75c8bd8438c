"""What an operator has before `helm install`, made for a test: keys, a policy repository, a collector, values; and the
chart rendered with them by Helm."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.charts.kubelet import HOME, Document, Pod, given
from tests.cli.test_policy_from_git import Team
from tests.collecting import Collecting, collecting
from tests.needs import needs_program
from tests.policy.git_servers import Authority, Front, https_server
from tests.ports import free_port
from tests.program import sidecar

CHART: Final = HOME / "charts" / "sidecar"
AGENT: Final = """
import os, signal, sys, threading
from sidecar.client import AgentKey, Guard, NoDecision, Refused

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
key = AgentKey.from_file("/etc/agent/agent.pem")
with Guard(os.environ["DECISION_SIDECAR"], agent="billing-agent", key=key, attempts=1, timeout=60.0) as guard:
    while not ended.wait(0.02):
        for action in ("crm.read", "crm.delete"):
            try:
                with guard.guarded(action, ("customer", "acme-42"), {}) as leave:
                    print("did", action, leave.decision.decision_id, flush=True)
            except NoDecision as none:
                print("none", action, none, flush=True)
            except Refused as refusal:
                print("refused", action, refusal.decision.decision_id, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Site:
    """``place``: of everything; ``pod``: from the rendered manifests; ``test``: that of `helm test`."""

    place: Path
    collector: Collecting
    front: Front
    team: Team
    pod: Pod
    test: Pod

    @property
    def custodian(self) -> Path:
        return self.place / "auditor.pem"

    @property
    def ledger(self) -> Path:
        return self.pod.volume("sidecar-ledger") / "ledger"


@contextlib.contextmanager
def site(**more: Any) -> Iterator[Site]:
    """``more``: values of the chart beside those that are set here."""
    with contextlib.ExitStack() as stack:
        # Not below pytest's directories, which only root may enter: the pod's users must come through.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sidecar-node-")))
        place.chmod(0o755)
        team = Team(place)
        team.push("crm.read", "reader")
        authority = Authority(place / "authority")
        front = stack.enter_context(https_server(team.repository.path.parent, authority))
        config = place / "collector.toml"
        pem = json.dumps(str(authority.chain))
        config.write_text(f'origin = "log.example.org/fleet"\ntls.cert_file = {pem}\ntls.key_file = {pem}\n')
        collector = stack.enter_context(collecting(place / "collector", "--config", config))
        enrolment = ("--config", config, "--data-dir", place / "collector", "--out", place / "token")
        assert sidecar("collector", "register", *enrolment).returncode == 0
        _keys(place)
        values = _merged(_values(place, team, front, collector), more)
        documents = rendered(place, values)
        found = {
            **given(documents),
            ("configMap", "agent"): {"agent.py": AGENT.encode()},
            ("secret", "agent-key"): {"agent.pem": (place / "billing-agent.pem").read_bytes()},
            ("secret", "enrolment"): {"token": (place / "token").read_bytes()},
        }
        workload = next(each["spec"]["template"]["spec"] for each in documents if each["kind"] == "StatefulSet")
        test = next(each["spec"] for each in documents if each["kind"] == "Pod")
        claim = place / "claim"
        claim.mkdir(mode=0o755)
        pod = Pod(workload, found, place / "pod", claims={"sidecar-ledger": claim})
        yield Site(place, collector, front, team, pod, Pod(test, found, place / "test"))


def _merged(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """As Helm merges values: maps in each other, all else in the other's place."""
    both = {key: _merged(values[key], more[key]) for key in values.keys() & more.keys() if isinstance(more[key], dict)}
    return values | more | both


def _keys(place: Path) -> None:
    for command in (
        ("keys", "custodian", "--out", place / "auditor.pem"),
        ("keys", "agent", "--out", place / "billing-agent.pem"),
        ("agents", "add", "--registry", place / "registry.json", "--key", place / "billing-agent.pub.pem",
         "--role", "billing", "billing-agent"),
    ):  # fmt: skip
        done = sidecar(*command)
        assert done.returncode == 0, done.stderr


def _values(place: Path, team: Team, front: Front, collector: Collecting) -> dict[str, Any]:
    return {
        "workload": {
            "image": "billing:1.4",
            "command": ["python3", "/opt/agent/agent.py"],
            "volumes": [
                {"name": "agent", "configMap": {"name": "agent"}},
                {"name": "agent-key", "secret": {"secretName": "agent-key", "defaultMode": 0o440}},
            ],
            "volumeMounts": [
                {"name": "agent", "mountPath": "/opt/agent", "readOnly": True},
                {"name": "agent-key", "mountPath": "/etc/agent", "readOnly": True},
            ],
        },
        "registry": {"json": (place / "registry.json").read_text()},
        "policy": {
            "engine": "opa",
            "git": {
                "url": f"{front.url}/policies.git",
                "ref": "main",
                "subdirectory": "policy",
                "periodSeconds": 1,
                "allowedSigners": team.signers.read_text(),
                "caCertificate": front.authority.file.read_text(),
            },
        },
        "custody": {"custodians": {"auditor": (place / "auditor.pub.pem").read_text()}},
        "collector": {
            "address": collector.address,
            "logKey": collector.key,
            "caCertificate": front.authority.file.read_text(),
            "tokenSecret": "enrolment",
            "periodSeconds": 0.05,
            "lingerSeconds": 20,
        },
        "metrics": {"host": "127.0.0.1", "port": free_port()},
        "test": {"keySecret": "agent-key"},
    }


def rendered(place: Path, values: dict[str, Any]) -> list[Document]:
    """The chart's manifests, by real Helm."""
    file = place / "values.json"
    file.write_text(json.dumps(values))
    done = subprocess.run(
        [needs_program("helm"), "template", "billing", CHART, "--namespace", "agents", "--values", file],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]
