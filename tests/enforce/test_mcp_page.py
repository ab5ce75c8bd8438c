"""docs/MCP.md, typed as it stands but for where it lies, before the server that it names."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from mcp import StdioServerParameters, stdio_client
from mcp.client import Client

from sidecar.enforce.mcp.fields import read_fields
from sidecar.enforce.mcp.token import read_token
from tests.enforce.gates import words
from tests.enforce.test_mcp_outside import installed, started
from tests.needs import needs_program
from tests.program import environment, sidecar
from tests.test_readme import served, shell

PAGE = (Path(__file__).parent.parent.parent / "docs/MCP.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_what_is_typed_and_the_configuration_as_they_stand(tmp_path: Path) -> None:
    needs_program("opa")
    server = [*started(installed(tmp_path), "server-filesystem"), str(tmp_path / "notes")]
    desk, notes = tmp_path / "desk", tmp_path / "notes"
    desk.mkdir()
    notes.mkdir()
    typed, secrets = blocks("sh")
    *preparation, serving = typed.strip().splitlines()
    shell("\n".join(preparation), desk)

    async def story() -> None:
        (configuration,) = blocks("json")
        entry = json.loads(configuration.replace("/home/me", str(tmp_path)))["mcpServers"]["notes"]
        behind = entry["args"].index("--") + 1
        given = entry["args"][behind:]
        assert given == ["npx", "-y", "@modelcontextprotocol/server-filesystem", str(notes)]
        arguments = [*entry["args"][:behind], *server]
        parameters = StdioServerParameters(command=entry["command"], args=arguments, env=environment())
        with (tmp_path / "log").open("w") as log:
            async with Client(stdio_client(parameters, errlog=log), mode="legacy") as client:
                names = {tool.name for tool in (await client.list_tools()).tools}
                assert names == {"read_text_file", "write_file"}
                for name, isolated in (("a.txt", False), ("secret.txt", True)):
                    path = {"path": str(notes / name), "content": "x"}
                    assert (await client.call_tool("write_file", path)).is_error is isolated
                moved = await client.call_tool("move_file", {"source": f"{notes}/a.txt", "destination": f"{notes}/b"})
                assert moved.is_error and "no rule allows this (not_granted)" in words(moved)
        assert "pinned 14 tools" in (tmp_path / "log").read_text()

    with served(serving, desk):
        asyncio.run(story())
    assert [path.name for path in notes.iterdir()] == ["a.txt"]
    told = shell("sidecar timeline ledger --agent desk-agent", desk)
    assert "mcp.tool.call mcp.tool:notes/write_file via mcp" in told, told
    report = json.loads(sidecar("verify", desk / "ledger", "--custodian-key", desk / "auditor.pem", "--json").stdout)
    assert report["verdict"] == "UNANCHORED", report["findings"]

    shell(secrets, desk)
    assert len(read_token(desk / "desk-agent.token")) > 40
    assert read_fields(desk / "notes.fields") == [("Authorization", "Bearer what-the-server-wants")]
