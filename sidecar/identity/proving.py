"""Who asks: from a message, what was signed and what the transport knows, to a principal or a refusal.

    statement ─► this message, chain, epoch? ─► key in the registry, valid? ─► window, nonce ─► signature ─┐
    certificate (verified) ─► SPIFFE id or key in the registry, valid? ──────────────────────┴► one principal
    voucher ─► its gateway in the registry, and proved? ─► the principal that it names

Whoever is proved must then be the one the message names, active, and of a kind that may ask this. What is refused
before that is CallerUnproved, after it NotPermitted, with the id that was proved. ``why`` is one of :data:`WHYS`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sidecar.chain.payload import policy_time
from sidecar.chain.registry import Principal, Registry
from sidecar.chain.signing import PublicKey
from sidecar.chain.statement import Statement, key_id
from sidecar.errors import CallerUnproved, Malformed, NotPermitted, OtherEpoch, SignatureInvalid
from sidecar.identity import gateways
from sidecar.identity.gateways import Voucher
from sidecar.identity.nonces import Nonces
from sidecar.identity.transport import Certificate, Transport

SIGNATURE: Final = "signature"
MTLS: Final = "mtls"
GATEWAY: Final = "gateway"
WHYS: Final = frozenset(
    {
        *("unproved", "no signature", "no certificate", "statement", "epoch", "window", "replayed", "too many"),
        *(
            "unknown",
            "key",
            "signature",
            "certificate",
            "name",
            "suspended",
            "revoked",
            "kind",
            "delegation",
            "approval",
            "handshake",
            "gateway",
        ),
    }
)
AGENTS: Final = frozenset({"agent"})
REPORTERS: Final = frozenset({"agent", "executor"})
ANYBODY: Final = frozenset({"agent", "executor", "approver", "user"})
_UNSIGNED: Final = "signature: is missing; sign the message (proto/SIGNING.md), or start the sidecar with --dev"


@dataclass(frozen=True, slots=True)
class Terms:
    """``require``: of signature and mtls, what a caller must be proved by. ``window``: seconds, 1 to 300.

    ``development`` accepts names that callers merely assert; what is given besides must be right all the same.
    """

    require: frozenset[str] = frozenset({SIGNATURE})
    window: float = 60.0
    development: bool = False

    def __post_init__(self) -> None:
        if not self.require or not self.require <= {SIGNATURE, MTLS}:
            raise ValueError("require must name signature, mtls or both")
        if not 1 <= self.window <= 300:
            raise ValueError("the signature window must be from 1 to 300 seconds")


@dataclass(frozen=True, slots=True)
class Shown:
    """What comes with a message: what the transport knows, and what was signed; empty where nothing was.

    ``voucher``: what a gateway says of the sender, of whom there is nothing else then; the transport is the gateway's.
    """

    transport: Transport
    statement: bytes = field(default=b"", repr=False)
    signature: bytes = field(default=b"", repr=False)
    voucher: Voucher | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A message: its kind as statements have it, whom it names as its sender, its digest, and who may send it."""

    kind: str
    named: str
    digest: bytes
    kinds: frozenset[str] = AGENTS


@dataclass(frozen=True, slots=True)
class Proved:
    """A proved caller, or with proof ``asserted`` one that only says so. ``roles`` and ``attributes``: the registry's.

    ``evidence``: the members by which entries keep the proof. ``key``: id of the key it signed with, or "".
    """

    id: str
    proof: str
    roles: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: str = ""
    certificate: Certificate | None = field(default=None, repr=False)
    kinds: frozenset[str] = AGENTS
    voucher: Voucher | None = None

    def member(self) -> dict[str, Any]:
        """The principal as payloads have it (LEDGER.md, "Principal")."""
        known = {"id": self.id, "proof": self.proof, "roles": list(self.roles), "attributes": dict(self.attributes)}
        return {**known, **self.evidence}


