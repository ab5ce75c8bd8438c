"""A ledger's beginning, and what is done to one while no sidecar has it open. Belongs to `main.py`: see there.

What ships and erases is imported when it does: it brings gRPC and policy engines, and a new ledger needs none.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar import __version__
from sidecar.chain.acts import AcceptLoss
from sidecar.chain.limits import MAX_CUSTODIANS
from sidecar.chain.seeds import Custodian, Custody, SealedShare
from sidecar.config import MIB, Config, read_file, write_secret
from sidecar.custody import generate_custodian, load_authority, load_custodian, seal_shares
from sidecar.errors import LedgerError, Malformed, UsageError
from sidecar.ledger import Keep, Ledger, Left, Options, SystemClock, create


def wrap_seed(custody: Custody, chain_id: bytes, epoch: int, seed: bytes) -> list[SealedShare]:
    """A fresh epoch's seed, sealed for the chain's custodians."""
    return seal_shares(custody, chain_id, epoch, seed, os.urandom)


@dataclass(frozen=True, slots=True)
class Founded:
    """A new ledger: its chain id, and the custodian key that was made for want of one."""

    chain_id: bytes
    made_key: Path | None


def options_of(config: Config) -> Options:
    """The ledger's settings in a configuration."""
    return Options(
        segment_entries=config.segment_entries,
        segment_ns=int(config.segment_seconds * 1e9),
        max_bytes=config.ledger_max_mib * MIB,
        remember_ns=config.idempotency_seconds * 1_000_000_000,
        software=f"decision-sidecar {__version__}",
        development=config.dev,
        config=config.digest(),
        keep=Keep(int(config.ledger_keep_seconds * 1e9), config.ledger_keep_mib * MIB),
    )


def found_ledger(config: Config) -> Founded:
    """Make a new ledger for the configured custodians, or, where none is named, for a key made beside it.

    Raises:
        UsageError: a key file that is not one, or a directory that cannot be used.
    """
    directory = Path(config.data_dir)
    custodians, made = _custodians(config), None
    if not custodians:
        made = directory.with_name(directory.name + ".custodian.pem")
        private, public = generate_custodian("x25519")
        write_secret(made, private)
        custodians = (load_custodian(public, "made-by-init"),)
    try:
        custody = Custody(config.custody_mode, custodians)
    except Malformed as error:
        raise UsageError(f"{error}; name each custodian once, at most {MAX_CUSTODIANS}") from None
    authority = load_authority(read_file(Path(config.authority), "authority key")) if config.authority else None
    try:
        chain_id = create(
            directory,
            identity=Ed25519PrivateKey.generate(),
            custody=custody,
            authority=authority,
            log=None,
            retention=config.retention,
            wrap=wrap_seed,
            options=options_of(config),
            clock=SystemClock(),
        )
    except BaseException:
        if made is not None:
            made.unlink(missing_ok=True)
        raise
    return Founded(chain_id, made)


class _Looked(Exception):
    """The ledger was looked at, and nothing more is wanted of it."""


def what_was_lost(config: Config, reason: str) -> AcceptLoss:
    """What the authority would have to accept for the configured ledger to go on; nothing is changed.

    Raises:
        UsageError: nothing was lost, or the collector cannot be asked. LedgerError: the ledger cannot be read.
    """
    from sidecar.shipping import Shipping

    shipping = Shipping(config)
    found: list[AcceptLoss] = []

    def look(left: Left) -> bool:
        found.append(shipping.lost(left, reason))
        raise _Looked

    with contextlib.suppress(_Looked):
        Ledger.open(
            Path(config.data_dir), wrap=wrap_seed, options=options_of(config), clock=SystemClock(),
            on_failure=lambda _: None, confirm=look,
        )  # fmt: skip
    return found[0]


def _custodians(config: Config) -> tuple[Custodian, ...]:
    paths = [Path(p) for p in config.custodians]
    return tuple(load_custodian(read_file(p, "custodian key"), p.stem) for p in paths)


def erase_now(config: Config) -> None:
    """Open a ledger that no sidecar has open, do what was left to be erased, ship and close it: an epoch of its own.

    Raises:
        LedgerBusy: a sidecar has it open. SidecarError: it cannot be opened, or not all was done.
    """
    from sidecar import erasing
    from sidecar.shipping import Shipping

    shipping, failures = Shipping(config), list[LedgerError]()
    ledger = Ledger.open(
        Path(config.data_dir), wrap=wrap_seed, options=options_of(config), clock=SystemClock(),
        on_failure=failures.append, confirm=shipping.confirm,
    )  # fmt: skip
    try:
        shipping.begin(ledger, failures.append)
        try:
            done = erasing.of(config, ledger)
            if done is not None:
                done.pick_up()
        finally:
            shipping.end(ledger, failed=bool(failures))
    finally:
        ledger.close()
    if failures:
        raise failures[0]
