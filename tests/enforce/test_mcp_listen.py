"""`sidecar mcp --listen` before the official SDK's server, asked by the official SDK's client over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult

from tests.api.running import judged
from tests.api.tls_files import handshake, server_certificate
from tests.authorities import HOUR, NOW, SERVER, Authority, Issued
from tests.enforce.gates import RAW, Gate, gate, words
from tests.enforce.listeners import TOKEN, Listener, listening
from tests.enforce.mounted import mount
from tests.enforce.test_mcp_gateway import named
from tests.enforce.test_mcp_remote import TOKEN as UPSTREAM_TOKEN
from tests.enforce.test_mcp_remote import remote

OPTIONS = {"crt": "listen-cert", "key": "listen-key", "token": "token-file"}
BOTH = {"Accept": "application/json, text/event-stream"}
MODES = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])  # a generation each
HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


def raw(g: Gate) -> list[str]:
    """A server that starts at once."""
    return [sys.executable, str(RAW), str(g.place)]


def credentials(g: Gate) -> list[str]:
    """What `remote` wants to see."""
    fields = g.key.with_name("fields")
    fields.write_text(f"Authorization: Bearer {UPSTREAM_TOKEN}\n")
    fields.chmod(0o640)
    return ["--header-file", str(fields)]


def der(shown: Issued) -> bytes:
    return ssl.PEM_cert_to_DER_cert(shown.chain.decode())


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
    many = await asyncio.gather(*(client.call_tool("write_file", {"name": f"m{n}", "text": str(n)}) for n in range(8)))
    assert not any(each.is_error for each in many)
    assert [(g.place / f"m{n}").read_text() for n in range(8)] == [str(n) for n in range(8)]
    assert words(await client.call_tool("ask", {"name": "sure.txt"})) == "asked" and g.wrote("sure.txt")
    g.rules.answers["mcp.elicitation"] = "DENY"
    with contextlib.suppress(MCPError):  # the server says so, or the gateway, as the generation has it
        assert (await client.call_tool("ask", {"name": "unsure.txt"})).is_error
    assert not g.wrote("unsure.txt")
    assert (await client.read_resource("note://one")).contents[0].text == "a note"
    assert "Hello Ann" in str(await client.get_prompt("greet", {"name": "Ann"}))
    held = asyncio.create_task(client.call_tool("hold", {"name": "h"}))
    await g.until(lambda: g.wrote("h.began"))
    held.cancel()
    await g.until(lambda: g.wrote("h.cancelled"))
    assert not (await client.call_tool("write_file", {"name": "after"})).is_error


@MODES
@pytest.mark.parametrize("behind", ["a command", "a URL"])
def test_what_was_decided_is_what_happens(mode: str, behind: str, tmp_path: Path) -> None:
    socket = tmp_path / "mcp.sock"

    async def story() -> None:
        async with gate(tmp_path, call=named) as g:
            with remote(g.place) if behind == "a URL" else contextlib.nullcontext() as upstream:
                more = ("--sessions", "2", *(credentials(g) if upstream else ()))
                async with listening(g, *more, upstream=upstream, address=f"unix:{socket}") as at:
                    assert socket.stat().st_mode & 0o777 == 0o660
                    async with at.client(mode=mode, elicitation_callback=sure) as client:
                        await calls(g, client)
            assert g.wrote("after") and not g.wrote("no.txt") and not g.wrote("h") and not socket.exists()
            assert UPSTREAM_TOKEN not in "".join(map(str, g.rules.seen)) + g.said()
            ends = [each["end"] for each in g.outcomes() if each["action"] == "mcp.tool.call"]
            assert ends.count("answered") >= 13
            assert any(end.startswith(("cancelled", "answered after it was cancelled")) for end in ends), ends

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


async def speak(g: Gate) -> None:
    waiting = [d for d in g.desk.entries("DECISION") if d["effect"] == "REQUIRE_APPROVAL"][-1]
    await g.speak(waiting["decision_id"], "approve")


def test_an_approval_is_asked_for_again_by_any_client(tmp_path: Path) -> None:
    """The gateway is one agent, whoever asks it."""

    async def story() -> None:
        async with gate(tmp_path, call="REQUIRE_APPROVAL") as g:
            with remote(g.place) as upstream:
                async with listening(g, *credentials(g), upstream=upstream) as at:
                    again = {"name": "a.txt"}
                    async with at.client(mode="2026-07-28") as client:
                        first = await client.call_tool("write_file", again)
                        assert first.is_error and "sidecar approvals approve" in words(first)
                    await speak(g)
                    assert not g.wrote("a.txt")
                    async with at.client(mode="2026-07-28") as client:
                        assert not (await client.call_tool("write_file", again)).is_error and g.wrote("a.txt")
                        assert "needs an approval" in words(await client.call_tool("write_file", again))

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_an_approval_is_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with gate(tmp_path, call="REQUIRE_APPROVAL") as g:
            heard = asyncio.Event()

            async def progress(_done: float, _total: float | None, message: str | None) -> None:
                assert message is not None and "waits for an approval" in message
                heard.set()

            waits = ("--wait-approval", "60")
            async with listening(g, *waits, program=raw(g)) as at, at.client(mode="legacy") as client:
                call = asyncio.create_task(client.call_tool("write", {"n": 1}, progress_callback=progress))
                await asyncio.wait_for(heard.wait(), 60)
                assert not g.wrote("write")
                await speak(g)
                assert words(await call) == "write" and g.wrote("write")

    asyncio.run(story())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_sessions_have_servers_of_their_own_and_leave_none_behind(tmp_path: Path) -> None:
    limits = ("--sessions", "2", "--max-result", "4")

    async def story() -> None:
        async with gate(tmp_path) as g, listening(g, *limits, program=raw(g)) as at:
            async with at.client(mode="legacy") as one, at.client(mode="legacy") as other:
                held = asyncio.create_task(one.call_tool("hang", {}))
                await g.until(lambda: g.wrote("hang"))
                assert words(await other.call_tool("write", {"n": 1})) == "write"
                assert len(at.children()) == 2
                async with at.http() as http:
                    third = await http.post(at.url, json=HELLO, headers=BOTH)
                    assert third.status_code == 503 and "as many as may be" in third.text
                held.cancel()
            await g.until(lambda: not at.children())
            async with at.client(mode="legacy") as client:
                assert words(await client.call_tool("write", {"n": 2})) == "write"
                assert len(words(await client.call_tool("huge", {"mebibytes": 3}))) == 3 << 20
                refused = await client.call_tool("huge", {"mebibytes": 9})
                assert refused.is_error and "more than this gateway hands on" in words(refused)
            assert json.loads((g.place / "write").read_text()) == {"n": 2}

    asyncio.run(story())


async def nobody_is_answered(g: Gate, at: Listener, end: Callable[[], object], renew: Callable[[], object]) -> None:
    """While its certificate has ended: on a connection that stands, or on another."""
    async with at.http() as http:

        async def asked() -> int:
            answer = await http.post(at.url, json=HELLO, headers=BOTH)
            assert answer.status_code == 200 or "certificate" in answer.json()["error"]["message"]
            return answer.status_code

        assert await asked() == 200
        end()
        assert await asked() == 503
    async with at.http() as http:
        with pytest.raises(httpx2.ConnectError):  # so says the client
            await http.post(at.url, json=HELLO, headers=BOTH)
        await g.until(lambda: "has ended, and nobody is answered" in g.said())
        renew()
        assert (await http.post(at.url, json=HELLO, headers=BOTH)).status_code == 200
        await g.until(lambda: "good again" in g.said())


def test_over_tls_beyond_this_host(tmp_path: Path) -> None:
    """Whoever has the authority knows the gateway by its certificate; the token is for that connection alone. What is
    replaced in a mounted Secret is in use at once; what cannot be used is said, and leaves all as it was."""
    authority, secret = Authority("one"), tmp_path / "secret"
    (tmp_path / "ca.crt").write_bytes(authority.pem)

    def put(token: str, shown: Issued | None = None, **files: bytes) -> Issued:
        shown = shown or server_certificate(authority, "localhost")
        mount(secret, {"crt": shown.chain, "key": shown.key_pem, "token": token.encode(), **files}, 0o640)
        return shown

    ended = authority.issue(dns=["localhost"], purposes=[SERVER], end=NOW - HOUR / 2)

    async def story() -> None:
        async with gate(tmp_path, call=named) as g:
            more = [str(each) for name in ("crt", "key", "token") for each in (f"--{OPTIONS[name]}", secret / name)]
            first = put(TOKEN)
            async with listening(g, *more, address="0.0.0.0:0", program=raw(g)) as at:
                at.address, at.ca = at.address.replace("0.0.0.0", "localhost"), str(tmp_path / "ca.crt")
                async with at.client(mode="legacy") as client:
                    assert words(await client.call_tool("write", {"name": "yes"})) == "write"
                    assert (await client.call_tool("write", {"name": "no"})).is_error

                async def asked(token: str) -> tuple[int, bytes]:
                    at.token = token
                    async with at.http() as http:
                        status = (await http.post(at.url, json=HELLO, headers=BOTH)).status_code
                    return status, (await asyncio.to_thread(handshake, at.address, tmp_path, first))[0]

                assert await asked("another-token-than-that") == (401, der(first))
                second = put("the-second-token-of-this")
                assert await asked(TOKEN) == (401, der(second))
                assert await asked("the-second-token-of-this") == (200, der(second))
                put("short", key=b"no key")
                for token, status in (("short", 401), ("the-second-token-of-this", 200)):
                    assert await asked(token) == (status, der(second))
                (secret / "token").unlink()
                (secret / "crt").unlink()
                assert await asked("the-second-token-of-this") == (200, der(second))
                assert await asked(TOKEN) == (401, der(second))
                for name in ("token", "crt"):
                    (secret / name).symlink_to(Path("..data", name))
                third = put("the-third-token-of-this")
                assert await asked("the-second-token-of-this") == (401, der(third))
                assert await asked("the-third-token-of-this") == (200, der(third))
                at.token = "the-third-token-of-this"
                await nobody_is_answered(g, at, lambda: put(at.token, ended), lambda: put(at.token))
            assert json.loads((g.place / "write").read_text()) == {"name": "yes"}
            for what in ("the new token cannot be used", "new TLS files cannot be used"):
                said = [line for line in g.said().splitlines() if what in line]
                assert len(said) == 2 and all("before stay" in line for line in said), said  # each once
            assert "second-token" not in g.said() and "no key" not in g.said()
            for what in ("has ended, and nobody is answered", "good again, and clients are answered"):
                assert len([line for line in g.said().splitlines() if what in line]) == 1, g.said()

    asyncio.run(story())
