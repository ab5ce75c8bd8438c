"""What the report says, as the data its template shows: from case, verdict, the streams' abstracts, receipts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain.printable import number_of, to_seconds
from sidecar.verify.bundle_report import BundleReport
from sidecar.verify.case import Case

from . import rows
from .abstract import NOTABLE, Abstract
from .report import mono
from .requirements import REQUIREMENTS
from .timeline import Timeline

_FINDINGS: Final = 40
_STATEMENTS: Final = 60
_POLICIES: Final = 30
_AGENTS: Final = 30
_EXTRACT: Final = 60
_FILES: Final = 200
_EPOCHS: Final = 10
_CHAINS: Final = 50

_MEANS: Final = {
    "OK": "Every check holds, and a log that was pinned vouches for it up to the end of the window.",
    "REDACTED": "Every check holds; personal values were erased by the authority.",
    "PRUNED": "Every check holds; payloads were taken out by the authority.",
    "UNANCHORED": "All that was checked holds, but nobody outside vouches for all of it.",
    "INCOMPLETE": "Something that must be there is missing.",
    "CLOCK": "A clock moved and no entry says so.",
    "FORK": "One place was signed twice, differently.",
    "TAMPERED": "Something was changed.",
    "MALFORMED": "Something is not of the form it must have.",
}


_PROOFS: Final = {
    "asserted": "a name that is merely asserted",
    "mtls": "a certificate, in transit",
    "signature": "their signature",
    "signature+mtls": "their signature and a certificate",
    "gateway": "the word of a gateway",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What a report is made of. ``certificate``: its digest in hex and the key's id, or None; ``trust``: digest of the
    trust file that the verdict was found with, or None; ``files``: SHA-256 by name; ``timelines`` None: too long."""

    case: Case
    report: BundleReport
    abstracts: Sequence[Abstract]
    custody: Sequence[Mapping[str, Any]]
    certificate: tuple[str, str] | None
    trust: str | None
    files: Mapping[str, str]
    timelines: Sequence[Timeline] | None


def told(parts: Parts) -> dict[str, Any]:
    """The template's data."""
    case = parts.case
    name = f"Evidence report{f': {case.name}' if case.name else ''}"
    window = f"{to_seconds(rows.at(case.start))} to {to_seconds(rows.at(case.end))}"
    return {
        "title": name,
        "description": f"What {number_of(len(case.claims), 'ledger')} recorded from {window}",
        "exporter": case.exporter,
        "exported": f"exported {to_seconds(rows.at(case.exported))}",
        "verdict": {"word": parts.report.verdict.name, "means": _MEANS[parts.report.verdict.name]},
        "summary": _summary(parts, window),
        "scope": _scope(case),
        "chains": [_chain(each, parts.abstracts) for each in case.claims],
        **_method(parts),
        "certificate": _certificate(parts),
        "custody": [_custody(each) for each in parts.custody[:_CHAINS]],
        "custody_note": _more_chains(len(parts.custody)),
        **_figures(parts.abstracts),
        "notable": _notable(parts.abstracts),
        **_extract(parts.timelines),
        "mapping_note": (
            "What some rules ask of records, in our words, and what of this bundle bears on it. The provisions' own "
            "text decides. Nothing here says that anybody complies with anything: whether a rule applies, and whether "
            "what is here is enough, is for your counsel and your auditor."
        ),
        "requirements": [
            {"provision": r.provision, "asks": r.asks, "here": r.here, "check": r.check, "yours": r.yours}
            for r in REQUIREMENTS
        ],
        **_files(parts.files),
    }


