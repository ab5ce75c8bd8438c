"""A timeline as CSV (RFC 4180), fit to be opened by a spreadsheet: no cell can be taken for a formula."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sidecar.chain.printable import plain

from . import rows, sentences
from .timeline import Row, Timeline

COLUMNS: Final = (
    "chain",
    "seq", "time", "kind", "gap", "said", "decision_id", "agent", "proof", "on_behalf_of", "action", "resource_type",
    "resource_id", "arguments", "context", "purpose", "effect", "enforced", "cause", "reasons", "obligations",
    "considered", "approvals", "executor", "outcome", "outcome_time", "outcome_by", "downstream_status", "response",
    "policy_revision", "policy_digest", "policy_commit", "policy_signer", "gaps",
)  # fmt: skip
_QUOTE: Final = '"'
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_CELL: Final = "(?:[A-Za-z0-9][A-Za-z0-9 _.:;/()@#+*-]*)?"
_HARMLESS: Final = re.compile(rf"{_CELL}(?:\n{_CELL})*").fullmatch
"""Cells, a line end between each two, of which none needs anything done: most of them, told in one look at a record."""
_SUSPECT: Final = frozenset((*_FORMULA, " ", "'", '"'))


def sheet(timelines: Sequence[Timeline]) -> Iterator[str]:
    """Its lines, a header first, each with its line end."""
    yield line(COLUMNS)
    for timeline in timelines:
        for row in timeline.rows:
            cells = {"chain": timeline.read["chain"], **_cells(row)}
            yield line(cells.get(column, "") for column in COLUMNS)


def line(cells: Iterable[object]) -> str:
    """One record, each cell made safe."""
    return record(["" if cell is None else str(cell) for cell in cells])


def record(texts: Sequence[str]) -> str:
    """As `line`, of cells that are texts already."""
    joined = "\n".join(texts)
    if joined.count("\n") >= len(texts) or not _HARMLESS(joined):
        texts = [_cell(safe(text)) for text in texts]
    return ",".join(texts) + "\r\n"


def _cell(text: str) -> str:
    return f'"{text.replace(_QUOTE, _QUOTE * 2)}"' if "," in text or _QUOTE in text else text


def safe(cell: object) -> str:
    """A cell's text in one line; what a spreadsheet might compute gets an apostrophe (OWASP, "CSV Injection")."""
    text = plain("" if cell is None else cell)
    return f"'{text}" if text[:1] in _SUSPECT and text.lstrip(" '\"").startswith(_FORMULA) else text


def _cells(row: Row) -> dict[str, object]:
    gap = "yes" if row.gap else ""
    told: dict[str, object] = {"seq": row.seq, "time": rows.at(row.wall_ns), "kind": row.kind}
    told |= {"gap": gap, "said": row.said}
    about = row.about
    if row.kind == "decision":
        return told | _decision(about)
    if row.kind == "outcome":
        return told | {"decision_id": about["decision_id"]} | _outcome([about["outcome"]])
    if row.kind == "policy":
        return told | {"policy_revision": about["revision"], "policy_digest": about["bundle_digest"]} | _source(about)
    if row.kind in ("approval", "refusal"):
        told["decision_id"] = about["decision_id"]
    return told


def _decision(about: Mapping[str, Any]) -> dict[str, object]:
    said = about["policy"]
    words: dict[str, list[str]] = {}
    for label, sentence in sentences.lines(Row("decision", 0, 0, "", about=dict(about))):
        words.setdefault(label, []).append(sentence)
    return {
        **{
            name: about[name]
            for name in ("decision_id", "action", "arguments", "context", "purpose", "effect", "cause")
        },
        "agent": about["agent"]["id"],
        "proof": about["agent"]["proof"],
        "on_behalf_of": " < ".join(giver["id"] for giver in reversed(about["on_behalf_of"])),
        "resource_type": about["resource"]["type"],
        "resource_id": about["resource"]["id"],
        "enforced": "yes" if about["enforced"] else "no",
        "reasons": "; ".join(words.get("because", ())),
        "obligations": "; ".join(words.get("obliged to", ())),
        "considered": "; ".join(words.get("instead", ())),
        "approvals": "; ".join([*words.get("approved by", ()), *words.get("approval", ())]),
        "executor": about["executor"],
        "policy_revision": said["revision"],
        "policy_digest": said["bundle_digest"],
        "gaps": "; ".join(about["gaps"]),
        **_source(said),
        **_outcome(about["outcomes"]),
    }


def _outcome(outcomes: list[Mapping[str, Any]]) -> dict[str, object]:
    return {
        "outcome": "; ".join(each["status"] for each in outcomes),
        "outcome_time": "; ".join(each["time"] for each in outcomes),
        "outcome_by": "; ".join(each["by"]["id"] for each in outcomes),
        "downstream_status": "; ".join(each["downstream_status"] for each in outcomes),
        "response": "; ".join(each["response"] or "" for each in outcomes),
    }


def _source(about: Mapping[str, Any]) -> dict[str, object]:
    return {
        "policy_commit": about["commit"]["id"] if about["commit"] else "",
        "policy_signer": about["signer"]["principal"] if about["signer"] else "",
    }
