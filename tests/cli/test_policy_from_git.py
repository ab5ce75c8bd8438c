"""The whole way of a policy: from a real git server by signed commits into force, and what goes wrong on it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.entry import EntryType
from tests.cli.test_policy_in_force import EXPECTATIONS, PATIENCE, RULES, TESTS, shown, until
from tests.faults.load import recorded
from tests.needs import needs_program
from tests.policy.git_servers import Authority, Front, Repository, Ssh, hang_after, https_server, ssh_server
from tests.program import made, serving, serving_unready, sidecar


class Team:
    """A policy repository whose commits are signed, or not."""

    def __init__(self, place: Path) -> None:
        needs_program("opa")
        self.repository = Repository(place / "served" / "policies.git")
        self.key = place / "maintainer"
        needs_program("ssh-keygen")
        for name in ("maintainer", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
        self.signers = place / "allowed_signers"
        self.allow("maintainer")

    def allow(self, name: str) -> None:
        """This key's commits are activated, and no others."""
        public = " ".join(self.key.with_name(f"{name}.pub").read_text().split()[:2])
        self.signers.write_text(f'{name}@example.org namespaces="git" {public}\n')

    def push(
        self,
        action: str,
        code: str,
        *parents: str,
        key: str = "maintainer",
        broken: str = "",
        more: Mapping[str, str] | None = None,
    ) -> str:
        """A commit on main; ``key`` "" signs nothing; ``more``: files besides the policy."""
        texts = {"p.rego": RULES, "p_test.rego": TESTS, "expectations.yaml": EXPECTATIONS}
        files = {f"policy/{name}": text.format(action=action, code=code) for name, text in texts.items()}
        files |= more or {}
        repo = self.repository
        if broken:
            files[broken] = "package x\n\nno"
        tree = repo.git("rev-parse", repo.commit(files, branch="scratch") + "^{tree}")
        lineage = [word for parent in parents for word in ("-p", parent)]
        how = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={self.key.with_name(key)}") if key else ()
        sign = ("-S",) if key else ()
        commit = repo.git(*how, "commit-tree", *sign, tree, *lineage, "-m", f"Allow {action}")
        repo.git("update-ref", "refs/heads/main", commit)
        return commit


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


@pytest.fixture
def front(team: Team, tmp_path: Path) -> Iterator[Front]:
    with https_server(team.repository.path.parent, Authority(tmp_path / "authority")) as front:
        yield front


@pytest.fixture
def sshd() -> Iterator[Ssh]:
    with ssh_server() as sshd:
        yield sshd


def configured(place: Path, team: Team, git: dict[str, str | int]) -> Path:
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in git.items())
    file = place / "sidecar.toml"
    file.write_text(
        f"[policy.source]\nperiod = 0.3\n[policy.source.git]\nref = 'main'\nsubdirectory = 'policy'\n{lines}"
        f"[policy.trust]\nallowed_signers = '{team.signers}'\n"
    )
    return file


