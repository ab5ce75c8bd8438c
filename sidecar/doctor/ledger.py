"""The ledger, the clock, the collector, and how much nobody outside vouches for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from sidecar.chain.ack import Ack
from sidecar.chain.limits import UNKNOWN_CLOCK_ERROR
from sidecar.chain.printable import number_of
from sidecar.doctor.finding import Finding, careful, ok, skipped, wrong
from sidecar.doctor.patient import Patient
from sidecar.errors import CollectorRefused, CollectorUnavailable
from sidecar.ledger import glance_at, kernel_clock_error_ms
from sidecar.shipping import Shipping

_APART: Final = 5.0  # seconds between our clock and the collector's
_LATE: Final = 600.0  # seconds that an entry may wait for a receipt; a segment is sealed after a minute


def check_ledger(patient: Patient) -> Iterator[Finding]:
    """Whether there is one that can be read; whether it is true is for `sidecar verify`."""
    if not patient.founded:
        mend = f"make one: sidecar init --data-dir {patient.directory}"
        yield wrong("ledger", f"there is no ledger in {patient.directory}", mend)
        return
    seen = patient.ledger
    yield ok("ledger", f"{number_of(seen.next_seq, 'entry', 'entries')}; `sidecar verify` says whether that is true")


def check_clock(patient: Patient) -> Iterator[Finding]:
    """The kernel's word on its clock, and the clock against the ledger's last entry."""
    error = kernel_clock_error_ms()
    if patient.founded:
        ahead = patient.ledger.last_wall / 1e9 - time.time()
        if ahead > 1.0:
            mend = "set the clock right before the sidecar starts"
            yield wrong("clock", f"the ledger's last entry is {ahead:.0f} s ahead of this clock", mend)
            return
    if error == UNKNOWN_CLOCK_ERROR:
        mend = "run a time service such as chrony; entries say that their clock's error is unknown"
        yield careful("clock", "the kernel does not know how wrong its clock is (adjtimex)", mend)
    else:
        yield ok("clock", f"synchronised to {error} ms, as the kernel says, and not behind the ledger's last entry")


def check_collector(patient: Patient) -> Iterator[Finding]:
    """Its reach, its clock against ours, and whether it holds what the ledger does."""
    if not patient.config.collector_address:
        yield skipped("collector", "none is set")
        return
    if not patient.founded:
        yield skipped("collector", "there is no ledger yet that it could know")
        return
    shipping = Shipping(patient.config)
    try:
        before = time.time()
        ack = shipping.acknowledged(patient.ledger.chain)
        yield from _held(patient, ack, before, time.time())
    except CollectorUnavailable as error:
        yield wrong("collector", str(error), "see that it runs, and that network and certificates let the sidecar in")
    except CollectorRefused as error:
        if error.code == "UNKNOWN_CHAIN":
            yield careful("collector", "it does not know this chain yet", "start the sidecar, which enrols it")
        else:
            yield wrong("collector", f"it refuses: {error}", "see the collector's alarms: sidecar collector status")
    finally:
        shipping.let_go()


def _held(patient: Patient, ack: Ack, before: float, after: float) -> Iterator[Finding]:
    apart = max(ack.time / 1e9 - after, before - ack.time / 1e9, 0.0)
    if apart > _APART:
        yield wrong("clock", f"this clock and the collector's are {apart:.0f} s apart", "set both by a time service")
    if ack.seq is None:
        yield ok("collector", "it answers, and holds no entry of this chain yet")
        return
    ours = glance_at(patient.directory, seq=ack.seq)
    if ours.next_seq <= ack.seq:
        mend = "bring back the newest copy, or have the authority accept the loss: sidecar loss"
        yield wrong("collector", f"it holds entry {ack.seq}, and the ledger ends before: an old copy", mend)
    elif ours.leaf and ours.leaf != ack.leaf:
        mend = "keep both, find out which sidecar wrote the other, and start a new chain"
        yield wrong("collector", f"it holds another entry {ack.seq} than the ledger: a clone, or a fork", mend)
    else:
        yield ok("collector", f"it answers, and acknowledged entry {ack.seq} of {ours.next_seq}")


def check_anchors(patient: Patient) -> Iterator[Finding]:
    """How blind one is: what no receipt beside the ledger covers."""
    if not patient.founded:
        yield skipped("anchors", "there is no ledger yet")
        return
    seen = patient.ledger
    decisions = number_of(seen.decisions, "decision is", "decisions are")
    said = f"{decisions} not anchored, of {number_of(seen.next_seq - seen.anchored, 'entry', 'entries')}"
    age = 0.0 if seen.waits_since is None else patient.now - seen.waits_since / 1e9
    if not patient.config.collector_address:
        yield careful("anchors", f"{said}: nothing is shipped", "set collector.address and collector.log_key")
    elif age > _LATE:
        mend = "see whether the sidecar runs and the collector answers; `sidecar collector status` has the log's side"
        yield wrong("anchors", f"{said}, the oldest for {age:.0f} s", mend)
    else:
        yield ok("anchors", said)
