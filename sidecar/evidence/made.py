"""A bundle that lacks only its documents, as those who write them are given it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sidecar.chain.timestamp import Timestamp
from sidecar.evidence.certificate import ExporterKey
from sidecar.verify import Source
from sidecar.verify.bundle_report import BundleReport
from sidecar.verify.case import Case
from sidecar.verify.container import Member

Content = bytes | Iterator[bytes]
"""A document, whole or in pieces."""


@dataclass(frozen=True, slots=True)
class Made:
    """The case, the verdict on it (by the exporter's own trust file, if one was given: ``trust`` is its SHA-256 in
    hex), its bytes and members, the digests of the files that are in it by now, and the key that certificates are
    signed with, if any. ``lean``: without events and entries.
    ``check_timestamp``: as the verdict used it. ``note`` takes what whoever exports should be told."""

    case: Case
    report: BundleReport
    bundle: Source
    members: Mapping[str, Member]
    digests: Callable[[], Mapping[str, str]] = dict
    key: ExporterKey | None = None
    trust: str | None = None
    lean: bool = False
    check_timestamp: Callable[[Timestamp], int] | None = None
    note: Callable[[str], object] = lambda _: None