class Prover:
    """Proves callers of one chain in one epoch. Used on the event loop's thread alone."""

    def __init__(self, terms: Terms, chain_id: bytes, epoch: int, wall_ns: Callable[[], int]) -> None:
        self._terms, self._chain_id, self._epoch, self._wall_ns = terms, chain_id, epoch, wall_ns
        self._nonces = Nonces(int(terms.window * 1e9))

    def prove(self, claim: Claim, shown: Shown, registry: Registry | None) -> Proved:
        """Who sent this message; takes the nonce.

        Raises:
            CallerUnproved: that could not be established. NotPermitted: it is somebody who may not send it.
        """
        now = self._wall_ns()
        at = policy_time(now)
        if shown.voucher is not None:
            shower = shown.transport.certificate  # the gateway
            named = Proved(claim.named, GATEWAY, certificate=shower, kinds=claim.kinds, voucher=shown.voucher)
            return _vouched(named, registry, at)
        key = self._signer(claim, shown, registry, now, at) if shown.statement or shown.signature else None
        certificate = shown.transport.certificate
        holder = None if certificate is None else _holder(certificate, registry, at)
        self._check_required(key, holder)
        proof = "+".join(n for n, found in ((SIGNATURE, key), (MTLS, holder)) if found) or "asserted"
        who = (key or ("", ""))[0] or holder or claim.named
        if key and holder and key[0] != holder:
            raise NotPermitted("agent: signed by one principal, sent with another's certificate", "name", holder)
        if who != claim.named:
            raise NotPermitted(f"agent: is not {who}, who is proved to send this", "name", who)
        proved = Proved(
            who, proof, evidence=_evidence(shown, registry, key), key=key[1] if key else "", certificate=certificate,
            kinds=claim.kinds,
        )  # fmt: skip
        return _admitted(proved, registry)

    def again(self, proved: Proved, registry: Registry | None) -> Proved:
        """A caller proved before, by a registry that came into force meanwhile. Raises as :meth:`prove`."""
        at = policy_time(self._wall_ns())
        if proved.voucher is not None:
            return _vouched(proved, registry, at)
        if proved.key:
            _key(registry, proved.id, proved.key, at)
        if proved.certificate is not None and _holder(proved.certificate, registry, at) != proved.id:
            raise CallerUnproved("certificate: is not this principal's any more", "certificate")
        return _admitted(proved, registry)

    def _check_required(self, key: tuple[str, str] | None, holder: str | None) -> None:
        if self._terms.development:
            return
        if key is None and SIGNATURE in self._terms.require:
            raise CallerUnproved(_UNSIGNED, "no signature")
        if holder is None and MTLS in self._terms.require:
            raise CallerUnproved("certificate: is missing; connect with a client certificate", "no certificate")

    def _signer(self, claim: Claim, shown: Shown, registry: Registry | None, now: int, at: str) -> tuple[str, str]:
        """Id and key id of whoever signed this message; the nonce is taken."""
        try:
            said = Statement.parse(shown.statement)
        except Malformed as error:
            raise CallerUnproved(f"signature: {error}", "statement") from None
        self._check_meant(said, claim)
        key, keys = _key(registry, said.by, said.key, at)
        self._nonces.check(said.key, said.nonce, said.time, now, keys)
        try:
            key.verify(shown.signature, shown.statement)
        except SignatureInvalid as error:
            raise CallerUnproved(str(error), "signature") from None
        self._nonces.take(said.key, said.nonce, said.time)
        return said.by, said.key

    def _check_meant(self, said: Statement, claim: Claim) -> None:
        if said.audience != self._chain_id:
            raise CallerUnproved("signature: is for another chain than this sidecar's; ask Head", "statement")
        if said.epoch != self._epoch:
            raise OtherEpoch(
                f"epoch: signed for {said.epoch}, the chain is in {self._epoch}; ask Head, and sign anew", self._epoch
            )
        if said.kind != claim.kind:
            raise CallerUnproved(f"signature: is of the kind {said.kind}, not {claim.kind}", "statement")
        if said.digest != claim.digest:
            raise CallerUnproved("signature: is over another message than this one", "statement")


