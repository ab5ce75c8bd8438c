"""X.509-SVIDs and bundles from the SPIFFE Workload API, followed for as long as the process runs (extra `spiffe`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import TYPE_CHECKING, Generic

from sidecar.client.material import FIRST_WITHIN, Made, Material
from sidecar.errors import UsageError

if TYPE_CHECKING:
    from spiffe.workloadapi.x509_context import X509Context

_log = logging.getLogger("sidecar.client")

_AGAIN_AFTER = 1.0  # seconds between the loss of the stream and the next attempt


class WorkloadSource(Generic[Made]):
    """What the agent at ``socket`` (`/path` or `unix:/path`) issues to this process, and the bundles it hands out.

    It is asked from now on; `wait` until it has answered. Raises UsageError when the extra is not installed, or nothing
    is at ``socket``.
    """

    def __init__(
        self,
        socket: str,
        make: Callable[[Material], Made],
        trouble: Callable[[str], object] = _log.warning,
    ) -> None:
        try:
            from spiffe import WorkloadApiClient
            from spiffe.errors import PySpiffeError
        except ImportError:
            raise UsageError(
                "the SPIFFE Workload API needs the extra: pip install 'decision-sidecar[spiffe]'"
            ) from None
        self._socket, self._make, self._trouble = socket, make, trouble
        self._made: list[Made] = []
        self._first, self._closed, self._ended = Event(), Event(), Event()
        try:
            self._client = WorkloadApiClient("unix:" + socket.removeprefix("unix:"))
        except PySpiffeError:
            raise UsageError(f"there is no SPIFFE Workload API at {socket}; see whether the agent runs") from None
        Thread(target=self._follow, name="spiffe", daemon=True).start()

    def wait(self, within: float = FIRST_WITHIN) -> None:
        """As `Source.wait`."""
        self._first.wait(within)
        if not self._made:
            self.close()
            raise UsageError(
                f"the SPIFFE agent at {self._socket} gave no usable SVID within {within:g} s; "
                "see that this process is registered"
            )

    def current(self) -> Made:
        """As `Source.current`."""
        return self._made[0]

    def close(self) -> None:
        """Ends the stream, and a `wait`."""
        self._closed.set()
        self._first.set()
        self._ended.set()
        self._client.close()

    def _follow(self) -> None:
        while not self._closed.is_set():
            self._ended.clear()
            stream = self._client.stream_x509_contexts(self._take, self._lost, retry_connect=False)
            self._ended.wait()
            stream.cancel()
            self._closed.wait(_AGAIN_AFTER)

    def _lost(self, error: Exception) -> None:
        if self._first.is_set() and not self._closed.is_set():
            self._trouble("the SPIFFE agent's stream of SVIDs ended; what was had stays, and it is asked again")
        self._ended.set()

    def _take(self, context: X509Context) -> None:
        """On the library's thread. What is raised here would end its stream, so that it is asked again."""
        try:
            self._made[:] = [self._make(_material(context))]
        except UsageError as error:
            self._trouble(f"a new SVID cannot be used, the one before stays: {error}")
        else:
            self._first.set()


def _material(context: X509Context) -> Material:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    svid = context.default_svid
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in svid.cert_chain)
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    roots = {
        bundle.trust_domain.name: tuple(each.public_bytes(Encoding.DER) for each in bundle.x509_authorities)
        for bundle in context.x509_bundle_set.bundles
    }
    return Material(chain, key, roots)
