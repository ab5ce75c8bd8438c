"""Trust in commits: real ones, signed by git and ssh-keygen, and our verdict held against `git verify-commit`."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from sidecar.errors import UsageError
from sidecar.policy import AllowedSigners, Commit, Refused, Signer
from tests.needs import needs_program

KINDS = {"ed25519": [], "ecdsa": ["-b", "256"], "ecdsa384": ["-b", "384"], "rsa": ["-b", "2048"]}
COMMITTED = datetime(2026, 6, 1, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 24, tzinfo=UTC)
Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Repository:
    """A git repository with a key of each kind beside it."""

    place: Path

    def run(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
        date = f"{int(COMMITTED.timestamp())} +0200"
        names = {f"GIT_{who}_{what}": f"{who}@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(self.place), "TZ": "UTC"}
        environment = {"PATH": os.environ["PATH"], **names, **dates, **quiet}
        done = subprocess.run(
            list(arguments), cwd=self.place, env=environment, input=stdin, capture_output=True, timeout=60
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return done

    def public(self, name: str) -> str:
        """The key's kind and base64."""
        return " ".join((self.place / f"{name}.pub").read_text().split()[:2])

    def fingerprint(self, name: str) -> str:
        return self.run("ssh-keygen", "-l", "-f", f"{name}.pub").stdout.decode().split()[1]

    def commit(self, key: str = "") -> bytes:
        """A commit's content, signed with ``key``."""
        signing = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={self.place / key}"] if key else []
        flags = ["-S"] if key else ["--no-gpg-sign"]
        self.run("git", *signing, "commit", "--allow-empty", *flags, "-m", f"Say who may\n\nsigned by {key}")
        return self.run("git", "cat-file", "commit", "HEAD").stdout

    def sign(self, payload: bytes, key: str, *flags: str) -> bytes:
        """The armour of ssh-keygen."""
        return self.run("ssh-keygen", "-Y", "sign", "-q", "-f", key, *flags, stdin=payload).stdout

    def store(self, raw: bytes) -> Commit:
        """The object as git keeps it, however odd."""
        done = self.run("git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=raw)
        return commit_of(raw, done.stdout.decode().strip())

    def git_trusts(self, commit: Commit, allowed: str) -> bool:
        (self.place / "allowed").write_text(allowed)
        config = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={self.place / 'allowed'}")
        return self.run("git", *config, "verify-commit", commit.id, check=False).returncode == 0


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    for program in ("git", "ssh-keygen"):
        needs_program(program)
    made = Repository(tmp_path_factory.mktemp("signed"))
    made.run("git", "init", "-q", "-b", "main", ".")
    for name, flags in {**KINDS, "other": [], "weak": ["-b", "1024"], "p521": ["-b", "521"]}.items():
        kind = {"ecdsa384": "ecdsa", "p521": "ecdsa", "other": "ed25519", "weak": "rsa"}.get(name, name)
        made.run("ssh-keygen", "-q", "-t", kind, *flags, "-N", "", "-C", "a comment", "-f", name)
    return made


@pytest.fixture(scope="session")
def signed(repository: Repository) -> bytes:
    """A commit signed with the key ed25519."""
    return repository.commit("ed25519")


def commit_of(raw: bytes, identity: str = "") -> Commit:
    identity = identity or hashlib.sha1(b"commit %d\0%b" % (len(raw), raw)).hexdigest()
    return Commit(identity, "a <a@x>", "c <c@x>", "", "", "Say who may", raw)


def judge(raw: bytes, allowed: str, now: datetime | None = NOW) -> Signer | str:
    """The signer, or why there is none."""
    commit = commit_of(raw)
    try:
        return AllowedSigners.parse(allowed).signer_of(commit, now)
    except Refused as error:
        assert error.revision == commit.id and len(error.findings) == 1
        assert error.findings[0].message.isprintable()
        return error.findings[0].message


def parted(raw: bytes) -> tuple[bytes, bytes]:
    """A signed commit's payload and armour."""
    found = re.search(rb"^gpgsig (.*\n(?: .*\n)*)", raw, re.MULTILINE)
    assert found is not None
    return raw[: found.start()] + raw[found.end() :], found[1].replace(b"\n ", b"\n")


def joined(payload: bytes, armour: bytes, header: bytes = b"gpgsig") -> bytes:
    head, _, message = payload.partition(b"\n\n")
    lines = armour.removesuffix(b"\n").replace(b"\n", b"\n ")
    return head + b"\n" + header + b" " + lines + b"\n\n" + message


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key(repository: Repository, kind: str) -> None:
    raw = repository.commit(kind)
    allowed = f"# the team\n\nother@x {repository.public('other')}\nann@x,*@y {repository.public(kind)} Ann's\n"
    assert judge(raw, allowed) == Signer("ann@x,*@y", repository.fingerprint(kind))
    assert repository.git_trusts(repository.store(raw), allowed)
    sha256 = joined(parted(raw)[0], repository.sign(parted(raw)[0], kind, "-n", "git", "-O", "hashalg=sha256"))
    assert isinstance(judge(sha256, allowed), Signer) and repository.git_trusts(repository.store(sha256), allowed)


LINES = {
    "plain": ("a@x {key}", True),
    "quoted principals": ('"a b@x" {key}', True),
    "tabs": ("  a@x\t{key}\tcomment", True),
    "another of the team": ("a@x {other}", False),
    "for git": ('a@x namespaces="git" {key}', True),
    "for what git matches": ('a@x NAMESPACES="fi*,g?t" {key}', True),
    "for files": ('a@x namespaces="file" {key}\nb@x {other}', False),
    "for all but git": ('a@x namespaces="*,!git" {key}\nb@x {other}', False),
    "valid": ('a@x valid-after="20260601Z",valid-before="20270101Z" {key}', True),
    "valid to the second": ('a@x valid-after="20260601120000Z" {key}', True),
    "not yet valid": ('a@x valid-after="20260601120001Z" {key}', False),
    "no longer valid": ('a@x valid-before="202606011159Z" {key}', False),
    "valid on another line": ('a@x valid-before="20250101Z" {key}\nb@x {key}', True),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_mean_what_git_reads_in_them(repository: Repository, signed: bytes, name: str) -> None:
    line, trusted = LINES[name]
    allowed = line.format(key=repository.public("ed25519"), other=repository.public("other")) + "\n"
    assert repository.git_trusts(repository.store(signed), allowed) == trusted
    assert isinstance(judge(signed, allowed), Signer) == trusted


def test_any_line_of_a_key_will_do(repository: Repository, signed: bytes) -> None:
    """As ssh-keygen(1) has it; git asks for the first line's principal alone."""
    key = repository.public("ed25519")
    assert judge(signed, f'a@x namespaces="file" {key}\nb@x {key}\n') == Signer(
        "b@x", repository.fingerprint("ed25519")
    )


def twice(raw: bytes) -> bytes:
    return joined(raw, parted(raw)[1])


def in_lines_of(width: int) -> Change:
    def change(raw: bytes) -> bytes:
        payload, armour = parted(raw)
        first, *lines, last = armour.splitlines()
        text = b"".join(lines)
        return joined(payload, b"\n".join([first, *(text[at : at + width] for at in range(0, len(text), width)), last]))

    return change


def in_header(name: bytes) -> Change:
    return lambda raw: joined(*parted(raw), name)


# What is changed, whether git still trusts it, and what we say.
ALTERED: dict[str, tuple[Change, bool, str]] = {
    "nothing": (lambda raw: raw, True, ""),
    "lines of another width": (in_lines_of(64), True, ""),
    "no signature": (lambda raw: parted(raw)[0], False, "is not signed; sign it with an SSH key"),
    "the message": (lambda raw: raw + b"more\n", False, "is not what SHA256:"),
    "the tree": (lambda raw: raw.replace(b"tree 4", b"tree 5"), False, "is not what SHA256:"),
    "the author": (lambda raw: raw.replace(b"AUTHOR@x", b"AUTHOR@y"), False, "is not what SHA256:"),
    "the time": (lambda raw: raw.replace(b"1780315200", b"1780315201"), False, "is not what SHA256:"),
    "a header more": (lambda raw: raw.replace(b"\n\n", b"\nencoding x\n\n", 1), False, "is not what SHA256:"),
    "a parent more": (
        lambda raw: raw.replace(b"author", b"parent " + b"a" * 40 + b"\nauthor", 1),
        False,
        "is not what",
    ),
    "another header": (in_header(b"gpgsig-sha256"), False, "a signature besides the one in gpgsig"),
    "a header like it": (in_header(b"gpgsigx"), False, "a signature besides the one in gpgsig"),
    "OpenPGP": (lambda raw: raw.replace(b" SSH SIG", b" PGP SIG"), False, "signed by an OpenPGP key"),
    "X.509": (lambda raw: raw.replace(b" SSH SIGNATURE", b" SIGNED MESSAGE"), False, "signed by an X.509 certificate"),
    # where git is easier to please
    "one signature more": (twice, True, "a signature besides the one in gpgsig"),
    "lines of changing width": (
        lambda raw: raw.replace(b"SIGNATURE-----\n U1NI", b"SIGNATURE-----\n U1NI\n ", 1),
        True,
        "lines of changing length",
    ),
    "one of the other kind": (
        lambda raw: raw.replace(b"gpgsig ", b"gpgsig-sha256 x\ngpgsig ", 1),
        True,
        "a signature besides the one in gpgsig",
    ),
    "its place": (lambda raw: raw.replace(b"author", b"x y\nauthor", 1), False, "are not tree, parents, author"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_commits_are_refused_as_git_does_or_where_it_does_not(
    repository: Repository, signed: bytes, name: str
) -> None:
    change, git, words = ALTERED[name]
    raw = change(signed)
    assert (raw != signed) == (name != "nothing")
    allowed = f"a@x {repository.public('ed25519')}\n"
    assert repository.git_trusts(repository.store(raw), allowed) == git
    verdict = judge(raw, allowed)
    assert isinstance(verdict, Signer) if not words else words in str(verdict), verdict


def test_what_git_would_not_even_store(repository: Repository, signed: bytes) -> None:
    allowed = f"a@x {repository.public('ed25519')}\n"
    for change, words in [
        (signed + b"\0", "NUL"),
        (signed.replace(b"committer", b"commitre", 1), "are not tree"),
        (signed.replace(b"gpgsig ", b"author x\ngpgsig ", 1), "out of place"),
        (signed.replace(b"gpgsig ", b"no-value\ngpgsig ", 1), "out of place"),
        (b" x\n" + signed, "are not tree"),
        (signed.partition(b"\n\n")[0] + b"\n", "are not tree"),
        (signed.replace(b"gpgsig", b"x " + b"y" * (1 << 20) + b"\ngpgsig", 1), "larger than"),
        (b"", "are not tree"),
    ]:
        assert words in str(judge(change, allowed)), words
    with pytest.raises(Refused, match="another id"):
        AllowedSigners.parse(allowed).signer_of(commit_of(signed, "a" * 40), NOW)
    with pytest.raises(Refused, match="another id"):
        AllowedSigners.parse(allowed).signer_of(commit_of(signed, "../x"), NOW)


def test_a_commit_named_by_sha256(repository: Repository, signed: bytes) -> None:
    payload, armour = parted(signed)
    allowed = AllowedSigners.parse(f"a@x {repository.public('ed25519')}\n")
    for header, good in [(b"gpgsig-sha256", True), (b"gpgsig", False)]:
        raw = joined(payload, armour, header)
        commit = commit_of(raw, hashlib.sha256(b"commit %d\0%b" % (len(raw), raw)).hexdigest())
        if good:
            assert allowed.signer_of(commit, NOW).principal == "a@x"
        else:
            with pytest.raises(Refused, match="besides the one in gpgsig-sha256"):
                allowed.signer_of(commit, NOW)


def test_signatures_for_something_else(repository: Repository, signed: bytes) -> None:
    payload, _ = parted(signed)
    allowed = f"a@x {repository.public('ed25519')}\n"
    file = joined(payload, repository.sign(payload, "ed25519", "-n", "file"))
    assert "for 'file', not for 'git'" in str(judge(file, allowed))
    assert not repository.git_trusts(repository.store(file), allowed)
    other = joined(payload, repository.sign(b"other bytes", "ed25519", "-n", "git"))
    assert "is not what SHA256:" in str(judge(other, allowed))
    stranger = joined(payload, repository.sign(payload, "other", "-n", "git"))
    assert f"is signed by {repository.fingerprint('other')} (ssh-ed25519), which is not" in str(
        judge(stranger, allowed)
    )
    assert not repository.git_trusts(repository.store(stranger), allowed)


def test_a_key_must_be_valid_now_too(repository: Repository, signed: bytes) -> None:
    """Git looks at the commit's own time alone, which the committer chooses."""
    key = repository.public("ed25519")
    expired = f'a@x valid-before="20260701Z" {key}\n'
    assert repository.git_trusts(repository.store(signed), expired)
    assert "valid to 2026-07-01T00:00:00Z only, and so not now; sign it" in str(judge(signed, expired))
    assert judge(signed, expired, None) == Signer("a@x", repository.fingerprint("ed25519"))
    late = f'a@x valid-after="20260701Z" {key}\n'
    assert "not at the commit's own time (2026-06-01T12:00:00Z)" in str(judge(signed, late))
    # two stays, neither with both moments: the key left and came back
    assert "not now" in str(judge(signed, f'{expired}a@x valid-after="20261001Z" {key}\n'))


@pytest.mark.parametrize("kind", KINDS)
def test_no_byte_of_a_signed_commit_can_change(repository: Repository, kind: str) -> None:
    raw = repository.commit(kind)
    allowed = AllowedSigners.parse(f"* {repository.public(kind)}\n")
    assert allowed.signer_of(commit_of(raw), NOW)

    def refused(changed: bytes) -> None:
        with pytest.raises(Refused):
            allowed.signer_of(commit_of(changed), NOW)

    @trying(max_examples=300, deadline=None)
    @given(st.integers(0, len(raw) - 1), st.integers(1, 255), st.sampled_from(("change", "insert", "remove")))
    def attempt(at: int, by: int, how: str) -> None:
        byte = bytes([raw[at] ^ by])
        if how == "change":
            refused(raw[:at] + byte + raw[at + 1 :])
        elif how == "insert":
            refused(raw[:at] + byte + raw[at:])
        else:
            refused(raw[:at] + raw[at + 1 :])

    attempt()
    for at in range(len(raw)):  # and each byte in two ways
        refused(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        refused(raw[:at] + bytes([raw[at] ^ 32]) + raw[at + 1 :])


def string(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def armoured(raw: bytes) -> bytes:
    text = base64.b64encode(raw).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----"]).encode()


class Forge:
    """Makes signatures as nothing else would: an Ed25519 key of our own, each part to be replaced."""

    def __init__(self, kind: bytes = b"ssh-ed25519") -> None:
        self.kind, self.key = kind, Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        public = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.blob = string(kind, public) + (string(b"ssh:") if kind.startswith(b"sk-") else b"")

    @property
    def line(self) -> str:
        return f"a@x {self.kind.decode()} {base64.b64encode(self.blob).decode()}\n"

    def made(self, payload: bytes, digest: bytes = b"sha512", flags: bytes = b"\1", tail: bytes = b"") -> bytes:
        hashed = hashlib.new(digest.decode(), payload).digest()
        message = b"SSHSIG" + string(b"git", b"", digest, hashed)
        said = flags + (7).to_bytes(4, "big") if self.kind.startswith(b"sk-") else b""
        if said:
            message = hashlib.sha256(b"ssh:").digest() + said + hashlib.sha256(message).digest()
        return string(self.kind, self.key.sign(message)) + said + tail

    def signature(
        self, made: bytes, digest: bytes = b"sha512", reserved: bytes = b"", version: int = 1, tail: bytes = b""
    ) -> bytes:
        head = b"SSHSIG" + version.to_bytes(4, "big")
        return armoured(head + string(self.blob, b"git", reserved, digest, made) + tail)


def test_a_security_key(repository: Repository, signed: bytes) -> None:
    payload, forge = parted(signed)[0], Forge(b"sk-ssh-ed25519@openssh.com")
    touched = joined(payload, forge.signature(forge.made(payload)))
    verdict = judge(touched, forge.line)
    assert isinstance(verdict, Signer) and verdict.key.startswith("SHA256:")
    assert repository.git_trusts(repository.store(touched), forge.line)
    untouched = joined(payload, forge.signature(forge.made(payload, flags=b"\4")))
    assert "nobody touched" in str(judge(untouched, forge.line))
    lied = forge.made(payload, flags=b"\4").replace(b"\4\0\0\0\7", b"\1\0\0\0\7")
    assert "is not what" in str(judge(joined(payload, forge.signature(lied)), forge.line))


def test_what_ssh_keygen_does_not_make(repository: Repository, signed: bytes) -> None:
    payload, forge = parted(signed)[0], Forge()
    made = forge.made(payload)
    good = joined(payload, forge.signature(made))
    assert isinstance(judge(good, forge.line), Signer)
    assert repository.git_trusts(repository.store(good), forge.line)
    renamed = made.replace(b"ssh-ed25519", b"ssh-rsa-sha")
    for armour, words in [
        (forge.signature(made, reserved=b"x"), "reserved field"),
        (forge.signature(made, version=2), "version 1"),
        (forge.signature(made, tail=b"x"), "followed by more"),
        (forge.signature(forge.made(payload, tail=b"x")), "followed by more"),
        (forge.signature(forge.made(payload, b"sha1"), b"sha1"), "hash 'sha1'"),
        (forge.signature(made, b"sha256"), "is not what"),
        (forge.signature(made[:-1]), "cut short"),
        (forge.signature(renamed), "'ssh-rsa-sha', which a key"),
        (forge.signature(string(b"ssh-ed25519", b"")), "is not what"),
        (forge.signature(made) + b"\n\n", "begin and end"),
        (b"\n" + forge.signature(made), "begin and end"),
        (b"-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----", "begin and end"),
        (armoured(b""), "begin and end"),
        (armoured(b"SSHSIG"), "cut short"),
        (forge.signature(b"x" * 20_000), "too long"),
        (forge.signature(b"x" * 70_000), "larger than"),
        (b"\xff", "begin and end"),
        (b"x" * 30, "begin and end"),
    ]:
        verdict = judge(joined(payload, armour), forge.line)
        assert words in str(verdict), (verdict, words)


def test_loose_bits_of_base64(repository: Repository, signed: bytes) -> None:
    payload, forge = parted(signed)[0], Forge()
    for tail in range(3):
        armour = forge.signature(forge.made(payload), tail=b"\0" * tail).splitlines()
        if armour[-2].endswith(b"="):
            letters = armour[-2].rstrip(b"=")
            for other in (b"B", b"D", b"R", b"h"):
                loose = letters[:-1] + other + armour[-2][len(letters) :]
                raw = joined(payload, b"\n".join([*armour[:-2], loose, armour[-1]]))
                assert not isinstance(judge(raw, forge.line), Signer)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a@x", "is not PRINCIPALS"),
        ("a@x ssh-ed25519", "not base64"),
        ("a@x ssh-ed25519 AAAA", "cut short"),
        ("a@x ssh-ed25519 ???", "not base64"),
        ("a@x {key}=", "not base64"),
        ("a@x ssh-rsa {blob}", "says 'ssh-rsa' of a key that is ssh-ed25519"),
        ("a@x {weak}", "RSA key of 1024 bits; at least 2048"),
        ("a@x {p521}", "neither a key of a known kind"),
        ("a@x ssh-ed25519 {blob521}", "'ecdsa-sha2-nistp521', which is not supported"),
        ("a@x ssh-dss AAAA", "neither a key of a known kind"),
        ("a@x cert-authority {key}", "certificate authority, which is not supported"),
        ('a@x namespaces="git",CERT-AUTHORITY {key}', "certificate authority"),
        ('a@x namespaces="git",namespaces="git" {key}', "namespaces twice"),
        ('a@x no-touch-required="1" {key}', "neither a key"),
        ("a@x namespaces=git {key}", "neither a key"),
        ('a@x namespaces="git {key}', "neither a key"),
        ('a@x valid-after="20260601" {key}', "valid-after in the local time of whoever reads it; put a Z"),
        ('a@x valid-after="2026-06-01Z" {key}', "is not YYYYMMDDZ"),
        ('a@x valid-after="202606011Z" {key}', "is not YYYYMMDDZ"),
        ('a@x valid-after="20260231Z" {key}', "no calendar has"),
        ('a@x valid-after="20260101Z",valid-before="20260101Z" {key}', "not after its valid-after"),
        ("!a@x {key}", "excludes a principal"),
        ("a@x,,b@x {key}", "empty principal"),
        ('"" {key}', "empty principal"),
        ('"a@x {key}', "is not PRINCIPALS"),
        ("a@x {key} \x1b[2J", "cannot be printed"),
        ("a@x {key} " + "x" * (16 << 10), "longer than"),
    ],
)
def test_lines_that_are_not_understood_whole(repository: Repository, line: str, words: str) -> None:
    keys = {"key": repository.public("ed25519"), "weak": repository.public("weak"), "p521": repository.public("p521")}
    blobs = {"blob": keys["key"].split()[1], "blob521": keys["p521"].split()[1]}
    text = f"# good\nb@x {keys['key']}\n{line.format(**keys, **blobs)}\n"
    with pytest.raises(UsageError, match=r"^allowed signers, line 3 ") as caught:
        AllowedSigners.parse(text)
    assert words in str(caught.value), str(caught.value)


def test_files_that_allow_nobody_or_too_much(repository: Repository) -> None:
    for text in ("", "# nobody\n", f'a@x namespaces="file" {repository.public("ed25519")}\n'):
        with pytest.raises(UsageError, match="nobody could sign"):
            AllowedSigners.parse(text)
    with pytest.raises(UsageError, match="more than 1048576"):
        AllowedSigners.parse("#" * (1 << 20) + "\n")


@trying(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("*?git!,x"), max_size=12))
def test_patterns_of_namespaces_are_those_of_ssh(repository: Repository, patterns: str) -> None:
    """Against a pattern list read from its definition."""
    text = f'a@x namespaces="{patterns}" {repository.public("ed25519")}\nb@x {repository.public("other")}\n'
    line = AllowedSigners.parse(text).lines[0]
    hits = [
        p
        for p in patterns.split(",")
        if re.fullmatch("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in p.removeprefix("!")), "git")
    ]
    assert line.signs_commits() == (bool(hits) and not any(p.startswith("!") for p in hits))


@trying(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 800))
def test_nothing_else_escapes(signed: bytes, noise: bytes, at: int) -> None:
    allowed = AllowedSigners.parse(Forge().line)
    for raw in (
        noise,
        signed[:at] + noise + signed[at:],
        joined(parted(signed)[0], armoured(b"SSHSIG\0\0\0\1" + noise)),
    ):
        with pytest.raises(Refused):
            allowed.signer_of(commit_of(raw), NOW)
    with contextlib.suppress(UsageError):
        AllowedSigners.parse(noise.decode(errors="replace"))
