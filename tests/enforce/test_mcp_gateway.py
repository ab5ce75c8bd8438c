"""`sidecar mcp` between the official SDK's client and server: what was decided is what happens, as the files show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters, stdio_client
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult

from tests.api.running import judged
from tests.enforce.gates import OFFICIAL, Gate, gate, tool_policy, words
from tests.enforce.listeners import launched, listens
from tests.needs import needs_program
from tests.policy.processes import stop
from tests.program import BIN, environment, made, serving, sidecar

MODES = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])  # a generation each


def named(document: dict[str, Any]) -> str:
    """DENY for a tool's call whose file is called so."""
    return "DENY" if str(document["arguments"].get("name", "")).startswith("no") else "ALLOW"


@MODES
def test_what_was_decided_is_what_happens(mode: str, tmp_path: Path) -> None:
    async def sure(*_: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"sure": True})

    async def calls(g: Gate, client: Client) -> None:
        assert {t.name for t in (await client.list_tools()).tools} == {
            "write_file",
            "fail",
            "steps",
            "hold",
            "ask",
            "big",
        }
        done = await client.call_tool("write_file", {"name": "a.txt", "text": "hällo"})
        assert (words(done), (g.place / "a.txt").read_text()) == ("wrote 5 characters", "hällo")
        denied = await client.call_tool("write_file", {"name": "no.txt", "text": "x"})
        assert denied.is_error and "write_file of files is denied: the rules say DENY (scripted)" in words(denied)
        decision = denied.meta["sidecar/decision"]
        assert decision["decision_id"] in words(denied) and decision["policy"]["revision"] in words(denied)
        assert (await client.call_tool("fail", {"name": "f.txt"})).is_error and g.wrote("f.txt")

        told: list[tuple[float, str | None]] = []

        async def progress(done: float, _total: float | None, message: str | None) -> None:
            told.append((done, message))

        assert words(await client.call_tool("steps", {"name": "s.txt"}, progress_callback=progress)) == "three steps"
        assert told == [(1, "step 1"), (2, "step 2"), (3, "step 3")]
        assert len(words(await client.call_tool("big", {"megabytes": 1}))) == 1 << 20
        many = (client.call_tool("write_file", {"name": f"m{n}", "text": str(n)}) for n in range(20))
        await asyncio.gather(*many)
        assert [(g.place / f"m{n}").read_text() for n in range(20)] == [str(n) for n in range(20)]
        assert words(await client.call_tool("ask", {"name": "sure.txt"})) == "asked" and g.wrote("sure.txt")
        g.rules.answers["mcp.elicitation"] = "DENY"
        with contextlib.suppress(MCPError):  # the server says so, or the gateway, as the generation has it
            assert (await client.call_tool("ask", {"name": "unsure.txt"})).is_error
        assert not g.wrote("unsure.txt")
        assert (await client.read_resource("note://one")).contents[0].text == "a note"
        g.rules.answers["mcp.resource.read"] = "DENY"
        with pytest.raises(MCPError, match="the rules say DENY"):
            await client.read_resource("note://one")
        assert "Hello Ann" in str(await client.get_prompt("greet", {"name": "Ann"}))

    async def story() -> None:
        async with gate(tmp_path, call=named) as g:
            async with g.client("--record-result", "300", mode=mode, elicitation_callback=sure) as client:
                await calls(g, client)
            assert not g.wrote("no.txt")
            (asked,) = [d for d in g.rules.of("mcp.tool.call") if d["arguments"].get("name") == "a.txt"]
            assert asked["arguments"] == {"name": "a.txt", "text": "hällo"}
            assert asked["resource"] == {"type": "mcp.tool", "id": "files/write_file"}
            door = asked["context"]["door"]
            assert (door["kind"], door["server"], door["method"], door["pin"]) == (
                "mcp",
                "files",
                "tools/call",
                "pinned",
            )
            told = [each for each in g.outcomes() if each["action"] == "mcp.tool.call"]
            assert told[0]["result"]["content"][0]["text"] == "wrote 5 characters"
            assert (told[1]["status"], told[1]["is_error"]) == ("failed", True)
            (large,) = [each for each in told if each.get("bytes", 0) > 1 << 20]
            assert "result" not in large and len(large["sha256"]) == 64

    asyncio.run(story())
    report = judged(tmp_path / "ledger")
    assert report.verdict.name == "UNANCHORED", report.findings
    unmatched = sidecar("show", tmp_path / "ledger", "--outcomes", "--json").stdout
    assert unmatched.count("allow without outcome") == 0, unmatched
    story_told = sidecar("timeline", tmp_path / "ledger", "--agent", "billing-agent").stdout
    assert "mcp.tool.call" in story_told


