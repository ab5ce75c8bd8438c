"""`sidecar bench`, mcp: what the gateway, its decision included, adds to a tool call on standard streams."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_programs import serving
from sidecar.cli.bench_work import AGENT, registry_of
from sidecar.client import AgentKey, Guard
from sidecar.config import write_secret
from sidecar.errors import UsageError

_ALLOWED: Final = 0.003  # seconds that the gateway may add to p50
_POLICY: Final = """package agents

default decision := {"effect": "DENY", "reasons": [{"code": "no", "message": "not through a gateway"}]}

decision := {"effect": "ALLOW", "reasons": [{"code": "tool", "message": "a tool"}]} if input.context.door.kind == "mcp"
"""
_SERVER: Final = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}], "content": []}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}) + chr(10))
        sys.stdout.flush()
"""
_ARGUMENTS: Final = {"path": "/tmp/x", "text": "y" * 200}  # noqa: S108  # nothing is written there


def measure_mcp(findings: Findings, place: Path, rounds: int, seconds: float) -> None:
    """p50 of one call after another, without the gateway and with it, in turns."""
    place.mkdir()
    bare = [sys.executable, "-c", _SERVER]
    key, policy, settings = place / "agent.pem", place / "policy", place / "sidecar.toml"
    private = Ed25519PrivateKey.generate()
    write_secret(key, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (place / "registry.json").write_text(registry_of(AgentKey(private).spki))
    settings.write_text(f"registry = '{place / 'registry.json'}'\n")
    policy.mkdir()
    (policy / "policy.rego").write_text(_POLICY)
    with serving(place / "ledger", "--config", settings, "--policy", policy) as served:
        gateway = [sys.executable, "-m", "sidecar", "mcp", "--server", f"unix:{served.socket}", "--agent", AGENT]
        gateway += [
            "--key",
            str(key),
            "--pins",
            str(place / "pins.json"),
            "--name",
            "bench",
            "--trust-first",
            "--",
            *bare,
        ]
        signer = AgentKey(private)
        with (
            _started(bare) as plain, _started(gateway) as guarded,
            Guard(f"unix:{served.socket}", agent=AGENT, timeout=30.0, key=signer) as guard,
        ):  # fmt: skip
            turns: dict[str, Callable[[], object]] = {
                "an MCP tool call without the gateway": partial(_call, plain),
                "an MCP tool call with it": partial(_call, guarded),
                "its question alone, by the SDK": partial(_question, guard),
            }
            took: dict[str, list[float]] = {name: [] for name in turns}
            for _ in range(rounds):
                for name, turn in turns.items():
                    took[name].append(_timed(turn, seconds / 3))
    medians = [findings.add(f"p50 of {name}", "s", each).median for name, each in took.items()]
    name = "the gateway adds to p50 of an MCP tool call"
    findings.hold(name, medians[1] - medians[0], _ALLOWED, at_most=True, unit="s")


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        try:
            hello = {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "bench", "version": "1"},
            }
            _ask(process, "initialize", hello)
            _ask(process, "tools/call", {"name": "echo", "arguments": {}})
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def _timed(turn: Callable[[], object], seconds: float) -> float:
    """The median of one after another."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        began = time.perf_counter()
        turn()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _call(process: subprocess.Popen[bytes]) -> None:
    _ask(process, "tools/call", {"name": "echo", "arguments": _ARGUMENTS})


def _question(guard: Guard) -> None:
    guard.check("mcp.tool.call", ("mcp.tool", "bench/echo"), _ARGUMENTS, context={"door": {"kind": "mcp"}})


def _ask(process: subprocess.Popen[bytes], method: str, params: dict[str, Any]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline() or b"{}")
    if "result" not in answer or answer["result"].get("isError"):
        raise UsageError(f"{method} was not answered as it should be")
