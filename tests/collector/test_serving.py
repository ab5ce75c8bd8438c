"""`sidecar collector serve` with all around it: PostgreSQL, S3, a witness, a timestamp authority, mutual TLS."""

from __future__ import annotations

import json
import re
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.collector_config import load_collecting
from sidecar.errors import UsageError
from tests.anchor.parties import OpensslAuthority, answering, litewitness, witness_vkey
from tests.api.tls_files import NAME, Files, server_certificate
from tests.authorities import HOUR, NOW, SERVER, Authority
from tests.cli.test_observing import scrape
from tests.collecting import ANYWHERE, Collecting, collecting
from tests.collector.stores import ACCESS, SECRET, bucket, client, versitygw
from tests.collector.test_log import KEY, ORIGIN, VKEY
from tests.collector.test_shipping import decide, refuses, until, verdict
from tests.program import Serving, made, serving, sidecar
from tests.scribe import signing_key
from tests.servers.running import postgres

WITNESS = signing_key("witness of all")
AWS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}


def test_witnessed_and_timestamped_in_postgres_and_s3(tmp_path: Path) -> None:
    """With a real S3 server; afterwards nobody, with all rights, can take away or change what is held."""
    ledger, _ = made(tmp_path)
    (tmp_path / "key.pem").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    authority = OpensslAuthority.make(tmp_path / "tsa")
    with (
        postgres() as database,
        versitygw(tmp_path) as endpoint,
        litewitness(tmp_path, WITNESS, VKEY) as witness,
        answering(lambda path, body: (200, authority.reply(body))) as stamping,
    ):
        where = bucket(endpoint)
        (tmp_path / "postgres").write_text(database.address())
        own = tmp_path / "collector.toml"
        own.write_text(
            f'dev = true\norigin = "{ORIGIN}"\nkey_file = "{tmp_path}/key.pem"\nstorage = "s3"\nretention_days = 1\n'
            f's3.bucket = "{where.name}"\ns3.prefix = "fleet/"\ns3.endpoint = "{endpoint}"\ns3.region = "us-east-1"\n'
            f'index = "postgres"\npostgres_file = "{tmp_path}/postgres"\nroll_call_seconds = 1\n'
            f'witnesses = ["{witness_vkey(WITNESS)} {witness}"]\n'
            f'timestamp_urls = ["{stamping}"]\ntimestamp_roots = ["{tmp_path}/tsa/root.pem"]\n'
        )
        with collecting(tmp_path / "collector", "--config", own, **AWS) as collector:
            config = tmp_path / "c.toml"
            config.write_text(collector.settings())
            with serving(ledger, "--config", config) as server:
                decide(server, 1)
                assert server.stop() == 0
            flags = ["--config", own, "--data-dir", collector.place]
            done = sidecar("collector", "trust", *flags, "--out", tmp_path / "trust.json", **AWS)
            assert done.returncode == 0, done.stderr
            report = verdict(ledger, tmp_path / "trust.json")
            assert report["verdict"] == "OK", report
            alone = json.loads((tmp_path / "trust.json").read_text())
            assert "quorum witnesses" in alone["policy"] and len(alone["tsa_roots"]) == 1
            done = sidecar("collector", "verify", *flags, "--workers", "1", "--json", **AWS)
            assert done.returncode == 0, done.stdout
            assert json.loads(done.stdout)["chains"][0]["entries"] == report["entries"]
            assert collector.stop() == 0
        nothing_can_be_removed(endpoint, where.name)


