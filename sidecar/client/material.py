"""What a process shows on TLS and whom it believes: from files, or from the SPIFFE Workload API, while it changes.

A source makes something of its material (`make`: channel credentials here, the server's half in the sidecar) and keeps
it until newer material is there. What cannot be used is told to `trouble`, once, and what was there before goes on.
Private keys stay in memory: nothing here writes, logs or shows one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from sidecar.errors import UsageError
from sidecar.files import Signature, signature

if TYPE_CHECKING:  # dear to import, and not needed without TLS
    from cryptography.x509 import Certificate

Made = TypeVar("Made", covariant=True)

NO_DOMAIN: Final = ""
"""Under this name are the roots that files give: they are of no trust domain."""

FIRST_WITHIN: Final = 10.0  # seconds to wait for the first material
_log = logging.getLogger("sidecar.client")


@dataclass(frozen=True, slots=True)
class Material:
    """``chain``: PEM, leaf first; empty where none is shown. ``roots``: certificates in DER, by trust domain."""

    chain: bytes
    key: bytes = field(repr=False)
    roots: Mapping[str, tuple[bytes, ...]]


class Source(Protocol[Made]):
    """Where material comes from."""

    def wait(self, within: float = FIRST_WITHIN) -> None:
        """Until there is any, or `close`. Raises UsageError: there is none after ``within`` seconds."""
        ...

    def current(self) -> Made:
        """What was made of the newest usable material: the same object until there is newer. Any thread; no waiting,
        so it is for after `wait`."""
        ...

    def close(self) -> None:
        """No more news."""
        ...


class FileSource(Generic[Made]):
    """Certificate, key and CA from PEM files, read again when one of them changes; "" where there is none.

    Raises UsageError when made from files that cannot be used.
    """

    def __init__(
        self,
        paths: tuple[str, str, str],
        make: Callable[[Material], Made],
        trouble: Callable[[str], object] = _log.warning,
    ) -> None:
        self._paths, self._make, self._trouble = [Path(path) if path else None for path in paths], make, trouble
        self._lock = Lock()
        self._seen = self._look()
        self._made = self._read()

    def wait(self, within: float = FIRST_WITHIN) -> None:
        """As `Source.wait`: it was there from the beginning."""

    def current(self) -> Made:
        """As `Source.current`."""
        if self._look() != self._seen:
            with self._lock:
                self._renew(self._look())
        return self._made

    def close(self) -> None:
        """Nothing is open."""

    def _renew(self, seen: list[Signature | None]) -> None:
        if seen == self._seen:
            return  # another thread was here
        try:
            self._made = self._read()
        except UsageError as error:
            self._trouble(f"new TLS files cannot be used, the ones before stay: {error}")
        self._seen = seen

    def _look(self) -> list[Signature | None]:
        return [signature(path) if path else None for path in self._paths]

    def _read(self) -> Made:
        chain, key, ca = (_bytes(path) if path else b"" for path in self._paths)
        if self._paths[0]:
            _check_pair(chain, key, str(self._paths[0]), str(self._paths[1]))
        roots = {NO_DOMAIN: _roots(ca, str(self._paths[2]))} if self._paths[2] else {}
        return self._make(Material(chain, key, roots))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _certificates(pem: bytes, name: str) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(pem)
    except ValueError:
        raise UsageError(f"{name} holds no certificate in PEM, or a broken one") from None


def _roots(pem: bytes, name: str) -> tuple[bytes, ...]:
    from cryptography.hazmat.primitives.serialization import Encoding

    return tuple(each.public_bytes(Encoding.DER) for each in _certificates(pem, name))


def _check_pair(chain: bytes, key: bytes, chain_name: str, key_name: str) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    leaf = _certificates(chain, chain_name)[0]
    try:
        public = load_pem_private_key(key, None).public_key()
        same = public == leaf.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"{key_name} holds no private key in PEM, or one under a password") from None
    if not same:
        raise UsageError(f"the key in {key_name} is not that of the certificate in {chain_name}")
    if not isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):  # it would fail in each handshake
        raise UsageError(f"{key_name} is neither an RSA nor an elliptic-curve key, and gRPC's TLS takes no other")


def pem_of(roots: tuple[bytes, ...]) -> bytes:
    """Certificates in DER as PEM, one after the other."""
    import ssl

    return b"".join(ssl.DER_cert_to_PEM_cert(der).encode() for der in roots)
