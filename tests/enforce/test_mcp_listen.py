"""`sidecar mcp --listen` before the official SDK's server, asked by the official SDK's client over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult

from tests.api.running import judged
from tests.api.tls_files import Files, server_certificate
from tests.authorities import Authority
from tests.enforce.gates import Gate, gate, words
from tests.enforce.listeners import listening
from tests.enforce.test_mcp_gateway import named
from tests.enforce.test_mcp_remote import TOKEN as UPSTREAM_TOKEN
from tests.enforce.test_mcp_remote import remote

MODES = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])  # a generation each


async def sure(*_: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"sure": True})


async def calls(g: Gate, client: Client) -> None:
    assert len((await client.list_tools()).tools) == 6
    done = await client.call_tool("write_file", {"name": "ä.txt", "text": "hällo"})
    assert words(done) == "wrote 5 characters" and (g.place / "ä.txt").read_text() == "hällo"
    denied = await client.call_tool("write_file", {"name": "no.txt", "text": "x"})
    assert denied.is_error and "write_file of files is denied: the rules say DENY (scripted)" in words(denied)
    assert denied.meta["sidecar/decision"]["decision_id"] in words(denied)
    told: list[float] = []

    async def progress(done: float, *_: Any) -> None:
        told.append(done)

    assert words(await client.call_tool("steps", {"name": "s.txt"}, progress_callback=progress)) == "three steps"
    assert told == [1, 2, 3]
    assert len(words(await client.call_tool("big", {"megabytes": 8}))) == 8 << 20
    many = await asyncio.gather(*(client.call_tool("write_file", {"name": f"m{n}", "text": str(n)}) for n in range(12)))
    assert not any(each.is_error for each in many)
    assert [(g.place / f"m{n}").read_text() for n in range(12)] == [str(n) for n in range(12)]
    assert words(await client.call_tool("ask", {"name": "sure.txt"})) == "asked" and g.wrote("sure.txt")
    g.rules.answers["mcp.elicitation"] = "DENY"
    with contextlib.suppress(MCPError):  # the server says so, or the gateway, as the generation has it
        assert (await client.call_tool("ask", {"name": "unsure.txt"})).is_error
    assert not g.wrote("unsure.txt")
    assert (await client.read_resource("note://one")).contents[0].text == "a note"
    assert "Hello Ann" in str(await client.get_prompt("greet", {"name": "Ann"}))


@MODES
@pytest.mark.parametrize("behind", ["a command", "a URL"])
def test_what_was_decided_is_what_happens(mode: str, behind: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with gate(tmp_path, call=named) as g:
            fields = tmp_path / "fields"
            fields.write_text(f"Authorization: Bearer {UPSTREAM_TOKEN}\n")
            with remote(g.place) if behind == "a URL" else contextlib.nullcontext() as upstream:
                more = ("--header-file", str(fields)) if upstream else ()
                async with listening(g, "--sessions", "4", *more, upstream=upstream) as at:
                    async with at.client(mode=mode, elicitation_callback=sure) as client:
                        await calls(g, client)
                    g.rules.answers["mcp.elicitation"] = "ALLOW"
                    async with at.client(mode=mode) as client:
                        assert not (await client.call_tool("write_file", {"name": "again"})).is_error
            assert not g.wrote("no.txt") and g.wrote("again")
            assert UPSTREAM_TOKEN not in "".join(map(str, g.rules.seen)) + g.said()
            told = [each for each in g.outcomes() if each["action"] == "mcp.tool.call"]
            assert [each["end"] for each in told].count("answered") >= 18

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


@MODES
def test_to_hang_up_or_to_cancel_reaches_the_server(mode: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with gate(tmp_path) as g, listening(g, address=f"unix:{tmp_path}/mcp.sock") as at:
            assert (tmp_path / "mcp.sock").stat().st_mode & 0o777 == 0o660
            async with at.client(mode=mode) as client:
                call = asyncio.create_task(client.call_tool("hold", {"name": "h"}))
                await g.until(lambda: g.wrote("h.began"))
                call.cancel()
                await g.until(lambda: g.wrote("h.cancelled"))
                assert not (await client.call_tool("write_file", {"name": "after"})).is_error
            given_up = ("cancelled", "answered after it was cancelled")
            await g.until(lambda: any(each["end"].startswith(given_up) for each in g.outcomes()))
            assert not g.wrote("h")

    asyncio.run(story())


@MODES
def test_an_approval_is_waited_for_or_asked_for_again(mode: str, tmp_path: Path) -> None:
    """Asked for again also by another client: the gateway is one agent."""

    async def story() -> None:
        async with gate(tmp_path, call="REQUIRE_APPROVAL") as g:

            async def speak() -> None:
                waiting = [d for d in g.desk.entries("DECISION") if d["effect"] == "REQUIRE_APPROVAL"][-1]
                await g.speak(waiting["decision_id"], "approve")

            async with listening(g) as at:
                async with at.client(mode=mode) as client:
                    first = await client.call_tool("write_file", {"name": "a.txt"})
                    assert first.is_error and "sidecar approvals approve" in words(first)
                await speak()
                assert not g.wrote("a.txt")
                async with at.client(mode=mode) as client:
                    assert not (await client.call_tool("write_file", {"name": "a.txt"})).is_error and g.wrote("a.txt")
            async with listening(g, "--wait-approval", "60") as at, at.client(mode=mode) as client:
                heard = asyncio.Event()

                async def progress(_done: float, _total: float | None, message: str | None) -> None:
                    assert message is not None and "waits for an approval" in message
                    heard.set()

                call = asyncio.create_task(
                    client.call_tool("write_file", {"name": "c.txt"}, progress_callback=progress)
                )
                await asyncio.wait_for(heard.wait(), 60)
                assert not g.wrote("c.txt")
                await speak()
                assert not (await call).is_error and g.wrote("c.txt")

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_sessions_have_servers_of_their_own_and_leave_none_behind(tmp_path: Path) -> None:
    async def story() -> None:
        async with gate(tmp_path) as g, listening(g, "--sessions", "2") as at:
            async with at.client(mode="legacy") as one, at.client(mode="legacy") as other:
                held = asyncio.create_task(one.call_tool("hold", {"name": "h"}))
                await g.until(lambda: g.wrote("h.began"))
                assert not (await other.call_tool("write_file", {"name": "beside"})).is_error
                assert len(at.children()) == 2
                with pytest.raises(BaseException) as refused:  # the SDK raises a group
                    async with at.client(mode="legacy"):
                        pass
                assert "as many as may be" in repr(refused.value.__reduce__()) + str(refused.value)
                (g.place / "go").write_text("")
                assert words(await held) == "held"
            await g.until(lambda: not at.children())
            async with at.client(mode="legacy") as client:
                assert not (await client.call_tool("write_file", {"name": "third"})).is_error

    asyncio.run(story())


def test_over_tls_beyond_this_host(tmp_path: Path) -> None:
    """Whoever has the authority knows the gateway by its certificate; the token is for that connection alone."""
    authority = Authority("one")
    Files(tmp_path).write(server_certificate(authority, "localhost"), authority)
    chain, key, ca = Files(tmp_path).paths

    async def story() -> None:
        async with gate(tmp_path, call=named) as g:
            more = ("--listen-cert", chain, "--listen-key", key)
            async with listening(g, *more, address="0.0.0.0:0") as at:
                at.address, at.ca = at.address.replace("0.0.0.0", "localhost"), ca
                async with at.client(mode="legacy") as client:
                    assert not (await client.call_tool("write_file", {"name": "yes"})).is_error
                    assert (await client.call_tool("write_file", {"name": "no"})).is_error
                at.token = "another-token-than-that"
                with pytest.raises(BaseException):  # noqa: B017  # the SDK raises a group
                    async with at.client(mode="legacy"):
                        pass
            assert g.wrote("yes") and not g.wrote("no")

    asyncio.run(story())
