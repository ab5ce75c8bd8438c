"""The image, made step by step in a bare root and run from there: read-only, as its user, without a container."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.cli.test_policy_in_force import write
from tests.image.dockerfile import HOME
from tests.image.inside import ran, served
from tests.image.making import Stage, made
from tests.needs import needs_program
from tests.soak.figures import tell
from tests.wasm.processes import beside

pytestmark = pytest.mark.soak

EPOCH = "1700000000"
GIVEN = {"SOURCE_DATE_EPOCH": EPOCH, "TARGETOS": "linux", "REVISION": "0123abcd"}
PROGRAMS = {"sidecar", "python", "python3", "python3.13", "ssh", "opa"}
ABSENT = ("_curses", "_curses_panel", "readline", "_dbm", "_gdbm", "_tkinter", "_crypt")  # for terminals and old files


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Not below pytest's own, which only root may enter."""
    with tempfile.TemporaryDirectory(prefix="sidecar-image-") as place:
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.fixture(scope="module")
def stages(place: Path, pytestconfig: pytest.Config) -> Iterator[dict[str, Stage]]:
    began = time.monotonic()
    with made(place / "one", GIVEN) as stages:
        tell(pytestconfig, f"the image's steps took {time.monotonic() - began:.0f} s")
        yield stages


@pytest.fixture(scope="module")
def image(stages: dict[str, Stage]) -> Stage:
    return stages[""]


def files(image: Stage) -> dict[str, os.stat_result]:
    return {str(each.relative_to(image.root)): each.lstat() for each in sorted(image.root.rglob("*"))}


MANY = """
from sidecar.client import Ask, Guard
with Guard("unix:/var/lib/sidecar/ledger/sidecar.sock", agent="billing-agent") as guard:
    for _ in range(20):
        asked = [Ask("crm.read", ("customer", f"acme-{number}")) for number in range(64)]
        assert {answer.effect.value for answer in guard.ask_many(asked)} == {"ALLOW"}
"""
"""Enough at once that the policy is evaluated in a process beside the sidecar."""


def volume(place: Path, image: Stage, name: str = "sidecar") -> Path:
    """As an engine makes a named volume: with the owner and mode of the image's directory there."""
    was = (image.root / "var/lib" / name).stat()
    made_here = Path(tempfile.mkdtemp(dir=place))
    os.chown(made_here, was.st_uid, was.st_gid)
    made_here.chmod(stat.S_IMODE(was.st_mode))
    return made_here


