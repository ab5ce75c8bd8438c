"""A gateway whole: the shipped Envoy configuration, a sidecar with its door, OPA, and a service behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.chain.entry import Header
from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind, records
from sidecar.ledger import ledger_stream
from tests.authorities import CLIENT, SERVER, Authority
from tests.enforce.finding import envoy
from tests.enforce.mounted import mount
from tests.enforce.upstream import HOST, Upstream, grpc_upstream, upstream
from tests.needs import needs_program
from tests.people import key as key_of
from tests.people import person, registry_text
from tests.policy.processes import stop
from tests.ports import free_port
from tests.program import BIN, environment, made

SECRETS = ("credential.yaml", "certificate.yaml", "agents-ca.yaml", "sidecar-ca.yaml")
SHIPPED = Path(__file__).resolve().parents[2] / "charts" / "envoy"
POLICY = Path(__file__).with_name("http.rego")
AGENT, GATEWAY, LEAD, SERVICE = "shopper", "edge", "lead", "payments-service"
AGENT_ID, EDGE_ID = "spiffe://a/shopper", "spiffe://a/edge"
TOKEN = "Bearer the-service's-token"
PEOPLE = (
    person(AGENT, "agent", "billing", attributes={"tenant": "acme"}, spiffe_ids=[{"id": AGENT_ID}]),
    person(GATEWAY, "executor", spiffe_ids=[{"id": EDGE_ID}]),
    person(SERVICE, "executor"),
    person(LEAD, "approver", "lead"),
)
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What the agent got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told


@dataclass(slots=True)
class Parts:
    """The programs of one place. ``processes``: by name, ``sidecar``, ``opa``, ``envoy``."""

    place: Path
    ledger: Path
    policy: ClassVar[Path] = POLICY
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    def entries(self) -> list[tuple[Header, dict[str, Any]]]:
        """What the ledger holds now."""
        with ledger_stream(self.ledger) as read:
            return [entry(body) for kind, body in records(read) if kind is Kind.ENTRY]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [payload for _, payload in self.entries() if payload["type"] == kind]

    def until(self, look: Callable[[], Any]) -> Any:
        """What ``look`` finds, once it finds something."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if found := look():
                return found
            time.sleep(0.05)
        raise AssertionError("it did not come about")

    def start_sidecar(self) -> None:
        """And wait until it is ready."""
        command, log = [str(BIN / "sidecar"), "serve", "--config", str(self.place / "sidecar.toml")], "sidecar.log"
        with (self.place / log).open("wb") as out:
            process = subprocess.Popen(command, stderr=out, stdout=out, stdin=subprocess.DEVNULL, env=environment())
        self.processes["sidecar"] = process
        self.until(lambda: b"is ready" in (self.place / log).read_bytes() or self._ended("sidecar"))

    def start_opa(self) -> None:
        opa, bundle, path = needs_program("opa"), self.place / "bundle.tar.gz", self.place / "opa.sock"
        if not bundle.exists():
            build = [opa, "build", "--revision", "r1", "-o", str(bundle), str(self.policy)]
            subprocess.run(build, check=True, timeout=_PATIENCE)
        path.unlink(missing_ok=True)
        command = [opa, "run", "--server", "--disable-telemetry", "--log-level", "error", "--bundle", str(bundle)]
        command += ["--addr", f"unix://{path}"]
        with (self.place / "opa.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.processes["opa"] = process
        self.until(lambda: _answers(path))

    def _ended(self, name: str) -> None:
        if self.processes[name].poll() is not None:
            raise AssertionError((self.place / f"{name}.log").read_text())

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait(_PATIENCE)

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """The process does nothing meanwhile, and its sockets stay open."""
        stop(self.processes[name].pid)
        try:
            yield
        finally:
            self.signal(name, signal.SIGCONT)

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(_PATIENCE)


@dataclass(slots=True)
class Gateway(Parts):
    """All of it."""

    port: int
    service: Upstream

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}, timeout: float = 30.0
    ) -> Answered:
        """One request of the agent, over HTTP/1.1."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"host": HOST, **headers})
            response = connection.getresponse()
            return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Bytes as an agent might send them, which ask for the end; what comes back until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            connection.sendall(data)
            found = b""
            while part := connection.recv(65_536):
                found += part
            return found

    def admin(self, path: str) -> bytes:
        """What Envoy says of itself."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.place / "admin.sock"))
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
            found = b""
            while part := connection.recv(65_536):
                found += part
            return found

    def questions(self) -> int:
        """How many calls Envoy sent to the sidecar."""
        told = self.admin("/stats?filter=cluster.sidecar.upstream_rq_total")
        return int(told.rpartition(b"upstream_rq_total: ")[2].split()[0])

    def outcome(self, decision_id: str) -> dict[str, Any]:
        """The outcome of a decision, once Envoy has told it."""
        return self.until(lambda: next((o for o in self.of("OUTCOME") if o["decision_id"] == decision_id), None))

    def start_envoy(self, configuration: Mapping[str, Any]) -> None:
        file = self.place / "envoy.yaml"
        file.write_text(yaml.safe_dump(configuration))
        command = [str(envoy()), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        with (self.place / "envoy.log").open("wb") as log:
            self.processes["envoy"] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.until(lambda: _answers(("127.0.0.1", self.port)) or self._ended("envoy"))


def _answers(address: Any) -> bool:
    with socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX) as probe:
        try:
            probe.connect(address if isinstance(address, tuple) else str(address))
        except OSError:
            return False
    return True


