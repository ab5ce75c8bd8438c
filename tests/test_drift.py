"""What is generated or written twice still agrees: stubs and protocol, lock and pyproject, README and `--help`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sidecar.cli import cli
from sidecar.collector_config import load_collecting
from sidecar.config import load
from tests.needs import needs_program

REPOSITORY = Path(__file__).parent.parent

# In halves, so that this file does not name them either.
_HOSTS = [
    *[("pypi", ".org"), ("pythonhosted", ".org"), ("anaconda", ".org"), ("npmjs", ".org"), ("npmjs", ".com")],
    *[("proxy.golang", ".org"), ("sum.golang", ".org"), ("goproxy", ".io"), ("goproxy", ".cn"), ("crates", ".io")],
    *[("deb.debian", ".org"), ("security.debian", ".org"), ("archive.ubuntu", ".com"), ("rubygems", ".org")],
    *[("docker", ".io"), ("ghcr", ".io"), ("gcr", ".io"), ("quay", ".io"), ("registry.k8s", ".io")],
    *[("mcr.microsoft", ".com"), ("public.ecr", ".aws"), ("repo.maven", ".apache"), ("storage.googleapis", ".com")],
    *[("openpolicyagent.org/", "downloads"), ("/releases/", "download/"), ("raw.githubuser", "content.com")],
]
HOSTS = [("".join(halves)).encode() for halves in _HOSTS]

HELP_BLOCK = re.compile(r"^<!-- help: (sidecar(?: [^\n]*?)?) -->\n+```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pinned(lock: str) -> dict[str, str]:
    """Name and version of every line of a lock file that pins one."""
    return {canonicalize_name(n): v for n, v in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.MULTILINE)}


def unlocked(pyproject: str, lock: str) -> list[str]:
    """The requirements of the project, its extras and its build that the lock file does not satisfy."""
    project = tomllib.loads(pyproject)
    named = list(project["project"].get("dependencies", []))
    for extra in project["project"].get("optional-dependencies", {}).values():
        named += extra
    named += project["build-system"]["requires"]
    pins = pinned(lock)
    wanted = [Requirement(text) for text in named]
    return [
        str(r)
        for r in wanted
        if (pin := pins.get(canonicalize_name(r.name))) is None or not r.specifier.contains(pin, prereleases=True)
    ]


def hosts_named(content: bytes) -> list[str]:
    lowered = content.lower()
    return [host.decode() for host in HOSTS if host in lowered]


def help_blocks(readme: str) -> list[tuple[str, str]]:
    """Command and quoted help of every marked block."""
    return HELP_BLOCK.findall(readme)


def actual_help(command: str) -> str:
    program = Path(sys.executable).with_name("sidecar")
    run = subprocess.run(
        [program, *shlex.split(command)[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
    )
    return run.stdout


def listed_files() -> list[Path]:
    """Everything that is, or would be, in the repository."""
    git = [needs_program("git"), "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
    return [REPOSITORY / name for name in names if name and (REPOSITORY / name).is_file()]


MESSAGES = ("python", "mypy")


@pytest.mark.parametrize(
    ("place", "kinds"),
    [("sidecar/v1", (*MESSAGES, "grpc_python", "mypy_grpc")), ("sidecar/enforce/envoy/v3", MESSAGES)],
)
def test_the_stubs_are_those_of_the_protocol(tmp_path, place, kinds):
    beside = Path(sys.executable).parent
    protos = sorted((REPOSITORY / "proto" / place).glob("*.proto"))
    assert protos
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{REPOSITORY / 'proto'}"),
            *(f"--{kind}_out={tmp_path}" for kind in kinds),
            *(f"--plugin={name}={beside / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
            *map(str, protos),
        ],
        check=True,
        capture_output=True,
    )
    fresh = {p.name: p.read_text("utf-8") for p in (tmp_path / place).iterdir()}
    held = [p for p in (REPOSITORY / place).iterdir() if p.is_file() and p.name != "__init__.py"]
    kept = {p.name: p.read_text("utf-8") for p in held}
    assert sorted(fresh) == sorted(kept), "run `make stubs`"
    assert [name for name in fresh if fresh[name] != kept[name]] == [], "run `make stubs`"


def test_the_lock_file_satisfies_the_project():
    pyproject = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    lock = (REPOSITORY / "requirements.lock").read_text("utf-8")
    assert unlocked(pyproject, lock) == [], "run `make lock`"


def test_no_file_names_a_registry():
    files = listed_files()
    assert files
    named = {p.relative_to(REPOSITORY).as_posix(): hosts_named(p.read_bytes()) for p in files}
    assert {name: hosts for name, hosts in named.items() if hosts} == {}


def test_the_help_in_the_readme_is_what_the_program_says():
    readme = REPOSITORY / "README.md"
    assert readme.is_file(), "README.md is missing; its help blocks cannot be checked"
    blocks = help_blocks(readme.read_text("utf-8"))
    assert blocks, "README.md quotes no help: put `<!-- help: sidecar verify -->` above a ```text block"
    for command, quoted in blocks:
        assert quoted.strip() == actual_help(command).strip(), f"README.md: the help of `{command}` has changed"


PYPROJECT = """
[build-system]
requires = ["setuptools>=80"]
[project]
dependencies = ["click>=8.1", "opa-python-client>=3,<4"]
[project.optional-dependencies]
dev = ["pytest>=8"]
"""


@pytest.mark.parametrize(
    ("lock", "missing"),
    [
        ("setuptools==81.0\nclick==8.3 \\\n    --hash=x\nopa_python_client==3.0.0 ; os\npytest==9.0\n", []),
        ("setuptools==79.0\nclick==8.3\nopa-python-client==4.0\n", ["opa-python-client", "pytest", "setuptools"]),
        ("# click==8.3\n", ["click", "opa-python-client", "pytest", "setuptools"]),
    ],
)
def test_a_lock_that_lags_is_found(lock, missing):
    assert sorted(Requirement(r).name for r in unlocked(PYPROJECT, lock)) == missing


def test_every_configuration_quoted_is_one(tmp_path):
    pages = [REPOSITORY / "README.md", REPOSITORY / "rego/README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    quoted = "".join(page.read_text("utf-8") for page in pages)
    told = set()
    for number, block in enumerate(re.findall(r"^```toml\n(.*?)^```$", quoted, re.MULTILINE | re.DOTALL)):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        if block.startswith("# collector\n"):
            assert load_collecting(file, {}, {}).retention_days > 0
            continue
        told |= {name for name, source in load(file, {}, {})[1].items() if source.origin != "default"}
    assert {"policy_source_git_url", "policy_stale", "tls_client_ca_file", "collector_log_key"} <= told


@pytest.mark.parametrize("halves", _HOSTS)
def test_a_registry_is_found(halves):
    assert hosts_named(b"from https://" + "".join(halves).upper().encode() + b"/x") == ["".join(halves)]


def test_help_blocks_are_found():
    readme = (
        "a\n<!-- help: sidecar verify -->\n```text\nUsage: x\n\n  y\n```\n<!-- help: sidecar -->\n\n```text\nz\n```\n"
    )
    assert help_blocks(readme) == [("sidecar verify", "Usage: x\n\n  y\n"), ("sidecar", "z\n")]
    assert help_blocks("```text\nUsage: x\n```\n") == []


def commands(group: click.Group, path: str = "sidecar") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_command_explains_itself() -> None:
    """With an example of how it is called, and a word on each option."""
    for path, command in commands(cli):
        example = (command.help or "").partition("\n    Example")[2]
        assert path in example or (path == "sidecar mcp" and '"command": "sidecar", "args": ["mcp",' in example), path
        mute = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
        assert mute == [], path
