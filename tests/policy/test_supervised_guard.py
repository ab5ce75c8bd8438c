"""An OPA of our own is out of reach for all others, and tells nothing of what it was asked."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.policy import OpaProgram

from .supervision import (
    mode,
    proc_of,
    run,
    running,
    socket_of,
    supervised,
)

PUT = """package p
decision := {"effect": "ALLOW"}
"""
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/data/p/decision", {"json": {"input": {}}}),
    ("POST", "/v1/data", {"json": {"input": {}}}),
    ("POST", "/", {"json": {}}),
    ("POST", "/v1/query", {"json": {"query": "data"}}),
    ("POST", "/v1/compile", {"json": {"query": "data.p.decision"}}),
    ("GET", "/v1/data", {}),
    ("GET", "/v1/policies", {}),
    ("GET", "/v1/config", {}),
    ("GET", "/health", {}),
    ("GET", "/metrics", {}),
    ("PUT", "/v1/policies/mine", {"data": PUT}),
    ("DELETE", "/v1/policies/policy.rego", {}),
    ("PUT", "/v1/data/p", {"json": {}}),
    ("PATCH", "/v1/data/other", {"json": [{"op": "add", "path": "-", "value": 1}]}),
]
PERMITTED = {("POST", "/v1/data/p/decision"), ("GET", "/health")}


async def statuses(address: str, headers: dict[str, str]) -> dict[tuple[str, str], int]:
    connector = aiohttp.UnixConnector(address.removeprefix("unix:"))
    found = {}
    async with aiohttp.ClientSession("http://opa", connector=connector, headers=headers) as session:
        for method, path, options in REQUESTS:
            async with session.request(method, path, **options) as response:
                found[method, path] = response.status
    return found


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer wrong", "Basic YTpi"])
def test_without_the_token_nobody_asks_reads_or_writes(
    program: OpaProgram, policy: Path, request_document: dict[str, Any], authorization: str
) -> None:
    async def main() -> None:
        async with supervised(program, policy) as engine:
            await engine.ready()
            headers = {"Authorization": authorization} if authorization else {}
            found = await statuses(running(engine).address, headers)
            assert set(found.values()) <= {401, 403}, found
            assert (await engine.evaluate(request_document, 30)).result["effect"] == "ALLOW"  # type: ignore[index]

    run(main)


def test_a_policy_cannot_open_it_and_the_token_itself_only_asks(program: OpaProgram, policy: Path) -> None:
    """The token is taken from this process's own memory, as only its own user id could."""
    (policy / ".manifest").unlink()
    (policy / "open.rego").write_text("package system.authz\n\nallow := true\n")

    async def main() -> None:
        async with supervised(program, policy) as engine:
            await engine.ready()
            assert set((await statuses(running(engine).address, {})).values()) == {401}
            token = engine._guarded.token
            found = await statuses(running(engine).address, {"Authorization": f"Bearer {token}"})
            assert {request for request, status in found.items() if status == 200} == PERMITTED
            assert {status for request, status in found.items() if request not in PERMITTED} == {401}

    run(main)


# Connects as another user; what it says is the outcome.
CONNECT = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except OSError as error:
    sys.exit(type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user to try it")
def test_another_user_cannot_connect(program: OpaProgram, policy: Path) -> None:
    async def main() -> None:
        async with supervised(program, policy) as engine:
            await engine.ready()
            path = socket_of(running(engine))
            assert (mode(path), mode(path.parent)) == (0o600, 0o700)
            for place_mode in (0o700, 0o755):  # the socket's own mode keeps others out too
                path.parent.chmod(place_mode)
                command = [sys.executable, "-I", "-S", "-c", CONNECT, str(path)]
                done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
                assert (done.returncode, done.stderr.strip()) == (1, "PermissionError")

    run(main)


def test_what_the_process_holds(program: OpaProgram, policy: Path) -> None:
    async def main() -> None:
        async with supervised(program, policy) as engine:
            await engine.ready()
            proc, place = proc_of(running(engine)), socket_of(running(engine)).parent
            assert (proc / "environ").read_bytes() == b"GOGC=400\0"
            assert engine._guarded.token.encode() not in (proc / "cmdline").read_bytes()
            assert engine._guarded.token not in repr(engine._guarded)
            assert engine._guarded.token.encode() not in (place / "bundle.tar.gz").read_bytes()
            assert os.getpgid(running(engine).pid) == running(engine).pid != os.getpgid(0)
            assert (proc / "oom_score_adj").read_text().strip() == "500"
        assert not any(map(Path.exists, (place, proc)))

    run(main)


# --- its log ---


def test_its_log_is_forwarded_without_what_a_policy_prints(
    program: OpaProgram, policy: Path, request_document: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    asked = {**request_document, "arguments": {"mode": "print", "secret": "hunter22"}}

    async def main() -> None:
        async with supervised(program, policy) as engine:
            await engine.ready()
            assert (await engine.evaluate(asked, 30)).result == {"said": True}

    caplog.set_level(logging.DEBUG, "sidecar.opa")
    run(main)
    assert f"OPA {program.version} serves the policy, pid " in caplog.text
    assert "hunter22" not in caplog.text


@pytest.mark.parametrize(
    ("line", "loading", "forwarded"),
    [
        ({"level": "error", "msg": "bad", "err": "why"}, True, (logging.ERROR, "bad: why")),
        ({"level": "warning", "msg": "bad", "err": "quotes"}, False, (logging.WARNING, "bad")),
        ({"level": "odd", "msg": "two\nlines"}, False, (logging.ERROR, "two lines")),
        ("error: load error: x", True, (logging.ERROR, "error: load error: x")),
        ("goroutine 1 [running]: quotes", False, None),
        ("fatal error: runtime: out of memory", False, (logging.ERROR, "fatal error: runtime: out of memory")),
        ("[1]", False, None),
        ("x" * 9999, True, (logging.ERROR, "x" * 512)),
    ],
)
def test_what_of_a_line_is_forwarded(line: object, loading: bool, forwarded: tuple[int, str] | None) -> None:
    from sidecar.policy.opa_process import _said

    assert _said(line if isinstance(line, str) else json.dumps(line), loading=loading) == forwarded
