"""A timeline's rows in a person's words: pairs of a label and a sentence, for terminal, page and report alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sidecar.chain.printable import number_of, to_milliseconds, to_seconds
from sidecar.chain.strictjson import dumps

from .timeline import Row

Lines = Iterator[tuple[str, str]]
About = Mapping[str, Any]


def lines(row: Row) -> Lines:
    """What there is to say of a row beyond its own sentence: label and words, in the order in which one asks."""
    if row.kind == "decision":
        yield from _decision(row.about)
    elif row.kind == "outcome":
        yield "outcome", _outcome(row.about["outcome"])
    elif row.kind == "approval":
        yield "approval", _approval(row.about["approval"])
    elif row.kind == "policy":
        yield "policy", _policy_source(row.about)
    elif row.kind == "refusal" and row.about["principal"]:
        yield "sent by", row.about["principal"]


def _decision(about: About) -> Lines:
    yield from _question(about)
    yield from _answer(about)
    yield from _approvals(about)
    yield from _what_came_of_it(about)
    for gap in about["gaps"]:
        yield "GAP", gap


def _question(about: About) -> Lines:
    yield "asked by", principal(about["agent"])
    if about["door"]:
        yield "through", _door(about["door"])
    for giver in reversed(about["on_behalf_of"]):
        yield "on behalf of", _behalf(giver)
    for label, text in (
        ("purpose", about["purpose"]),
        ("arguments", about["arguments"]),
        ("context", about["context"]),
    ):
        if text:
            yield label, text
    yield from _sealed(about)


def _answer(about: About) -> Lines:
    for number, reason in enumerate(about["reasons"]):
        sealed = f"/reasons/{number}/message" in about["sealed"]
        yield "because", f"{'words that are sealed' if sealed else reason['message'] or 'no words'} ({reason['code']})"
    yield "policy", _judged_by(about)
    for obligation in about["obligations"]:
        yield "obliged to", f"{obligation['kind']} {dumps(obligation['parameters']).decode()}"
    for other in about["considered"]:
        yield "instead", _considered(other)


def _approvals(about: About) -> Lines:
    if about["asked_under"]:
        yield "approval", f"asked under the decision at entry {about['asked_under']['decision_seq']}"
        for each in about["asked_under"]["approvals"]:
            by = f"{each['by']['id']}{_roles(each['by']['roles'])}"
            yield "approved by", f"{by}, who signed it at {to_seconds(each['time'])} (entry {each['seq']})"
    if about["waits_for"]:
        terms = about["waits_for"]
        roles = f" with the role {' or '.join(terms['roles'])}" if terms["roles"] else ""
        yield "waits for", f"{terms['count']} of the approvers{roles}, until {to_seconds(terms['expires'])}"
    for each in about["approvals"]:
        yield "approval", _approval(each)
    for each in about["asked_again"]:
        yield "asked again", f"at {to_milliseconds(each['time'])}: {each['effect']} (entry {each['seq']})"


def _what_came_of_it(about: About) -> Lines:
    if about["executor"]:
        until = f", under a permit until {to_seconds(about['permit_until'])}" if about["permit_until"] else ""
        yield "executor", f"{about['executor']}{until}"
    for each in about["refused"]:
        by = each["principal"] or "nobody proved"
        yield "refused", f"{each['call']} by {by}: {each['cause']} (entry {each['seq']})"
    for each in about["outcomes"]:
        yield "outcome", _outcome(each)
        if each["response"]:
            yield "answered", each["response"]
        yield from _sealed(each)
    if not about["outcomes"] and about["effect"] != "ALLOW" and about["enforced"]:
        yield "outcome", "not permitted, so nothing is reported of it"


def _sealed(about: About) -> Lines:
    if about["sealed"]:
        yield "sealed", f"{number_of(len(about['sealed']), 'personal value')}, not shown: {', '.join(about['sealed'])}"


def allowed(act: About) -> str:
    """What the authority allowed to be taken away, or lost."""
    return f"The authority allowed at {to_seconds(act['time'])}: {act['act']}: {act['reason']}"


def principal(told: About) -> str:
    """Who, with what it was proved by."""
    who = f"{told['id']}{_roles(told['roles'])}"
    if told["proof"] == "asserted":
        return f"{who}, a name that is merely asserted"
    if told["key"] is None:
        spiffe = f" as {told['spiffe_id']}" if told["spiffe_id"] else ""
        if told["gateway"] is not None:
            return f"{who}, named by the gateway {told['gateway']}{spiffe}"
        return f"{who}, proved by {told['proof']} in transit only{spiffe}"
    signed = f" at {to_milliseconds(told['signed_at'])}" if told["signed_at"] else ""
    return f"{who}, who signed it{signed} with key {told['key'][:16]}…"


def _door(door: About) -> str:
    details = {name: value for name, value in door.items() if name != "kind"}
    return f"the door {door['kind']}" + (f" {dumps(details).decode()}" if details else "")


def _judged_by(about: About) -> str:
    said, impure = about["policy"], about["impure_builtins"]
    parts = [f"revision {said['revision'] or 'unknown'}, {said['engine']} {said['entrypoint']}"]
    if said["entry"] is not None:
        parts.append(f"put in force by entry {said['entry']}")
    if said["commit"]:
        parts.append(f"commit {said['commit']['id'][:12]}")
    if said["signer"]:
        parts.append(f"signed by {said['signer']['principal']}")
    if impure:
        parts.append(f"NOT exactly re-runnable: uses {', '.join(impure)}")
    return "; ".join(parts)


def _policy_source(about: About) -> str:
    parts = []
    if about["commit"]:
        commit = about["commit"]
        parts.append(f"commit {commit['id'][:12]} of {commit['committed']} by {commit['author']}: {commit['subject']}")
    if about["signer"]:
        parts.append(f"signed by {about['signer']['principal']} with {about['signer']['key']}")
    elif about["commit"]:
        parts.append("not signed")
    if about["source"] and not about["commit"]:
        parts.append(f"from {about['source']['kind']} {about['source']['place']}")
    failed = [step for step in about["gate"] if step["outcome"] == "failed"]
    if failed:
        parts.append(f"refused by the gate at {failed[0]['step']}")
    return "; ".join(parts)


def _considered(other: About) -> str:
    because = "; ".join(reason["message"] for reason in other["reasons"]) or "no reason given"
    target = f"{other['resource']['type']}:{other['resource']['id']}"
    return f"{other['action']} {target} {other['arguments']}".rstrip() + f" would be {other['effect']}: {because}"


def _behalf(giver: About) -> str:
    who = f"{giver['id']} ({giver['kind']}{_roles(giver['roles'])})"
    if giver["to"] is None:
        return f"{who}; the leave cannot be read"
    leave = f"{', '.join(giver['actions'])} on {', '.join(giver['resources'])}"
    return f"{who}, who gave {giver['to']} leave for {leave} until {to_seconds(giver['not_after'])}"


def _approval(told: About) -> str:
    done = "approved" if told["verdict"] == "approve" else "rejected"
    comment = f": “{told['comment']}”" if told["comment"] else ""
    return f"{done} at {to_milliseconds(told['time'])} by {principal(told['by'])}{comment} (entry {told['seq']})"


def _outcome(told: About) -> str:
    took = _took(int(told["duration_ns"])) if told["duration_ns"] else ""
    status = f", downstream status {told['downstream_status']}" if told["downstream_status"] else ""
    kept = f", of the response only the digest {told['response_digest'][:16]}…" if told["response_digest"] else ""
    permit = ", under its permit" if told["under_permit"] else ""
    reported = f"reported at {to_milliseconds(told['time'])} by {principal(told['by'])} (entry {told['seq']})"
    return f"{told['status']}{took}{status}{permit}{kept}; {reported}"


def _took(nanoseconds: int) -> str:
    return " in less than 0.1 ms" if 0 <= nanoseconds < 100_000 else f" in {nanoseconds / 1e6:,.1f} ms"


def _roles(roles: Sequence[str]) -> str:
    return f" with the role{'s' * (len(roles) > 1)} {', '.join(roles)}" if roles else ""
