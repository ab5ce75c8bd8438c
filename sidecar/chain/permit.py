"""The permit: a signed note that an executor checks alone, offline (proto/SIGNING.md, "Permit")::

sidecar/v1/permit
chain 5d1c…
decision 0190a5b2-…
seq 17
agent billing-agent
executor payments-gateway
target 8e02…
arguments 77ab…
not_after 1764100000000000000
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import lines, note
from sidecar.chain.statement import is_principal
from sidecar.errors import Malformed

KIND: Final = "sidecar/v1/permit"
_NAMES: Final = ("chain", "decision", "seq", "agent", "executor", "target", "arguments", "not_after")


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one executor to carry one action out once. ``not_after`` in ns since 1970.

    ``note``: the signed note it was read from.

    Raises:
        Malformed: a value that no permit can carry.
    """

    chain_id: bytes
    decision_id: str
    seq: int
    agent: str
    executor: str
    target: bytes
    arguments: bytes
    not_after: int
    note: bytes = field(default=b"", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (is_principal(self.agent) and is_principal(self.executor)):
            raise Malformed("permit: agent or executor is not the id of a principal")

    def sign(self, identity: Ed25519PrivateKey) -> bytes:
        """The signed note."""
        values = (
            self.chain_id.hex(), self.decision_id, str(self.seq), self.agent, self.executor, self.target.hex(),
            self.arguments.hex(), str(self.not_after),
        )  # fmt: skip
        text = lines.join(KIND, list(zip(_NAMES, values, strict=True)))
        return note.sign(text, lines.identity_name(self.chain_id), identity)

    @classmethod
    def open(cls, data: bytes, chain_id: bytes, identity: bytes) -> Permit:
        """Read a permit of this chain, signed by its identity key (32 bytes). For whom and until when is not judged.

        Raises:
            Malformed: no permit, of another chain, or with another or a further signature line.
            SignatureInvalid: not signed by that key.
        """
        permit = cls.read(note.verify_single(data, lines.identity_name(chain_id), identity), data)
        if permit.chain_id != chain_id:
            raise Malformed("permit: of another chain")
        return permit

    @classmethod
    def read(cls, text: str, data: bytes) -> Permit:
        """The permit in a note's text; ``data``: the note. No signature is checked. Raises Malformed."""
        v = dict(zip(_NAMES, lines.split(text, KIND, _NAMES), strict=True))
        return cls(
            lines.digest(v["chain"], "chain"),
            v["decision"],
            lines.number(v["seq"], "seq"),
            v["agent"],
            v["executor"],
            lines.digest(v["target"], "target"),
            lines.digest(v["arguments"], "arguments"),
            lines.number(v["not_after"], "not_after"),
            data,
        )
