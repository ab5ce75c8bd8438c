"""Repositories and servers that mean harm: trees that could mean two things, bombs, lies, silence."""

from __future__ import annotations

import contextlib
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.errors import PolicySourceError
from sidecar.policy.findings import Refused
from sidecar.policy.git_source import GitSettings, GitSource
from sidecar.policy.tree import TreeLimits

from .git_servers import (
    POLICY,
    Authority,
    Front,
    Repository,
    drip,
    fetching,
    hang_after,
    https_server,
    over_https,
    pack_of,
    pack_of_streams,
    silent_server,
    with_pack,
)

FILE, DIRECTORY, LINK = "100644", "40000", "120000"
BLOB, BASE_DELTA = 3, 7


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "served" / "policies.git")
    made.commit({"p.rego": POLICY})
    return made


def findings(settings: GitSettings, cache: Path) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as caught:
        GitSource(settings, cache).look("", "")
    assert len(caught.value.revision) == 40
    return [(finding.file, finding.message) for finding in caught.value.findings]


def trouble(settings: GitSettings, cache: Path) -> str:
    with pytest.raises(PolicySourceError) as caught:
        GitSource(settings, cache).look("", "")
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_trees_that_could_mean_two_things(repository: Repository, tmp_path: Path) -> None:
    blob, rego = repository.blob(b"x"), repository.blob(POLICY.encode())
    inner = repository.tree((FILE, "..", blob), (FILE, "q.rego", rego))
    tree = repository.tree(
        (FILE, ".", blob),
        (FILE, "..", blob),
        (DIRECTORY, ".GIT", inner),
        (DIRECTORY, ".git", inner),
        (FILE, "../../etc/cron.d/x.rego", rego),
        (FILE, "P.rego", rego),
        (FILE, "a\\b.rego", rego),
        (FILE, b"a\nb.rego", rego),
        (FILE, b"\xff.rego", rego),
        ("160755", "device.rego", blob),
        (FILE, "p.rego", rego),
        (DIRECTORY, "sub", inner),
        (FILE, "twice.rego", rego),
        (FILE, "twice.rego", blob),
        (FILE, "sub", rego),
    )
    repository.commit_tree(tree)
    found = findings(GitSettings(url=str(repository.path)), tmp_path / "cache")
    by_hand = "has a name that git gives to no file; somebody made this tree by hand"
    odd = "has a name with a backslash or a character that cannot be printed; rename it"
    assert sorted(found) == sorted(
        [
            (".", by_hand),
            ("..", by_hand),
            (".GIT", by_hand),
            (".git", "differs from .GIT in case only; where case is ignored one would replace the other"),
            ("../../etc/cron.d/x.rego", by_hand),
            ("a\\\\b.rego", odd),
            ("a\\nb.rego", odd),
            ("\\udcff.rego", odd),
            ("device.rego", "is neither a file nor a directory"),
            ("p.rego", "differs from P.rego in case only; where case is ignored one would replace the other"),
            ("sub/..", by_hand),
            ("twice.rego", "is there twice"),
            ("sub", "is there twice"),
        ]
    )


def test_links_are_read_within_the_policy_and_nowhere_else(repository: Repository, tmp_path: Path) -> None:
    def link(to: str) -> str:
        return repository.blob(to.encode())

    rego = repository.blob(POLICY.encode())
    shared = repository.tree((FILE, "q.rego", rego), (LINK, "up.rego", link("../p.rego")))
    good = [(FILE, "p.rego", rego), (DIRECTORY, "shared", shared), (LINK, "r.rego", link("shared/./up.rego"))]
    other = ("160000", "vendored", "1" * 40)  # a submodule
    repository.commit_tree(repository.tree((DIRECTORY, "policy", repository.tree(*good, other)), (FILE, "out", rego)))
    settings = GitSettings(url=str(repository.path), subdirectory="policy")
    candidate = GitSource(settings, tmp_path / "cache").look("", "")
    assert candidate is not None and set(candidate.files.values()) == {POLICY.encode()}
    assert list(candidate.files) == ["p.rego", "r.rego", "shared/q.rego", "shared/up.rego"]

    bad = {
        "absolute.rego": "/etc/passwd",
        "climbs.rego": "../out",
        "climbs_far.rego": "shared/../../out",
        "directory.rego": "shared",
        "itself": ".",
        "loop.rego": "loop.rego",
        "nothing.rego": "none",
        "long": "x" * 5000,
    }
    links = [(LINK, name, link(to)) for name, to in bad.items()]
    repository.commit_tree(repository.tree((DIRECTORY, "policy", repository.tree(*good, *links))))
    out, nothing = "is a link out of the policy directory; put the file itself there", "is a link to nothing"
    to_directory = "is a link to something that is not a file; put the directory itself there"
    assert findings(settings, tmp_path / "cache") == [
        ("absolute.rego", out),
        ("climbs.rego", out),
        ("climbs_far.rego", out),
        ("directory.rego", to_directory),
        ("itself", to_directory),
        ("long", nothing),
        ("loop.rego", nothing),
        ("nothing.rego", nothing),
    ]
    repository.commit_tree(repository.tree((LINK, "policy", link("/etc"))))
    assert findings(settings, tmp_path / "cache")[0][1].startswith("there is no directory policy in this commit")