@MODES
def test_an_approval_is_waited_for_or_asked_for_again(mode: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with gate(tmp_path, call="REQUIRE_APPROVAL") as g:

            async def speak(verdict: str) -> None:
                waiting = [d for d in g.desk.entries("DECISION") if d["effect"] == "REQUIRE_APPROVAL"][-1]
                await g.speak(waiting["decision_id"], verdict)

            async with g.client(mode=mode) as client:
                again = {"name": "a.txt", "text": "x"}
                first = await client.call_tool("write_file", again)
                assert first.is_error and "sidecar approvals approve" in words(first) and not g.wrote("a.txt")
                assert "still waits" in words(await client.call_tool("write_file", again))
                await speak("approve")
                assert not (await client.call_tool("write_file", again)).is_error and g.wrote("a.txt")
                other = await client.call_tool("write_file", {"name": "b.txt"})
                assert "needs an approval" in words(other)
                await speak("reject")
                assert "was rejected" in words(await client.call_tool("write_file", {"name": "b.txt"}))
                assert not g.wrote("b.txt")
            heard = asyncio.Event()

            async def progress(_done: float, _total: float | None, message: str | None) -> None:
                assert message is not None and "waits for an approval" in message
                heard.set()

            async with g.client("--wait-approval", "60", mode=mode) as client:
                call = asyncio.create_task(
                    client.call_tool("write_file", {"name": "c.txt"}, progress_callback=progress)
                )
                await asyncio.wait_for(heard.wait(), 60)
                assert not g.wrote("c.txt")
                await speak("approve")
                assert not (await call).is_error and g.wrote("c.txt")

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_a_cancelled_call_is_cancelled_at_the_server(tmp_path: Path) -> None:
    async def story() -> None:
        async with gate(tmp_path) as g:
            async with g.client(mode="legacy") as client:
                call = asyncio.create_task(client.call_tool("hold", {"name": "h"}))
                await g.until(lambda: g.wrote("h.began"))
                call.cancel()
                await g.until(lambda: g.wrote("h.cancelled"))
                assert not (await client.call_tool("write_file", {"name": "after"})).is_error
            assert not g.wrote("h")
            held = next(each for each in g.outcomes() if each["end"].startswith(("cancelled", "answered after")))
            assert held["action"] == "mcp.tool.call"

    asyncio.run(story())


@pytest.mark.parametrize("over", ["standard streams", "HTTP"])
def test_no_sidecar_no_deed(over: str, tmp_path: Path) -> None:
    """Down, slow, and killed in the middle of a call: every call is refused and says why."""
    needs_program("opa")
    ledger, key = made(tmp_path)
    policy = tool_policy(tmp_path / "policy", "write_file", "hold")
    work = tmp_path / "work"
    work.mkdir()

    def command(address: str, *more: str) -> list[str]:
        where = [
            "--server",
            address,
            "--agent",
            "billing-agent",
            "--pins",
            str(tmp_path / "pins.json"),
            "--trust-first",
        ]
        behind = [sys.executable, str(OFFICIAL), str(work)]
        return [str(BIN / "sidecar"), "mcp", *where, "--name", "files", *more, "--", *behind]

    @contextlib.asynccontextmanager
    async def connected(address: str) -> AsyncIterator[Client]:
        with (tmp_path / "log").open("w") as log:
            if over == "HTTP":
                whole = command(address, "--timeout", "3", *listens(tmp_path))
                async with (
                    launched(whole, lambda line: log.write(f"{line}\n")) as at,
                    at.client(mode="legacy") as client,
                ):
                    yield client
                return
            program, *arguments = command(address, "--timeout", "3")
            parameters = StdioServerParameters(command=program, args=arguments, env=environment())
            async with Client(stdio_client(parameters, errlog=log), mode="legacy") as client:
                yield client

    async def story() -> None:
        with serving(ledger, "--policy", policy) as server:
            async with connected(server.address) as client:
                assert not (await client.call_tool("write_file", {"name": "before"})).is_error
                assert (await client.call_tool("fail", {"name": "not allowed"})).is_error
                held = asyncio.create_task(client.call_tool("hold", {"name": "held"}))
                async with asyncio.timeout(60):
                    while not (work / "held.began").exists():  # noqa: ASYNC110  # another process makes it
                        await asyncio.sleep(0.01)
                stop(server.process.pid)
                slow = await client.call_tool("write_file", {"name": "slow"})
                assert slow.is_error and "none within 3 s" in words(slow) and "Not done" in words(slow)
                deciding = asyncio.create_task(client.call_tool("write_file", {"name": "killed"}))
                server.stop(signal.SIGKILL)
                assert "no decision" in words(await deciding)
                assert "no decision" in words(await client.call_tool("write_file", {"name": "down"}))
                (work / "go").write_text("")
                assert words(await held) == "held"  # it was allowed and has run: its result gets out
        assert sorted(path.name for path in work.iterdir()) == ["before", "go", "held", "held.began"]
        assert "outcome EXECUTED not reported" in (tmp_path / "log").read_text()

    asyncio.run(story())
    report = json.loads(sidecar("verify", ledger, "--custodian-key", key, "--json").stdout)
    assert report["verdict"] == "UNANCHORED", report["findings"]
