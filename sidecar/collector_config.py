"""The configuration of `sidecar collector serve`: file < environment (`COLLECTOR_…`) < flag, as the sidecar's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.config import host_and_port, in_range, is_loopback
from sidecar.errors import UsageError
from sidecar.settings import load_settings

PREFIX = "COLLECTOR_"


@dataclass(frozen=True, slots=True)
class Collecting:
    """Every setting of a collector. Times are seconds."""

    data_dir: str = ""
    listen: str = "127.0.0.1:7473"
    web: str = "127.0.0.1:7474"  # the log's tiles and /metrics, over HTTP
    origin: str = ""  # the log's name; empty with dev: sidecar.dev/log
    key_file: str = ""  # the log's Ed25519 key, PEM; empty: log-key.pem in data_dir, made when it is not there
    dev: bool = False
    storage: str = "files"  # or s3
    s3_bucket: str = ""
    s3_prefix: str = ""
    s3_endpoint: str = ""
    s3_region: str = ""
    retention_days: int = 0  # Object Lock, COMPLIANCE mode; 0: none
    index: str = "sqlite"  # or postgres
    postgres_file: str = ""  # holds libpq's connection string
    enrol_spiffe: tuple[str, ...] = ()  # rules for SPIFFE ids that may enrol a chain
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    spiffe_socket: str = ""
    webhook: str = ""
    roll_call_seconds: float = 60.0
    silence_seconds: float = 300.0
    timestamp_urls: tuple[str, ...] = ()
    timestamp_roots: tuple[str, ...] = ()  # PEM files
    witnesses: tuple[str, ...] = ()  # "<vkey> <url>"; all must cosign what receipts rest on
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not self.data_dir:
            raise UsageError("data_dir is not set: name the collector's directory with --data-dir or in the file")
        if not self.origin and not self.dev:
            raise UsageError("origin is not set: name the log, such as log.example.org/fleet, or start with --dev")
        for name, value, allowed in (
            ("storage", self.storage, ("files", "s3")),
            ("index", self.index, ("sqlite", "postgres")),
            ("log_level", self.log_level, ("debug", "info", "warning", "error")),
        ):
            if value not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}")
        if self.storage == "s3" and not self.s3_bucket:
            raise UsageError("s3.bucket is not set: name the bucket, which must have Object Lock")
        if self.index == "postgres" and not self.postgres_file:
            raise UsageError("postgres_file is not set: name the file with the connection string")
        in_range("roll_call_seconds", self.roll_call_seconds, 0.05, 3600)
        in_range("silence_seconds", self.silence_seconds, 0.05, 7 * 86_400)
        in_range("retention_days", self.retention_days, 0, 36_500)
        host_and_port("web", self.web)
        host, _ = host_and_port("listen", self.listen)
        if not (self.tls_cert_file or self.spiffe_socket or self.dev or is_loopback(host)):
            raise UsageError(
                f"listen {self.listen} can be reached from elsewhere without TLS; set tls.cert_file or spiffe.socket"
            )
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise UsageError("tls.cert_file and tls.key_file go together; set both or neither")
        if self.enrol_spiffe and not (self.tls_client_ca_file or self.spiffe_socket):
            raise UsageError("enrol_spiffe needs callers' certificates: set tls.client_ca_file or spiffe.socket")

    @property
    def name(self) -> str:
        """The log's origin."""
        return self.origin or "sidecar.dev/log"


def load_collecting(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Collecting:
    """A collector's configuration. ``flags``: what was given, by setting's name. Raises UsageError."""
    return load_settings(Collecting, PREFIX, file, environment, flags)[0]