def _summary(parts: Parts, window: str) -> list[list[Any]]:
    case = parts.case
    agents = "all" if case.agents is None else ", ".join(case.agents[:20]) + ("…" if len(case.agents) > 20 else "")
    certificate = mono(parts.certificate[0]) if parts.certificate else "none: the exporter gave no key"
    return [
        ["Case", case.name or "without a name"],
        ["Window", window],
        ["Agents", agents],
        ["Profile", "external: values and openings are left out" if case.profile == "external" else "full"],
        [
            "Exported",
            f"{to_seconds(rows.at(case.exported))} by {case.exporter}, from {case.source[0]} {case.source[1]}",
        ],
        ["Entries", f"{parts.report.entries:,} in {number_of(parts.report.segments, 'segment')}"],
        ["Certificate of custody, SHA-256", certificate],
        ["Trust file, SHA-256", mono(parts.trust) if parts.trust else "none was used"],
    ]


def _scope(case: Case) -> str:
    what = "everything that these chains recorded" if case.agents is None else (
        "what these chains recorded of the agents named; entries of others are there without their content, so that "
        "the chains can be checked whole"
    )  # fmt: skip
    return (
        f"The bundle holds {what} in the window. The window goes by the sidecar's own seals: whole segments are in it. "
        "Each chain is one ledger of one sidecar."
    )


def _chain(claim: Any, abstracts: Sequence[Abstract]) -> list[Any]:
    found = next((each for each in abstracts if each.chain == claim.chain_id.hex()), None)
    first, last = (None, None) if found is None else (found.first, found.last)
    segments = f"{claim.first_segment} to {claim.last_segment}"
    return [mono(claim.chain_id.hex()[:16] + "…"), segments, f"{claim.entries:,}", _place(first), _place(last)]


def _place(header: Any) -> str:
    return "none" if header is None else f"{header.seq} at {to_seconds(rows.at(header.wall_ns))}"


def _method(parts: Parts) -> dict[str, Any]:
    report, case = parts.report, parts.case
    given = "the trust file named above" if parts.trust else "no trust file, so that no log is believed"
    findings = [
        [finding.verdict.name, _where(chain, finding.segment, finding.seq), finding.reason]
        for chain, finding in report.findings[:_FINDINGS]
    ]
    left = report.findings_total - len(findings)
    return {
        "method": (
            "The streams of this bundle were copied from the source entry by entry, then judged by the exporter's own "
            f"verifier as anybody's would, with {given}. What the verifier proves depends on what it is given: without "
            "a key that the bytes fit the signatures, with a custodian's key or a disclosure also the origin of each "
            "HMAC, with receipts and a trust file also that nobody rewrote it since."
        ),
        "claim": report.claim,
        "commands": [
            "sidecar verify case.zip --trust trust.json",
            "python verify.py verify case.zip --trust trust.json    (a verify.py from elsewhere than the bundle)",
            "sidecar replay case.zip     sidecar timeline case.zip --agent ID",
        ],
        "findings": findings,
        "findings_more": f"And {number_of(left, 'more finding')}; the verifier lists all." if left > 0 else "",
        "checked": list(report.checked[:_STATEMENTS]),
        "not_checked": list(report.not_checked[:_STATEMENTS]),
        "statements": [_statement(each) for each in case.statements[:_STATEMENTS]],
        "limits": [
            "This report is not judged by any verifier: what it says is true where the streams say it.",
            "The ledger holds what agents asked the sidecar and what was reported back. What an agent did without "
            "asking, and whether a report is true, it cannot know.",
            "Times are those of the sidecar's clock. A time is evidence as an interval: not before the last verified "
            "checkpoint before it, not after the receipt or timestamp after it.",
            "It is no legal advice, and no claim that any law, rule or standard is complied with.",
        ],
    }


def _where(chain: bytes | None, segment: int | None, seq: int | None) -> str:
    parts = [f"chain {chain.hex()[:8]}…" if chain is not None else "bundle"]
    parts += [f"segment {segment}"] if segment is not None else []
    parts += [f"entry {seq}"] if seq is not None else []
    return ", ".join(parts)


def _statement(each: Any) -> str:
    return each.text if each.chain is None else f"Chain {each.chain.hex()[:8]}…: {each.text}"


