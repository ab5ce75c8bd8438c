"""What rules ask of records, and what a bundle has for it: for each, how to check it and what stays with the customer.

The provisions are paraphrased; their own text decides. Nothing here says that anybody complies with anything: whether a
rule applies, and whether what is here is enough, is for the reader's counsel and auditor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Requirement:
    """``asks``: the provision in our words; ``here``: what of the bundle bears on it; ``check``: how; ``yours``: what
    the customer must still do."""

    provision: str
    asks: str
    here: str
    check: str
    yours: str


REQUIREMENTS: Final = (
    Requirement(
        provision="Regulation (EU) 2024/1689 (AI Act), Article 12(1) and (2)",
        asks=(
            "A high-risk AI system can record events automatically over its lifetime, so that situations of risk and "
            "substantial modifications can be identified, the market monitored after placing on it, and the system's "
            "operation monitored."
        ),
        here=(
            "Each decision on an agent's action is recorded before it is answered: input, policy and revision, "
            "result, reasons, alternatives, approvals, outcome; also each change of policy and registry, refusals, "
            "starts, stops and clock steps."
        ),
        check=(
            "sidecar verify, then the timeline and the statements: gaps are named there. Entries are numbered without"
            " holes."
        ),
        yours=(
            "Decide whether the system is high-risk and which events are relevant; record what the agent does without"
            " asking the sidecar. Article 12(3) (remote biometric identification) lists data of its own: put it into "
            "arguments or context."
        ),
    ),
    Requirement(
        provision="AI Act, Article 19(1)",
        asks=(
            "Providers keep the logs that their high-risk systems generate, as far as they control them, for a period"
            " that suits the purpose and at least six months, unless other Union or national law says otherwise, data"
            " protection above all."
        ),
        here=(
            "The bundle holds the logs of its window, sealed and signed; the custody section says since when they are"
            " in others' hands."
        ),
        check="First and last entry and seal of each chain; receipts and roll-calls with the trust file.",
        yours=(
            "Set and keep the retention period on the sidecar's disk and in the collector's storage; settle it "
            "against the law on personal data. A bundle is a copy and keeps nothing by itself."
        ),
    ),
    Requirement(
        provision="AI Act, Article 26(6)",
        asks=(
            "Deployers keep the logs that the high-risk system generates, as far as they control them, for a period "
            "that suits the purpose and at least six months, unless other Union or national law says otherwise."
        ),
        here="As for Article 19; an export for one agent shows that nothing of that agent was left out.",
        check="As for Article 19; with the segments' tag keys also completeness for one agent.",
        yours="Know who is provider and who deployer of the system, and who of them holds which logs.",
    ),
    Requirement(
        provision="SOC 2, PI1.4 (Trust Services Criteria, AICPA)",
        asks="Policies and procedures deliver output completely, accurately and in time, according to specifications.",
        here=(
            "Each answer with the policy revision that gave it and the time it took; outcomes as executors report "
            "them; allows without an outcome are named."
        ),
        check=(
            "sidecar replay asks the archived policy again and lists every decision that does not come out as recorded."
        ),
        yours="Specify what the output must be, review the gaps and mismatches, and keep the evidence that you did.",
    ),
    Requirement(
        provision="SOC 2, PI1.5",
        asks=(
            "Policies and procedures store inputs, items in processing and outputs completely, accurately and in time."
        ),
        here=(
            "Input, result and outcome are durable before an answer leaves; entries are numbered, chained by HMAC and"
            " sealed."
        ),
        check="sidecar verify with a custodian's key or a disclosure: every tag, link and root; receipts for the end.",
        yours=(
            "Protect storage and keys; operate backup and retention; give the auditor a trust file from another source."
        ),
    ),
    Requirement(
        provision="SOC 2, CC7.2",
        asks=(
            "System components are monitored for anomalies that point to malicious acts, disasters or errors, and "
            "these are analysed to tell whether they are security events."
        ),
        here=(
            "Refused requests, denials for want of a decision, refused policies, clock steps and unconfirmed starts "
            "are entries; they stand under notable decisions and in events.ocsf.jsonl for a SIEM."
        ),
        check="Statistics and notable decisions below; REJECTED, CLOCK and POLICY entries in entries.csv.",
        yours=(
            "Monitor them while they happen (metrics, the collector's alarms) and analyse them; a report comes "
            "afterwards."
        ),
    ),
    Requirement(
        provision="SOC 2, CC7.3",
        asks=(
            "Security events are evaluated for whether they could make or made the entity miss its objectives, and "
            "acted upon."
        ),
        here=(
            "The timeline gives what was attempted, decided, approved and done in order, as material for that "
            "evaluation."
        ),
        check="Follow a decision by its id through timeline, entries and stream.",
        yours="Evaluate and act, and record that elsewhere: the ledger does not know what you concluded.",
    ),
    Requirement(
        provision="SEC, 17 CFR 240.17a-4(f)(2)",
        asks=(
            "Electronic records are kept either with a complete time-stamped audit trail of every creation, "
            "modification and deletion, with who did it, so that the original can be re-created, or in a "
            "non-rewriteable, non-erasable form; the system verifies completeness and accuracy of its storing by "
            "itself, and readily gives copies in a human-readable and a reasonably usable electronic format; there is"
            " a redundant system."
        ),
        here=(
            "Entries are never modified: what changes is a new entry. Erasure and pruning need the authority's "
            "signature and show. Readable (report, timeline) and electronic (streams, JSON, CSV) copies are here."
        ),
        check=(
            "sidecar verify: the verdict says REDACTED or PRUNED where something was taken out, and by what authority."
        ),
        yours=(
            "Use storage with Object Lock or the audit-trail alternative as your counsel decides, a retention profile"
            " that turns erasure off, redundancy, a designated executive officer or third party with access and its "
            "undertaking (paragraph (f)(3)), and the periods of (a) to (e). The ledger is about agents' decisions, "
            "not your whole book of records."
        ),
    ),
    Requirement(
        provision="FINRA Rule 4511",
        asks=(
            "Members make and preserve books and records as the rules require, for at least six years where no other "
            "period is set, in a format and on media that comply with Rule 17a-4."
        ),
        here="As for 17a-4(f).",
        check="As for 17a-4(f).",
        yours="Say which entries are required records, and keep them for their period.",
    ),
    Requirement(
        provision="Sarbanes-Oxley Act, section 404 (15 U.S.C. 7262)",
        asks=(
            "Management assesses and reports on the internal control over financial reporting each year; for many "
            "issuers the auditor attests to that."
        ),
        here=(
            "Evidence of a control in operation: which agent was let do what to which account by which approved "
            "policy, signed by whom; approvals by named people with their keys."
        ),
        check="Policies with commit and signer; approvals in the timeline; sidecar replay for the rule as it was.",
        yours=(
            "Identify the control, its owner and its risk; test its design and operation; this report is one exhibit,"
            " not the assessment."
        ),
    ),
    Requirement(
        provision="HIPAA Security Rule, 45 CFR 164.312(b)",
        asks=(
            "Mechanisms record and examine activity in information systems that contain or use electronic protected "
            "health information."
        ),
        here=(
            "Every request of an agent that asks the sidecar before it touches such a system, allowed or not, with "
            "who asked."
        ),
        check="Timeline and entries.csv by agent, resource and time.",
        yours=(
            "Put the sidecar before every such system, examine the records regularly, and log access that does not "
            "pass it."
        ),
    ),
    Requirement(
        provision="HIPAA Security Rule, 45 CFR 164.312(c)(1) and (2)",
        asks=(
            "Electronic protected health information is protected from improper alteration or destruction; mechanisms"
            " corroborate that it was not altered or destroyed without authority."
        ),
        here=(
            "For what the ledger itself holds: HMAC chain, seals, signatures, receipts. Personal fields can be sealed"
            " and erased."
        ),
        check="sidecar verify, with key, trust file and receipts.",
        yours=(
            "Protect the health records themselves: this is about the record of decisions. Keep protected health "
            "information out of plain fields, by configuration."
        ),
    ),
)
