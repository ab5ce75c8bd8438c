"""docs/MCP.md: its policy and its configuration, with a test's paths, before the server that it names."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from mcp import StdioServerParameters, stdio_client
from mcp.client import Client

from tests.enforce.gates import words
from tests.enforce.test_mcp_outside import installed, started
from tests.needs import needs_program
from tests.program import environment, made, serving, sidecar

PAGE = (Path(__file__).parent.parent.parent / "docs/MCP.md").read_text()


def block(kind: str) -> str:
    found = re.search(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_configuration_and_the_policy_as_they_stand(tmp_path: Path) -> None:
    needs_program("opa")
    here = installed(tmp_path)
    policy, notes, registry = tmp_path / "policy", tmp_path / "notes", tmp_path / "registry.json"
    policy.mkdir()
    notes.mkdir()
    (policy / "decision.rego").write_text(block("rego"))
    assert sidecar("keys", "agent", "--out", tmp_path / "desk-agent.pem").returncode == 0
    public = tmp_path / "desk-agent.pub.pem"
    assert sidecar("agents", "add", "--registry", registry, "--key", public, "desk-agent").returncode == 0
    ledger, key = made(tmp_path)
    lax = {"SIDECAR_POLICY_GATE_MIN_COVERAGE": "0", "SIDECAR_POLICY_GATE_EXPECTATIONS": "false"}

    async def story(address: str) -> None:
        entry = json.loads(block("json"))["mcpServers"]["notes"]
        given = [argument.replace("/etc/sidecar", str(tmp_path)) for argument in entry["args"]]
        given[given.index("--server") + 1] = address
        behind = given.index("--") + 1
        assert given[behind:] == ["npx", "-y", "@modelcontextprotocol/server-filesystem", "/home/me/notes"]
        given[behind:] = [*started(here, "server-filesystem"), str(notes)]
        parameters = StdioServerParameters(command=entry["command"], args=given, env=environment())
        with (tmp_path / "log").open("w") as log:
            async with Client(stdio_client(parameters, errlog=log), mode="legacy") as client:
                names = {tool.name for tool in (await client.list_tools()).tools}
                assert names == {"read_text_file", "write_file"}
                for name, isolated in (("a.txt", False), ("secret.txt", True)):
                    path = {"path": str(notes / name), "content": "x"}
                    assert (await client.call_tool("write_file", path)).is_error is isolated
                moved = await client.call_tool("move_file", {"source": f"{notes}/a.txt", "destination": f"{notes}/b"})
                assert moved.is_error and "no rule allows this (not_granted)" in words(moved)

    with serving(ledger, "--policy", policy, dev=False, SIDECAR_REGISTRY=str(registry), **lax) as server:
        asyncio.run(story(server.address))
        assert server.stop() == 0
    assert [path.name for path in notes.iterdir()] == ["a.txt"]
    told = sidecar("timeline", ledger, "--agent", "desk-agent").stdout
    assert "mcp.tool.call mcp.tool:notes/write_file via mcp" in told, told
    report = json.loads(sidecar("verify", ledger, "--custodian-key", key, "--json").stdout)
    assert report["verdict"] == "UNANCHORED", report["findings"]