def _certificate(parts: Parts) -> list[list[Any]]:
    if parts.certificate is None:
        return [
            ["Certificate", "none: the exporter gave no key, so nobody signs for the files of this bundle together"]
        ]
    digest, key = parts.certificate
    return [
        ["File", "data/certificate.dsse.json: an in-toto Statement in a DSSE envelope"],
        ["SHA-256", mono(digest)],
        ["Covers", "every file of the bundle but itself and this report; signed by the exporter"],
        ["Exporter's key", mono(key)],
        ["Check it", "with any DSSE verifier and the exporter's public key, which you have from another source"],
    ]


def _custody(chain: Mapping[str, Any]) -> dict[str, Any]:
    sealed, produced = chain["sealed"], chain["produced"][-_EPOCHS:]
    runs = [f"run {each['epoch']} since {to_seconds(each['time'])} ({each['software']})" for each in produced]
    keys = [f"{each['name']} ({each['kem']}, {each['spki'][:16]}…)" for each in chain["custodians"]]
    told: list[list[Any]] = [
        ["Chain", mono(chain["chain"])],
        ["Produced by", mono(f"identity key {chain['identity'] or 'unknown: GENESIS is not here'}")],
        ["Runs", "; ".join(runs) or "none starts in this window"],
        ["Sealed", f"{number_of(sealed['segments'], 'segment')}{_when(sealed)}; each segment has a key of its own"],
        ["Custodians", "; ".join(keys) or "none: nobody can check HMACs"],
        ["Authority", mono(chain["authority"]) if chain["authority"] else "none: nothing may be erased or pruned"],
    ]
    if sealed["crashed"]:
        told.append(["After a crash", f"sealed by the run after it: {', '.join(map(str, sealed['crashed'][:20]))}"])
    told += [["Allowed", f"{each['act']} at {to_seconds(each['time'])}: {each['reason']}"] for each in chain["allowed"]]
    told += [each for log in chain["received"] for each in _received(log)] or [
        ["Received by", "nobody: there is no receipt of a log"]
    ]
    told += [["Timestamped", _stamp(each)] for each in chain["timestamped"][:_EPOCHS]] or [
        ["Timestamped", "no: there is no timestamp of a checkpoint"]
    ]
    return {"title": f"Chain {chain['chain'][:16]}…", "rows": told}


def _when(sealed: Mapping[str, Any]) -> str:
    first, last = sealed["first"], sealed["last"]
    if sealed["segments"] == 1 and last:
        return f" at {to_seconds(last)}"
    return f" from {to_seconds(first)} to {to_seconds(last)}" if first and last else ""


def _received(log: Mapping[str, Any]) -> list[list[str]]:
    roll_call = f"; last roll-call {to_seconds(log['roll_call'])}" if log["roll_call"] else ""
    receipts = f"{number_of(log['receipts'], 'receipt')}, tree of {log['size']:,}{roll_call}"
    cosigned = [["Cosigned by", ", ".join(log["cosigned_by"])]] if log["cosigned_by"] else []
    return [["Received by", f"log {log['log']} (key {log['key']}): {receipts}"], *cosigned]


def _more_chains(count: int) -> str:
    return f"Of {count:,} chains the first {_CHAINS} are told here; the certificate has all." if count > _CHAINS else ""


def _stamp(each: Mapping[str, Any]) -> str:
    when = (
        f"at {to_seconds(each['time'])}" if each["time"] else "at a time that was not checked: no root of its authority"
    )
    return f"checkpoint of {each['log']} at size {each['size']:,}, {when}"


