"""An MCP server of the standard library alone, which does what its tools are called: `raw.py DIRECTORY`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PLACE = Path(sys.argv[1])
DESCRIBED = PLACE / "description"  # what the tools say of themselves; a test changes it
NAMES = ("write", "huge", "crash", "leave", "hang")


def tools() -> list[dict[str, Any]]:
    told = DESCRIBED.read_text() if DESCRIBED.exists() else "as ever"
    return [{"name": name, "description": told, "inputSchema": {"type": "object"}} for name in NAMES]


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    (PLACE / name).write_text(json.dumps(arguments))
    if name == "huge":
        for _ in range(arguments["mebibytes"]):
            sys.stdout.write("x" * (1 << 20))
        return None
    if name == "crash":
        os._exit(3)
    if name == "leave":  # a child keeps the pipe open
        subprocess.Popen(["sleep", "600"])
        os._exit(4)
    return {"content": [{"type": "text", "text": name}]} if name != "hang" else None


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        given = asked.get("params", {})
        result: Any = {}
        if asked.get("method") == "initialize":
            me = {"name": "raw", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": me}
        elif asked.get("method") == "tools/list":
            result = {"tools": tools()}
        elif asked.get("method") == "tools/call":
            if given["name"] == "huge":
                sys.stdout.write('{"result":{"content":[{"type":"text","text":"')
            result = call(given["name"], given.get("arguments", {}))
            if given["name"] == "huge":
                sys.stdout.write(f'"}}]}},"jsonrpc":"2.0","id":{json.dumps(asked["id"])}}}\n')
        if "id" in asked and result is not None:
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}) + "\n")
        sys.stdout.flush()


main()