def nothing_can_be_removed(endpoint: str, name: str) -> None:
    """Every version of an object of each kind that cannot be made again is locked."""
    with closing(client(endpoint)) as s3:
        found = [each["Key"] for each in s3.list_objects_v2(Bucket=name)["Contents"]]
        kinds = (
            "log/roll-call/",
            "log/batch/",
            "log/checkpoint/",
            "log/cosigned/",
            "log/stamped/",
            "chain/",
            "enrolled/",
            "identity/",
            "attachment/",
        )
        for kind in kinds:
            key = next(each for each in found if each.startswith(f"fleet/{kind}"))
            held = s3.head_object(Bucket=name, Key=key)
            assert held["ObjectLockMode"] == "COMPLIANCE", key
            for more in ({}, {"BypassGovernanceRetention": True}):
                with pytest.raises(ClientError):
                    s3.delete_object(Bucket=name, Key=key, VersionId=held["VersionId"], **more)
            with pytest.raises(ClientError):
                s3.put_object_retention(
                    Bucket=name, Key=key, VersionId=held["VersionId"], BypassGovernanceRetention=True,
                    Retention={"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(minutes=1)},
                )  # fmt: skip
            assert s3.get_object(Bucket=name, Key=key, VersionId=held["VersionId"])["Body"].read()


CA, OTHER = Authority("ca"), Authority("other")
ENDED = "the collector's certificate has ended; renew tls.cert_file, or see to the SPIFFE agent"


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Collecting, Path]]:
    """A collector that lets SPIFFE ids in, and its address under its name."""
    place = tmp_path_factory.mktemp("mutual")
    (place / "server").mkdir()
    Files(place / "server").write(server_certificate(CA), CA)
    own = place / "collector.toml"
    cert, key, ca = Files(place / "server").paths
    own.write_text(
        f'origin = "{ORIGIN}"\nroll_call_seconds = 0.2\nenrol_spiffe = ["spiffe://a/ns/*/sa/sidecar"]\n'
        f'tls.cert_file = "{cert}"\ntls.key_file = "{key}"\ntls.client_ca_file = "{ca}"\n'
    )
    with collecting(place / "collector", "--config", own) as running:
        yield running, place
        assert running.stop() == 0


def shown(collector: Collecting, place: Path, spiffe: str, authority: Authority = CA) -> Path:
    """The configuration of a sidecar with this id."""
    place.mkdir()
    files = Files(place).write(authority.issue(spiffe), CA)
    cert, key, ca = files.paths
    tls = [f'tls_cert_file = "{cert}"', f'tls_key_file = "{key}"', f'tls_ca_file = "{ca}"', f'server_name = "{NAME}"']
    (place / "c.toml").write_text(collector.settings(*tls))
    return place / "c.toml"


def test_a_spiffe_id_enrols_and_only_it_ships(mutual: tuple[Collecting, Path], tmp_path: Path) -> None:
    collector, _ = mutual
    ledger, _ = made(tmp_path)
    good = shown(collector, tmp_path / "good", "spiffe://a/ns/billing/sa/sidecar")
    strange = shown(collector, tmp_path / "strange", "spiffe://a/ns/x/y/sa/sidecar")
    code, said = refuses(ledger, strange)
    assert code == 2 and "NOT_ALLOWED" in said
    for _ in range(2):
        with serving(ledger, "--config", good) as server:
            assert server.stop() == 0
    with urllib.request.urlopen(f"{collector.url}/metrics", timeout=60) as page:
        ends = re.search(rb"\ncollector_tls_certificate_end_seconds ([0-9.e+]+)\n", page.read())
    assert ends is not None and 0 < float(ends[1]) - time.time() < 2 * HOUR.total_seconds()
    neighbour = shown(collector, tmp_path / "neighbour", "spiffe://a/ns/crm/sa/sidecar")
    code, said = refuses(ledger, neighbour)
    assert code == 2 and "enrolled by another certificate" in said


def test_who_shows_no_certificate_or_a_strange_one(mutual: tuple[Collecting, Path], tmp_path: Path) -> None:
    collector, _ = mutual
    ledger, _ = made(tmp_path)
    stranger = shown(collector, tmp_path / "stranger", "spiffe://a/ns/billing/sa/sidecar", OTHER)
    plain = tmp_path / "plain.toml"
    plain.write_text(collector.settings())
    ca = tmp_path / "ca.toml"
    ca.write_text(collector.settings(f'tls_ca_file = "{tmp_path}/stranger/ca.crt"', f'server_name = "{NAME}"'))
    for config in (stranger, plain, ca):
        code, said = refuses(ledger, config)
        assert code == 2 and "does not answer" in said, said


