"""The chart's pod under `egress.redirect`, whole: its init container's rules, OPA, sidecar, Envoy and an agent, each as
its own user, in a network that leads to a host outside; every file of the pod is as Helm rendered it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.authorities import Authority
from tests.charts.installing import Site, site
from tests.charts.kubelet import Container, running
from tests.enforce import ways_out
from tests.enforce.finding import envoy
from tests.enforce.gateway import SHIPPED, TOKEN
from tests.enforce.names import resolver
from tests.enforce.pod import SIX, Pod, entered, pod
from tests.enforce.upstream import HOST, Upstream, upstream
from tests.faults.load import recorded
from tests.people import person, registry_text
from tests.program import sidecar

AGENT = "billing-agent"
VALUES: dict[str, Any] = {
    "workload": {"command": ["sleep", "infinity"], "volumes": [], "volumeMounts": []},
    "registry": {"json": registry_text(person(AGENT, "agent"), person("edge", "executor")).decode()},
    "egress": {
        "door": {"gateway": "edge", "agent": AGENT},
        "redirect": {
            "enabled": True,
            "image": "nftables:1.1",
            "hosts": [HOST],
            "envoy": {
                "image": "envoy:1.40.0",
                "credentialSecret": "credential",
                "configuration": (SHIPPED / "envoy.yaml").read_text(),
            },
        },
    },
    "metrics": {"host": "0.0.0.0", "port": 9464},  # kubelet asks from outside of the pod
}
REQUEST = """
import http.client, sys
connection = http.client.HTTPConnection("api.example.com", timeout=30)
connection.request(sys.argv[1], "/accounts", headers={"authorization": "mine"})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


@dataclass(frozen=True, slots=True)
class Whole:
    network: Pod
    site: Site
    service: Upstream
    asked: list[str]

    def as_agent(self, *command: str) -> str:
        """What a program of the workload's container says."""
        pod = self.site.pod
        words = pod.within(pod.containers["workload"].spec, list(command))
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def request(self, method: str) -> tuple[int, str]:
        status, _, body = self.as_agent("python3", "-c", REQUEST, method).partition(" ")
        return int(status), body

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [payload for _, payload in recorded(self.site.ledger) if payload["type"] == kind]


@pytest.fixture(scope="module")
def it() -> Iterator[Whole]:
    with tempfile.TemporaryDirectory() as name, pod() as network, contextlib.ExitStack() as stack:
        place, authority, outside = Path(name), Authority("outside"), network.outside.address
        (place / "ca.pem").write_bytes(authority.pem)
        (place / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        service = entered(network.outside, upstream(authority, place, outside, 443), stack)
        asked = entered(network.inside, resolver("127.0.0.1", HOST, outside), stack)
        here = entered(network.inside, site(**VALUES), stack)
        here.team.push("http.get", "reader")
        whole = here.pod
        whole.given["secret", "credential"] = {"credential.yaml": (SHIPPED / "credential.yaml").read_bytes()}
        whole.network, whole.node, whole.address = network.inside.within, network.outside.call, network.inside.address
        whole.programs = (envoy().parent,)
        whole.files = {
            "/etc/ssl/certs/ca-certificates.crt": place / "ca.pem", "/etc/resolv.conf": place / "resolv.conf"
        }  # fmt: skip
        stack.enter_context(running(whole))
        network.trusted = 10010
        yield Whole(network, here, service, asked)


def eventually(look: Callable[[], object], why: Callable[[], str] = str) -> None:
    end = time.monotonic() + 60
    while not look():
        assert time.monotonic() < end, why()
        time.sleep(0.05)


def said(each: Container) -> str:
    return f"{each.name}: {each.said[-2000:]}"


def test_each_is_a_user_of_its_own_and_none_has_a_capability(it: Whole) -> None:
    """Envoy and the workload have no startup probe: they may be on their way still."""
    pod = it.site.pod
    assert list(pod.containers) == ["egress", "opa", "sidecar", "envoy", "workload"]
    assert pod.containers["egress"].ended() == 0
    for name, user in (("opa", 10011), ("sidecar", 10010), ("envoy", 10012), ("workload", 10001)):
        file = Path(f"/proc/{pod.containers[name].process.pid}/status")
        eventually(lambda file=file, user=user: f"Uid:\t{user}\t{user}\t{user}" in file.read_text())
        assert re.search(r"^CapEff:\s+0+$", file.read_text(), re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", file.read_text(), re.MULTILINE)
    eventually((pod.volume("sidecar-envoy") / "admin.sock").is_socket, lambda: said(pod.containers["envoy"]))


def test_none_of_the_agents_ways_leads_out(it: Whole) -> None:
    it.network.arrived()
    where = (it.network.outside.address, SIX["outside"], "/run/envoy/admin.sock")
    told = json.loads(it.as_agent("python3", ways_out.__file__, *where))
    assert it.network.arrived() == [], told
    assert told["tcp"] == "sent" and "FileNotFound" in told["Envoy's admin"] and len(told) == 26
    assert it.of("DECISION") == [] and it.service.acts == []


def test_what_was_denied_goes_nowhere(it: Whole) -> None:
    it.network.arrived()
    status, body = it.request("POST")
    assert (status, json.loads(body)["error"]) == (403, "denied"), said(it.site.pod.containers["envoy"])
    assert it.network.arrived() == [] and it.service.acts == []


def test_what_was_allowed_goes_on_with_the_credential_of_envoy(it: Whole) -> None:
    it.network.arrived()
    status, body = it.request("GET")
    assert (status, body) == (200, "done\n\n"), said(it.site.pod.containers["envoy"])
    (act,) = it.service.acts
    assert (act.method, act.path, act.headers["host"], act.headers["authorization"]) == (
        "GET",
        "/accounts",
        HOST,
        TOKEN,
    )
    assert set(it.network.arrived()) == {"tcp/443"} and HOST in it.asked


def test_the_agent_reaches_neither_the_door_nor_the_credential(it: Whole) -> None:
    look = "import os,sys; print([each for each in sys.argv[1:] if os.path.exists(each)])"
    places = ("/etc/envoy", "/run/envoy", "/run/sidecar-door", "/etc/egress", "/run/sidecar/envoy.sock")
    assert it.as_agent("python3", "-c", look, *places) == "[]\n"


def test_at_the_end_the_ledger_holds_it_and_verifies(it: Whole) -> None:
    decided = {d["effect"]: d for d in it.of("DECISION")}
    assert set(decided) == {"ALLOW", "DENY"}
    named = {"id": AGENT, "proof": "gateway", "gateway": "edge", "gateway_proof": "socket"}
    assert decided["ALLOW"]["agent"].items() >= named.items()
    codes = it.site.pod.stop()
    assert codes.pop("workload") and set(codes.values()) == {0}, codes
    (outcome,) = it.of("OUTCOME")
    assert (outcome["decision_id"], outcome["status"]) == (decided["ALLOW"]["decision_id"], "executed")
    told = json.loads(sidecar("verify", it.site.ledger, "--custodian-key", it.site.custodian, "--json").stdout)
    assert told["verdict"] == "UNANCHORED", told["findings"]
    assert told["decisions"]["vouched"] == 2
