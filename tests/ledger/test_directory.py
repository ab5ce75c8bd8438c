"""The directory: made whole or not at all, for one process at a time; every refusal says why and what to do."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.chain.seeds import Custodian, Custody
from sidecar.errors import LedgerBusy, LedgerError, LedgerUnknown, Malformed, UsageError
from tests.ledger.worlds import PATIENCE, World, refused


def test_a_new_ledger_is_closed_sealed_and_private(world: World) -> None:
    assert sorted(p.name for p in world.directory.iterdir()) == ["identity.pem", "ledger.mdb", "lock"]
    assert stat.S_IMODE(world.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in world.directory.iterdir()} == {0o600}
    key = load_pem_private_key((world.directory / "identity.pem").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    assert key.private_bytes_raw() == world.identity.private_bytes_raw()
    world.assert_verifies()


def test_modes_do_not_depend_on_the_umask(tmp_path: Path, world: World) -> None:
    for umask in (0o000, 0o077):
        new = World(tmp_path / f"new{umask}", world.custody)
        before = os.umask(umask)
        try:
            new.create()
        finally:
            os.umask(before)
        assert stat.S_IMODE(new.directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(p.stat().st_mode) for p in new.directory.iterdir()} == {0o600}


def test_the_same_founder_never_makes_the_same_chain(tmp_path: Path, world: World) -> None:
    ids = {World(tmp_path / str(n), world.custody, identity=world.identity).create() for n in range(3)}
    assert len(ids) == 3


def test_an_empty_directory_is_taken_a_full_one_is_not(tmp_path: Path, world: World) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    World(empty, world.custody).create()
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").touch()
    link = tmp_path / "link"
    link.symlink_to(full)
    (tmp_path / "file").touch()
    for taken in (full, world.directory, link, tmp_path / "file"):
        with pytest.raises(UsageError):
            World(taken, world.custody).create()
    assert [p.name for p in full.iterdir()] == ["precious"]
    assert not [p for p in tmp_path.iterdir() if ".new-" in p.name]
    world.assert_verifies()


def test_where_nothing_can_be_made_it_says_so(tmp_path: Path, world: World) -> None:
    with pytest.raises(UsageError, match="No such file"):
        World(tmp_path / "no" / "where", world.custody).create()


@pytest.mark.parametrize("log", ["", "-", "two\nlines", " spaced", "é"])
def test_a_log_origin_no_note_can_carry_is_refused(tmp_path: Path, world: World, log: str) -> None:
    with pytest.raises(UsageError, match="origin"):
        World(tmp_path / "new", world.custody).create(log=log)
    assert not (tmp_path / "new").exists()


def test_an_authority_must_be_a_key(tmp_path: Path, world: World) -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        World(tmp_path / "new", world.custody).create(authority=b"short")
    World(tmp_path / "new", world.custody).create(authority=bytes(32), log="log.example/fleet")
    made = World(tmp_path / "new", world.custody)
    made.open().close()
    made.assert_verifies()


def test_a_custodian_the_chain_could_not_name_stops_the_founding(tmp_path: Path) -> None:
    new = World(tmp_path / "new", Custody("any", (Custodian("bad \ufdd0 name", "hpke", b"key"),)))
    with pytest.raises(Malformed):
        new.create()
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time(world: World) -> None:
    ledger = world.open()
    with pytest.raises(LedgerBusy, match="another process"):
        world.open()
    code = (
        "import sys; from pathlib import Path; from sidecar.chain.seeds import Custody\n"
        "from sidecar.errors import LedgerBusy; from tests.ledger.worlds import World\n"
        "try: World(Path(sys.argv[1]), Custody('any', ())).open()\n"
        "except LedgerBusy: sys.exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(world.directory)], cwd=Path(__file__).parents[2], timeout=PATIENCE
    )
    assert done.returncode == 9
    assert ledger.append(refused()).result(PATIENCE).seq == 4  # and the first was not disturbed
    ledger.close()
    world.open().close()
    world.assert_verifies()


def test_a_failed_opening_lets_go_of_the_lock(world: World) -> None:
    (world.directory / "identity.pem").rename(world.directory / "away")
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"identity\.pem") as caught:
            world.open()
        assert not isinstance(caught.value, LedgerBusy)
    (world.directory / "away").rename(world.directory / "identity.pem")
    world.open().close()


def test_no_ledger_there(tmp_path: Path, world: World) -> None:
    for place in (tmp_path / "absent", tmp_path):
        with pytest.raises(LedgerUnknown, match="sidecar init"):
            World(place, world.custody).open()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger"]  # nothing was made by looking


@pytest.mark.parametrize("content", [b"", b"junk", bytes(8192), b"\xff" * 100_000])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(world: World, content: bytes) -> None:
    (world.directory / "ledger.mdb").write_bytes(content)
    with pytest.raises(LedgerUnknown):
        world.open()
    assert (world.directory / "ledger.mdb").read_bytes() == content


def test_a_file_shorter_than_its_page_count_but_whole_is_opened(world: World) -> None:
    file = world.directory / "ledger.mdb"
    with lmdb.open(str(file), subdir=False, max_dbs=6) as environment:
        index, key = environment.open_db(b"index"), bytes(16)
        with environment.begin(write=True) as txn:  # pages taken and freed by one commit are never written
            txn.put(key, bytes(100_000), db=index)
            txn.delete(key, db=index)
        assert (environment.info()["last_pgno"] + 1) * environment.stat()["psize"] > file.stat().st_size
    world.open().close()
    world.assert_verifies()


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from sidecar.chain.seeds import Custody
from sidecar.errors import LedgerError, UsageError
from tests.ledger.worlds import World
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    world = World(Path(sys.argv[2]), Custody("any", ()))
    world.create() if sys.argv[1] == "create" else world.open()
except (LedgerError, UsageError) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("what", ["create", "open"])
def test_without_permission_it_says_so(public_place: Path, world: World, what: str) -> None:
    """As a user who may read the directory but not write in it."""
    made = World(public_place / "ledger", world.custody)
    made.create()
    for file in made.directory.iterdir():
        file.chmod(0o444)
    made.directory.chmod(0o555)
    public_place.chmod(0o555)
    target = made.directory if what == "open" else public_place / "new"
    try:
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, what, str(target)],
            capture_output=True, text=True, timeout=PATIENCE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
    finally:
        public_place.chmod(0o755)
        made.directory.chmod(0o755)
    assert "Permission denied" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
