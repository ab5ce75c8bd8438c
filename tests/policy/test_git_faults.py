"""What befalls the cache and the process: damage, kill -9 halfway, a full disk. The next look is right again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.errors import PolicySourceError
from sidecar.policy.git_source import GitSettings, GitSource
from tests.faults.mounts import tmpfs

from .git_servers import POLICY, Front, Repository, fetching, hang_after, over_https

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "served" / "policies.git")
    made.commit({"p.rego": POLICY, "noise.txt": os.urandom(40_000).hex()})
    return made


def assert_right(settings: GitSettings, cache: Path, repository: Repository) -> None:
    candidate = GitSource(settings, cache).look("", "")
    assert candidate is not None and candidate.files == {"p.rego": POLICY.encode()}
    assert candidate.revision == repository.git("rev-parse", "main")


def one(place: Path, pattern: str) -> Path:
    (found,) = place.rglob(pattern)
    return found


def overwrite(file: Path, at: int, content: bytes) -> None:
    file.chmod(0o600)
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(content)


def zeros(file: Path) -> None:
    file.chmod(0o600)
    file.write_bytes(bytes(file.stat().st_size))


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: overwrite(one(c, "*.pack"), 20, b"\xff" * 30),
        lambda c: overwrite(one(c, "*.pack"), one(c, "*.pack").stat().st_size - 300, b"\xff" * 300),
        lambda c: os.truncate(one(c, "*.pack"), 0),
        lambda c: one(c, "*.pack").unlink(),
        lambda c: os.truncate(one(c, "*.idx"), 0),
        lambda c: zeros(one(c, "*.idx")),
        lambda c: overwrite(one(c, "*.idx"), 1032, b"\x11" * 60),
        lambda c: one(c, "*.idx").unlink(),
        lambda c: (c / "state.json").write_text("[" * 100_000),
        lambda c: shutil.rmtree(c / "objects"),
        lambda c: (c / "busy").touch(),
        lambda c: (c / "objects" / "pack" / "tmp123.pack").write_bytes(b"PACK"),
    ],
)
def test_a_damaged_cache_is_made_anew(repository: Repository, tmp_path: Path, damage: Damage) -> None:
    settings, cache = GitSettings(url=str(repository.path)), tmp_path / "cache"
    GitSource(settings, cache).look("", "")
    damage(cache)
    assert_right(settings, cache, repository)


def test_a_cache_with_other_content_under_an_objects_name(repository: Repository, tmp_path: Path) -> None:
    """A loose object with the right name and the wrong content, where the pack with the right one is gone."""
    settings, cache = GitSettings(url=str(repository.path)), tmp_path / "cache"
    GitSource(settings, cache).look("", "")
    id = repository.git("rev-parse", "main:p.rego")
    other = repository.blob(b"package p\n\ndecision := 2\n")
    shutil.rmtree(cache / "objects" / "pack")
    shutil.copytree(repository.path / "objects", cache / "objects", dirs_exist_ok=True)
    (cache / "objects" / id[:2] / id[2:]).unlink()
    shutil.copy(repository.path / "objects" / other[:2] / other[2:], cache / "objects" / id[:2] / id[2:])
    assert_right(settings, cache, repository)


def test_a_cache_of_another_repository(repository: Repository, tmp_path: Path) -> None:
    other, cache = Repository(tmp_path / "other.git"), tmp_path / "cache"
    other.commit({"q.rego": POLICY})
    GitSource(GitSettings(url=str(other.path)), cache).look("", "")
    (cache / "kept").write_text("somebody else's")
    assert_right(GitSettings(url=str(repository.path)), cache, repository)
    assert (cache / "kept").exists()


def await_(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("count", [300, 30_000])
def test_kill_9_of_the_process_that_fetches(front: Front, repository: Repository, tmp_path: Path, count: int) -> None:
    settings, cache, said = over_https(front), tmp_path / "cache", []
    front.deliver = hang_after(count, "/git-upload-pack")

    def look() -> None:
        try:
            GitSource(settings, cache).look("", "")
        except PolicySourceError as error:
            said.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    assert front.reached.wait(300)
    (child,) = fetching(os.getpid())
    os.kill(child, signal.SIGKILL)
    thread.join()
    assert len(said) == 1 and "ended early (signal 9); try again later" in said[0]
    front.deliver = None
    assert_right(settings, cache, repository)


def test_kill_9_of_the_sidecar_ends_the_fetch(front: Front, repository: Repository, tmp_path: Path) -> None:
    settings, cache = over_https(front), tmp_path / "cache"
    assert_right(settings, cache, repository)
    repository.commit({"p.rego": POLICY, "more.txt": os.urandom(40_000).hex()})
    front.deliver = hang_after(30_000, "/git-upload-pack")
    code = (
        "import sys; from pathlib import Path; from sidecar.policy.git_source import GitSettings, GitSource; "
        "GitSource(GitSettings(url=sys.argv[1], tls_ca_file=sys.argv[2]), Path(sys.argv[3])).look('', '')"
    )
    command = [sys.executable, "-c", code, settings.url, settings.tls_ca_file, str(cache)]
    with subprocess.Popen(command, cwd=ROOT) as sidecar:
        assert front.reached.wait(300)
        (child,) = fetching(sidecar.pid)
        front.deliver = None
        with pytest.raises(PolicySourceError, match="in use by another process"):
            GitSource(settings, cache).look("", "")
        sidecar.kill()
    await_(lambda: not Path(f"/proc/{child}").exists())
    assert_right(settings, cache, repository)


def test_a_disk_that_fills_up(front: Front, repository: Repository) -> None:
    with tmpfs(1) as disk:
        settings, cache, ballast = over_https(front), disk / "cache", disk / "ballast"
        ballast.write_bytes(bytes(1_000_000))
        for _ in range(2):
            with pytest.raises(PolicySourceError, match="cannot be used: No space left on device"):
                GitSource(settings, cache).look("", "")
        ballast.unlink()
        assert_right(settings, cache, repository)
        ballast.write_bytes(bytes(950_000))
        assert_right(settings, cache, repository)
        repository.commit({"p.rego": POLICY, "more.txt": os.urandom(100_000).hex()})
        with pytest.raises(PolicySourceError, match="No space left on device"):
            GitSource(settings, cache).look("", "")
        ballast.unlink()
        assert_right(settings, cache, repository)


def test_a_cache_that_cannot_be_written(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PolicySourceError, match=r"the cache .*/file/cache cannot be used: Not a directory"):
        GitSource(GitSettings(url=str(repository.path)), tmp_path / "file" / "cache").look("", "")
