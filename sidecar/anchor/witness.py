"""Witnesses (C2SP tlog-witness): asking one to cosign a checkpoint, shown that it extends the last one it cosigned."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.anchor.door import Door
from sidecar.chain import cosignature, lines, note
from sidecar.chain.checkpoint import MAX_TREE, Checkpoint
from sidecar.chain.note import Signature, VerifierKey
from sidecar.errors import AnchorRefused, AnchorUnavailable, Malformed, SignatureInvalid

_OK, _CONFLICT = 200, 409
_REFUSALS = {400, 403, 404, 422}


class Ahead(AnchorRefused):
    """The witness has cosigned a larger tree of this log: ours is an old copy, or somebody else signs with our key.

    ``size`` is what it says.
    """

    def __init__(self, name: str, ours: int, size: int) -> None:
        super().__init__(
            f"witness {name} has seen {size} entries of this log, and it has {ours}: it was restored from an old copy, "
            "or its key is used elsewhere"
        )
        self.size = size


class Witness:
    """One witness: its key, where it is asked, and how a checkpoint is shown to extend an older one.

    ``consistency(old, signed)`` gives the request's body: `FleetLog.consistency`.
    """

    def __init__(self, key: VerifierKey, prefix: Door, consistency: Callable[[int, bytes], bytes]) -> None:
        self._key = key
        self._door = Door(f"{prefix.url.rstrip('/')}/add-checkpoint", prefix.seconds)
        self._consistency = consistency
        self._seen = 0  # what it cosigned last, as far as we know

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        return self._key.name

    def vouch(self, signed: bytes) -> Signature:
        """Its cosignature on a checkpoint of ours, checked; other lines of its answer are left out.

        Raises:
            AnchorUnavailable: it does not answer as its protocol asks.
            AnchorRefused: it refuses the checkpoint, or answers with no cosignature of its own on it.
            Ahead: it has seen a larger tree.
        """
        size = Checkpoint.parse(note.parse(signed).text).size
        status, answer = self._ask(signed, size)
        if status == _CONFLICT:
            # It tells what it has; without that knowledge a first request is a guess.
            self._learn(answer, size)
            status, answer = self._ask(signed, size)
        if status in _REFUSALS:
            raise AnchorRefused(f"witness {self.name} refuses the checkpoint with status {status}")
        if status != _OK:
            raise AnchorUnavailable(f"witness {self.name} answers with status {status}")
        found = self._checked(signed, answer)
        self._seen = size
        return found

    def _ask(self, signed: bytes, size: int) -> tuple[int, bytes]:
        return self._door.post(self._consistency(min(self._seen, size), signed), "text/plain; charset=utf-8")

    def _learn(self, answer: bytes, size: int) -> None:
        try:
            seen = lines.number(answer.decode().removesuffix("\n"), "size", high=MAX_TREE)
        except (Malformed, UnicodeDecodeError):
            raise AnchorUnavailable(f"witness {self.name} does not say which tree it has") from None
        if seen > size:
            raise Ahead(self.name, size, seen)
        self._seen = seen

    def _checked(self, signed: bytes, answer: bytes) -> Signature:
        text = note.parse(signed).text
        try:
            answered = note.parse(text.encode() + b"\n" + answer)
            if answered.text != text or cosignature.verify(answered, self._key) is None:
                raise AnchorRefused(f"witness {self.name} answers without a cosignature of its own")
        except (Malformed, SignatureInvalid) as error:
            raise AnchorRefused(
                f"witness {self.name} answers with no cosignature on this checkpoint: {error}"
            ) from None
        return next(s for s in answered.signatures if (s.name, s.key_hash) == (self._key.name, self._key.hash))
