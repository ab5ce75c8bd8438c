"""What another version wrote or knows is refused at the start: one line with cause and mend, and nothing is touched."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import lmdb
import pytest

from sidecar.collecting import Collecting
from sidecar.config import Config
from sidecar.errors import UsageError
from sidecar.ledger import has_ledger
from sidecar.settings import refuse_unknown
from tests.collecting import ANYWHERE, collecting
from tests.program import made, sidecar


def digest(place: Path) -> dict[str, str]:
    """Of every file that holds something of it; LMDB's lock file does not."""
    files = [each for each in place.rglob("*") if each.is_file() and not each.name.endswith(("-lock", "-shm", "-wal"))]
    return {str(each): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word in line, line


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger that says it is of the next format."""
    ledger, _ = made(tmp_path_factory.mktemp("newer"))
    with (
        lmdb.open(str(ledger / "ledger.mdb"), subdir=False, max_dbs=12) as environment,
        environment.begin(write=True) as t,
    ):
        assert t.get(b"format") == b"sidecar/v1"
        t.put(b"format", b"sidecar/v2")
    return ledger


@pytest.mark.parametrize(
    "command",
    [("serve", "--dev", "--data-dir"), ("serve", "--dev", "--init", "--data-dir"), ("verify",)],
    ids=" ".join,
)
def test_an_older_program_refuses_a_newer_ledger(newer: Path, command: tuple[str, ...]) -> None:
    before = digest(newer)
    refused(sidecar(*command, newer), "of another version", "use the program that wrote it")
    assert digest(newer) == before and has_ledger(newer)


def test_an_older_collector_refuses_newer_objects_and_a_newer_index(tmp_path: Path) -> None:
    place = tmp_path / "collector"
    with collecting(place) as collector:
        assert collector.stop() == 0
    mark = place / "store" / "objects" / "format"
    assert mark.read_bytes() == b"sidecar/v1\n"
    mark.chmod(0o600)
    mark.write_bytes(b"sidecar/v2\n")
    before = digest(place)
    for command in (("serve", *ANYWHERE), ("verify",)):
        refused(sidecar("collector", *command, "--data-dir", place, "--dev"), "of another version", "not touched")
    assert digest(place) == before
    mark.write_bytes(b"sidecar/v1\n")
    with sqlite3.connect(place / "index.db") as index:
        index.execute("INSERT INTO migration VALUES (1000)")
    index.close()
    done = sidecar("collector", "serve", "--data-dir", place, "--dev", *ANYWHERE)
    assert done.returncode in (1, 2) and "later version" in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("command", [("serve",), ("collector", "serve")], ids=" ".join)
def test_a_setting_of_another_version_is_not_passed_over(command: tuple[str, ...], tmp_path: Path) -> None:
    prefix = "SIDECAR_" if command == ("serve",) else "COLLECTOR_"
    where = ("--dev", "--data-dir", tmp_path / "ledger")
    file = tmp_path / "c.toml"
    file.write_text("[policy]\nstricter = true\n")
    near = "perhaps it is " if prefix == "SIDECAR_" else "--print-config"
    refused(sidecar(*command, *where, "--config", file), "policy_stricter", "c.toml", near)
    refused(
        sidecar(*command, *where, **{f"{prefix}POLICY_STRICTER": "1"}), f"{prefix}POLICY_STRICTER", "--print-config"
    )
    assert not (tmp_path / "ledger").exists()


def service_links(service: str, host: str, *ports: tuple[str, int, str]) -> dict[str, str]:
    """All that Kubernetes sets for a Service: each port's name, number and protocol."""
    name, url = service.upper().replace("-", "_"), f"[{host}]" if ":" in host else host
    (_, first, protocol), *_ = ports
    links = {
        f"{name}_SERVICE_HOST": host,
        f"{name}_SERVICE_PORT": f"{first}",
        f"{name}_PORT": f"{protocol}://{url}:{first}",
    }
    for named, port, protocol in ports:
        if named:
            links[f"{name}_SERVICE_PORT_{named.upper().replace('-', '_')}"] = f"{port}"
        one = f"{name}_PORT_{port}_{protocol.upper()}"
        links |= {one: f"{protocol}://{url}:{port}", f"{one}_PROTO": protocol, f"{one}_PORT": f"{port}"}
        links[f"{one}_ADDR"] = host
    return links


@pytest.mark.parametrize(("kind", "prefix"), [(Config, "SIDECAR"), (Collecting, "COLLECTOR")])
def test_what_kubernetes_says_of_services_is_no_setting(kind: Any, prefix: str, tmp_path: Path) -> None:
    """Of those named so in the namespace, in a pod without enableServiceLinks: false. A slip of the pen is refused."""
    own = prefix.lower()
    links = {
        **service_links(own, "10.0.0.1", ("metrics", 9464, "tcp"), ("grpc-2", 7443, "tcp")),
        **service_links(f"{own}-in-eu-1", "fd00::1", ("", 53, "udp")),
        **service_links(f"{own}-collector", "10.0.0.2", ("web", 7474, "tcp"), ("s", 9, "sctp")),
    }
    assert len(links) == 13 + 7 + 13
    command = ("serve",) if prefix == "SIDECAR" else ("collector", "serve", "--web", "127.0.0.1:0")
    where, more = ("--dev", "--data-dir", tmp_path / "none"), {"COLLECTOR_KEY_FILE": f"{tmp_path}/none.pem"}
    done = sidecar(*command, *where, **links, **more)
    refused(done, "no ledger in" if prefix == "SIDECAR" else "none.pem")
    for slip in ("LISTEN_PORT", "PORT_9464", "SERVICE_HOSTS", "METRICS_SERVICE_HOST", "PORT_9464_TCP_HOST"):
        with pytest.raises(UsageError, match=f"{prefix}_{slip} .* no setting"):
            refuse_unknown(kind, f"{prefix}_", {**links, f"{prefix}_{slip}": "1"})
    for alone in (f"{prefix}_PORT", f"{prefix}_SERVICE_HOST", f"{prefix}_PORT_9464_TCP"):
        with pytest.raises(UsageError, match=f"{alone} .* no setting"):
            refuse_unknown(kind, f"{prefix}_", {alone: links[alone]})


@pytest.mark.parametrize(("kind", "prefix"), [(Config, "SIDECAR_"), (Collecting, "COLLECTOR_")])
def test_no_setting_could_be_set_by_a_service(kind: Any, prefix: str) -> None:
    names = {prefix + field.name.upper() for field in fields(kind)}
    assert not [each for each in names if re.search("_(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_[0-9].*)$", each)]
