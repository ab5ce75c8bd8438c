"""The rooms and floors of the architecture, checked on the source with `ast` alone.

A room is a file or package directly under `sidecar/`. It imports lower floors and itself, never sideways. The second
half of this file feeds bad source to the same checks and expects each to be found.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.needs import needs_program

REPOSITORY = Path(__file__).parent.parent

# What builds the concrete parts: one place, in as many files.
BUILDING = {
    *("config", "settings", "main", "parts", "doors", "readiness", "telemetry", "doctor", "shipping"),
    *("erasing", "ending", "founding", "collecting", "collector_config", "trust_file", "anchoring"),
}
# `errors` lies under all others: every room raises what it names.
FLOORS = [
    {"errors"},
    {"v1", "chain", "files", "wasm"},
    {"verify"},
    {"client", "custody", "ledger", "policy", "identity", "anchor", "web", "probe"},
    {"decide", "ship", "collector", "evidence"},
    {"api", "enforce"},
    BUILDING,
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ONE_ROOM = [BUILDING]

STUB_ROOMS = {"v1", "api", "client", "enforce"}
STUBS = ("sidecar/v1", "sidecar/enforce/envoy/v3")  # ours, and the little of Envoy's protocol that a door reads
STUB_FILES = {"sidecar/ship/grpc.py", "sidecar/collector/grpc.py"}

# Rooms that a room may import at most, itself aside; the floors hold besides.
ONLY = {"client": {"v1", "errors", "files", "chain", "verify"}}
NEVER = {"collector": {"ledger", "policy"}, "ledger": {"policy"}, "policy": {"ledger"}, "verify": {"ledger", "files"}}

# Foreign modules and the only places they may be imported in: a file, or a room's directory.
CONFINED = {
    "lmdb": "sidecar/ledger/store.py",
    "wasmtime": "sidecar/wasm/",
    "opapywasm": "sidecar/policy/",
    "prometheus_client": "sidecar/api/metrics.py",
    "opentelemetry": "sidecar/telemetry.py",
    "boto3": "sidecar/collector/storage/s3.py",
    "botocore": "sidecar/collector/storage/s3.py",
    "psycopg": "sidecar/collector/index/postgres.py",
    "rfc3161_client": "sidecar/anchor/authority.py",
    "h11": "sidecar/enforce/mcp/http.py",
    "aiohttp": "sidecar/enforce/",
    "pydantic_ai": "sidecar/enforce/pydantic_ai.py",
    "langchain": "sidecar/enforce/langchain.py",
    "langchain_core": "sidecar/enforce/langchain.py",
    "langgraph": "sidecar/enforce/langchain.py",
    "agents": "sidecar/enforce/openai_agents.py",
    "crewai": "sidecar/enforce/crewai.py",
}
BANNED_IMPORTS = {
    "chain": {
        *(
            "os",
            "io",
            "pathlib",
            "shutil",
            "tempfile",
            "mmap",
            "fcntl",
            "subprocess",
            "socket",
            "ssl",
            "select",
            "urllib",
        ),
        *("http", "asyncio", "threading", "_thread", "multiprocessing", "concurrent", "queue", "logging", "warnings"),
        *("time", "random", "secrets", "sqlite3", "grpc", "lmdb", "aiohttp", "uvloop"),
    },
    "decide": {"grpc", "google.protobuf", "lmdb"},
    "verify": {"shutil", "tempfile", "sqlite3", "logging"},
}
BANNED_CALLS = {
    "chain": {
        *("open", "print", "input", "urandom", "getrandom", "now", "utcnow", "today", "generate", "generate_key"),
        *("uuid1", "uuid4"),
    },
    "verify": {
        *("print", "write_text", "write_bytes", "unlink", "mkdir", "rmdir", "touch", "makedirs", "rename", "remove"),
        *("symlink_to", "hardlink_to", "chmod", "truncate"),
    },
}

BAD_WORDS = {"util", "utils", "common", "manager", "managers", "helper", "helpers", "base"}
MOST_LINES = 400
BY_ITSELF = "sidecar/evidence/verify.py"  # one file for people who have nothing of ours: held by its own tests

TOP_LEVEL = {
    *("pyproject.toml", "README.md", "Dockerfile", "proto", "sidecar", "rego", "tests", "charts", "docs"),
    *("LICENSE", "CHANGELOG.md", "Makefile", ".ci", ".gitignore", ".dockerignore"),
    *("requirements.lock", "requirements-image.lock", "requirements-build.lock"),  # tests, image, its bill of materials
}


def room_of(path: str) -> str:
    """The room a file belongs to; empty for `sidecar/__init__.py`."""
    first = PurePosixPath(path).relative_to("sidecar").parts[0]
    if first == "__main__.py":
        return "cli"  # `python -m sidecar`: the program's other name
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, relative imports resolved, at any depth of the code."""
    package = list(PurePosixPath(path).with_suffix("").parts)[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            near = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*near, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            known = node.args and isinstance(node.args[0], ast.Constant)
            yield node.lineno, str(node.args[0].value) if known else "(a module named at run time)"


def called(node: ast.Call) -> str:
    """The last name of what is called: `open` in `open(x)` and in `path.open(x)`."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def within(dotted: str, module: str) -> bool:
    return dotted == module or dotted.startswith(module + ".")


def import_fault(path: str, dotted: str) -> str | None:
    """Why this file must not import this name, or None."""
    room = room_of(path)
    if dotted == "(a module named at run time)":
        return "imports a module named at run time: no rule can be checked"
    stub = any(part.endswith(("_pb2", "_pb2_grpc")) for part in dotted.split(".")) or within(dotted, "sidecar.v1")
    if stub and room not in STUB_ROOMS and path not in STUB_FILES:
        return "stubs stay in api, client, enforce and the grpc.py of ship and collector"
    if any(within(dotted, banned) for banned in BANNED_IMPORTS.get(room, ())):
        return f"{room} must not import it"
    for module, place in CONFINED.items():
        if within(dotted, module) and not (path.startswith(place) if place.endswith("/") else path == place):
            return f"{module} is imported only in {place}"
    if within(dotted, "sidecar"):
        return room_fault(room, [*dotted.split("."), ""][1])
    return None


def room_fault(room: str, target: str) -> str | None:
    """Why this room must not import that one, or None."""
    if target == "__version__":  # of the package itself, no room's
        return None
    if target == room or any({room, target} <= one for one in ONE_ROOM):
        return None
    if target not in FLOOR:
        return "is not a room of the table"
    if room in ONLY and target not in ONLY[room]:
        return f"{room} imports only {', '.join(sorted(ONLY[room]))}"
    if target in NEVER.get(room, ()):
        return f"{room} never imports {target}"
    if FLOOR.get(room, 0) <= FLOOR[target]:
        return f"{room or 'sidecar/__init__.py'} imports upwards or sideways"
    return None


def call_faults(path: str, tree: ast.Module) -> Iterator[str]:
    """Calls a room must not make: I/O, clock and randomness in chain, writing in verify."""
    room = room_of(path)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if called(node) in BANNED_CALLS.get(room, ()):
            yield f"{path}:{node.lineno}: {room} must not call {called(node)}()"
        elif room == "verify" and called(node) == "open" and not opens_to_read(node):
            yield f"{path}:{node.lineno}: verify must not open anything to write"


def opens_to_read(node: ast.Call) -> bool:
    """Whether an `open` is plainly for reading; a mode that is computed is not."""
    place = 1 if isinstance(node.func, ast.Name) else 0
    modes = [*node.args[place : place + 1], *(k.value for k in node.keywords if k.arg == "mode")]
    return all(isinstance(m, ast.Constant) and set(str(m.value)) <= set("rbt") for m in modes)


def name_faults(path: str, tree: ast.Module) -> Iterator[str]:
    for word in re.split(r"[_/.]", path):
        if word in BAD_WORDS:
            yield f"{path}: {word!r} says nothing of what the file owns"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+", node.name)
            for word in {w.lower() for w in words} & BAD_WORDS:
                yield f"{path}:{node.lineno}: class {node.name}: {word!r} says nothing of what it is"


def shape_faults(path: str, tree: ast.Module) -> Iterator[str]:
    """A room says what it owns and lists what it offers."""
    parts = PurePosixPath(path).parts
    is_package = len(parts) == 3 and parts[2] == "__init__.py"
    is_file = len(parts) == 2 and parts[1] != "__init__.py"
    if room_of(path) and room_of(path) not in FLOOR:
        yield f"{path}: is in no room of the table"
    if (is_package or is_file) and not ast.get_docstring(tree):
        yield f"{path}: the room has no docstring"
    if is_package and not any(isinstance(t, ast.Name) and t.id == "__all__" for t in assigned(tree)):
        yield f"{path}: the room has no __all__"


def assigned(tree: ast.Module) -> Iterator[ast.expr]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from node.targets
        elif isinstance(node, ast.AnnAssign):
            yield node.target


def faults(path: str, source: str) -> list[str]:
    """Everything in one file of `sidecar/` that breaks a rule."""
    tree = ast.parse(source, path)
    found = [
        f"{path}:{line}: {dotted}: {fault}"
        for line, dotted in imports(path, tree)
        if (fault := import_fault(path, dotted)) is not None
    ]
    found += [*call_faults(path, tree), *name_faults(path, tree), *shape_faults(path, tree)]
    if (lines := len(source.splitlines())) > MOST_LINES and path != BY_ITSELF:
        found.append(f"{path}: {lines} lines; split it, {MOST_LINES} are the most")
    return found


def unexpected(entries: set[str]) -> set[str]:
    return entries - TOP_LEVEL


def test_every_file_keeps_the_rules():
    files = [
        p
        for p in sorted((REPOSITORY / "sidecar").rglob("*.py"))
        if not {"v1", "v3"} & {*p.relative_to(REPOSITORY).parts}
    ]
    assert files
    found = [f for p in files for f in faults(p.relative_to(REPOSITORY).as_posix(), p.read_text("utf-8"))]
    assert not found, "\n" + "\n".join(found)


def test_every_package_is_a_room_with_an_init():
    rooms = [p for p in (REPOSITORY / "sidecar").iterdir() if p.is_dir() and any(p.rglob("*.py")) and p.name != "v1"]
    assert not [p.name for p in rooms if not (p / "__init__.py").is_file()]


def test_the_stubs_room_holds_nothing_else():
    stub = re.compile(r"\w+_pb2(_grpc)?\.pyi?|__init__\.py")
    for room in STUBS:
        files = [p.name for p in (REPOSITORY / room).iterdir() if p.name != "__pycache__"]
        assert files
        assert not [name for name in files if not stub.fullmatch(name)]


def test_the_top_level_holds_only_what_is_agreed():
    git = [needs_program("git"), "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    assert listed
    assert not unexpected({name.split("/")[0] for name in listed})


ROOM = '"""Owns something."""\n__all__ = ["x"]\n'

BAD = [
    ("sidecar/chain/x.py", "import sidecar.verify", "upwards"),
    ("sidecar/chain/x.py", "from sidecar import verify", "upwards"),
    ("sidecar/chain/x.py", "from sidecar.v1 import decision_pb2", "stubs stay"),
    ("sidecar/chain/x.py", "def f():\n    import os", "chain must not import"),
    ("sidecar/chain/x.py", "from os import urandom", "chain must not import"),
    ("sidecar/chain/x.py", "import os.path as p", "chain must not import"),
    ("sidecar/chain/x.py", "from pathlib import Path", "chain must not import"),
    ("sidecar/chain/x.py", "import time", "chain must not import"),
    ("sidecar/chain/x.py", "import secrets", "chain must not import"),
    ("sidecar/chain/x.py", "import threading", "chain must not import"),
    ("sidecar/chain/x.py", "import logging", "chain must not import"),
    ("sidecar/chain/x.py", "from io import BytesIO", "chain must not import"),
    ("sidecar/chain/x.py", "x = open('f')", "must not call open"),
    ("sidecar/chain/x.py", "x = datetime.now()", "must not call now"),
    ("sidecar/chain/x.py", "k = Ed25519PrivateKey.generate()", "must not call generate"),
    ("sidecar/chain/x.py", "import_module('sidecar.ledger')", "upwards"),
    ("sidecar/chain/x.py", "m = importlib.import_module(name)", "named at run time"),
    ("sidecar/chain/x.py", "from ..ledger import store", "upwards"),
    ("sidecar/errors.py", '"""E."""\nimport sidecar.chain', "upwards or sideways"),
    ("sidecar/__init__.py", "import sidecar.errors", "upwards or sideways"),
    ("sidecar/verify/x.py", "from sidecar.ledger import store", "never imports ledger"),
    ("sidecar/verify/x.py", "x = open('f', 'wb')", "open anything to write"),
    ("sidecar/verify/x.py", "x = open('f', mode='r+')", "open anything to write"),
    ("sidecar/verify/x.py", "x = path.open(mode)", "open anything to write"),
    ("sidecar/verify/x.py", "path.write_text('x')", "must not call write_text"),
    ("sidecar/client/x.py", "from sidecar.ledger import store", "client imports only"),
    ("sidecar/client/x.py", "from sidecar import custody", "client imports only"),
    ("sidecar/ledger/x.py", "from sidecar.policy import Engine", "ledger never imports policy"),
    ("sidecar/ledger/x.py", "if TYPE_CHECKING:\n    from sidecar.policy import Engine", "ledger never imports policy"),
    ("sidecar/ledger/x.py", "from sidecar.custody import wrap", "sideways"),
    ("sidecar/ledger/x.py", "import lmdb", "only in sidecar/ledger/store.py"),
    ("sidecar/policy/x.py", "from sidecar.ledger import store", "policy never imports ledger"),
    ("sidecar/policy/x.py", "import lmdb", "only in sidecar/ledger/store.py"),
    ("sidecar/ledger/x.py", "import wasmtime", "only in sidecar/wasm/"),
    ("sidecar/decide/x.py", "import prometheus_client", "only in sidecar/api/metrics.py"),
    ("sidecar/api/x.py", "from prometheus_client import Counter", "only in sidecar/api/metrics.py"),
    ("sidecar/client/x.py", "from opentelemetry import trace", "only in sidecar/telemetry.py"),
    ("sidecar/decide/x.py", "import grpc.aio", "decide must not import"),
    ("sidecar/decide/x.py", "from google.protobuf import json_format", "decide must not import"),
    ("sidecar/decide/x.py", "import lmdb", "decide must not import"),
    ("sidecar/decide/x.py", "from sidecar.v1 import decision_pb2", "stubs stay"),
    ("sidecar/decide/x.py", "from sidecar.api import server", "upwards"),
    ("sidecar/collector/x.py", "from sidecar.ledger import store", "collector never imports ledger"),
    ("sidecar/collector/x.py", "from sidecar.v1 import decision_pb2", "stubs stay"),
    ("sidecar/cli/x.py", "from grpc_health.v1 import health_pb2", "stubs stay"),
    ("sidecar/collector/log.py", "import boto3", "only in sidecar/collector/storage/s3.py"),
    ("sidecar/collector/x.py", "from botocore.config import Config", "only in sidecar/collector/storage/s3.py"),
    ("sidecar/collector/index/sql.py", "import psycopg", "only in sidecar/collector/index/postgres.py"),
    ("sidecar/collector/x.py", "import rfc3161_client", "only in sidecar/anchor/authority.py"),
    ("sidecar/enforce/mcp/x.py", "import h11", "only in sidecar/enforce/mcp/http.py"),
    ("sidecar/enforce/tools.py", "from langchain.agents import x", "only in sidecar/enforce/langchain.py"),
    ("sidecar/client/x.py", "import pydantic_ai", "only in sidecar/enforce/pydantic_ai.py"),
    ("sidecar/api/x.py", "from sidecar.main import build", "upwards"),
    ("sidecar/api/x.py", "from sidecar.attic import x", "not a room"),
    ("sidecar/api/x.py", "import sidecar", "not a room"),
    ("sidecar/attic/__init__.py", ROOM, "no room of the table"),
    ("sidecar/api/__init__.py", "__all__ = []", "no docstring"),
    ("sidecar/api/__init__.py", '"""Owns."""', "no __all__"),
    ("sidecar/main.py", "x = 1", "no docstring"),
    ("sidecar/api/grpc_utils.py", "", "'utils' says nothing"),
    ("sidecar/api/common/x.py", "", "'common' says nothing"),
    ("sidecar/api/x.py", "class KeyManager: ...", "'manager' says nothing"),
    ("sidecar/api/x.py", "class BaseStore: ...", "'base' says nothing"),
    ("sidecar/api/x.py", "class HTTPHelper: ...", "'helper' says nothing"),
    ("sidecar/api/x.py", "x = 1\n" * 401, "401 lines"),
]


@pytest.mark.parametrize(("path", "source", "expected"), BAD)
def test_bad_source_is_found(path, source, expected):
    found = faults(path, source)
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].startswith(path)


GOOD = [
    ("sidecar/chain/__init__.py", ROOM + "from sidecar.chain.entry import x"),
    ("sidecar/chain/x.py", "import hashlib, struct\nfrom sidecar.errors import Malformed\nfrom . import entry"),
    ("sidecar/verify/x.py", "from sidecar.chain import entry\nx = open('f', 'rb'), path.open('rb'), path.open()"),
    ("sidecar/client/x.py", "import grpc\nfrom sidecar.v1 import decision_pb2\nfrom sidecar.verify import receipt"),
    ("sidecar/ledger/store.py", "import lmdb, os, time"),
    ("sidecar/wasm/instance.py", "import wasmtime"),
    ("sidecar/ship/grpc.py", "from sidecar.v1 import ship_pb2, ship_pb2_grpc"),
    ("sidecar/main.py", '"""M."""\nfrom sidecar import __version__, api, config, ledger'),
    ("sidecar/cli/x.py", "from sidecar.main import build\nclass Database: ...\nclass Base64: ..."),
    ("sidecar/api/x.py", "x = 1\n" * 400),
]


@pytest.mark.parametrize(("path", "source"), GOOD)
def test_good_source_is_not_found(path, source):
    assert faults(path, source) == []


def test_a_stray_top_level_entry_is_found():
    assert unexpected({"sidecar", "scripts", "notes.txt"}) == {"scripts", "notes.txt"}
