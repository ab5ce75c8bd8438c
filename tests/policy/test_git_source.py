"""Following a repository over https, ssh and from disk: real git servers, and what the ref does over time."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import PolicySourceError, UsageError
from sidecar.policy.findings import Refused
from sidecar.policy.git_source import GitSettings, GitSource
from sidecar.policy.source import Candidate

from .git_servers import POLICY, Authority, Front, Repository, Ssh, over_https, packet, ssh_server

Look = Callable[..., Candidate | None]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "served" / "policies.git")
    made.commit({"p.rego": POLICY, "README.md": "x", "team/q.rego": "package q\n"})
    return made


@pytest.fixture(scope="module")
def sshd() -> Iterator[Ssh]:
    with ssh_server() as sshd:
        yield sshd


def over_ssh(sshd: Ssh, repository: Repository, **more: Any) -> GitSettings:
    files = {"ssh_key_file": str(sshd.key), "known_hosts_file": str(sshd.known_hosts), **more}
    return GitSettings(url=sshd.url(repository.path), **files)


@pytest.fixture(params=["https", "ssh", "file"])
def settings(request: pytest.FixtureRequest, repository: Repository) -> GitSettings:
    """The same repository, by each way."""
    if request.param == "https":
        return over_https(request.getfixturevalue("front"))
    if request.param == "ssh":
        return over_ssh(request.getfixturevalue("sshd"), repository)
    return GitSettings(url=f"file://{repository.path}")


def found(source: GitSource, seen: str = "", active: str = "") -> Candidate:
    candidate = source.look(seen, active)
    assert candidate is not None
    return candidate


def trouble(settings: GitSettings, cache: Path) -> str:
    with pytest.raises(PolicySourceError) as caught:
        GitSource(settings, cache).look("", "")
    message = str(caught.value)
    assert message.isprintable() and message.startswith(settings.place)
    return message.removeprefix(settings.place)


@pytest.mark.parametrize("settings", ["https", "file"], indirect=True)
def test_a_branch_is_followed(settings: GitSettings, repository: Repository, tmp_path: Path) -> None:
    first = repository.git("rev-parse", "main")
    source = GitSource(settings, tmp_path / "cache")
    candidate = found(source)
    assert candidate.revision == first and candidate.bundle is None and candidate.follows is None
    assert candidate.files == {"p.rego": POLICY.encode(), "team/q.rego": b"package q\n"}
    assert source.look(first, first) is None
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    second = repository.commit({"p.rego": POLICY + "# 2\n"}, first)
    third = repository.commit({"p.rego": POLICY + "# 3\n"}, second)
    source = GitSource(replace(settings, ref="main"), tmp_path / "cache")
    candidate = found(source, first, first)
    assert candidate.revision == third and candidate.follows is True
    assert candidate.files == {"p.rego": (POLICY + "# 3\n").encode()}
    assert found(source, "", second).follows is True
    assert found(source, "", third).follows is True
    assert found(source, "", "0" * 40).follows is False
    forced = repository.commit({"p.rego": POLICY + "# forced\n"}, first)
    candidate = found(source, third, third)
    assert candidate.revision == forced and candidate.follows is False
    assert found(source, third, first).follows is True


@pytest.mark.parametrize("settings", ["https", "file"], indirect=True)
def test_a_short_history_is_made_whole_when_it_is_needed(
    settings: GitSettings, repository: Repository, tmp_path: Path
) -> None:
    ids = [repository.git("rev-parse", "main")]
    for number in range(4):
        ids.append(repository.commit({"p.rego": f"{POLICY}# {number}\n"}, ids[-1]))
    source = GitSource(replace(settings, depth=2), tmp_path / "cache")
    assert found(source).files == {"p.rego": f"{POLICY}# 3\n".encode()}
    state = tmp_path / "cache" / "state.json"
    assert ids[3] in state.read_text() and '"whole": false' in state.read_text()
    assert found(source, "", ids[3]).follows is True
    assert '"whole": false' in state.read_text(), "two commits told enough"
    assert found(source, "", ids[1]).follows is True
    assert '"whole": true' in state.read_text()
    assert found(source, "", "0" * 40).follows is False
    back = repository.commit({"p.rego": f"{POLICY}# 1\n"}, ids[0])
    assert found(source, ids[4], ids[4]).follows is False
    assert found(GitSource(replace(settings, depth=1), tmp_path / "other"), "", ids[4]).revision == back


def test_what_a_commit_says_of_itself(settings: GitSettings, repository: Repository, tmp_path: Path) -> None:
    id = repository.commit_tree(repository.git("rev-parse", "main^{tree}"), message="Subject \x1b[31m\u202e\n\nbody")
    commit = found(GitSource(settings, tmp_path / "cache")).commit
    assert commit is not None and commit.id == id
    assert (commit.author, commit.committer) == ("Ann Author <ann@example.org>", "Carl Committer <carl@example.org>")
    assert (commit.authored, commit.committed) == ("2026-09-21T14:13:20Z", "2026-09-21T14:14:20Z")
    assert commit.subject == "Subject \ufffd[31m\ufffd"
    assert hashlib.sha1(b"commit %d\0" % len(commit.raw) + commit.raw).hexdigest() == id


@pytest.mark.parametrize("settings", ["https"], indirect=True)
def test_tags_and_commits(settings: GitSettings, repository: Repository, tmp_path: Path) -> None:
    first = repository.git("rev-parse", "main")
    repository.git("tag", "-a", "v1", "-m", "m", first)
    repository.git("tag", "light", first)
    repository.git("tag", "-a", "nested", "-m", "m", "v1")
    second = repository.commit({"p.rego": POLICY + "# 2\n"}, first)
    for ref in ("v1", "light", "nested", "refs/tags/v1", first):
        source = GitSource(replace(settings, ref=ref), tmp_path / "cache")
        candidate = found(source, "", second)
        assert candidate.revision == first and candidate.follows is False, "an older commit"
        assert source.look(first, first) is None
    source = GitSource(replace(settings, ref="v1"), tmp_path / "cache")
    repository.git("tag", "-f", "-a", "v1", "-m", "again", second)
    rewritten = found(source, first, first)
    assert rewritten.revision == second and rewritten.follows is True
    repository.git("tag", "-d", "v1")
    assert "there is no branch or tag v1; push it" in trouble(replace(settings, ref="v1"), tmp_path / "cache")


@pytest.mark.parametrize("settings", ["file"], indirect=True)
def test_refs_that_lead_nowhere(settings: GitSettings, repository: Repository, tmp_path: Path) -> None:
    def cause(ref: str) -> str:
        return trouble(replace(settings, ref=ref), tmp_path / "cache")

    repository.git("tag", "of-a-blob", repository.blob(b"x"))
    assert "leads to a blob, not to a commit" in cause("of-a-blob")
    assert "no branch or tag gone" in cause("gone")
    repository.git("tag", "main", "main")
    assert "a branch and a tag main; name one of them: refs/heads/main or refs/tags/main" in cause("main")
    assert found(GitSource(replace(settings, ref="refs/heads/main"), tmp_path / "cache"))
    assert "f" * 40 in cause("f" * 40)
    with pytest.raises(Refused, match="no directory team/none in this commit") as caught:
        GitSource(replace(settings, subdirectory="team/none"), tmp_path / "cache").look("", "")
    assert caught.value.revision == repository.git("rev-parse", "HEAD")
    assert found(GitSource(replace(settings, subdirectory="team"), tmp_path / "cache")).files == {
        "q.rego": b"package q\n"
    }
    repository.git("update-ref", "-d", "refs/heads/main")
    repository.git("update-ref", "-d", "refs/tags/main")
    assert "the repository is empty, or its HEAD names no branch" in cause("")


def test_no_repository_there(settings: GitSettings, repository: Repository, tmp_path: Path) -> None:
    cause = trouble(replace(settings, url=settings.url + "-none"), tmp_path / "cache")
    assert "no such repository" in cause or "there is no git repository at this path" in cause


def test_a_commit_in_no_branch_that_the_server_will_not_send(sshd: Ssh, repository: Repository, tmp_path: Path) -> None:
    """Only protocol version 2 sends any commit that is asked for; here the server is one that lacks it."""
    first = repository.git("rev-parse", "main")
    repository.commit({"p.rego": POLICY + "# 2\n"}, first)
    repository.git("config", "protocol.version", "0")
    settings = over_ssh(sshd, repository, ref=first)
    assert found(GitSource(settings, tmp_path / "cache")).revision == first


def test_credentials_are_read_at_each_look(front: Front, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    front.user, front.password = "x-access-token", "first-token"
    with_token = over_https(front, token_file=str(secret))
    secret.write_text("first-token\n")
    source = GitSource(with_token, tmp_path / "cache")
    assert found(source)
    front.password = "second-token"
    cause = trouble(with_token, tmp_path / "cache")
    assert "refuses the credentials (401); renew what is in token_file" in cause and "first-token" not in cause
    secret.write_text("second-token")
    assert found(source)
    front.user, front.password = "ann", "pass:wörd"
    secret.write_text("pass:wörd\n")
    assert found(GitSource(over_https(front, username="ann", password_file=str(secret)), tmp_path / "cache"))
    assert "the server asks for credentials (401); name a token_file" in trouble(over_https(front), tmp_path / "cache")
    for content, words in ((b"", "is empty"), (b"a\nb", "more than one line"), (b"\xff", "is not text")):
        secret.write_bytes(content)
        assert words in trouble(with_token, tmp_path / "cache")
    secret.unlink()
    assert f"token_file {secret} cannot be read: No such file" in trouble(with_token, tmp_path / "cache")


def test_a_server_nobody_vouches_for(front: Front, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    settings = over_https(front)
    cause = trouble(replace(settings, tls_ca_file=str(other.file)), tmp_path / "cache")
    assert "certificate is not trusted" in cause and "tls_ca_file" in cause
    assert "certificate is not trusted" in trouble(replace(settings, tls_ca_file=""), tmp_path / "cache")
    by_name = replace(settings, url=settings.url.replace("127.0.0.1", "localhost"))
    assert "not valid for 'localhost'" in trouble(by_name, tmp_path / "cache")
    other.file.write_text("rubbish")
    assert "cannot be read as PEM" in trouble(replace(settings, tls_ca_file=str(other.file)), tmp_path / "cache")
    assert front.asked == [], "nothing was asked of a server that is not trusted"
    assert "the server cannot be reached: Connection refused" in trouble(
        replace(settings, url="https://127.0.0.1:9/x.git"), tmp_path / "cache"
    )
    assert "cannot be resolved" in trouble(replace(settings, url="https://none.invalid/x.git"), tmp_path / "cache")


def test_keys_that_ssh_does_not_take(sshd: Ssh, repository: Repository, tmp_path: Path) -> None:
    settings = over_ssh(sshd, repository)
    other = sshd.new_key("other")
    assert "permission denied" in trouble(replace(settings, ssh_key_file=str(other)), tmp_path / "cache")
    with sshd.authorized.open("a") as file:
        file.write(other.with_suffix(".pub").read_text())
    assert found(GitSource(replace(settings, ssh_key_file=str(other)), tmp_path / "cache"))
    unknown = tmp_path / "unknown"
    unknown.write_text("")
    cause = trouble(replace(settings, known_hosts_file=str(unknown)), tmp_path / "cache")
    assert "host key is not in known_hosts_file" in cause and unknown.read_text() == ""
    unknown.write_text(f"[127.0.0.1]:{sshd.port} {other.with_suffix('.pub').read_text()}")
    cause = trouble(replace(settings, known_hosts_file=str(unknown)), tmp_path / "cache")
    assert "host key is another than known_hosts_file says" in cause
    other.chmod(0o644)
    assert "others may read it; chmod 600" in trouble(replace(settings, ssh_key_file=str(other)), tmp_path / "cache")
    scp_like = replace(settings, url=f"{sshd.user}@127.0.0.1:{repository.path}")
    with contextlib.suppress(PolicySourceError):  # whatever is at port 22 here, it is not in known_hosts_file
        pytest.fail(str(GitSource(scp_like, tmp_path / "cache").look("", "")))


def test_a_server_that_sends_elsewhere_is_not_followed(front: Front, tmp_path: Path) -> None:
    front.elsewhere = f"{front.url}/other"
    assert "sends to another address (302); write the address it sends to" in trouble(over_https(front), tmp_path / "c")
    assert len(front.asked) == 1
    front.elsewhere = ""
    assert "no such repository (404)" in trouble(
        replace(over_https(front), url=f"{front.url}/none.git"), tmp_path / "c"
    )


def test_what_a_server_says_is_told_without_the_secret(front: Front, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    front.user, front.password = "x-access-token", "hunter2"
    proof = base64.b64encode(b"x-access-token:hunter2")
    front.replace = lambda _: b"001e# service=git-upload-pack\n0000" + packet(b"ERR no \x1b[31m hunter2 nor " + proof)
    cause = trouble(over_https(front, token_file=str(secret)), tmp_path / "cache")
    assert cause.endswith("no [31m *** nor ***")


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"url": ""}, "empty"),
        ({"url": "http://127.0.0.1/x.git"}, "plain http"),
        ({"url": "git://127.0.0.1/x.git"}, "scheme"),
        ({"url": "ext::sh -c id"}, "spaces"),
        ({"url": "https://ann:hunter2@127.0.0.1/x.git"}, "credentials"),
        ({"url": "https://hunter2@127.0.0.1/x.git"}, "credentials"),
        ({"url": "ssh://ann:hunter2@127.0.0.1/x.git"}, "credentials"),
        ({"url": "https://h/x.git?token=hunter2"}, "query"),
        ({"url": "https:///x.git"}, "lacks a host"),
        ({"url": "https://h:99999/x.git"}, "port"),
        ({"url": "ssh://-oProxyCommand=id/x"}, "host"),
        ({"url": "-oProxyCommand=id:x"}, "is none"),
        ({"url": "file://elsewhere/x"}, "no local path"),
        ({"url": "relative/path"}, "is none"),
        ({"url": "git@h:x.git"}, "needs ssh_key_file and known_hosts_file"),
        ({"url": "/x", "token_file": "t"}, "https only"),
        ({"url": "https://h/x", "ssh_key_file": "k"}, "ssh only"),
        ({"url": "https://h/x", "username": "u"}, "needs password_file"),
        ({"url": "https://h/x", "password_file": "p"}, "needs username"),
        ({"url": "https://h/x", "password_file": "p", "token_file": "t", "username": "u"}, "both set"),
        ({"url": "/x", "ref": "--upload-pack=id"}, "ref"),
        ({"url": "/x", "ref": "a..b"}, "ref"),
        ({"url": "/x", "ref": "a b"}, "ref"),
        ({"url": "/x", "subdirectory": "../x"}, "subdirectory"),
        ({"url": "/x", "subdirectory": "/x"}, "subdirectory"),
        ({"url": "/x", "timeout": 0}, "timeout"),
        ({"url": "/x", "depth": -1}, "depth"),
    ],
)
def test_settings_that_cannot_be(more: dict[str, Any], cause: str) -> None:
    with pytest.raises(UsageError, match=cause) as caught:
        GitSettings(**more)
    assert "hunter2" not in str(caught.value)
