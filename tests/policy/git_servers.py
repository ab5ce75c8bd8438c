"""Real git servers on loopback: `git http-backend` behind TLS, OpenSSH's sshd, and repositories made with git.

The front is Python's own `http.server`, some thirty lines of CGI (git-http-backend(1)): unlike nginx or Apache it is
there already, needs no configuration or user of its own, and can be told to hang or drip in the middle of an answer.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import http.server
import ipaddress
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.policy.git_settings import GitSettings
from tests.needs import needs_program
from tests.ports import free_port

POLICY = "package p\n\ndecision := 1\n"
_CLEAN = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ann Author",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "Carl Committer",
    "GIT_COMMITTER_EMAIL": "carl@example.org",
    "GIT_AUTHOR_DATE": "1790000000 +0200",
    "GIT_COMMITTER_DATE": "1790000060 +0000",
}


class Repository:
    """A bare repository, written to without a work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        needs_program("git")
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True, env=_CLEAN)

    def git(self, *arguments: str, given: bytes = b"", **more: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, input=given, capture_output=True, env={**_CLEAN, **more}
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", given=content)

    def tree(self, *entries: tuple[str, str | bytes, str]) -> str:
        """A tree as it is written, whatever git would say to it: mode, name, id."""
        raw = b""
        for mode, name, id in entries:
            raw += (
                mode.encode() + b" " + (name if isinstance(name, bytes) else name.encode()) + b"\0" + bytes.fromhex(id)
            )
        return self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", given=raw)

    def commit_tree(self, tree: str, *parents: str, branch: str = "main", message: str = "A change\n\nmore") -> str:
        given = [word for parent in parents for word in ("-p", parent)]
        commit = self.git("commit-tree", tree, *given, "-m", message)
        self.git("update-ref", f"refs/heads/{branch}", commit)
        return commit

    def commit(self, files: dict[str, str], *parents: str, branch: str = "main") -> str:
        """A commit of exactly these files."""
        index = self.path / "index.new"
        index.unlink(missing_ok=True)
        for path, text in files.items():
            id = self.blob(text.encode())
            self.git("update-index", "--add", "--cacheinfo", f"100644,{id},{path}", GIT_INDEX_FILE=str(index))
        tree = self.git("write-tree", GIT_INDEX_FILE=str(index))
        return self.commit_tree(tree, *parents, branch=branch)


class Authority:
    """A certificate authority of the test's own, and a server's certificate from it."""

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.file, self.chain = place / "ca.pem", place / "server.pem"
        key, name = ec.generate_private_key(ec.SECP256R1()), _named("Test authority")
        ca = _certificate(name, name, key.public_key()).add_extension(x509.BasicConstraints(True, 0), critical=True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        skid = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        signed = ca.add_extension(usage, critical=True).add_extension(skid, critical=False).sign(key, hashes.SHA256())
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        own = ec.generate_private_key(ec.SECP256R1())
        alt = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        akid = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        made = _certificate(name, _named("server"), own.public_key()).add_extension(alt, critical=False)
        leaf = made.add_extension(akid, critical=False).sign(key, hashes.SHA256())
        pem = own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.chain.write_bytes(pem + leaf.public_bytes(serialization.Encoding.PEM))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().issuer_name(issuer).subject_name(subject).public_key(key)
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))


Deliver = Callable[["Front", str, bytes, Callable[[bytes], object]], None]


@dataclass
class Front:
    """What the https server does; a test may change it between looks."""

    url: str
    authority: Authority
    user: str = ""
    password: str = ""
    deliver: Deliver | None = None  # given (front, path, body, write) instead of writing the body
    replace: Callable[[bytes], bytes] | None = None  # what is sent for an answer
    elsewhere: str = ""  # an address to redirect to
    asked: list[str] = field(default_factory=list)
    reached: threading.Event = field(default_factory=threading.Event)  # the place to hang at
    over: threading.Event = field(default_factory=threading.Event)  # what hangs may end

    def let_go(self) -> None:
        """Break off what hangs, and answer again as a server does."""
        self.deliver, over, self.over = None, self.over, threading.Event()
        over.set()


@contextlib.contextmanager
def https_server(root: Path, authority: Authority) -> Iterator[Front]:
    """Serves the repositories below ``root`` until left."""
    needs_program("git")
    backend = Path(_git_programs()) / "git-http-backend"
    front = Front("", authority)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            front.asked.append(self.path)
            expected = base64.b64encode(f"{front.user}:{front.password}".encode()).decode()
            if front.user and self.headers.get("Authorization") != f"Basic {expected}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if front.elsewhere:
                self.send_response(302)
                self.send_header("Location", front.elsewhere + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, headers, answer = _cgi(backend, root, self, body)
            if front.replace is not None:
                answer = front.replace(answer)
            self.send_response(status)
            for line in headers:
                self.send_header(*line.split(": ", 1))
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            with contextlib.suppress(OSError):
                if front.deliver is None:
                    self.wfile.write(answer)
                else:
                    front.deliver(front, self.path, answer, self.wfile.write)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that does not trust us, or was killed

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.chain)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        front.url = f"https://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield front
        finally:
            front.over.set()
            server.shutdown()
            thread.join()


def over_https(front: Front, **more: Any) -> GitSettings:
    """How the repository behind a front is followed."""
    return GitSettings(url=f"{front.url}/policies.git", tls_ca_file=str(front.authority.file), **more)


