"""`sidecar mcp` between the official SDK's client and server: what was decided is what happens, seen in what is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.enforce.gates import gate, words

MODES = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


@MODES
def test_a_call_is_decided_with_its_arguments_and_its_outcome_told(mode: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with gate(tmp_path) as g:
            async with g.client(mode=mode) as client:
                names = {tool.name for tool in (await client.list_tools()).tools}
                assert "write_file" in names
                done = await client.call_tool("write_file", {"name": "a.txt", "text": "hällo"})
                assert not done.is_error
                assert (g.place / "a.txt").read_text() == "hällo"
            (asked,) = g.rules.of("mcp.tool.call")
            assert asked["arguments"] == {"name": "a.txt", "text": "hällo"}
            print(asked, g.outcomes(), g.said())

    asyncio.run(story())