def test_a_collector_whose_certificate_has_ended(mutual: tuple[Collecting, Path], tmp_path: Path) -> None:
    """It answers nobody, on connections that stand either, and says why; with a newer one it goes on where it stood."""
    collector, place = mutual
    ledger, _ = made(tmp_path)
    files = Files(place / "server")
    config = shown(collector, tmp_path / "own", "spiffe://a/ns/billing/sa/sidecar")
    ended = CA.issue(dns=[NAME], purposes=[SERVER], end=NOW - HOUR / 2)
    with serving(ledger, "--config", config, "--metrics", "127.0.0.1:0") as server:
        until(lambda: unshipped(server) == 0)
        try:
            files.write(ended, CA)
            until(lambda: ready(collector) == (503, f"not ready: {ENDED}\n"))
            decide(server, 1)
            until(lambda: failures(server) > 0)
            assert unshipped(server) > 0
            with urllib.request.urlopen(f"{collector.url}/metrics", timeout=60) as page:
                assert b"\ncollector_ready 0\n" in page.read()
        finally:
            files.write(server_certificate(CA), CA)
        until(lambda: unshipped(server) == 0 and ready(collector) == (200, "ready\n"))
        assert server.stop() == 0
    assert f"not ready: {ENDED}" in collector.said()


def ready(collector: Collecting) -> tuple[int, str]:
    """What `/readyz` says."""
    try:
        with urllib.request.urlopen(f"{collector.url}/readyz", timeout=60) as page:
            return page.status, page.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def unshipped(server: Serving) -> float:
    return scrape(server)["sidecar_unshipped_entries",]


def failures(server: Serving) -> float:
    return scrape(server)["sidecar_ship_failures",]


def test_a_lost_index_and_a_poisoned_one(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    place = tmp_path / "collector"
    flags = ["--data-dir", place, "--dev"]
    with collecting(place) as collector:
        config = tmp_path / "c.toml"
        config.write_text(collector.settings())
        with serving(ledger, "--config", config) as server:
            assert server.stop() == 0
        assert collector.stop() == 0
    assert sidecar("collector", "verify", *flags).returncode == 0
    with sqlite3.connect(place / "index.db") as poisoned:
        poisoned.execute("UPDATE position SET place = place + 1 WHERE place < 2")
    poisoned.close()
    done = sidecar("collector", "verify", *flags)
    assert done.returncode == 1 and "the index has other places" in done.stdout
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (place / name).unlink(missing_ok=True)
    done = sidecar("collector", "reindex", *flags)
    assert done.returncode == 0 and done.stdout.endswith("entries of the log indexed\n")
    assert sidecar("collector", "verify", *flags).returncode == 0
    objects = (place / "store" / "objects" / "chain").rglob("*")
    run = max(each for each in objects if each.is_file())  # one, where all of it was shipped at once
    run.chmod(0o600)
    run.write_bytes(run.read_bytes()[:-1] + b"x")
    done = sidecar("collector", "verify", *flags)
    assert done.returncode == 1 and "WRONG: chain" in done.stdout


REFUSED = {
    "no directory": ({"data_dir": ""}, "data_dir is not set"),
    "no name": ({"dev": False}, "origin is not set"),
    "an unknown store": ({"storage": "tape"}, "storage must be one of"),
    "no bucket": ({"storage": "s3"}, "s3.bucket is not set"),
    "an unknown index": ({"index": "tape"}, "index must be one of"),
    "no database": ({"index": "postgres"}, "postgres_file is not set"),
    "open to all": ({"listen": "0.0.0.0:1", "dev": False, "origin": "x"}, "without TLS"),
    "half of TLS": ({"tls_cert_file": "x"}, "set both or neither"),
    "rules without certificates": ({"enrol_spiffe": ("spiffe://a/*",)}, "needs callers' certificates"),
    "roll-calls all the time": ({"roll_call_seconds": 0.0}, "roll_call_seconds must be"),
}


@pytest.mark.parametrize(("settings", "why"), REFUSED.values(), ids=list(REFUSED))
def test_settings_that_cannot_be_meant(settings: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        load_collecting(None, {}, {"data_dir": "x", "dev": True, **settings})


def test_a_log_key_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with collecting(tmp_path / "collector") as collector:
        assert collector.stop() == 0
    (tmp_path / "collector" / "log-key.pem").unlink()
    done = sidecar("collector", "serve", "--data-dir", tmp_path / "collector", "--dev", *ANYWHERE)
    assert done.returncode == 2 and "put it back" in done.stderr
