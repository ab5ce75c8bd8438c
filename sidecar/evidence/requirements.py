"""What rules ask of records, and what a bundle has for it: for each, how to check it and what stays with the customer.

The provisions are paraphrased; their own text decides. Nothing here says that anybody complies with anything: whether a
rule applies, and whether what is here is enough, is for the reader's counsel and auditor.

The paraphrases were held against the words, as others reprint them, of the AI Act's articles (OJ L, 2024/1689, as
published; later amendments move when it applies), 45 CFR 164.312, 15 U.S.C. 7262, FINRA Rule 4511, and the AICPA's
criteria of 2017. Of 17 CFR 240.17a-4 as amended in 2022, (f)(2)(i) was read word by word; of (ii) and (iv) the words in
part, as quoted by others; (iii), (v) and (f)(3) only in summaries of law firms and of a chart of FINRA's, not in their
words; paragraphs (a) to (e) not at all. Nobody who gives legal advice has reviewed any of it.
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
            "High-risk AI systems technically allow events to be recorded automatically over their lifetime. So that "
            "their functioning can be traced as far as suits their purpose, the logs cover what is relevant for "
            "identifying situations of risk and substantial modifications, for post-market monitoring, and for the "
            "deployer's monitoring of operation."
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
            "Decide whether the system is high-risk, from when the article applies to it (Article 113) and which "
            "events are relevant; record what the agent does without asking the sidecar, and what its model does. "
            "Article 12(3) (remote biometric identification) lists data of its own: put it into arguments or context."
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
            "The bundle holds the logs of its window, sealed and signed; the custody section says who received and "
            "timestamped them, and when."
        ),
        check="First and last entry and seal of each chain; receipts and roll-calls with the trust file.",
        yours=(
            "Set and keep the retention period on the sidecar's disk and in the collector's storage; settle it "
            "against the law on personal data. Financial institutions keep the logs with the documentation that "
            "financial services law asks for (paragraph 2). A bundle is a copy and keeps nothing by itself."
        ),
    ),
    Requirement(
        provision="AI Act, Article 26(6)",
        asks=(
            "Deployers keep the logs that the high-risk system generates, as far as they control them, for a period "
            "that suits the purpose and at least six months, unless other Union or national law says otherwise, data "
            "protection above all; financial institutions with their documentation under financial services law."
        ),
        here="As for Article 19. An export for one agent can show that no entry with that agent's tag was left out.",
        check="As for Article 19; with the segments' tag keys also completeness for one agent.",
        yours="Know who is provider and who deployer of the system, and who of them holds which logs.",
    ),
    Requirement(
        provision="SOC 2, PI1.4 (Trust Services Criteria, AICPA)",
        asks=(
            "Policies and procedures make output available or deliver it completely, accurately and in time, according "
            "to specifications, to meet the entity's objectives."
        ),
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
            "Policies and procedures store inputs, items in processing and outputs completely, accurately and in time,"
            " according to system specifications, to meet the entity's objectives."
        ),
        here=(
            "Request and result are on disk before the decision is answered, an outcome before its report is; entries"
            " are numbered, chained by HMAC and sealed."
        ),
        check="sidecar verify with a custodian's key or a disclosure: every tag, link and root; receipts for the end.",
        yours=(
            "Protect storage and keys; operate backup and retention; give the auditor a trust file from another source."
        ),
    ),
    Requirement(
        provision="SOC 2, CC7.2",
        asks=(
            "System components and their operation are monitored for anomalies that point to malicious acts, natural "
            "disasters or errors that affect the entity's objectives; anomalies are analysed to tell whether they are "
            "security events."
        ),
        here=(
            "Refused requests, denials for want of a decision, refused policies, clock steps and unconfirmed starts "
            "are entries: counted in section 4, the first of each notable kind named in section 5, and all of them, "
            "unless the export was lean, in events.ocsf.jsonl for a SIEM."
        ),
        check="Statistics and notable decisions (sections 4 and 5); REJECTED, CLOCK and POLICY entries in entries.csv.",
        yours=(
            "Monitor them while they happen (metrics, the collector's alarms) and analyse them; a report comes "
            "afterwards."
        ),
    ),
    Requirement(
        provision="SOC 2, CC7.3",
        asks=(
            "Security events are evaluated for whether they could make or made the entity miss its objectives; if so, "
            "action is taken to prevent or address that."
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
            "Electronic records are kept for their period either with a complete time-stamped audit trail (every "
            "modification and deletion, when each was made, who made it if applicable, and what else is needed for "
            "authenticity and to re-create an original that was modified or deleted), or exclusively in a "
            "non-rewriteable, non-erasable format. The system verifies automatically that its processes of storing and "
            "retaining are complete and accurate; readily gives copies of records and audit trail in a human-readable "
            "and in a reasonably usable electronic format; where it applies, units of storage media are serialized and "
            "dated; and there is a backup system that meets the same requirements, or other redundancy. (The last two, "
            "and (f)(3) below, as summaries of the rule give them.)"
        ),
        here=(
            "No entry is modified: a change is a new entry, with its time and the key or name behind it. Erasure and "
            "pruning need the authority's signature and show; what they took away cannot be re-created from here. "
            "Readable (report, timeline) and electronic (streams, JSON, CSV) copies are in the bundle."
        ),
        check=(
            "sidecar verify: the verdict says REDACTED or PRUNED where something was taken out, and by what authority. "
            "It checks what was stored: whether the processes around it are complete, it cannot know."
        ),
        yours=(
            "Choose between storage that cannot be rewritten (Object Lock) and the audit-trail alternative with your "
            "counsel. Found the ledger with the retention profile sec-17a-4, under which nothing is erased and nothing "
            "pruned for six years; verify on a schedule; keep a backup system or other redundancy; be able to produce "
            "records and copies for examination at once, and have a designated executive officer or third party "
            "undertake to (paragraph (f)(3)); see to the periods of (a) to (e). The ledger is about agents' decisions, "
            "not your whole book of records."
        ),
    ),
    Requirement(
        provision="FINRA Rule 4511",
        asks=(
            "Members make and preserve books and records as FINRA's rules, the Exchange Act and its rules require: "
            "FINRA's for at least six years where no other period is set, and what FINRA's rules require to be made in"
            " a format and on media that comply with Rule 17a-4."
        ),
        here="As for 17a-4(f).",
        check="As for 17a-4(f).",
        yours="Say which entries are required records, and keep them for their period.",
    ),
    Requirement(
        provision="Sarbanes-Oxley Act, section 404 (15 U.S.C. 7262)",
        asks=(
            "Each annual report has management state its responsibility for internal control over financial reporting "
            "and assess its effectiveness at the year's end; except for emerging growth companies and smaller filers, "
            "the auditor attests to the assessment."
        ),
        here=(
            "Material on one control in operation: which agent was let do what to which resource, by which policy and,"
            " where its commit was signed, by whose signature; approvals under registered keys."
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
            "Hardware, software or procedural mechanisms record and examine activity in information systems that "
            "contain or use electronic protected health information."
        ),
        here=(
            "Every request of an agent that asks the sidecar before it touches such a system, allowed or not, with "
            "who asked and how that was proved. Recording is here, examining is not."
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
            "Policies and procedures protect electronic protected health information from improper alteration or "
            "destruction; electronic mechanisms corroborate that it was not altered or destroyed in an unauthorized "
            "manner (addressable)."
        ),
        here=(
            "For what the ledger itself holds: HMAC chain, seals, signatures, receipts. Personal fields can be sealed"
            " and erased."
        ),
        check="sidecar verify, with key, trust file and receipts.",
        yours=(
            "Protect the health records themselves: this is about the record of decisions on them. Keep protected "
            "health information out of plain fields, by configuration."
        ),
    ),
)