def test_trees_without_measure(repository: Repository, tmp_path: Path) -> None:
    settings, cache = GitSettings(url=str(repository.path)), tmp_path / "cache"
    rego = repository.blob(POLICY.encode())
    repository.commit_tree(repository.tree(*((FILE, f"{n:05}.rego", rego) for n in range(4001))))
    assert "more than 4000 files" in findings(settings, cache)[0][1]
    repository.commit_tree(repository.tree(*((FILE, f"{n:05}.txt", rego) for n in range(20_001))))
    assert "more than 20000 entries" in findings(settings, cache)[0][1]
    tree = repository.tree((FILE, "p.rego", rego))
    for _ in range(10):  # 20 ** 10 directories, in ten objects
        tree = repository.tree(*((DIRECTORY, f"d{n:02}", tree) for n in range(20)))
    repository.commit_tree(tree)
    assert "more than 20000 entries" in findings(settings, cache)[0][1]
    tree = repository.tree((FILE, "p.rego", rego))
    for _ in range(33):
        tree = repository.tree((DIRECTORY, "d", tree))
    repository.commit_tree(tree)
    assert "more than 32 deep" in findings(settings, cache)[0][1]
    large = repository.blob(b"# " + b"x" * (9 << 20))
    repository.commit_tree(repository.tree(*((FILE, f"{n}.rego", large) for n in range(4))))
    assert findings(settings, cache) == [("3.rego", "with this file the policy is larger than the gate takes")]
    assert "more than 1 files" in findings(replace(settings, limits=TreeLimits(files=1)), cache)[0][1]
    repository.commit_tree(repository.tree((FILE, "x" * 1_000_000, rego)))
    assert "longer than 1000 characters" in findings(settings, cache)[0][1]
    body = b"tree %s\n" % repository.tree((FILE, "p.rego", rego)).encode()
    author = b"author A <a> %s +0000\ncommitter A <a> 0 +0000\n\n"
    for raw, cause in ((body + author % b"0" + bytes(1 << 20), "1 MiB"), (body + author % (b"9" * 30), "date")):
        id = repository.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", given=raw)
        repository.git("update-ref", "refs/heads/main", id)
        assert cause in findings(settings, cache)[0][1]
    repository.commit({"README.md": "x"})
    assert "no .rego file" in findings(settings, cache)[0][1]


def test_a_blob_that_is_small_on_the_wire_and_large_unpacked(
    front: Front, repository: Repository, tmp_path: Path
) -> None:
    blob = repository.blob(bytes((64 << 20) + 1))
    repository.commit_tree(repository.tree((FILE, "p.rego", blob)))
    assert "holds an object of 67,108,865 bytes, more than the 67,108,864 taken" in trouble(
        over_https(front), tmp_path / "cache"
    )


def test_a_fetch_that_is_too_large(front: Front, repository: Repository, tmp_path: Path) -> None:
    repository.commit_tree(repository.tree((FILE, "p.rego", repository.blob(os.urandom(300_000)))))
    cause = trouble(replace(over_https(front), max_bytes=1 << 16), tmp_path / "cache")
    assert "sent more than 65,536 bytes; fetch less history (depth), or raise max_bytes" in cause
    left = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert left < 1 << 12, "what came of it is gone"


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(made + bytes([value]))


def many_zeros() -> bytes:
    """2^28 zeros, compressed to a quarter of a megabyte."""
    made = zlib.compressobj(1)
    piece = bytes(1 << 24)
    return b"".join(made.compress(piece) for _ in range(16)) + made.flush()