def shipped(name: str = "envoy.yaml") -> dict[str, Any]:
    """A shipped configuration."""
    read: dict[str, Any] = yaml.safe_load((SHIPPED / name).read_text())
    return read


def filters(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    """The HTTP filters, the question first."""
    (manager,) = configuration["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    found: list[dict[str, Any]] = manager["typed_config"]["http_filters"]
    return found


def placed(
    configuration: dict[str, Any], place: Path, port: int, behind: int, http2: int, door: int = 0
) -> dict[str, Any]:
    """The same with this machine's ports and paths, and nothing else changed. ``place/etc`` is /etc/envoy, with what is
    shipped for it and the certificates that are in ``place``."""
    etc = place / "etc"
    secrets = {each: (SHIPPED / each).read_text().replace("/etc/envoy", str(etc)).encode() for each in SECRETS}
    named = {"tls.crt": "edge.crt", "tls.key": "edge.key", "agents-ca.crt": "a.pem", "sidecar-ca.crt": "a.pem"}
    given = {name: (place / file).read_bytes() for name, file in named.items() if (place / file).exists()}
    mount(etc, {**secrets, **given})
    text = json.dumps(configuration)
    for old, new in (
        ("/run/envoy/admin.sock", f"{place}/admin.sock"),
        ("/run/sidecar/envoy.sock", f"{place}/door.sock"),
        ("/etc/ssl/certs/ca-certificates.crt", f"{place}/ca.pem"),
        ("/etc/envoy", str(etc)),
    ):
        text = text.replace(old, new)
    read: dict[str, Any] = json.loads(text)
    resources = read["static_resources"]
    resources["listeners"][0]["address"]["socket_address"]["port_value"] = port
    ports = {"upstream": behind, "upstream-http2": http2, "sidecar": door}
    for cluster in resources["clusters"]:
        for each in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]:
            if "socket_address" in each["endpoint"]["address"]:
                each["endpoint"]["address"]["socket_address"] = {
                    "address": "127.0.0.1", "port_value": ports[cluster["name"]]
                }  # fmt: skip
    return read


IN_POD = f'listen = "unix:{{place}}/door.sock"\nagent = "{AGENT}"\nheaders = ["x-hint"]\n'
APART = (
    'listen = "127.0.0.1:{door}"\ntls_cert_file = "{place}/sidecar.crt"\ntls_key_file = "{place}/sidecar.key"\n'
    'tls_client_ca_file = "{place}/a.pem"\n'
)


@contextlib.contextmanager
def gateway(
    place: Path,
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    *,
    apart: Authority | None = None,
    patient: bool = True,
) -> Iterator[Gateway]:
    """A gateway that runs. ``change``: to the shipped configuration, for what is no test of it; ``apart``: in a pod of
    its own, where this CA issues certificates to all sides; ``patient``: on a machine that is busy, both wait."""
    authority, door = Authority("services"), free_port()
    (place / "ca.pem").write_bytes(authority.pem)
    (place / "registry.json").write_bytes(registry_text(*PEOPLE))
    ledger, _ = made(place)
    if apart is not None:
        issue(place, "sidecar", apart, "spiffe://a/sidecar", dns="sidecar.internal")
        issue(place, "edge", apart, EDGE_ID, dns="gateway.internal")
        (place / "a.pem").write_bytes(apart.pem)
    (place / "sidecar.toml").write_text(
        f'data_dir = "{ledger}"\nlisten = "unix:{place}/s.sock"\nregistry = "{place}/registry.json"\nengine = "opa"\n'
        f'opa = "unix:{place}/opa.sock"\nevaluate_timeout = {20.0 if patient else 1.0}\n'
        f'[doors.envoy]\ngateway = "{GATEWAY}"\n' + (IN_POD if apart is None else APART).format(place=place, door=door)
    )
    with upstream(authority, place) as service, grpc_upstream(authority, service.acts) as http2:
        it = Gateway(place, ledger, free_port(), service)
        try:
            it.start_opa()
            it.start_sidecar()
            name = "envoy.yaml" if apart is None else "gateway.yaml"
            configuration = placed(shipped(name), place, it.port, service.port, http2, door)
            if patient:
                filters(configuration)[0]["typed_config"]["grpc_service"]["timeout"] = "30s"
            change(configuration)
            it.start_envoy(configuration)
            yield it
        finally:
            it.end()


def issue(place: Path, name: str, authority: Authority, spiffe_id: str, *, dns: str = "") -> None:
    """A certificate and its key, in ``NAME.crt`` and ``NAME.key``."""
    shown = authority.issue(spiffe_id, dns=[dns] if dns else [], purposes=[CLIENT, SERVER])
    (place / f"{name}.crt").write_bytes(shown.chain)
    (place / f"{name}.key").write_bytes(shown.key_pem)


def sign_key(place: Path, name: str) -> Path:
    """A principal's private key in a file."""
    file = place / f"{name}.pem"
    if not file.exists():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(key_of(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file
