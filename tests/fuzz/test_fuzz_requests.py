"""Raw bytes into every method of both services, over a real connection, with an engine that allows all it is asked.

Whatever comes in, the answer is a decision on exactly what was sent, which is recorded, or a refusal with a status
that blames the caller; never INTERNAL or UNKNOWN, and the server goes on.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.api.services import MAX_BATCH
from sidecar.chain import note
from sidecar.chain.head import Head
from sidecar.v1 import decision_pb2 as pb
from tests.api.running import Running, judged, request, running, streamed
from tests.fuzz.examples import fuzz, hostile

PATIENCE = 60.0
CLEAN = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
}
FULL = request(
    context=b'{"tier": "gold"}', purpose="p", trace_parent=f"00-{'1' * 32}-{'2' * 16}-01", idempotency_key="k",
    alternatives=[pb.Alternative(action="crm.list", resource=pb.Resource(type="t", id="i"), arguments=b"{}")],
)  # fmt: skip
RAW = [m.SerializeToString() for m in (request(), FULL, request(agent="é", arguments=b'{"a":[1e5,"\\u00e9"]}'))]
BATCHES = [pb.DecideBatchRequest(requests=[request(), FULL]).SerializeToString()]
QUESTIONS = [
    streamed(FULL, first=2**64 - 1).SerializeToString(),
    streamed(request(), FULL, request()).SerializeToString(),
    *RAW,
]
TEXTS = st.text(max_size=8) | st.sampled_from(["", "a" * 257, "\ufffe", "\x00", "a\nb", "🜁", "billing-agent"])
JSONS = st.sampled_from(
    [b"", b"{}", b"[]", b"null", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":1e999}', b'{"a":"\\ud800"}', b"\xff", b"{",
     b'{"a":9007199254740993}', b'{"a":' * 65 + b"1" + b"}" * 65, b'{"a":' * 64 + b"1" + b"}" * 64, b"\xef\xbb\xbf{}"]
) | st.binary(max_size=10)  # fmt: skip
RESOURCES = st.builds(pb.Resource, type=TEXTS, id=TEXTS)
ALTERNATIVES = st.lists(st.builds(pb.Alternative, action=TEXTS, resource=RESOURCES, arguments=JSONS), max_size=10)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "agent": TEXTS, "action": TEXTS, "resource": RESOURCES, "arguments": JSONS, "context": JSONS, "purpose": TEXTS,
        "alternatives": ALTERNATIVES, "trace_parent": TEXTS, "idempotency_key": TEXTS,
        "last_receipt": st.binary(max_size=20),
    },
).map(lambda changed: request(**changed).SerializeToString())  # fmt: skip
OUTCOMES = st.builds(
    pb.ReportOutcomeRequest, agent=TEXTS, decision_id=TEXTS, status=st.integers(-1, 9), response=JSONS,
    response_digest=st.binary(max_size=33),
).map(lambda message: message.SerializeToString())  # fmt: skip
PLACES = st.integers(0, 2**64 - 1) | st.integers(0, 20)


@dataclass(frozen=True, slots=True)
class Door:
    """A server in a thread of its own, and a connection to it that sends any bytes."""

    run: Running
    channel: Any

    def call(self, method: str, raw: bytes) -> bytes | grpc.StatusCode:
        """The answer's bytes, or the status instead of one."""
        try:
            answer: bytes = self.channel.unary_unary(f"/sidecar.v1.{method}")(raw, timeout=PATIENCE)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return answer

    def stream(self, raws: list[bytes]) -> tuple[list[bytes], grpc.StatusCode]:
        answers = []
        call = self.channel.stream_stream("/sidecar.v1.DecisionService/DecideStream")(iter(raws), timeout=PATIENCE)
        try:
            for answer in call:
                answers.append(answer)
        except grpc.RpcError:
            pass
        return answers, call.code()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    place = tmp_path_factory.mktemp("door")
    started, opened = threading.Event(), []

    async def serve() -> None:
        async with running(place) as run:
            stop = asyncio.Event()
            opened.append((run, asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(PATIENCE)
    run, loop, stop = opened[0]
    with grpc.insecure_channel(f"unix:{place}/s.sock") as channel:
        yield Door(run, channel)
        alive = Door(run, channel).call("DecisionService/Decide", request(purpose="still there").SerializeToString())
    loop.call_soon_threadsafe(stop.set)
    thread.join(PATIENCE)
    assert isinstance(alive, bytes)
    report = judged(place / "ledger", [pb.DecideResponse.FromString(alive).receipt])
    assert report.verdict.name == "UNANCHORED", report.findings


def assert_decided(door: Door, asked: pb.DecideRequest, answer: pb.DecideResponse) -> None:
    """The answer is on the very request, which is within its limits, and it is recorded."""
    recorded = json.loads(door.run.ledger.entry(answer.seq).payload)
    said = recorded["request"]
    assert recorded["decision_id"] == answer.decision_id and recorded["agent"]["id"] == asked.agent != ""
    assert (said["action"], said["resource"]["id"]) == (asked.action, asked.resource.id) and all((*said["resource"],))
    for text, raw in ((said["arguments"], asked.arguments), (said["context"], asked.context)):
        assert text.encode() == raw and (not raw or isinstance(json.loads(raw), dict))
    assert len(recorded["alternatives"]) == len(answer.alternatives) == len(asked.alternatives) <= 8
    head = Head.parse(note.parse(answer.receipt).text)
    assert (head.seq, head.decided and head.decided.decision_id) == (answer.seq, answer.decision_id)


@given(raw=REQUESTS | hostile(RAW))
@fuzz(800)
def test_decide(door: Door, raw: bytes) -> None:
    answer = door.call("DecisionService/Decide", raw)
    if isinstance(answer, grpc.StatusCode):
        assert answer in CLEAN
    else:
        assert_decided(door, pb.DecideRequest.FromString(raw), pb.DecideResponse.FromString(answer))


def assert_answered(door: Door, asked: pb.DecideRequest, answer: pb.Answer) -> None:
    if answer.WhichOneof("what") == "decision":
        assert_decided(door, asked, answer.decision)
    else:
        assert answer.refusal.code in {code.value[0] for code in CLEAN} and "\n" not in answer.refusal.message


@given(raw=st.lists(REQUESTS, max_size=4).map(lambda raws: b"".join(map(_member, raws))) | hostile(BATCHES))
@fuzz(300)
def test_decide_batch(door: Door, raw: bytes) -> None:
    answer = door.call("DecisionService/DecideBatch", raw)
    if isinstance(answer, grpc.StatusCode):
        assert answer in CLEAN
        return
    asked, given_ = pb.DecideBatchRequest.FromString(raw).requests, pb.DecideBatchResponse.FromString(answer).answers
    assert len(asked) == len(given_) > 0
    for question, one in zip(asked, given_, strict=True):
        assert_answered(door, question, one)


def _member(raw: bytes) -> bytes:
    """One `requests` of a DecideBatchRequest on the wire."""
    return pb.DecideBatchRequest(requests=[pb.DecideRequest.FromString(raw)]).SerializeToString()


@given(raws=st.lists(hostile(QUESTIONS), max_size=5))
@fuzz(300)
def test_decide_stream(door: Door, raws: list[bytes]) -> None:
    answers, code = door.stream(raws)
    assert code is grpc.StatusCode.OK or code in CLEAN
    asked: list[pb.StreamQuestion] = []
    for raw in raws:
        try:
            questions = pb.DecideStreamRequest.FromString(raw).questions
        except Exception:
            questions = ()
        if not 1 <= len(questions) <= MAX_BATCH:
            assert code is not grpc.StatusCode.OK
            break
        asked += questions
    found = [each for answer in answers for each in pb.DecideStreamResponse.FromString(answer).answers]
    assert len(found) == len(asked) if code is grpc.StatusCode.OK else len(found) <= len(asked)
    for response in found:
        questions = [a.request for a in asked if a.correlation_id == response.correlation_id]
        assert questions
        if len(questions) == 1:
            assert_answered(door, questions[0], response.answer)


def _raw(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return st.builds(kind, **fields).map(lambda message: message.SerializeToString())


READS: dict[str, st.SearchStrategy[bytes]] = {
    "Head": st.binary(max_size=30),
    "GetEntry": _raw(pb.GetEntryRequest, seq=PLACES) | _raw(pb.GetEntryRequest, decision_id=TEXTS),
    "Prove": _raw(pb.ProveRequest, seq=PLACES),
}


@pytest.mark.parametrize("method", READS)
@given(data=st.data())
@fuzz(150)
def test_reading(door: Door, method: str, data: st.DataObject) -> None:
    raw = data.draw(READS[method] | st.binary(max_size=30))
    answer = door.call(f"LedgerService/{method}", raw)
    assert isinstance(answer, bytes) or answer in CLEAN


@given(raw=OUTCOMES | st.binary(max_size=60))
@fuzz(300)
def test_outcomes_of_decisions_that_never_were(door: Door, raw: bytes) -> None:
    assert door.call("DecisionService/ReportOutcome", raw) in CLEAN


Make = Callable[[int], bytes]


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 3 << 20])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: bytes(size),
        lambda size: b"\x0a" * size,
        lambda size: b"\xff" * size,
        lambda size: b"\x0b" * size,  # groups within groups
        lambda size: request(arguments=b'{"a":"' + b"x" * size + b'"}').SerializeToString(),
        lambda size: request(arguments=b"[" * size).SerializeToString(),
        lambda size: request(purpose="é" * (size // 2)).SerializeToString(),
        lambda size: request(alternatives=[pb.Alternative()] * (size // 2)).SerializeToString(),
    ],
    ids=["zeros", "nested", "ones", "groups", "long", "deep", "text", "many"],
)
def test_large_requests(door: Door, make: Make, size: int) -> None:
    for method in ("Decide", "DecideBatch", "ReportOutcome"):
        assert door.call(f"DecisionService/{method}", make(size)) is grpc.StatusCode.INVALID_ARGUMENT


def test_the_server_is_alive_after_all_of_it(door: Door) -> None:
    head = door.call("LedgerService/Head", b"")
    assert isinstance(head, bytes) and pb.HeadResponse.FromString(head).next_seq > 3
