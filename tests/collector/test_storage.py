"""One suite for every store; what only S3 or only files must do comes after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from sidecar.collector import FleetLog
from sidecar.collector.index import open_sqlite
from sidecar.collector.storage import FileStorage, Storage
from sidecar.collector.storage.port import LONGEST_NAME, checked, create_same
from sidecar.collector.storage.s3 import Bucket, S3Storage
from sidecar.errors import StorageError
from tests.collector import stores
from tests.collector.memory import MemoryStorage
from tests.collector.test_log import KEY, ORIGIN, notes, whole

SERVERS = ["versitygw", "moto"]


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """S3 servers by name, each started when first asked for."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        started: dict[str, str] = {}

        def start(name: str) -> str:
            if name not in started:
                server = stores.moto() if name == "moto" else stores.versitygw(tmp_path_factory.mktemp("s3"))
                started[name] = stack.enter_context(server)
            return started[name]

        yield start


@pytest.fixture(params=["memory", "files", *SERVERS])
def storage(request: pytest.FixtureRequest, tmp_path: Path, endpoints: Callable[[str], str]) -> Storage:
    if request.param == "memory":
        return MemoryStorage()
    if request.param == "files":
        return FileStorage(tmp_path / "store")
    return S3Storage(stores.bucket(endpoints(request.param)))


def test_created_once(storage: Storage) -> None:
    assert storage.read("log/a", 10) is None
    assert storage.create("log/a", b"first") is True
    assert storage.create("log/a", b"second") is False
    assert storage.create("log/a", b"first") is False
    assert storage.read("log/a", 10) == b"first"


def test_names(storage: Storage) -> None:
    names = {"log/tile/0/000", "log/tile/0/000.p/7", "log/tile/0/x001/000", "log/tile/1/000", "other/tile"}
    for name in names:
        assert storage.create(name, name.encode())
    assert set(storage.names("")) == names
    assert set(storage.names("log/tile/0/")) == {n for n in names if n.startswith("log/tile/0/")}
    assert set(storage.names("log/t")) == {n for n in names if n.startswith("log/t")}
    assert set(storage.names("none/such")) == set()
    assert all(storage.read(name, 100) == name.encode() for name in names)


def test_removed(storage: Storage) -> None:
    """For good: made again it is a new object; twice is once; what begins with its name stays."""
    for name in ("chain/a", "chain/ab"):
        assert storage.create(name, b"first")
    for _ in range(2):
        storage.remove("chain/a")
    assert storage.read("chain/a", 10) is None and list(storage.names("chain/")) == ["chain/ab"]
    assert storage.create("chain/a", b"second") and storage.read("chain/a", 10) == b"second"


def test_kept_until_then(storage: Storage) -> None:
    """Nobody removes it before."""
    assert storage.create("chain/a", b"kept", keep_until=int(time.time()) + 3_600)
    with pytest.raises(StorageError):
        storage.remove("chain/a")
    assert storage.read("chain/a", 10) == b"kept"


@pytest.mark.parametrize("size", [0, 1, 70_000, 6 * 1024 * 1024])
def test_bytes_and_limits(storage: Storage, size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    assert storage.create("data", data)
    assert storage.read("data", size) == data
    if size:
        with pytest.raises(StorageError, match="longer"):
            storage.read("data", size - 1)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", ".", "a b", "é", "a\n", "x" * 513])
def test_names_no_store_takes(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError):
        storage.create(name, b"")
    with pytest.raises(ValueError):
        storage.read(name, 1)


def test_the_longest_name() -> None:
    assert checked("x" * LONGEST_NAME)


@pytest.mark.parametrize("storage", ["memory", "files", "versitygw"], indirect=True)  # moto looks, then stores
def test_of_many_at_once_one_creates(storage: Storage) -> None:
    made: list[bytes] = []
    start = threading.Barrier(8)

    def create(mine: bytes) -> None:
        start.wait()
        if storage.create("wanted/by/all", mine):
            made.append(mine)

    threads = [threading.Thread(target=create, args=(bytes([i]) * 1_000,)) for i in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(made) == 1 and storage.read("wanted/by/all", 1_000) == made[0]


def test_the_same_bytes_or_an_error(storage: Storage) -> None:
    create_same(storage, "a", b"same")
    create_same(storage, "a", b"same")
    for other in (b"sama", b"samex", b"sam"):
        with pytest.raises(StorageError):
            create_same(storage, "a", other)


def test_a_log_on_it(storage: Storage, tmp_path: Path) -> None:
    index = open_sqlite(tmp_path / "index.db")
    log = FleetLog(storage, index, ORIGIN, KEY, keep_until=lambda: int(time.time()) + 5)
    log.append(notes(250))
    log.append(notes(20, 250))
    again = FleetLog(storage, index, ORIGIN, KEY, known=[log.signed])
    assert len(whole(storage, again.signed)) == 270
    index.close()


# --- S3


@pytest.mark.parametrize("server", SERVERS)
def test_objects_are_locked(endpoints: Callable[[str], str], server: str) -> None:
    """Until then not even the bucket's owner removes an object or shortens its time."""
    endpoint = endpoints(server)
    place = stores.bucket(endpoint)
    until = int(time.time()) + 3_600
    assert S3Storage(place).create("a", b"kept", keep_until=until)
    owner = stores.client(endpoint)
    at = {"Bucket": place.name, "Key": "fleet/a"}
    head = owner.head_object(**at)
    assert head["ObjectLockMode"] == "COMPLIANCE" and int(head["ObjectLockRetainUntilDate"].timestamp()) == until
    with pytest.raises(ClientError, match="AccessDenied"):
        owner.delete_object(**at, VersionId=head["VersionId"], BypassGovernanceRetention=True)
    assert S3Storage(place).read("a", 4) == b"kept"


@pytest.mark.parametrize("server", SERVERS)
def test_a_bucket_without_object_lock_is_refused(endpoints: Callable[[str], str], server: str) -> None:
    with pytest.raises(StorageError, match="Object Lock"):
        S3Storage(stores.bucket(endpoints(server), locked=False))


def test_wrong_buckets_and_secrets(endpoints: Callable[[str], str]) -> None:
    place = stores.bucket(endpoints("versitygw"))
    for wrong in (replace(place, name="no-such-bucket"), replace(place, secret_key="wrong-secret")):
        with pytest.raises(StorageError) as refused:
            S3Storage(wrong)
        assert "wrong-secret" not in str(refused.value)


def test_a_store_out_of_reach() -> None:
    with pytest.raises(StorageError):
        S3Storage(Bucket("b", "http://127.0.0.1:9", "us-east-1", "", "a", "s"))


# --- files


def test_what_a_crash_left_half_written_is_no_object(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "store")
    storage.create("a", b"whole")
    (tmp_path / "store/writing/half").write_bytes(b"ha")
    again = FileStorage(tmp_path / "store")
    assert list(again.names("")) == ["a"] and not list((tmp_path / "store/writing").iterdir())


def test_files_are_read_only(tmp_path: Path) -> None:
    FileStorage(tmp_path / "store").create("log/a", b"x")
    assert (tmp_path / "store/objects/log/a").stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("obstacle", ["store", "store/objects", "store/objects/log"])
def test_a_file_where_a_directory_must_be(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / obstacle).write_bytes(b"in the way")
    with pytest.raises(StorageError):
        FileStorage(tmp_path / "store").create("log/a", b"x")
