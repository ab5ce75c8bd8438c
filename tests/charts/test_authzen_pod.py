"""The chart's pod with AuthZEN's door, as processes (`kubelet`): the workload is the PEP, or one elsewhere is."""

from __future__ import annotations

import contextlib
import http.client
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.authorities import CLIENT, SERVER, Authority
from tests.charts.installing import rendered
from tests.charts.kubelet import Pod, given, running
from tests.charts.test_pod import eventually
from tests.enforce.gateway import issue
from tests.enforce.pep import EVALUATION, HOST, PEP, PEP_ID, Named, asking, context_of
from tests.people import person, registry_text
from tests.ports import free_port
from tests.program import sidecar

AGENT = "billing-agent"
ASKED = json.dumps(asking("ursula", "crm.read", "customer/acme-42"))
PROGRAM = f"""
import http.client, json, signal, socket, threading

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
connection = http.client.HTTPConnection("localhost", timeout=60)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/sidecar-authzen/authzen.sock")
connection.request("POST", "{EVALUATION}", {ASKED!r}, {{"content-type": "application/json"}})
print("told", json.loads(connection.getresponse().read())["decision"], flush=True)
ended.wait()
"""


@contextlib.contextmanager
def pod(authzen: dict[str, Any], **more: Any) -> Iterator[tuple[Pod, Authority, int]]:
    """A pod of the chart, the CA of its certificates, and the port of its door where it has one."""
    with tempfile.TemporaryDirectory(prefix="sidecar-node-") as scratch:
        place, authority, port = Path(scratch), Authority("a"), free_port()
        place.chmod(0o755)
        assert sidecar("keys", "custodian", "--out", place / "auditor.pem").returncode == 0
        people = person(AGENT, "agent"), person(PEP, "executor", spiffe_ids=[{"id": PEP_ID}])
        values = {
            "workload": {
                "image": "todo-backend:1.3",
                "command": ["python3", "/opt/pep/pep.py"],
                "volumes": [{"name": "pep", "configMap": {"name": "pep"}}],
                "volumeMounts": [{"name": "pep", "mountPath": "/opt/pep", "readOnly": True}],
            },
            "registry": {"json": registry_text(*people).decode()},
            "custody": {"custodians": {"auditor": (place / "auditor.pub.pem").read_text()}},
            "metrics": {"host": "127.0.0.1", "port": free_port()},
            "authzen": {"gateway": PEP, "agent": AGENT, "port": port, **authzen},
            **more,
        }
        documents = rendered(place, values)
        shown = authority.issue("spiffe://a/sidecar", dns=[HOST], purposes=[CLIENT, SERVER])
        identity = {"tls.crt": shown.chain, "tls.key": shown.key_pem, "ca.crt": authority.pem}
        found = {
            **given(documents),
            ("configMap", "pep"): {"pep.py": PROGRAM.encode()},
            ("secret", "identity"): identity,
        }
        spec = next(each["spec"]["template"]["spec"] for each in documents if each["kind"] == "StatefulSet")
        claim = place / "claim"
        claim.mkdir(mode=0o755)
        with running(Pod(spec, found, place / "pod", claims={"sidecar-ledger": claim})) as started:
            yield started, authority, port


def decision_of(it: Pod) -> dict[str, Any]:
    """The one decision that its ledger holds."""
    done = sidecar("show", it.volume("sidecar-ledger") / "ledger", "--json")
    payloads = [json.loads(line)["payload"] for line in done.stdout.splitlines()]
    (decision,) = [each for each in payloads if each["type"] == "DECISION"]
    return decision["agent"] | {"effect": decision["effect"]}


def test_the_workload_is_the_pep() -> None:
    with pod({"listen": "socket"}) as (it, _, _):
        workload = it.containers["workload"]
        eventually(lambda: "told" in workload.said or workload.process.poll(), lambda: workload.said)
        assert workload.said == "told True\n"
        elsewhere = {
            **workload.spec,
            "volumeMounts": [e for e in workload.spec["volumeMounts"] if "authzen" not in str(e)],
        }
        asked = it.run(elsewhere, ["python3", "-c", PROGRAM])
        assert asked.ended() != 0 and "told" not in asked.said  # any other container of the pod
        assert it.stop() == {"workload": 0, "sidecar": 0}
        found = decision_of(it)
        assert (found["effect"], found["id"], found["gateway"], found["gateway_proof"]) == (
            "ALLOW",
            AGENT,
            PEP,
            "socket",
        )


def test_a_pep_of_another_pod(tmp_path: Path) -> None:
    tls = {"from": [{"podSelector": {"matchLabels": {"app": "todo-backend"}}}]}
    with pod(tls, identity={"kind": "secret", "secret": "identity"}) as (it, authority, port):
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        for shown, expected in (("spiffe://a/other", (401, None)), (PEP_ID, (200, True))):
            issue(tmp_path, "pep", authority, shown)
            connection = Named("127.0.0.1", port, timeout=60, context=context_of(tmp_path, tmp_path / "ca.pem"))
            with contextlib.closing(connection):
                connection.request("POST", EVALUATION, ASKED, {"content-type": "application/json"})
                response: http.client.HTTPResponse = connection.getresponse()
                assert (response.status, json.loads(response.read()).get("decision")) == expected
        assert decision_of(it)["gateway_proof"] == "mtls"