def _figures(abstracts: Sequence[Abstract]) -> dict[str, Any]:
    def total(member: str) -> Counter[str]:
        return sum((getattr(each, member) for each in abstracts), Counter[str]())

    statistics: list[list[str]] = []
    for label, member in (
        ("Entries: {}", "types"), ("Decisions: {}", "effects"), ("Decisions of agents known by {}", "proofs"),
        ("Denied for want of a decision: {}", "causes"), ("Outcomes: {}", "statuses"),
    ):  # fmt: skip
        named = _PROOFS if member == "proofs" else {}
        counted = sorted(total(member).items())
        statistics += [[label.format(named.get(name, name)), f"{count:,}"] for name, count in counted]
    for label, number in (
        ("Requests refused", sum(each.refusals for each in abstracts)),
        ("Steps of the wall clock on record", sum(each.clock_steps for each in abstracts)),
        ("Personal values that are sealed", sum(each.sealed_values for each in abstracts)),
        ("Erasures", sum(each.erasures for each in abstracts)),
        ("Entries whose payload is not here", sum(each.without_payload for each in abstracts)),
    ):
        statistics.append([label, f"{number:,}"])
    policies = sorted((p for each in abstracts for p in each.policies.values()), key=lambda p: -p["decisions"])
    return {
        "statistics": statistics,
        "agents": [[name, f"{count:,}"] for name, count in total("agents").most_common(_AGENTS)],
        "policies": [_policy(each) for each in policies[:_POLICIES]],
    }


def _policy(known: Mapping[str, Any]) -> list[str]:
    commit = f"commit {known['commit']['id'][:12]} by {known['commit']['author']}" if known["commit"] else ""
    signer = f"signed by {known['signer']['principal']}" if known["signer"] else ("not signed" if commit else "")
    source = f"from {known['source']['kind']} {known['source']['place']}" if not commit else ""
    said = "; ".join(part for part in (commit, signer, source) if part)
    return [to_seconds(known["time"]), known["revision"] or "unknown", said, f"{known['decisions']:,}"]


def _notable(abstracts: Sequence[Abstract]) -> list[dict[str, Any]]:
    found = []
    several = len(abstracts) > 1
    for kind, title in NOTABLE.items():
        count = sum(each.notable_counts[kind] for each in abstracts)
        kept = [row for each in abstracts for row in each.notable.get(kind, ())]
        if count:
            more = f" ({count:,}, the first {len(kept)} of them)" if count > len(kept) else f" ({count:,})"
            shown = [
                [
                    to_seconds(row["time"]),
                    _entry(row["chain"], row["seq"], several),
                    row["agent"] or "–",
                    row["said"],
                ]
                for row in kept
            ]
            found.append({"title": title + more, "rows": shown})
    return found


def _extract(timelines: Sequence[Timeline] | None) -> dict[str, Any]:
    if timelines is None:
        note = "The timeline of this bundle is too long for a document: ask sidecar timeline for an agent and a window."
        return {"extract_note": note, "extract": []}
    every = [(each.read["chain"], row) for each in timelines for row in each.rows]
    shown = [(chain, row) for chain, row in every if row.gap or row.kind == "decision"][:_EXTRACT]
    several = len(timelines) > 1
    extent = f"{len(shown):,} of {number_of(len(every), 'row')}"
    note = f"The first attempts and gaps of the timeline, {extent}: timeline.json has all."
    return {"extract_note": note, "extract": [_row(row, _entry(chain, row.seq, several)) for chain, row in shown]}


def _entry(chain: str, seq: int, several: bool) -> str:
    """An entry's number; where there are several chains, with the beginning of its chain's id."""
    return f"{chain[:8]}…/{seq}" if several else str(seq)


def _row(row: Any, entry: str) -> list[str]:
    more = ""
    if row.kind == "decision":
        outcomes = [f"{each['status']}" for each in row.about["outcomes"]]
        behalf = [giver["id"] for giver in reversed(row.about["on_behalf_of"])]
        parts = [f"by {row.about['agent']['id']}", *(f"for {each}" for each in behalf), *outcomes, *row.about["gaps"]]
        more = f" ({'; '.join(parts)})"
    return [to_seconds(rows.at(row.wall_ns)), entry, f"{'GAP: ' if row.gap else ''}{row.said}{more}"]


def _files(files: Mapping[str, str]) -> dict[str, Any]:
    listed = sorted(files.items())
    left = len(listed) - _FILES
    more = f" {number_of(left, 'more is', 'more are')} in the manifest." if left > 0 else ""
    return {
        "files_note": f"Files of the bundle when this report was made; the report itself is in the manifest.{more}",
        "files": [[name, mono(digest)] for name, digest in listed[:_FILES]],
    }
