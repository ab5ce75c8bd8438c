"""The configuration of `sidecar serve`: file < environment (`SIDECAR_…`) < flag.

Every value is known with where it came from. The file is TOML with the names below; a table's name goes before those in
it (`[policy.source.git]` with `url` is `policy_source_git_url`). The environment has the same names in upper case.
Secrets come from files that are named here, never from values.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sidecar import files
from sidecar.chain.retention import PROFILES
from sidecar.errors import UsageError
from sidecar.settings import Source, load_settings

MIB = 1024 * 1024
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]*)):(?P<port>[0-9]{1,5})")

_DAY = 86_400  # seconds

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "engine": ("opa", "wasm"),
    "retention": tuple(PROFILES),
    "custody_mode": ("any", "all"),
    "log_level": ("debug", "info", "warning", "error"),
    "enforcement": ("enforce", "shadow"),
    "policy_stale": ("warn", "deny"),
    "collector_unshipped": ("warn", "deny"),
}
_RANGES: Mapping[str, tuple[float, float]] = {
    "approval_seconds": (1, 7 * _DAY),
    "signature_window": (1, 300),
    "permit_seconds": (1, 3_600),
    "evaluate_timeout": (0.001, 60),
    "max_request_bytes": (1_024, 2 * MIB),
    "idempotency_seconds": (1, 7 * _DAY),
    "segment_entries": (1, 10_000),
    "segment_seconds": (0.05, 60),
    "ledger_max_mib": (16, 1_048_576),
    "ledger_keep_seconds": (0, 100 * 366 * _DAY),
    "policy_source_git_timeout": (1, 3_600),
    "policy_source_git_depth": (0, 1_000_000),
    "policy_source_period": (0.05, _DAY),
    "policy_gate_min_coverage": (0, 100),
    "policy_max_staleness": (0, 366 * _DAY),
    "collector_period": (0.01, 1),
    "collector_max_unshipped_entries": (0, 2**53),
    "collector_max_unshipped_mib": (0, 2**40),
    "collector_max_unshipped_seconds": (0, 366 * _DAY),
    "collector_linger": (0, 600),
}


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting of a sidecar. Sizes are bytes unless the name says MiB; times are seconds."""

    data_dir: str = ""
    listen: str = ""  # empty: unix:<data_dir>/sidecar.sock
    socket_mode: str = "0660"
    dev: bool = False
    require: tuple[str, ...] = ("signature",)  # signature, mtls or both: what callers are proved by without dev
    registry: str = ""  # file of principals, watched; empty: registry.json beside the policy
    approval_seconds: int = 3600  # within which a decision must be approved, where the policy does not say
    signature_window: float = 60.0  # seconds that a signature's time may be from the clock, either way
    permit_seconds: int = 60  # how long an executor may begin what it was given a permit for
    engine: str = "wasm"
    entrypoint: str = "agents/decision"
    opa: str = ""  # address of a running OPA; empty: the sidecar starts one with the policy (engine opa)
    opa_room: str = ""  # directory in which `sidecar opa` runs OPA, as another user; empty: the sidecar does
    evaluate_timeout: float = 1.0
    max_request_bytes: int = MIB
    idempotency_seconds: int = 86_400  # how long a key is remembered
    segment_entries: int = 10_000
    segment_seconds: float = 60.0
    ledger_max_mib: int = 10_240
    ledger_keep_seconds: float = 0.0  # how long entries stay here that a log receipted; 0: that is no reason to let go
    ledger_keep_mib: int = 0  # how large the ledger may be before such entries go; 0: likewise
    custodians: tuple[str, ...] = ()
    custody_mode: str = "any"
    authority: str = ""
    retention: str = "default"  # or eu-ai-act, hipaa, sec-17a-4: before its period nothing may be pruned
    metrics: str = ""  # host:port to serve /metrics on; empty: nowhere
    log_level: str = "info"
    otel_endpoint: str = ""  # http(s)://host:port of an OTLP receiver over gRPC; empty: nothing is traced
    enforcement: str = "enforce"  # or "shadow": answers say `enforced: false`, and guards set to it may go on
    tls_cert_file: str = ""  # PEM, the sidecar's own first; with it listen is host:port under TLS
    tls_key_file: str = ""
    tls_client_ca_file: str = ""  # roots of callers' certificates, which they must show; empty: they show none
    spiffe_socket: str = ""  # the Workload API, in place of the three files above
    personal_subject: str = ""  # JSON pointer to what names the data subject; empty: no personal fields are sealed
    personal_fields: tuple[str, ...] = ()  # JSON pointers into /arguments, /context, /result, /response; or /purpose
    personal_copy_file: str = ""  # a copy of the keys that only custodians open, kept up to date; on another volume
    personal_keys_dir: str = ""  # the data subjects' keys; empty: <data_dir>/subjects
    doors_envoy_gateway: str = ""  # the registered executor that Envoy is; empty: there is no door for Envoy
    doors_envoy_listen: str = ""  # a listener of its own; empty: unix:<data_dir>/envoy.sock. A port takes mTLS
    doors_envoy_socket_mode: str = "0660"  # whoever may open the socket is the gateway
    doors_envoy_agent: str = ""  # the one agent behind it; empty: the agent of the certificate that callers show Envoy
    doors_envoy_headers: tuple[str, ...] = ()  # headers of requests that are judged and recorded, lower case
    doors_envoy_body_bytes: int = 65_536  # Envoy's max_request_bytes: a body of so many bytes may have been cut
    doors_envoy_connection_seconds: float = 300.0  # of a connection over TLS: then Envoy shows its newest
    doors_envoy_tls_cert_file: str = ""  # PEM; for a port, with the two below
    doors_envoy_tls_key_file: str = ""
    doors_envoy_tls_client_ca_file: str = ""  # roots of Envoy's certificate
    doors_envoy_spiffe_socket: str = ""  # the Workload API, in place of the three files
    doors_authzen_gateway: str = ""  # the registered executor that the PEP is; empty: there is no door for AuthZEN
    doors_authzen_listen: str = ""  # a listener of its own; empty: unix:<data_dir>/authzen.sock. A port takes mTLS
    doors_authzen_socket_mode: str = "0660"  # whoever may open the socket is the gateway
    doors_authzen_agent: str = ""  # the one agent that the PEP asks for; empty: AuthZEN's subject is the agent
    doors_authzen_context: bool = True  # whether answers say more than the decision: ids, reasons, permits, obligations
    doors_authzen_url: str = ""  # https://host[:port] as PEPs write it; empty: no metadata is told
    doors_authzen_tls_cert_file: str = ""  # PEM; for a port, with the two below
    doors_authzen_tls_key_file: str = ""
    doors_authzen_tls_client_ca_file: str = ""  # roots of the PEP's certificate
    doors_authzen_spiffe_socket: str = ""  # the Workload API, in place of the three files
    policy_source_path: str = ""  # a directory or bundle file, watched; nothing named: the starter policy (engine wasm)
    policy_source_git_url: str = ""  # https://, ssh:// or file://
    policy_source_git_ref: str = ""  # branch, tag or commit; empty: the remote's HEAD
    policy_source_git_subdirectory: str = ""
    policy_source_git_token_file: str = ""
    policy_source_git_username: str = ""
    policy_source_git_password_file: str = ""
    policy_source_git_ssh_key_file: str = ""
    policy_source_git_known_hosts_file: str = ""
    policy_source_git_tls_ca_file: str = ""
    policy_source_git_timeout: float = 60.0  # for one look at the repository
    policy_source_git_depth: int = 1  # commits fetched at first; 0: all
    policy_source_period: float = 60.0  # between two looks, give or take a fifth
    policy_trust_allowed_signers: str = ""  # file as ssh-keygen(1) has it; empty: unsigned commits are activated
    policy_trust_allow_rollback: bool = False
    policy_trust_bundle_key_file: str = ""  # verifies a bundle file's signature; empty: none is asked for
    policy_trust_bundle_key_id: str = ""
    policy_trust_bundle_algorithm: str = "RS256"
    policy_gate_expectations: bool = True  # whether a policy must have its expectations.yaml
    policy_gate_min_coverage: float = 80.0  # percent of the policy's lines that its tests must run
    policy_gate_allow_builtins: tuple[str, ...] = ()  # not pure: decisions cannot be re-run exactly
    policy_max_staleness: float = 0.0  # without a successful look at the source; 0: for ever
    policy_stale: str = "warn"  # or "deny": every decision, once it is stale
    collector_address: str = ""  # host:port of the collector; empty: nothing is shipped
    collector_log_key: str = ""  # the log's verifier key, as `sidecar collector status` prints it
    collector_token_file: str = ""  # holds the one-time token, where no certificate lets this chain in
    collector_tls_ca_file: str = ""  # the collector's CA; empty, and no SPIFFE: in the clear, on loopback or with dev
    collector_tls_cert_file: str = ""
    collector_tls_key_file: str = ""
    collector_server_name: str = ""  # DNS name in the collector's certificate; empty: the host of its address
    collector_spiffe_socket: str = ""  # the Workload API, in place of the three files
    collector_spiffe_trust_domain: str = ""
    collector_period: float = 0.5  # seconds between two looks at what is to be shipped
    collector_max_unshipped_entries: int = 0  # 0: any
    collector_max_unshipped_seconds: float = 0.0
    collector_max_unshipped_mib: float = 0.0
    collector_unshipped: str = "warn"  # or "deny": every decision, beyond these bounds
    collector_unconfirmed_start: bool = False  # whether to start with the collector out of reach; OPEN records it
    collector_accept_loss_file: str = ""  # the authority's note by which it starts behind what was acknowledged
    collector_linger: float = 5.0  # seconds at most, at the end, for the rest of the ledger and its last receipts

    def __post_init__(self) -> None:
        if not self.data_dir:
            raise UsageError("data_dir is not set: name the ledger's directory with --data-dir or in the file")
        if not self.require or not set(self.require) <= {"signature", "mtls"}:
            raise UsageError("require must name signature, mtls or both")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}")
        for name, (low, high) in _RANGES.items():
            in_range(name, getattr(self, name), low, high)
        in_range("ledger_keep_mib", self.ledger_keep_mib, 0, self.ledger_max_mib)
        if (self.ledger_keep_mib or self.ledger_keep_seconds) and not self.collector_address:
            raise UsageError("ledger_keep_mib and ledger_keep_seconds need collector.address: only what it has may go")
        self._check_source()
        self._check_collector()
        if self.personal_fields and not self.personal_subject:
            raise UsageError("personal.subject is not set: name what says whose the personal fields are")
        if self.personal_copy_file and not self.personal_subject:
            raise UsageError("personal.copy_file is set, and nothing is personal; set personal.subject")
        if self.metrics:
            host_and_port("metrics", self.metrics)
        if self.otel_endpoint:
            scheme, _, where = self.otel_endpoint.partition("://")
            if scheme not in ("http", "https"):
                raise UsageError("otel.endpoint is not http://host:port or https://host:port; OTLP is spoken over gRPC")
            host_and_port("otel.endpoint", where)
        if not self.listen:
            object.__setattr__(self, "listen", f"unix:{Path(self.data_dir).absolute()}/sidecar.sock")
        if not re.fullmatch("0?[0-7]{3}", self.socket_mode):
            raise UsageError("socket_mode is not an octal file mode such as 0660")
        self._check_tls()

    @property
    def tls(self) -> bool:
        """Whether callers come over TLS."""
        return bool(self.tls_cert_file or self.spiffe_socket)

    @property
    def grpc_tls(self) -> bool:
        """Whether anybody calls gRPC over TLS here: callers, or Envoy at its door."""
        return self.tls or bool(self.doors_envoy_tls_cert_file or self.doors_envoy_spiffe_socket)

    def _check_tls(self) -> None:
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise UsageError("tls.cert_file and tls.key_file go together; set both or neither")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise UsageError("tls.client_ca_file needs the sidecar's own tls.cert_file and tls.key_file; set them")
        if self.spiffe_socket and self.tls_cert_file:
            raise UsageError("spiffe.socket and tls.cert_file are both set; leave one of the two out")
        if "mtls" in self.require and not (self.dev or self.tls_client_ca_file or self.spiffe_socket):
            raise UsageError(
                "require names mtls, and callers show no certificate; set listen to host:port and "
                "tls.client_ca_file or spiffe.socket, or leave mtls out"
            )
        if self.listen.startswith("unix:"):
            if self.tls:
                raise UsageError("TLS is for listen on host:port, not on a unix socket; set listen, or leave TLS out")
            return
        host, _ = host_and_port("listen", self.listen, "unix:/path, ")
        if self.listen.startswith(":"):  # which gRPC would take for every address of this machine
            object.__setattr__(self, "listen", host + self.listen)
        if not (self.tls or self.dev or is_loopback(host)):
            raise UsageError(
                f"listen {self.listen} can be reached from elsewhere without TLS; set tls.cert_file or spiffe.socket, "
                "or listen on loopback or a unix socket"
            )

    def _check_collector(self) -> None:
        if not self.collector_address:
            return
        if not self.collector_log_key:
            raise UsageError("collector.log_key is not set: without the log's key anybody could be the collector")
        host, _ = host_and_port("collector.address", self.collector_address)
        if self.collector_spiffe_socket and self.collector_tls_ca_file:
            raise UsageError("collector.spiffe_socket and collector.tls_ca_file are both set; leave one of the two out")
        if bool(self.collector_tls_cert_file) != bool(self.collector_tls_key_file):
            raise UsageError("collector.tls_cert_file and collector.tls_key_file go together; set both or neither")
        tls = self.collector_tls_ca_file or self.collector_spiffe_socket
        if not (tls or self.dev or is_loopback(host)):
            raise UsageError("collector.address is elsewhere, without TLS; set collector.tls_ca_file")

    def _check_source(self) -> None:
        """Whatever is set has an effect, or is refused: a policy must not decide because a setting was passed over."""
        if self.policy_source_path and self.policy_source_git_url:
            raise UsageError("policy.source.path and policy.source.git.url are both set; leave one of the two out")
        if self.opa and self.engine != "opa":
            raise UsageError("opa names a running OPA, but the engine is wasm; set engine to opa, or leave opa out")
        if self.opa_room and (self.opa or self.engine != "opa"):
            raise UsageError("opa_room is for an OPA that `sidecar opa` runs; set engine to opa, and leave opa out")
        if self.opa and (self.policy_source_path or self.policy_source_git_url):
            raise UsageError("policy: the running OPA named by opa holds the policy; leave one of the two out")
        of_git = [f for f in fields(self) if f.name.startswith("policy_source_git_")]
        idle = [f.name for f in of_git if getattr(self, f.name) != f.default] if not self.policy_source_git_url else []
        if idle:
            raise UsageError(f"{idle[0]} is set, but policy.source.git.url is not: name the repository")
        self._check_trust()

    def _check_trust(self) -> None:
        if self.policy_trust_allowed_signers and not self.policy_source_git_url:
            raise UsageError("policy.trust.allowed_signers is for commits: follow a repository (policy.source.git.url)")
        if self.policy_trust_bundle_key_file and not self.policy_source_path:
            raise UsageError("policy.trust.bundle_key_file is for bundle files: follow one (policy.source.path)")
        if self.policy_trust_bundle_key_file and not self.policy_trust_bundle_key_id:
            raise UsageError("policy.trust.bundle_key_id is not set: name the key by which bundles are signed")
        if self.policy_trust_bundle_key_id and not self.policy_trust_bundle_key_file:
            raise UsageError("policy.trust.bundle_key_file is not set: name the file with the key of bundle_key_id")

    def digest(self) -> bytes:
        """SHA-256 over the settings, for the epoch note. It holds no secret: secrets are files named here."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).digest()


def load(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> tuple[Config, dict[str, Source]]:
    """The configuration, and where each value came from. ``flags``: what was given, by setting's name.

    Raises:
        UsageError: a file that cannot be read, an unknown name, a value of the wrong form or out of range.
    """
    return load_settings(Config, "SIDECAR_", file, environment, flags)


def host_and_port(name: str, text: str, otherwise: str = "") -> tuple[str, int]:
    """The parts of ``host:port``, ``[v6]:port`` or ``:port``, which is this machine's loopback; port 0 to 65535.
    ``otherwise``: what else would do, for the message.

    Raises:
        UsageError: it is none of these; names the setting.
    """
    parts = _ADDRESS.fullmatch(text)
    if parts is None or int(parts["port"]) > 65535:
        raise UsageError(f"{name} {text!r} is not {otherwise}host:port or :port, such as 127.0.0.1:9464")
    return parts["v6"] or parts["host"] or "127.0.0.1", int(parts["port"])


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_file(path: Path, what: str, most: int = 1 << 28) -> bytes:
    """A file named by the operator, at most so many bytes. Raises UsageError naming it."""
    data = bytearray()
    try:
        with path.open("rb") as file:
            while len(data) <= most and (more := file.read(1 << 20)):
                data += more
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror}") from None
    if len(data) > most:
        raise UsageError(f"cannot read {what} {path}: it is longer than {most:,} bytes, or has no end")
    return bytes(data)


def write_secret(path: Path, data: bytes) -> None:
    """A new file with mode 0600, durable. Raises UsageError where one is already there, or it cannot be written."""
    try:
        files.write_new(path, data)
        files.sync(path.absolute().parent)  # a key that a power cut takes away cannot be had again
    except OSError as error:
        mend = "; make its directory first" if error.errno == errno.ENOENT else ""
        raise UsageError(f"cannot write {path}: {error.strerror}{mend}") from None


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raises UsageError naming the setting."""
    if not low <= value <= high:
        raise UsageError(f"{name} must be from {low} to {high}")
