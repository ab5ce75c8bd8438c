"""The only way out: one POST, with a time limit, a bound on the answer, and no redirects to somebody else."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO

from sidecar.errors import AnchorUnavailable, UsageError

MAX_ANSWER = 65_536


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Door:
    """Where somebody is asked. ``seconds``: how long each step of the exchange may take.

    Raises:
        UsageError: not an http or https URL.
    """

    url: str
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"an anchor's URL must start with http:// or https://, not {self.url!r}")

    def post(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        """Status and body of the answer, whatever the status.

        Raises:
            AnchorUnavailable: no answer, or one longer than :data:`MAX_ANSWER`.
        """
        request = urllib.request.Request(self.url, body, {"Content-Type": content_type}, method="POST")  # noqa: S310
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=self.seconds) as answer:
                return self._bounded(answer.status, answer)
        except urllib.error.HTTPError as answer:
            with answer:
                return self._bounded(answer.code, answer)
        except (OSError, http.client.HTTPException) as error:
            raise AnchorUnavailable(f"{self.url}: {error}") from None

    def _bounded(self, status: int, answer: IO[bytes] | http.client.HTTPResponse) -> tuple[int, bytes]:
        try:
            body = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise AnchorUnavailable(f"{self.url}: {error}") from None
        if len(body) > MAX_ANSWER:
            raise AnchorUnavailable(f"{self.url}: its answer is longer than {MAX_ANSWER} bytes")
        return status, body