def _git_programs() -> str:
    return subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()


def _cgi(
    backend: Path, root: Path, request: http.server.BaseHTTPRequestHandler, body: bytes
) -> tuple[int, list[str], bytes]:
    path, _, query = request.path.partition("?")
    environment = {
        **_CLEAN,
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": request.command,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        "REMOTE_ADDR": "127.0.0.1",
    }
    out = subprocess.run([backend], input=body, capture_output=True, env=environment).stdout
    head, _, answer = out.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    status = next((int(line.split()[1]) for line in lines if line.startswith("Status:")), 200)
    return status, [line for line in lines if not line.startswith("Status:")], answer


def hang_after(count: int, where: str) -> Deliver:
    """Send so many bytes of the answer to requests whose path ends so, and then nothing until the test lets go."""

    def deliver(front: Front, path: str, body: bytes, write: Callable[[bytes], object]) -> None:
        over = front.over
        write(body[:count] if path.endswith(where) else body)
        if path.endswith(where) and len(body) > count:
            front.reached.set()
            over.wait()

    return deliver


def with_pack(pack: bytes) -> Callable[[bytes], bytes]:
    """Replaces the answer that holds a pack by one with this pack (gitprotocol-v2(5), "fetch")."""

    def replace(answer: bytes) -> bytes:
        if b"packfile\n" not in answer[:100]:
            return answer
        pieces = [b"\1" + pack[at : at + 60_000] for at in range(0, len(pack), 60_000)]
        return b"".join(map(packet, [b"packfile\n", *pieces])) + b"0000"

    return replace


def packet(content: bytes) -> bytes:
    return b"%04x" % (len(content) + 4) + content


def pack_of(*objects: tuple[int, bytes, bytes]) -> bytes:
    """A pack of hand-made objects: kind, what stands between head and content, content (gitformat-pack(5))."""
    return pack_of_streams(
        *((kind, between, len(content), zlib.compress(content)) for kind, between, content in objects)
    )


def pack_of_streams(*objects: tuple[int, bytes, int, bytes]) -> bytes:
    """The same with a size that may be a lie, and the compressed stream."""
    raw = b"PACK\0\0\0\2" + len(objects).to_bytes(4, "big")
    for kind, between, size, stream in objects:
        raw += _pack_head(kind, size) + between + stream
    return raw + hashlib.sha1(raw).digest()


def _pack_head(kind: int, size: int) -> bytes:
    head, size = bytearray([kind << 4 | size & 15]), size >> 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head)


def drip(pause: float, where: str) -> Deliver:
    """Send the answer a byte at a time."""

    def deliver(front: Front, path: str, body: bytes, write: Callable[[bytes], object]) -> None:
        if not path.endswith(where):
            write(body)
            return
        for at in range(len(body)):
            write(body[at : at + 1])
            if front.over.wait(pause):
                return

    return deliver


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@dataclass(frozen=True)
class Ssh:
    """An sshd: how to reach it, and the files that let one in."""

    port: int
    user: str
    key: Path
    known_hosts: Path
    authorized: Path
    place: Path

    def url(self, path: Path) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"

    def new_key(self, name: str) -> Path:
        """A key pair that nobody knows yet."""
        return _ssh_key(self.place / name)


@contextlib.contextmanager
def ssh_server() -> Iterator[Ssh]:
    """OpenSSH's sshd as the user of the tests, on a free port, with a host key and an authorized key of its own."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or needs_program("sshd")
    for program in ("ssh", "ssh-keygen"):
        needs_program(program)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own start script makes it
    with tempfile.TemporaryDirectory(prefix="sidecar-sshd-") as made:
        place = Path(made)
        host, key = _ssh_key(place / "host"), _ssh_key(place / "client")
        authorized = place / "authorized"
        authorized.write_text(key.with_suffix(".pub").read_text())
        port = free_port()
        known = place / "known hosts 100%"
        known.write_text(f"[127.0.0.1]:{port} {host.with_suffix('.pub').read_text()}")
        config = place / "config"
        config.write_text(
            f"HostKey {host}\nAuthorizedKeysFile {authorized}\nStrictModes no\nUsePAM no\nPidFile none\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            f"ListenAddress 127.0.0.1:{port}\nAcceptEnv GIT_PROTOCOL\nLogLevel ERROR\nMaxStartups 100\n"
            f"LoginGraceTime 0\n{_unpunished(sshd)}"
        )
        with subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE) as process:
            try:
                _await_port(port, process)
                yield Ssh(port, pwd.getpwuid(os.geteuid()).pw_name, key, known, authorized, place)
            finally:
                process.terminate()


def _unpunished(sshd: str) -> str:
    """Since OpenSSH 9.8 an address is turned away after failed logins, and here all come from one."""
    known = subprocess.run([sshd, "-T", "-f", "/dev/null", "-o", "PerSourcePenalties=no"], capture_output=True)
    return "" if b"Bad configuration option" in known.stderr else "PerSourcePenalties no\n"


def _ssh_key(file: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 60).close()
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    raise AssertionError("sshd did not start")


def fetching(process: int) -> list[int]:
    """The children of a process that look at a repository; the front has children of its own."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):  # threads and children end while they are looked at
            children = (task / "children").read_text().split()
            found += [int(c) for c in children if b"git_fetch" in Path(f"/proc/{c}/cmdline").read_bytes()]
    return found
