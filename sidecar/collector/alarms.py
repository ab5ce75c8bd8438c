"""Alarms: kept in the index, counted, logged, and posted as signed notes until somebody takes them."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.anchor import Door, Pauses
from sidecar.chain import lines, note
from sidecar.collector.index import Alarm, Index
from sidecar.errors import AnchorUnavailable, Malformed, SidecarError, StorageError

log = logging.getLogger("sidecar.collector")

KIND = "sidecar/v1/alarm"
KINDS = ("FORK", "ROLLBACK", "CLONE", "SILENT", "LOSS")
_WAITING = 1_024  # alarms that the webhook has not taken; older ones stay in the index


def alarm_text(alarm: Alarm) -> str:
    """The text of the note that is posted (proto/SHIPPING.md, "Alarms")."""
    values = [
        ("chain", alarm.chain_id.hex()),
        ("kind", alarm.kind),
        ("time", str(alarm.time)),
        ("detail", alarm.detail),
        ("evidence", alarm.evidence.encode().hex() or lines.NONE),
    ]
    return lines.join(KIND, values)


class Alarms:
    """``key`` signs what is posted to ``webhook`` (None: nowhere) under ``origin``; ``now`` in ns."""

    def __init__(
        self, index: Index, origin: str, key: Ed25519PrivateKey, webhook: Door | None, now: Callable[[], int]
    ) -> None:
        self._index, self._origin, self._key, self._webhook, self._now = index, origin, key, webhook, now
        self.raised: Counter[str] = Counter()
        self.kept = Counter(alarm.kind for alarm in index.alarms())
        """In the index, of earlier runs too."""
        self._wake = threading.Condition()
        self._waiting: deque[bytes] = deque(maxlen=_WAITING)
        self._ended = False
        self._thread = threading.Thread(target=self._post_all, name="alarms", daemon=True)
        if webhook is not None:
            self._thread.start()

    def sound(self, kind: str, chain_id: bytes, detail: str, evidence: str = "") -> None:
        """Somebody must look. Never raises: what cannot be kept is logged all the same."""
        alarm = Alarm(self._now(), chain_id, kind, detail, evidence)
        self.raised[kind] += 1
        log.error("ALARM %s: chain %s: %s; evidence: %s", kind, chain_id.hex(), detail, evidence or "none")
        try:
            self._index.raise_alarm(alarm)
            self.kept[kind] += 1
        except StorageError as error:
            log.error("the alarm could not be kept: %s", error)
        if self._webhook is not None:
            try:
                signed = note.sign(alarm_text(alarm), self._origin, self._key)
            except Malformed as error:
                log.error("the alarm cannot be posted: %s", error)
                return
            with self._wake:
                self._waiting.append(signed)
                self._wake.notify_all()

    def close(self) -> None:
        """Post no more."""
        with self._wake:
            self._ended = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _post_all(self) -> None:
        assert self._webhook is not None
        pauses, failures = Pauses(first=0.2), 0
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._ended or bool(self._waiting))
                if self._ended:
                    return
                signed = self._waiting[0]
            try:
                status, _ = self._webhook.post(signed, "text/plain; charset=utf-8")
                if not 200 <= status < 300:
                    raise AnchorUnavailable(f"it answers with status {status}")
            except SidecarError as error:
                failures += 1
                log.warning("the webhook does not take an alarm: %s", error)
                with self._wake:
                    self._wake.wait_for(lambda: self._ended, pauses.after(failures))
                continue
            failures = 0
            with self._wake:
                if self._waiting and self._waiting[0] is signed:
                    self._waiting.popleft()
