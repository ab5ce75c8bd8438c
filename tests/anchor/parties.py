"""Outside parties on loopback: a timestamp authority by openssl, a witness by torchwood, and ones that lie."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sidecar.chain.cosignature import COSIGNATURE
from sidecar.chain.note import VerifierKey
from tests.needs import needs_program
from tests.ports import free_port
from tests.scribe import public
from tests.servers.building import LITEWITNESS, built
from tests.servers.running import PATIENCE, Quiet, listening, running

Answer = Callable[[str, bytes], tuple[int, bytes]]
"""``(path, body) -> (status, body)``"""


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """The URL of a server that answers POSTs so."""

    class Handler(Quiet):
        def do_POST(self) -> None:
            status, body = answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            elsewhere = {"Location": "http://127.0.0.1:9/"} if status == 302 else {}
            self.answer(status, body, **elsewhere)

    with listening(Handler) as url:
        yield url


# --- openssl's timestamp authority

_CONFIG = """
[tsa]
default_tsa = one
[one]
serial = {0}/serial
crypto_device = builtin
signer_cert = {0}/tsa.pem
signer_key = {0}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
[usage]
extendedKeyUsage = critical, timeStamping
basicConstraints = CA:FALSE
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
"""


@dataclass(frozen=True, slots=True)
class OpensslAuthority:
    """``root`` is the certificate, DER, that its answers are checked by."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> OpensslAuthority:
        directory.mkdir()
        made = cls(directory)
        (directory / "config").write_text(_CONFIG.format(directory))
        (directory / "serial").write_text("01\n")
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        made._run(
            "req", "-x509", *key, "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=root", "-config", "config",
            "-extensions", "ca", "-days", "30",
        )  # fmt: skip
        made._run("req", *key, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=tsa", "-config", "config")
        made._run(
            "x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-out",
            "tsa.pem", "-extfile", "config", "-extensions", "usage", "-days", "30",
        )  # fmt: skip
        return made

    def _run(self, *arguments: str) -> None:
        if arguments[0] == "req":
            # `req` wants a section of its own in the file.
            text = (self.directory / "config").read_text()
            if "[req]" not in text:
                (self.directory / "config").write_text(text + "\n[req]\ndistinguished_name = dn\n[dn]\n")
        run = subprocess.run(
            [needs_program("openssl"), *arguments], cwd=self.directory, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr

    @property
    def root(self) -> bytes:
        pem = (self.directory / "root.pem").read_text()
        return base64.b64decode("".join(row for row in pem.splitlines() if not row.startswith("-")))

    def query(self, digest: bytes) -> bytes:
        """A query about SHA-256 ``digest``, with a nonce of openssl's own."""
        self._run("ts", "-query", "-digest", digest.hex(), "-sha256", "-cert", "-out", "asked")
        return (self.directory / "asked").read_bytes()

    def reply(self, query: bytes) -> bytes:
        """The authority's response to a query."""
        with tempfile.TemporaryDirectory(dir=self.directory) as each:
            asked, told = Path(each) / "query", Path(each) / "reply"
            asked.write_bytes(query)
            self._run("ts", "-reply", "-config", "config", "-queryfile", str(asked), "-out", str(told))
            return told.read_bytes()


# --- torchwood's witness

WITNESS_NAME = "witness.example/litewitness"


@contextlib.contextmanager
def litewitness(directory: Path, key: Ed25519PrivateKey, log: VerifierKey) -> Iterator[str]:
    """The URL of a real witness with this key that knows this log."""
    with _agent(directory, key) as (listener, fingerprint):
        port, base = free_port(), directory / "witness.db"
        command: list[str | Path] = [built(LITEWITNESS), "-db", base, "-name", WITNESS_NAME, "-key", fingerprint]
        command += ["-ssh-agent", listener, "-listen", f"127.0.0.1:{port}"]
        with running(command, port):
            # What its own control program writes; that one cannot be built from the proxy.
            connection = sqlite3.connect(base)
            empty = base64.b64encode(sha256(b"").digest()).decode()
            with connection:
                connection.execute("INSERT INTO log VALUES (?, 0, ?)", (log.name, empty))
                connection.execute("INSERT INTO key VALUES (?, ?)", (log.name, str(log)))
            connection.close()
            yield f"http://127.0.0.1:{port}"


def _listens(path: Path) -> bool:
    """Whether a program takes connections there: the file is made by bind(), a moment before listen()."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0


@contextlib.contextmanager
def _agent(directory: Path, key: Ed25519PrivateKey) -> Iterator[tuple[Path, str]]:
    """An ssh-agent that holds the key: its socket, and the key's fingerprint."""
    with tempfile.TemporaryDirectory(prefix="sidecar-agent-") as short:
        listener, file = Path(short) / "agent", Path(short) / "key"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        file.chmod(0o600)
        agent = subprocess.Popen([needs_program("ssh-agent"), "-D", "-a", listener], stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + PATIENCE
            while not _listens(listener):
                assert agent.poll() is None and time.monotonic() < until, "ssh-agent does not start"
                time.sleep(0.01)
            environment = {**os.environ, "SSH_AUTH_SOCK": str(listener)}
            subprocess.run([needs_program("ssh-add"), "-q", file], env=environment, check=True, capture_output=True)
            blob = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
            digest = sha256(base64.b64decode(blob)).digest()
            yield listener, "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
        finally:
            agent.terminate()
            agent.wait()


def witness_vkey(key: Ed25519PrivateKey, name: str = WITNESS_NAME) -> VerifierKey:
    return VerifierKey(name, public(key), COSIGNATURE)