def eventually(ledger: Path, wanted: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
    """The POLICY entries of a ledger that is being written to, once they are so."""
    deadline = time.monotonic() + PATIENCE
    while not wanted(history := [payload for header, payload in recorded(ledger) if header.type is EntryType.POLICY]):
        assert time.monotonic() < deadline, [(e["event"], e["revision"], e["gate"][-1:]) for e in history]
        time.sleep(0.1)  # a look at the ledger is a process
    return history


def refusals(history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Revision and first finding of each refusal."""
    return [
        (e["revision"], next(f["message"] for step in e["gate"] for f in step["findings"]))
        for e in history
        if e["event"] == "refused"
    ]


def until_refused(ledger: Path, revision: str) -> str:
    """The first finding on a revision, once it is on record that it was refused."""
    return dict(refusals(eventually(ledger, lambda history: revision in dict(refusals(history)))))[revision]


def test_signed_commits_over_https(tmp_path: Path, team: Team, front: Front) -> None:
    """Follow, refuse what is unsigned, signed by a stranger, broken or rewritten; outlive a hung server and a kill."""
    front.user, front.password = "x-access-token", "a-secret-token"
    (tmp_path / "token").write_text("a-secret-token\n")
    url = f"{front.url}/policies.git"
    git = {"url": url, "token_file": str(tmp_path / "token"), "tls_ca_file": str(front.authority.file)}
    flags = ("--config", configured(tmp_path, team, git))
    ledger, key = made(tmp_path)
    first = team.push("crm.read", "one")
    with serving(ledger, *flags) as server:
        until(server, "crm.read", ("ALLOW", "one"))
        second = team.push("crm.write", "two", first)
        until(server, "crm.write", ("ALLOW", "two"))
        refused_by_trust(ledger, team, second)
        until(server, "crm.write", ("ALLOW", "two"))
        front.deliver = hang_after(0, "git-upload-pack")
        team.push("crm.sort", "three", second)
        assert front.reached.wait(PATIENCE)
        until(server, "crm.write", ("ALLOW", "two"))
        server.stop(signal.SIGKILL)
    with serving(ledger, *flags) as server:  # the server still hangs: the last good policy is resumed
        until(server, "crm.write", ("ALLOW", "two"))
        front.let_go()
        until(server, "crm.sort", ("ALLOW", "three"))
        front.reached.clear()
        front.deliver = hang_after(0, "git-upload-pack")
        third = team.repository.git("rev-parse", "main")
        team.push("crm.four", "four", third)
        assert front.reached.wait(PATIENCE)
        assert server.stop() == 0  # a look under way does not hold it up
    told(ledger, key, first, second)


def refused_by_trust(ledger: Path, team: Team, second: str) -> None:
    """Four commits that are not activated, each for its reason."""
    wrongs: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        ((second,), {"key": ""}, "sign"),
        ((second,), {"key": "stranger"}, "not among the allowed signers"),
        ((second,), {"broken": "policy/b.rego"}, "cannot be used for rule name"),
        ((), {}, "ancestor"),
    ]
    for parents, how, because in wrongs:
        wrong = team.push("crm.bad", "bad", *parents, **how)
        assert because in until_refused(ledger, wrong)


def told(ledger: Path, key: Path, first: str, second: str) -> None:
    """The ledger has the whole story, and nothing of the token."""
    found = shown(ledger)
    active, history = found["active"], found["history"]
    in_force = [(e["event"], e["revision"]) for e in history if e["event"] != "refused"]
    assert in_force[:2] == [("activated", first), ("activated", second)]
    assert ("resumed", second) in in_force and active["event"] == "activated"
    assert active["from"]["revision"] == second and active["source"]["kind"] == "git"
    assert active["commit"]["id"] == active["revision"] and active["commit"]["subject"] == "Allow crm.sort"
    assert active["signer"]["principal"] == "maintainer@example.org" and active["signer"]["key"].startswith("SHA256:")
    everything = sidecar("show", ledger, "--json").stdout + sidecar("policy", "show", ledger).stdout
    assert "a-secret-token" not in everything and "signed by maintainer@example.org" in everything
    assert sidecar("verify", ledger, "--custodian-key", key).stdout.startswith("UNANCHORED\n")


def test_over_ssh_from_nothing(tmp_path: Path, team: Team, sshd: Ssh) -> None:
    """A repository without a usable commit leaves every decision a DENY, until one comes."""
    files = {"ssh_key_file": str(sshd.key), "known_hosts_file": str(sshd.known_hosts)}
    git = {"url": sshd.url(team.repository.path), **files}
    ledger, _ = made(tmp_path)
    unsigned = team.push("crm.read", "one", key="")
    with serving_unready(ledger, "--config", configured(tmp_path, team, git)) as server:
        until(server, "crm.read", ("DENY", "engine_unavailable"))
        until_refused(ledger, unsigned)
        until(server, "crm.read", ("DENY", "engine_unavailable"))
        signed = team.push("crm.read", "one")
        until(server, "crm.read", ("ALLOW", "one"))
        assert server.stop() == 0
    history = shown(ledger)["history"]
    assert [(e["event"], e["revision"]) for e in history] == [("refused", unsigned), ("activated", signed)]


def test_a_restart_lets_nothing_in(tmp_path: Path, team: Team) -> None:
    """What was in force is resumed while its signer is trusted only; what replaces it must follow it all the same."""
    ledger, _ = made(tmp_path)
    flags = ("--config", configured(tmp_path, team, {"url": f"file://{team.repository.path}"}))
    first = team.push("crm.read", "one")
    with serving(ledger, *flags) as server:
        until(server, "crm.read", ("ALLOW", "one"))
        assert server.stop() == 0
    team.allow("stranger")
    with serving_unready(ledger, *flags) as server:
        until(server, "crm.read", ("DENY", "engine_unavailable"))
        assert "not among the allowed signers" in until_refused(ledger, first)
        elsewhere = team.push("crm.read", "bad", key="stranger")
        assert "ancestor" in until_refused(ledger, elsewhere)
        until(server, "crm.read", ("DENY", "engine_unavailable"))
        second = team.push("crm.read", "two", first, key="stranger")
        until(server, "crm.read", ("ALLOW", "two"))
        assert server.stop() == 0
    in_force = [(e["event"], e["revision"]) for e in shown(ledger)["history"] if e["event"] != "refused"]
    assert in_force == [("activated", first), ("activated", second)]
