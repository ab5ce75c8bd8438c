"""Clients and servers that nobody here wrote, from npm; a desktop client's configuration with one entry changed."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.api.running import judged
from tests.enforce.gates import Gate, gate
from tests.enforce.listeners import listening
from tests.languages.building import node_modules
from tests.needs import needs_program
from tests.program import environment

NODE = Path(__file__).parent / "node"


def installed(place: Path) -> Path:
    """A directory where Node finds the client and its packages."""
    here = place / "node"
    here.mkdir()
    (here / "client.mjs").write_bytes((NODE / "client.mjs").read_bytes())
    (here / "node_modules").symlink_to(node_modules(NODE / "package.json"), target_is_directory=True)
    return here


def started(here: Path, name: str) -> list[str]:
    """The command of an MCP server from npm."""
    return [needs_program("node"), str(here / "node_modules" / "@modelcontextprotocol" / name / "dist" / "index.js")]


async def desk(here: Path, sdk: str, entry: dict[str, Any], calls: list[Any]) -> dict[str, Any]:
    """What a client of the TypeScript SDK, started with a configuration that has this entry, makes of these calls."""
    configuration = here / "claude_desktop_config.json"
    configuration.write_text(json.dumps({"mcpServers": {"files": entry}}, indent=2))
    command = [needs_program("node"), "client.mjs", sdk, str(configuration), "files", json.dumps(calls)]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=here, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def behind(g: Gate, entry: dict[str, Any], *more: str) -> dict[str, Any]:
    """The same entry with the gateway before its server."""
    command, *arguments = g.command(*more, program=[entry["command"], *entry["args"]])
    return {"command": command, "args": arguments}


@pytest.mark.parametrize("sdk", ["v1", "v2"])
def test_the_filesystem_server_in_a_clients_configuration(sdk: str, tmp_path: Path) -> None:
    def rule(document: dict[str, Any]) -> str:
        return "DENY" if document["arguments"].get("path", "").endswith("no.txt") else "ALLOW"

    def shown(document: dict[str, Any]) -> str:
        return "DENY" if document["resource"]["id"] == "files/move_file" else "ALLOW"

    async def story() -> None:
        here = installed(tmp_path)
        async with gate(tmp_path, call=rule, show=shown) as g:
            command, *arguments = started(here, "server-filesystem")
            plain = {"command": command, "args": [*arguments, str(g.place)]}
            calls = [["write_file", {"path": str(g.place / name), "content": "x"}] for name in ("yes.txt", "no.txt")]
            bare = await desk(here, sdk, plain, calls)
            assert g.wrote("no.txt")
            for path in g.place.iterdir():
                path.unlink()
            got = await desk(here, sdk, behind(g, plain), calls)
            assert [each["isError"] for each in got["results"]] == [False, True]
            assert got["results"][0] == bare["results"][0]
            assert "is denied: the rules say DENY" in got["results"][1]["text"]
            assert [path.name for path in g.place.iterdir()] == ["yes.txt"]
            assert set(bare["tools"]) - set(got["tools"]) == {"move_file"}
            (allowed, _) = g.rules.of("mcp.tool.call")
            assert allowed["arguments"] == {"path": str(g.place / "yes.txt"), "content": "x"}
            assert [each["end"] for each in g.outcomes() if each["action"] == "mcp.tool.call"] == ["answered"]

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_the_server_with_everything(tmp_path: Path) -> None:
    """Long running, with progress; many kinds of content; requests of its own to the client, which are decided."""
    calls = [
        ["echo", {"message": "hällo"}],
        ["trigger-long-running-operation", {"duration": 0.2, "steps": 4}],
        ["get-tiny-image", {}],
        ["get-structured-content", {"location": "Chicago"}],
    ]

    async def story() -> None:
        here = installed(tmp_path)
        async with gate(tmp_path) as g:
            command, *arguments = started(here, "server-everything")
            plain = {"command": command, "args": [*arguments, "stdio"]}
            bare = await desk(here, "v2", plain, calls)
            got = await desk(here, "v2", behind(g, plain), calls)
            # A client may hear of the last step after the result, and then drops it, with the gateway or without.
            steps = [result["results"][1].pop("progress") for result in (got, bare)]
            assert all(each[:3] == [1, 2, 3] for each in steps)
            assert got == bare

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_the_newer_generation_between_two_sdks(tmp_path: Path) -> None:
    """2026-07-28: the TypeScript SDK's client, the Python SDK's server."""

    async def story() -> None:
        here = installed(tmp_path)
        async with gate(tmp_path, call=lambda d: "DENY" if d["arguments"]["name"] == "no" else "ALLOW") as g:
            command, *arguments = g.command()
            calls = [["write_file", {"name": "yes"}], ["write_file", {"name": "no"}]]
            got = await desk(here, "modern", {"command": command, "args": arguments}, calls)
            assert [each["isError"] for each in got["results"]] == [False, True]
            assert g.wrote("yes") and not g.wrote("no")
            asked = g.rules.of("mcp.tool.call")[0]["context"]["mcp"]["_meta"]
            assert asked["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
            assert asked["io.modelcontextprotocol/clientInfo"]["name"] == "desk"

    asyncio.run(story())


def test_over_http_clients_of_each_generation_at_once(tmp_path: Path) -> None:
    """The TypeScript SDK's clients, three of them beside each other, before a server that the gateway starts."""
    sdks = ("v1", "v2", "modern")
    calls = (("write_file", "yes"), ("write_file", "no"), ("steps", "steps"))

    async def story() -> None:
        async with gate(tmp_path, call=lambda d: "DENY" if d["arguments"]["name"].startswith("no") else "ALLOW") as g:
            async with listening(g) as at:
                entry = {"url": at.url, "headers": at.bearer}
                places = [tmp_path / sdk for sdk in sdks]
                for place in places:
                    place.mkdir()
                told = await asyncio.gather(
                    *(
                        desk(installed(place), sdk, entry, [[tool, {"name": f"{name}.{sdk}"}] for tool, name in calls])
                        for place, sdk in zip(places, sdks, strict=True)
                    )
                )
            for sdk, got in zip(sdks, told, strict=True):
                assert [each["isError"] for each in got["results"]] == [False, True, False]
                assert "is denied: the rules say DENY" in got["results"][1]["text"]
                assert got["results"][2]["progress"] == [1, 2, 3]
                assert g.wrote(f"yes.{sdk}") and not g.wrote(f"no.{sdk}")
            assert len([each for each in g.outcomes() if each["action"] == "mcp.tool.call"]) == 6

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"