def _key(registry: Registry | None, by: str, key: str, at: str) -> tuple[PublicKey, Collection[str]]:
    """A principal's key that is valid now, and the ids of all that it has."""
    principal = None if registry is None else registry.principals.get(by)
    if principal is None:
        raise CallerUnproved("signature: by somebody who is not in the registry", "unknown")
    found = principal.keys.get(key)
    if found is None or not found.valid(at):
        raise CallerUnproved(f"signature: by a key that is not one of {by}, or is not valid now", "key")
    return found.public, principal.keys


def _holder(certificate: Certificate, registry: Registry | None, at: str) -> str:
    """Whose certificate it is: by its SPIFFE id, or, where it has none, by its key."""
    if certificate.spiffe_id:
        return owner_of(certificate.spiffe_id, registry, at)
    from_key = None if registry is None else _owner_of_key(certificate.spki, registry, at)
    if from_key is None:
        raise CallerUnproved("certificate: its key is not in the registry, or is not valid now", "certificate")
    return from_key


def _owner_of_key(spki: bytes, registry: Registry, at: str) -> str | None:
    name = key_id(spki)
    owner = registry.key_owners.get(name)
    return owner if owner is not None and registry.principals[owner].keys[name].valid(at) else None


def _vouched(named: Proved, registry: Registry | None, at: str) -> Proved:
    """Whom a gateway names, if it is one and they are registered. Raises CallerUnproved, NotPermitted."""
    voucher = named.voucher
    assert voucher is not None
    gateway = None if registry is None else registry.principals.get(voucher.gateway)
    if registry is None or gateway is None or (gateway.kind, gateway.status) != ("executor", "active"):
        raise CallerUnproved(f"gateway: {voucher.gateway} is not an active executor in the registry", "gateway")
    if voucher.proof == gateways.MTLS:
        shown = named.certificate
        if shown is None or _holder(shown, registry, at) != voucher.gateway:
            raise CallerUnproved(f"gateway: the certificate is not one of {voucher.gateway}", "gateway")
    if named.id not in registry.principals:
        raise CallerUnproved("agent: whom the gateway names is not in the registry", "unknown")
    if voucher.spiffe_id and owner_of(voucher.spiffe_id, registry, at) != named.id:
        raise CallerUnproved("agent: the SPIFFE id that the gateway saw is not one of its own", "certificate")
    return _admitted(replace(named, evidence=voucher.members()), registry)


def owner_of(spiffe_id: str, registry: Registry | None, at: str) -> str:
    """Whose SPIFFE id it is, valid at ``at``. Raises CallerUnproved."""
    owner = None if registry is None else registry.spiffe_owners.get(spiffe_id)
    if owner is None or registry is None or not registry.principals[owner].spiffe_ids[spiffe_id].holds(at):
        raise CallerUnproved("certificate: its SPIFFE id is not in the registry, or not valid now", "certificate")
    return owner


def _evidence(shown: Shown, registry: Registry | None, key: tuple[str, str] | None) -> dict[str, str]:
    members = {}
    if key is not None and registry is not None:
        spki = registry.principals[key[0]].keys[key[1]].public.spki
        members = {
            "statement": shown.statement.decode(),
            "signature": base64.b64encode(shown.signature).decode(),
            "key": base64.b64encode(spki).decode(),
        }
    certificate = shown.transport.certificate
    if certificate is not None:
        members |= {"certificate": certificate.fingerprint.hex(), "spiffe_id": certificate.spiffe_id}
    return members


def _admitted(proved: Proved, registry: Registry | None) -> Proved:
    """The caller with what the registry says of it, if it may send this. Raises NotPermitted."""
    principal = None if registry is None else registry.principals.get(proved.id)
    if principal is None:
        return proved  # asserted: the registry need not know it
    _check_active(principal)
    if principal.kind not in proved.kinds:
        cause = f"agent: {proved.id} is registered as {principal.kind}, who may not send this"
        raise NotPermitted(cause, "kind", proved.id)
    return replace(proved, roles=principal.roles, attributes=principal.attributes)


def _check_active(principal: Principal) -> None:
    if principal.status != "active":
        raise NotPermitted(f"agent: {principal.id} is {principal.status}", principal.status, principal.id)
