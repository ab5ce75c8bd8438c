"""Personal fields over the wire: nothing of them in what is stored, everything as before for who asks, until they are
erased; then nobody can have them, and what depended on them says so."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar import erasing
from sidecar.api.messages import request_of
from sidecar.chain import authority_note
from sidecar.chain.acts import Erase
from sidecar.chain.digests import Outcome, arguments_digest
from sidecar.chain.entry import EntryType, Header
from sidecar.config import Config
from sidecar.custody import FieldSealer, Pointers, SubjectKeys, openings_of
from sidecar.decide import Erasure, policy_inputs
from sidecar.errors import LedgerError, NotPermitted
from sidecar.ledger import Ledger, Options, SystemClock, ledger_stream, unopened
from sidecar.v1 import decision_pb2 as pb
from sidecar.verify import Evidence, Verdict, verify_stream
from tests.api.desks import PEOPLE, Desk, desk
from tests.api.running import found, judged, wrap
from tests.traces import traces

AUTHORITY = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
MAIL, NAME, IBAN, CITY = "ann.quux@example.org", "Ann Sörensen", "DE75512108001245126199", "Sörby-under-Test"
POINTERS = Pointers(
    "/arguments/customer", ("/arguments/email", "/context/who/name", "/purpose", "/result/score", "/response/address")
)
ARGUMENTS = f'{{"customer": "c-4711", "email":"{MAIL}" , "free": "write to {MAIL} now", "amount":9000}}'.encode()
KEY = "8f5f9d1c0a7b4e6d9c2b1a0f8e7d6c5b"
ASKED: dict[str, Any] = {
    "arguments": ARGUMENTS, "context": json.dumps({"who": {"name": NAME, "iban": IBAN}}).encode(),
    "purpose": f"a letter to {NAME}", "idempotency_key": KEY,
}  # fmt: skip
SECRETS = (MAIL, NAME, "c-4711", KEY, "12.625")
Story = Callable[[Desk, "Vault"], Awaitable[None]]


class Vault:
    """The keys of a desk's ledger, and an authority who lets them be destroyed."""

    def __init__(self, d: Desk, place: Path) -> None:
        self.ledger, self.chain_id = d.up.ledger, d.up.ledger.position().chain_id
        self.keys = SubjectKeys.open(place, self.chain_id)
        self.erasure, self.desk = Erasure(self.ledger, self.keys), d
        self.erasure.settle()
        self.ledger.seal_with(FieldSealer(POINTERS, self.keys, self.chain_id))

    def grant(self, who: str = "c-4711", key: Ed25519PrivateKey = AUTHORITY) -> bytes:
        subject = self.keys.named(json.dumps(who).encode())
        assert subject is not None
        return authority_note.compose(Erase(self.chain_id, subject, "ticket 12"), time.time_ns(), key)

    async def erase(self, who: str = "c-4711") -> int:
        seq = await asyncio.to_thread(self.erasure.apply, self.grant(who))
        self.desk.up.path.approvals.look_again()
        return seq

    def stored(self, seq: int) -> str:
        """The payload as it is stored, in every spelling that JSON has for it."""
        raw = self.ledger.entry(seq).payload
        return raw.decode() + json.dumps(json.loads(raw)) + json.dumps(json.loads(raw), ensure_ascii=False)


def policy(document: dict[str, Any]) -> object:
    """Copies what is personal into everything that it answers."""
    given = document["arguments"]
    mail, approved = given.get("email", "nobody"), bool(document["approvals"])
    effect = "ALLOW" if approved or document["action"] != "payments.transfer" else "REQUIRE_APPROVAL"
    return {
        "effect": effect,
        "reasons": [{"code": "known", "message": f"{mail} is known"}, {"code": "fine", "message": "fine"}],
        "obligations": [{"kind": "mail", "parameters": {"to": [mail], "copies": 1}}],
        **({"score": 12.625} if "customer" in given else {}),
        "echo": {"of": given.get("customer"), "amount": 9000},
        **({"approval": {}} if effect == "REQUIRE_APPROVAL" else {}),
    }