def test_it_is_small_and_holds_no_more_than_it_runs(image: Stage, pytestconfig: pytest.Config) -> None:
    found = files(image)
    size = sum(each.st_size for each in found.values() if stat.S_ISREG(each.st_mode))
    packed = subprocess.run(
        f"tar -C {image.root} -c . | gzip -6 | wc -c", shell=True, capture_output=True, text=True, check=True
    )
    tell(
        pytestconfig, f"the image: {size / 1e6:.0f} MB in {len(found)} files, {int(packed.stdout) / 1e6:.0f} MB packed"
    )
    assert size < 260e6
    programs = {Path(name).name for name, each in found.items() if "bin/" in name and each.st_mode & 0o111}
    assert programs == PROGRAMS
    assert not [name for name, each in found.items() if each.st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not programs & {"sh", "bash", "dash", "perl", "apt", "dpkg", "pip", "pip3", "busybox", "curl"}
    mine = [name for name, each in found.items() if each.st_uid != 0]
    assert sorted(mine) == ["var/lib/collector", "var/lib/sidecar"]
    assert not [
        n for n, each in found.items() if each.st_mode & 0o002 and not stat.S_ISLNK(each.st_mode) and n != "tmp"
    ]


def test_every_library_that_is_asked_for_is_there(image: Stage) -> None:
    program = """
import ctypes, importlib, sys
from pathlib import Path
from urllib.parse import unquote
libraries = [p for at in ("/opt/sidecar/lib", "/usr/lib/python3.13/lib-dynload") for p in Path(at).rglob("*.so*")]
for each in libraries:
    if not each.name.startswith(tuple(sys.argv[1].split(","))):
        ctypes.CDLL(str(each))
for name in ("boto3", "psycopg", "dulwich.client", "spiffe", "rfc3161_client", "wasmtime", "lmdb", "ssl", "sqlite3"):
    importlib.import_module(name)
import boto3
boto3.client("s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
print(len(libraries))
"""
    done = ran(image, "python3", "-c", program, ",".join(ABSENT))
    assert done.returncode == 0 and int(done.stdout) > 50, done.stderr
    assert ran(image, "ssh", "-V").returncode == 0
    assert f"Version: {stated('OPA_VERSION').removeprefix('v')}" in ran(image, "opa", "version").stdout


def stated(name: str) -> str:
    found = re.search(rf"^ARG {name}=(\S+)$", (HOME / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_it_answers_from_a_root_that_cannot_be_written(place: Path, image: Stage) -> None:
    """The starter policy; then a directory of policies with OPA, which passes the gate inside."""
    data = {volume(place, image): "/var/lib/sidecar"}
    server = "--server=unix:/var/lib/sidecar/ledger/sidecar.sock"
    ask = ("sidecar", "decide", server, "--agent", "billing-agent", "--resource", "customer:acme-42")
    probe = json.loads(image.config["HEALTHCHECK"].partition("CMD ")[2])
    assert ran(image, *probe, volumes=data).returncode == 1
    with served(image, "sidecar", "serve", "--init", "--dev", volumes=data) as server_process:
        allowed = ran(image, *ask, "--action", "crm.read", volumes=data)
        assert (allowed.returncode, allowed.stdout.split()[0]) == (0, "ALLOW"), allowed.stderr
        assert ran(image, *ask, "--action", "crm.delete", volumes=data).returncode == 1
        for _ in iter(lambda: beside(server_process.first), []):
            many = ran(image, "python", "-c", MANY, volumes=data)
            assert many.returncode == 0, many.stderr
        assert ran(image, "python", "-c", MANY, volumes=data).returncode == 0
        assert len(beside(server_process.first)) == 1  # it stays
        healthy = ran(image, *probe, volumes=data)
        assert (healthy.returncode, healthy.stdout) == (0, "ready\n"), healthy.stderr
        assert server_process.stop() == 0
        assert server_process.process.stderr is not None
        assert "until there is another" not in server_process.process.stderr.read()
    (place / "policies").mkdir()
    write(place / "policies" / "policy")
    with_policy = {**data, place / "policies": "/home"}
    flags = ("--dev", "--policy", "/home/policy", "--engine", "opa")
    with served(image, "sidecar", "serve", *flags, volumes=with_policy) as server_process:
        assert ran(image, *ask, "--action", "crm.read", volumes=data).stdout.startswith("ALLOW")
        assert server_process.stop() == 0
    verified = ran(image, "sidecar", "verify", "/var/lib/sidecar/ledger", volumes=data)
    assert verified.returncode == 4, verified.stdout + verified.stderr


def test_the_collector_is_in_it_too(place: Path, image: Stage) -> None:
    data = {volume(place, image, "collector"): "/var/lib/collector"}
    listen = ("--listen", "127.0.0.1:0", "--web", "127.0.0.1:0")
    with served(image, "sidecar", "collector", "serve", "--dev", *listen, volumes=data) as collector:
        assert collector.stop() == 0
    looked = ran(image, "sidecar", "collector", "verify", "--dev", volumes=data)
    assert looked.returncode == 0, looked.stdout + looked.stderr


def test_the_bill_of_materials_names_all_that_is_in_it(stages: dict[str, Stage], image: Stage) -> None:
    text = (image.root / "usr/share/sbom/sbom.cdx.json").read_bytes()
    assert (stages["sbom"].root / "sbom.cdx.json").read_bytes() == text
    bill = json.loads(text)
    assert bill["bomFormat"] == "CycloneDX" and bill["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
    urls = {each.get("purl", "").partition("?")[0] for each in bill["components"]}
    status = (image.root / "var/lib/dpkg/status").read_text()
    packages = re.findall(r"^Package: (\S+)$", status, re.MULTILINE)
    debian = {unquote(url.rpartition("/")[2].partition("@")[0]) for url in urls if url.startswith("pkg:deb/")}
    assert len(packages) > 20 and set(packages) <= debian
    locked = re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (HOME / "requirements-image.lock").read_text(), re.MULTILINE)
    site = image.root / "opt/sidecar/lib/python3.13/site-packages"
    present = {each.name.removesuffix(".dist-info") for each in site.glob("*.dist-info")}
    python = {url.removeprefix("pkg:pypi/") for url in urls if url.startswith("pkg:pypi/")}
    wanted = {f"{name}@{version}" for name, version in locked if f"{name.replace('-', '_')}-{version}" in present}
    assert len(wanted) > 20 and wanted <= python
    assert len(python) >= len(present) - 1
    assert any(url.startswith("pkg:golang/github.com/open-policy-agent/opa@") for url in urls)
    assert any(url.startswith("pkg:golang/google.golang.org/grpc@") for url in urls)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_locked_package_has_a_wheel_for_both_machines(machine: str, place: Path) -> None:
    """None is built in the image: there is no compiler in the stage that installs them."""
    command = [
        *(needs_program("uv"), "pip", "install", "--dry-run", "--target", place / machine),
        *("--python-platform", f"{machine}-unknown-linux-gnu", "--python-version", "3.13", "--only-binary", ":all:"),
        *("--require-hashes", "-r", HOME / "requirements-image.lock"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def digest(image: Stage) -> dict[str, str]:
    """By path: mode, owner, time and content."""
    found = {}
    for name, each in files(image).items():
        path = image.root / name
        if path.is_symlink():
            content = str(path.readlink())
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[name] = f"{each.st_mode:o} {each.st_uid}:{each.st_gid} {int(each.st_mtime)} {content}"
    return found


def test_made_again_it_is_the_same(place: Path, image: Stage) -> None:
    with made(place / "two", GIVEN) as again:
        one, two = digest(image), digest(again[""])
    assert {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)} == set()
    assert {line.split()[2] for line in one.values()} == {EPOCH}
