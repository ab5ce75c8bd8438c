"""Every door at one sidecar: one ledger holds what came through each, verifies, and its evidence tells the door."""

from __future__ import annotations

import asyncio
import csv
import http.client
import io
import json
import socket
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from mcp import StdioServerParameters, stdio_client
from mcp.client import Client

from tests.authorities import Authority
from tests.enforce.frameworks.crews import Crews
from tests.enforce.frameworks.doors import AGENT, DOORS, Desk
from tests.enforce.gates import OFFICIAL
from tests.enforce.gateway import Gateway, filters, placed, shipped, sign_key
from tests.enforce.upstream import grpc_upstream, upstream
from tests.needs import needs_program
from tests.people import person, registry_text
from tests.ports import free_port
from tests.program import BIN, Serving, environment, made, serving, sidecar

POLICY = """package agents

default decision := {"effect": "DENY", "reasons": [{"code": "no_door", "message": "it came through no door"}]}

decision := {"effect": "ALLOW", "reasons": [{"code": "door", "message": "it came through a door"}]} if {
	input.context.door.kind
}
"""
LAX = {"SIDECAR_POLICY_GATE_EXPECTATIONS": "false", "SIDECAR_POLICY_GATE_MIN_COVERAGE": "0"}
KINDS = {"envoy", "authzen", "mcp", "crewai", *DOORS}


def test_one_ledger_holds_what_came_through_every_door() -> None:
    needs_program("opa")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        ledger, auditor = made(place)
        (place / "registry.json").write_bytes(
            registry_text(person(AGENT, "agent"), person("edge", "executor"), person("pep", "executor"))
        )
        (place / "policy").mkdir()
        (place / "policy" / "decision.rego").write_text(POLICY)
        (place / "sidecar.toml").write_text(
            f'registry = "{place}/registry.json"\n'
            f'[doors.envoy]\ngateway = "edge"\nlisten = "unix:{place}/door.sock"\nagent = "{AGENT}"\n'
            f'[doors.authzen]\ngateway = "pep"\nlisten = "unix:{place}/pep.sock"\nagent = "{AGENT}"\n'
        )
        flags = ("--policy", place / "policy", "--config", place / "sidecar.toml")
        with serving(ledger, *flags, dev=False, **LAX) as server:
            (place / "work").mkdir()
            through_envoy(place, ledger)
            through_authzen(place)
            asyncio.run(through_mcp(place, server))
            desk = Desk(server.address, place / "work")
            for kind, door in DOORS.items():
                assert door(desk, [[("write", {"name": kind})]], "async") == [f"wrote {kind}"]
            (place / "crews").mkdir()
            with Crews(place / "crews") as crews:
                assert crews(desk, [[("write", {"name": "crewai"})]], "async") == ["wrote crewai"]
            assert server.stop() == 0

        told = sidecar("timeline", ledger, "--agent", AGENT).stdout
        assert {kind for kind in KINDS if f"via {kind}" in told} == KINDS, told
        report = json.loads(sidecar("verify", ledger, "--custodian-key", auditor, "--json").stdout)
        assert report["verdict"] == "UNANCHORED", report["findings"]
        case = place / "case.zip"
        window = ("--from", "2020-01-01", "--to", "2100-01-01")
        assert sidecar("evidence", "export", ledger, *window, "--out", case).returncode == 0
        assert json.loads(sidecar("verify", case, "--json").stdout)["verdict"] == "UNANCHORED"
        with ZipFile(case) as bundle:
            rows = csv.DictReader(io.StringIO(bundle.read("data/entries.csv").decode()))
            assert {row["door"] for row in rows if row["type"] == "DECISION"} == KINDS


def through_envoy(place: Path, ledger: Path) -> None:
    authority = Authority("services")
    (place / "ca.pem").write_bytes(authority.pem)
    with upstream(authority, place) as service, grpc_upstream(authority, service.acts) as http2:
        it = Gateway(place, ledger, free_port(), service)
        try:
            configuration = placed(shipped(), place, it.port, service.port, http2)
            filters(configuration)[0]["typed_config"]["grpc_service"]["timeout"] = "30s"
            it.start_envoy(configuration)
            answered = it.ask("GET", "/open/a")
            assert answered.status == 200 and len(service.acts) == 1
            it.outcome(it.of("DECISION")[-1]["decision_id"])
        finally:
            it.end()


def through_authzen(place: Path) -> None:
    asked = {
        "subject": {"type": "user", "id": "ursula"},
        "action": {"name": "can_read"},
        "resource": {"type": "record", "id": "1"},
    }
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(place / "pep.sock"))
    connection.request("POST", "/access/v1/evaluation", json.dumps(asked), {"content-type": "application/json"})
    assert json.loads(connection.getresponse().read())["decision"] is True
    connection.close()


async def through_mcp(place: Path, server: Serving) -> None:
    key = sign_key(place, AGENT)
    asked = ["mcp", "--server", server.address, "--agent", AGENT, "--key", str(key), "--name", "files"]
    asked += ["--pins", str(place / "pins.json"), "--trust-first", "--", sys.executable, str(OFFICIAL)]
    parameters = StdioServerParameters(
        command=str(BIN / "sidecar"), args=[*asked, str(place / "work")], env=environment()
    )
    with (place / "mcp.log").open("w") as log:
        async with Client(stdio_client(parameters, errlog=log), mode="legacy") as client:
            assert not (await client.call_tool("write_file", {"name": "by-mcp"})).is_error
    assert (place / "work" / "by-mcp").exists()
