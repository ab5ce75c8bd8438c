"""The index's tables, as numbered steps. A step that was released is never changed; a new one follows it.

``{bytes}`` and ``{serial}`` are the two types that databases spell differently.
"""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE tip (one INTEGER PRIMARY KEY CHECK (one = 1), number BIGINT NOT NULL, size BIGINT NOT NULL, "
        "checkpoint {bytes} NOT NULL)",
        "CREATE TABLE position (leaf {bytes} PRIMARY KEY, place BIGINT NOT NULL)",
        "CREATE TABLE chain (chain {bytes} PRIMARY KEY, version BIGINT NOT NULL, line TEXT NOT NULL)",
        "CREATE TABLE alarm (number {serial}, time BIGINT NOT NULL, chain {bytes} NOT NULL, kind TEXT NOT NULL, "
        "detail TEXT NOT NULL, evidence TEXT NOT NULL)",
    ),
)