def test_packs_that_lie(front: Front, repository: Repository, tmp_path: Path) -> None:
    settings, base, zeros = over_https(front), bytes(1 << 20), many_zeros()
    bomb = varint(len(base)) + varint(1 << 30) + b"\xb0\x00\x00" * 3  # a delta of a few bytes that makes a gigabyte
    cases = [
        (pack_of_streams((BLOB, b"", 10, zeros)), "larger than it says"),
        (pack_of_streams((BLOB, b"", 1 << 30, zeros)), "holds an object of 1,073,741,824 bytes"),
        (pack_of((BLOB, b"", base), (BASE_DELTA, bytes(20), bomb)), "holds an object of 1,073,741,824 bytes"),
        (pack_of_streams((BLOB, b"", 10, zlib.compress(b"x"))), "smaller than it says"),
        (pack_of_streams((5, b"", 1, zlib.compress(b"x"))), "unknown kind"),
        (pack_of_streams((BLOB, b"", 1 << 70, zlib.compress(b"x"))), "impossible size"),
        (pack_of((BLOB, b"", b"not what was asked for")), "is missing"),
        (pack_of((BLOB, b"", b"x" * 100))[:-5], "another length"),
        (pack_of((BLOB, b"", os.urandom(100)))[:-60], "cut short"),
        (pack_of((BLOB, b"", b"x"))[:-1] + b"!", "no sound repository"),
        (b"PACK\0\0\0\2\xff\xff\xff\xff" + bytes(30), "more than 1,000,000 objects"),
        (b"rubbish" * 9, "no pack"),
    ]
    for pack, cause in cases:
        front.replace = with_pack(pack)
        assert cause in trouble(settings, tmp_path / "cache"), cause
    front.replace = None
    assert GitSource(settings, tmp_path / "cache").look("", "") is not None


def test_what_is_no_git_protocol(front: Front, tmp_path: Path) -> None:
    for answer in (b"", b"rubbish", b"0000", b"fff0", b"000eversion 2\n0000", b"001e# service=git-upload-pack\n0000"):
        front.replace = lambda _, answer=answer: answer
        assert "policies.git" in trouble(over_https(front), tmp_path / "cache")


def test_servers_that_hang_or_drip(repository: Repository, authority: Authority, tmp_path: Path) -> None:
    """At each stage the look ends in time, and its process with it; the next look is as if nothing had been."""
    known = tmp_path / "known"
    known.touch()
    refs, objects = "waiting for the server to name its refs", "waiting for the repository's objects"
    cases = [
        (hang_after(0, "info/refs?service=git-upload-pack"), refs),
        (hang_after(50, "/git-upload-pack"), refs),
        (hang_after(150, "/git-upload-pack"), objects),
        (drip(0.5, "/git-upload-pack"), refs),
    ]
    with contextlib.ExitStack() as stack:
        fronts = [stack.enter_context(https_server(repository.path.parent, authority)) for _ in cases]
        for front, (deliver, _) in zip(fronts, cases, strict=True):
            front.deliver = deliver
        port = stack.enter_context(silent_server())
        ssh = GitSettings(f"ssh://127.0.0.1:{port}/x", ssh_key_file=str(known), known_hosts_file=str(known))
        asked = [GitSettings(f"https://127.0.0.1:{port}/x.git"), ssh, *map(over_https, fronts)]
        caches = [tmp_path / f"cache{number}" for number in range(len(asked))]
        stages = [refs, refs, *(stage for _, stage in cases)]
        limit = 2  # seconds: enough to get that far on a quick machine; a slow one is given longer
        while not all(map(hung, looked(asked, limit, caches), stages)):
            limit *= 2
            assert limit <= 128
        assert not fetching(os.getpid())
        fronts[2].let_go()
        assert GitSource(over_https(fronts[2]), caches[4]).look("", "") is not None


def looked(asked: list[GitSettings], limit: float, caches: list[Path]) -> list[str]:
    """Why each of the looks, all at once, ended without a policy."""
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(trouble, [replace(one, timeout=limit) for one in asked], caches))


def hung(cause: str, stage: str) -> bool:
    """Whether it was ended for its time, and had come so far."""
    assert "not done within" in cause
    return f"s, {stage}; try again later" in cause
