"""`sidecar bench`, TLS: what mutual TLS on a kept connection adds to a decision, asked by turns through the SDK."""

from __future__ import annotations

import contextlib
import datetime
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_programs import serving
from sidecar.cli.bench_work import AGENT, Work, ask_once, registry_of
from sidecar.client import Guard, TlsFiles
from sidecar.config import write_secret

_ALLOWED: Final = 0.00015  # seconds that TLS may add to p50
_NAME: Final = "sidecar.internal"
_REGISTRY: Final = "registry.json"
_ADDRESS: Final = "127.0.0.1:0"
_WARM: Final = 20


def measure_tls(findings: Findings, work: Work, place: Path, rounds: int, seconds: float) -> None:
    """p50 through the SDK at one caller, plain TCP and mutual TLS call by call; the difference is held."""
    place.mkdir()
    tls = _certificates(place)
    with (
        _guard(work, place / "plain", None) as plain,
        _guard(work, place / "tls", tls) as over,
    ):
        added(findings, {"plain TCP": plain, "mutual TLS": over}, _ALLOWED, rounds, seconds)


def added(findings: Findings, guards: dict[str, Guard], allowed: float, rounds: int, seconds: float) -> None:
    """p50 of two guards at one caller, call by call; what the second adds to the first, in seconds, is held."""
    for guard in guards.values():
        for _ in range(_WARM):
            ask_once(guard)
    p50s: dict[str, list[float]] = {name: [] for name in guards}
    for _ in range(rounds):
        for name, p50 in turns(guards, seconds / rounds).items():
            p50s[name].append(p50)
    without, more = (findings.add(f"p50 at 1 by the SDK: {name}", "s", found) for name, found in p50s.items())
    what = list(guards)[1]
    findings.hold(f"{what} adds to p50 at 1", more.median - without.median, allowed, at_most=True, unit="s")


def turns(guards: dict[str, Guard], seconds: float) -> dict[str, float]:
    """The median time of a question to each, seconds, asked by turns."""
    took: dict[str, list[float]] = {name: [] for name in guards}
    end = time.perf_counter() + seconds
    while not all(took.values()) or time.perf_counter() < end:
        for name, guard in guards.items():
            began = time.perf_counter()
            ask_once(guard)
            took[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in took.items()}


@contextlib.contextmanager
def _guard(work: Work, ledger: Path, tls: TlsFiles | None) -> Iterator[Guard]:
    settings = ledger.with_suffix(".toml")
    told = {} if tls is None else {"cert_file": tls.cert, "key_file": tls.key, "client_ca_file": tls.ca}
    registry = f"registry = '{ledger.with_name(_REGISTRY)}'\n"
    settings.write_text("".join([registry, "[tls]\n", *(f"{name} = '{value}'\n" for name, value in told.items())]))
    flags = ("--config", settings, "--policy", work.wasm_bundle, "--listen", _ADDRESS)
    duties = {"log_level": lambda *_: None}
    with serving(ledger, *flags):
        ready = next(line for line in _log(ledger) if "sidecar is ready on " in line)
        with Guard(ready.split()[-1], agent=AGENT, timeout=30.0, obligations=duties, tls=tls) as guard:
            yield guard


def _log(ledger: Path) -> list[str]:
    return ledger.with_name(ledger.name + ".log").read_text().splitlines()


def _certificates(place: Path) -> TlsFiles:
    """One CA and one certificate under it, which serves both sides; and the registry that knows whose its key is."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("bench CA", root_key, root_key).add_extension(x509.BasicConstraints(True, 0), critical=True)
    leaf = _certificate("bench", key, root_key).add_extension(x509.BasicConstraints(False, None), critical=True)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME)]), critical=False)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    leaf = leaf.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    for name, made in (("ca", root), ("leaf", leaf)):
        (place / f"{name}.pem").write_bytes(made.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (place / _REGISTRY).write_text(registry_of(spki))
    write_secret(place / "key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return TlsFiles(f"{place}/leaf.pem", f"{place}/key.pem", f"{place}/ca.pem", _NAME)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, "bench CA")]
    made = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
    return made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
