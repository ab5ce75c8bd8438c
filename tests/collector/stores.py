"""The stores that the storage suite runs against: a dictionary, files, and three S3 servers' buckets of their own."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from sidecar.collector.storage.s3 import Bucket
from tests.faults.hosts import Host
from tests.ports import free_port
from tests.servers.building import VERSITYGW, built
from tests.servers.running import running

ACCESS, SECRET = "test-access", "test-secret"


@contextlib.contextmanager
def versitygw(directory: Path, host: Host | None = None) -> Iterator[str]:
    """The endpoint of a real S3 server with Object Lock, on files in ``directory``; on loopback, or on a host."""
    port, address = (free_port(), "127.0.0.1") if host is None else (7070, host.address)
    for each in ("objects", "versions"):
        (directory / each).mkdir()
    command: list[str | Path] = [*(host.within if host else ()), built(VERSITYGW), "--quiet"]
    command += ["--port", f"{address}:{port}"]
    command += ["posix", "--versioning-dir", directory / "versions", directory / "objects"]
    environment = {**os.environ, "ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
    with running(command, port, host=host, env=environment):
        yield f"http://{address}:{port}"


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The endpoint of moto's S3 server, in this process."""
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def client(endpoint: str):
    """A client with all rights."""
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=ACCESS, aws_secret_access_key=SECRET
    )


def bucket(endpoint: str, *, locked: bool = True) -> Bucket:
    """A new bucket."""
    name = f"sidecar-{uuid.uuid4()}"
    s3 = client(endpoint)
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=locked)
    s3.close()
    return Bucket(name, endpoint, "us-east-1", "fleet/", ACCESS, SECRET)
