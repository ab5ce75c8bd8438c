"""A bundle that lacks only its documents, as those who write them are given it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sidecar.chain.timestamp import Timestamp
from sidecar.evidence.account import Account
from sidecar.evidence.certificate import ExporterKey
from sidecar.evidence.packed import Packed
from sidecar.verify import Source
from sidecar.verify.bundle_report import BundleReport
from sidecar.verify.case import Case
from sidecar.verify.container import Member

Content = bytes | Packed
"""A document, whole, or in a file of its own."""


@dataclass(frozen=True, slots=True)
class Made:
    """The case, the verdict on it (by the exporter's own trust file, if one was given: ``trust`` is its SHA-256 in
    hex), the account of its streams, its bytes and members, the digests of the files that are in it by now, and the
    key that certificates are signed with, if any.
    ``check_timestamp``: as the verdict used it. ``note`` takes what whoever exports should be told."""

    case: Case
    report: BundleReport
    account: Account
    bundle: Source
    members: Mapping[str, Member]
    digests: Callable[[], Mapping[str, str]] = dict
    key: ExporterKey | None = None
    trust: str | None = None
    check_timestamp: Callable[[Timestamp], int] | None = None
    note: Callable[[str], object] = lambda _: None