def run(place: Path, *stories: Story) -> None:
    """One sidecar after the other over one ledger; what it wrote verifies, with openings and without."""
    found(place / "ledger", AUTHORITY.public_key().public_bytes_raw())
    for story in stories:

        async def main(story: Story = story) -> None:
            async with desk(place, policy) as d:
                await story(d, Vault(d, place / "keys"))

        asyncio.run(main())
    report = judged(place / "ledger")
    assert report.first_bad() is None, report.findings
    with ledger_stream(place / "ledger") as read:
        openings = openings_of(read, place / "keys")
    with ledger_stream(place / "ledger") as read:
        report = verify_stream(read, Evidence(openings=openings))
    assert report.first_bad() is None, report.findings


async def refusal(call: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code().name, str(refused.value.details())


def report_of(d: Desk, answer: pb.DecideResponse, response: bytes, **more: Any) -> pb.ReportOutcomeRequest:
    """A report by the agent, signed."""
    said = Outcome("billing-agent", answer.decision_id, "executed", response, **more)
    members = {"agent": said.by, "decision_id": said.decision_id, "status": pb.OUTCOME_STATUS_EXECUTED}
    sent = pb.ReportOutcomeRequest(response=response, **members, **more)
    sent.signature.CopyFrom(d.sign("outcome", "billing-agent", said.digest()))
    return sent


def test_nothing_personal_is_stored_and_nobody_who_asks_notices(tmp_path: Path) -> None:
    async def story(d: Desk, v: Vault) -> None:
        answer = await d.ask(**ASKED, action="mail.send")
        assert MAIL in answer.reasons[0].message and MAIL in answer.obligations[0].parameters.decode()
        stored = v.stored(answer.seq)
        assert not [secret for secret in SECRETS if secret in stored]
        assert IBAN in stored and '"amount":9000' in stored and "fine" in stored  # what is not named stays
        payload = d.payload(answer.seq)
        asked = request_of(pb.DecideRequest(agent="billing-agent", action="mail.send", **_resource(), **ASKED))
        assert payload["request"]["arguments"] == ARGUMENTS.decode()
        assert payload["request_digest"] == asked.digest().hex()
        assert policy_inputs(payload) == [d.engine.seen[0]] and payload["result"] == policy(d.engine.seen[0])
        again = await d.ask(**ASKED, action="mail.send")
        assert again == answer and len(d.entries("DECISION")) == 1
        other = await refusal(d.ask(**(ASKED | {"purpose": "another"}), action="mail.send"))
        assert other[0] == "INVALID_ARGUMENT" and "another request" in other[1]

        done = arguments_digest(ARGUMENTS)
        response = json.dumps({"address": {"city": CITY}, "log": [f"sent to {MAIL}", 250], "free": "c-4711!"}).encode()
        told = {"arguments_digest": done, "downstream_status": f"250 {MAIL}"}
        taken = await d.up.decisions.ReportOutcome(report_of(d, answer, response, **told))
        stored = v.stored(taken.seq)
        assert not [secret for secret in (*SECRETS, CITY, done.hex(), "sidecar/v1/statement") if secret in stored]
        assert "250" in stored and d.payload(taken.seq)["response"] == response.decode()
        again = await d.up.decisions.ReportOutcome(report_of(d, answer, response, **told))
        assert (again.seq, again.receipt) == (taken.seq, taken.receipt)
        assert Header.decode(v.ledger.entry(taken.seq).header).field_count == len(_fields(v, taken.seq))

    run(tmp_path, story)


def test_alternatives_are_sealed_too_and_what_has_nothing_personal_is_not(tmp_path: Path) -> None:
    async def story(d: Desk, v: Vault) -> None:
        other = pb.Alternative(action="mail.draft", resource=_resource()["resource"], arguments=ARGUMENTS)
        answer = await d.ask(**ASKED, action="mail.send", alternatives=[other])
        assert not [secret for secret in SECRETS if secret in v.stored(answer.seq)]
        assert {"/request/alternatives/0/arguments", "/alternatives/0/reasons/0/message"} <= {
            each["in"] for each in _fields(v, answer.seq)
        }
        assert d.payload(answer.seq)["request"]["alternatives"][0]["arguments"] == ARGUMENTS.decode()
        plain = await d.ask(arguments=b'{"amount":1}', purpose="", action="mail.list")
        assert "personal" not in d.payload(plain.seq)

    run(tmp_path, story)


def _resource() -> dict[str, Any]:
    return {"resource": pb.Resource(type="account", id="acct-17")}


def _fields(v: Vault, seq: int) -> list[dict[str, Any]]:
    said = json.loads(v.ledger.entry(seq).payload).get("personal", {})
    return list(said.get("fields", []))


def test_what_must_not_be_recorded_is_refused(tmp_path: Path) -> None:
    """Nobody named, no key or one that can be guessed: refused, on record without content, and nothing is permitted."""

    async def story(d: Desk, v: Vault) -> None:
        nobody = f'{{"email": "{MAIL}"}}'.encode()
        for changed, field in (
            ({"arguments": nobody}, "arguments"),
            ({"arguments": b'{"customer": "", "email": "x"}'}, "arguments"),
            ({"arguments": b'{"customer": {"id": 1}, "email": "x"}'}, "arguments"),
            ({"arguments": b'{"customer": true}'}, "arguments"),
            ({"arguments": json.dumps({"customer": "x" * 1_100}).encode()}, "arguments"),
            ({"idempotency_key": ""}, "idempotency_key"),
            ({"idempotency_key": "order-17"}, "idempotency_key"),
        ):
            told = await d.refused(d.ask(**(ASKED | changed), action="mail.send"), "INVALID_ARGUMENT", field=field)
            assert MAIL not in told and MAIL not in json.dumps(d.last())
        assert not d.entries("DECISION") and not v.keys.subjects()

    run(tmp_path, story)


def test_erased_nobody_can_have_it_and_what_needed_it_says_so(tmp_path: Path) -> None:
    kept: list[pb.DecideResponse] = []

    async def story(d: Desk, v: Vault) -> None:
        kept.append(await d.ask(**ASKED, action="mail.send"))
        with pytest.raises(NotPermitted):
            v.erasure.apply(v.grant(key=Ed25519PrivateKey.generate()))
        assert not unopened(d.payload(kept[0].seq))
        tombstone = await v.erase()
        assert d.payload(tombstone)["type"] == "TOMBSTONE" and "c-4711" not in v.stored(tombstone)
        assert Header.decode(v.ledger.entry(tombstone).header).ref_seq == 0

    async def after(d: Desk, v: Vault) -> None:
        """The same in the sidecar that erased, and in the next."""
        (answer,) = kept
        assert unopened(d.payload(answer.seq)) and v.keys.named(b'"c-4711"') is None
        assert not [secret for secret in SECRETS if secret in json.dumps(d.payload(answer.seq), ensure_ascii=False)]
        again = await refusal(d.ask(**ASKED, action="mail.send"))
        assert again[0] == "INVALID_ARGUMENT" and "erased" in again[1]
        digest = await refusal(
            d.up.decisions.ReportOutcome(report_of(d, answer, b"{}", arguments_digest=arguments_digest(ARGUMENTS)))
        )
        assert digest[0] == "FAILED_PRECONDITION" and "erased" in digest[1]

    async def late(d: Desk, v: Vault) -> None:
        """An outcome that comes after the erasure is recorded, and nobody can read what it says."""
        (answer,) = kept
        taken = await d.up.decisions.ReportOutcome(report_of(d, answer, f'{{"to":"{MAIL}"}}'.encode()))
        assert MAIL not in v.stored(taken.seq) and unopened(d.payload(taken.seq))
        assert d.payload(taken.seq)["response"] == '""'
        fresh = await d.ask(**(ASKED | {"idempotency_key": "another-key-of-128-bits"}), action="mail.send")
        assert fresh.effect == pb.EFFECT_ALLOW and not unopened(d.payload(fresh.seq))
        assert d.payload(fresh.seq)["personal"]["subject"] != d.payload(answer.seq)["personal"]["subject"]

    async def both(d: Desk, v: Vault) -> None:
        await story(d, v)
        await after(d, v)

    run(tmp_path, both, after, late)


def test_an_erasure_that_broke_off_after_its_tombstone_is_ended_at_the_next_start(tmp_path: Path) -> None:
    async def story(d: Desk, v: Vault) -> None:
        await d.ask(**ASKED, action="mail.send")
        (tmp_path / "keys" / "keys.1.new").mkdir()  # what the new generation cannot be written over
        with pytest.raises(LedgerError):
            await v.erase()
        assert v.keys.subjects() and d.last()["type"] == "TOMBSTONE"
        (tmp_path / "keys" / "keys.1.new").rmdir()

    async def after(d: Desk, v: Vault) -> None:
        assert not v.keys.subjects() and len(d.entries("TOMBSTONE")) == 1

    run(tmp_path, story, after)


def test_an_old_copy_of_the_keys_given_back_is_erased_again(tmp_path: Path) -> None:
    copied: dict[str, bytes] = {}

    async def story(d: Desk, v: Vault) -> None:
        await d.ask(**ASKED, action="mail.send")
        copied.update({path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()})
        await v.erase()

    async def after(d: Desk, v: Vault) -> None:
        assert not v.keys.subjects()

    async def given_back(d: Desk, v: Vault) -> None:
        for path in (tmp_path / "keys").iterdir():
            path.unlink()
        for name, data in copied.items():
            (tmp_path / "keys" / name).write_bytes(data)
        assert SubjectKeys.open(tmp_path / "keys", v.chain_id).subjects()

    run(tmp_path, story, after, given_back, after)


def test_approvals_of_what_is_personal(tmp_path: Path) -> None:
    """Approvers see it and sign it; their words are sealed; once it is erased nobody can approve it any more."""
    open_one: list[pb.DecideResponse] = []

    async def story(d: Desk, v: Vault) -> None:
        asked = await d.ask(**ASKED)
        assert asked.effect == pb.EFFECT_REQUIRE_APPROVAL
        (pending,) = (await d.listed("ann")).pending
        assert pending.request.arguments == ARGUMENTS and MAIL in pending.reasons[0].message
        given = await d.approve("ann", asked)
        stored = v.stored(given.seq)
        assert arguments_digest(ARGUMENTS).hex() not in stored and "sidecar/v1/statement" not in stored
        again = await d.approve("ann", asked)  # signed anew, the same words
        assert again.seq == given.seq
        guessable = ASKED | {"approval_of": asked.decision_id, "idempotency_key": asked.decision_id}
        assert (await refusal(d.ask(**guessable)))[0] == "INVALID_ARGUMENT"
        final = await d.ask(**(ASKED | {"approval_of": asked.decision_id, "idempotency_key": f"{KEY}-2"}))
        assert final.effect == pb.EFFECT_ALLOW
        open_one.append(await d.ask(**(ASKED | {"idempotency_key": f"{KEY}-3"})))
        await d.approve("ann", open_one[0], "approve")
        open_one.append(await d.ask(**(ASKED | {"idempotency_key": f"{KEY}-4"})))
        watched = d.watch("billing-agent", open_one[1].decision_id)
        assert (await watched.read()).what == pb.ApprovalState.WHAT_PENDING
        words = d.word("ann", open_one[1])
        await v.erase()
        assert (await watched.read()).what == pb.ApprovalState.WHAT_EXPIRED
        assert not (await d.listed("ann")).pending
        assert (await refusal(d.approvals.Approve(words)))[0] == "FAILED_PRECONDITION"
        for waiting in open_one:
            under = ASKED | {"approval_of": waiting.decision_id, "idempotency_key": f"{KEY}-{waiting.seq}"}
            assert (await refusal(d.ask(**under)))[0] == "FAILED_PRECONDITION"

    async def after(d: Desk, v: Vault) -> None:
        assert not (await d.listed("ann")).pending
        assert (await refusal(d.ask(**(ASKED | {"approval_of": open_one[0].decision_id}))))[0] == "INVALID_ARGUMENT"

    run(tmp_path, story, after)


def test_an_outcome_with_personal_fields_of_a_decision_without(tmp_path: Path) -> None:
    async def story(d: Desk, v: Vault) -> None:
        plain = await d.ask(arguments=b'{"n":1}', purpose="", action="mail.list")
        response = json.dumps({"address": CITY, "n": 1}).encode()
        taken = await d.up.decisions.ReportOutcome(report_of(d, plain, response))
        assert CITY not in v.stored(taken.seq) and d.payload(taken.seq)["response"] == response.decode()
        assert v.keys.named(b"null") is not None

    run(tmp_path, story)


def test_what_the_verifier_says_of_it(tmp_path: Path) -> None:
    async def story(d: Desk, v: Vault) -> None:
        await d.ask(**ASKED, action="mail.send")
        await d.ask(
            **(ASKED | {"arguments": b'{"customer": "bob"}', "idempotency_key": f"{KEY}-b"}), action="mail.send"
        )
        await v.erase()

    run(tmp_path, story)
    report = judged(tmp_path / "ledger")
    assert [f.verdict for f in report.findings] == [Verdict.REDACTED, Verdict.UNANCHORED]
    assert report.decisions["unopened"] == 2


def test_what_is_left_to_be_erased_is_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also what nobody signed, and in a chain where nobody can: refused, said, and not looked at again."""
    found(tmp_path / "ledger", None)
    plain = Config(data_dir=str(tmp_path / "ledger"), dev=True)
    config = dataclasses.replace(plain, personal_subject="/arguments/id", personal_fields=("/arguments/email",))
    ledger = Ledger.open(
        tmp_path / "ledger", wrap=wrap, options=Options(), clock=SystemClock(), on_failure=lambda error: None
    )
    try:
        assert erasing.of(plain, ledger) is None  # nothing is configured, and there are no keys of an earlier run
        done = erasing.of(config, ledger)
        assert done is not None and erasing.of(plain, ledger) is not None
        assert "names no authority" in caplog.text
        acts = [erasing.leave(config, grant) for grant in (b"", b"garbage")]
        told: list[None] = []
        done.pick_up(lambda: told.append(None))
        for act in acts:
            assert not act.exists() and "no authority" in act.with_suffix(".refused").read_text()
        assert erasing.leave(config, b"garbage") == acts[1] and not acts[1].with_suffix(".refused").exists()
        assert not ledger.about(0)
    finally:
        ledger.close()


def test_the_search_for_traces_finds_what_is_there(tmp_path: Path) -> None:
    """The search that finds nothing elsewhere finds all of it where nothing is sealed, also what is compressed."""

    async def main() -> None:
        async with desk(tmp_path, policy) as d:
            await d.ask(**ASKED, action="mail.send")
            await d.ask(arguments=json.dumps({"bulk": "x" * 4_000, "city": CITY}).encode(), action="mail.send")

    found(tmp_path / "ledger", None)
    asyncio.run(main())
    assert set(traces(tmp_path, MAIL, NAME, CITY, "nobody's")) == {
        f"ledger/ledger.mdb: {value}" for value in (MAIL, NAME, CITY)
    }


@pytest.mark.parametrize("kind", ["DECISION", "OUTCOME", "APPROVAL"])
def test_who_is_barred_while_it_is_sealed_is_not_heard(tmp_path: Path, kind: str) -> None:
    """A key's volume may take its time, and the registry change twice in it: no verifier takes such an entry."""
    begun, go = threading.Event(), threading.Event()

    class Slow(FieldSealer):
        def seal(self, about: EntryType, payload: Any, of: Any) -> Any:
            if about.name == kind:
                begun.set()
                go.wait()
            return super().seal(about, payload, of)

    async def story(d: Desk, v: Vault) -> None:
        v.ledger.seal_with(Slow(POINTERS, v.keys, v.chain_id))
        calls: dict[str, Callable[[], Awaitable[Any]]] = {"DECISION": lambda: d.ask(**ASKED, action="mail.send")}
        if kind == "OUTCOME":
            sent = await d.ask(**ASKED, action="mail.send")
            calls["OUTCOME"] = lambda: d.up.decisions.ReportOutcome(report_of(d, sent, b"{}"))
        elif kind == "APPROVAL":
            waits = await d.ask(**ASKED)
            calls["APPROVAL"] = lambda: d.approve("ann", waits)
        call = asyncio.ensure_future(calls[kind]())
        await asyncio.to_thread(begun.wait)
        await d.know(*PEOPLE[2:], PEOPLE[0], PEOPLE[1])
        await d.know(*(person | {"status": "suspended"} for person in PEOPLE))
        go.set()
        code, said = await refusal(call)
        assert code == "UNAVAILABLE" and "registry" in said
        assert not d.entries(kind) or kind == "DECISION"

    run(tmp_path, story)
