"""`verify.py`, the verifier in one file, on hostile bytes: a verdict or a Flaw, never another exception, never OK."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conformance.chains import chain, trust
from tests.conformance.packing import bagged, deflated, packed, stored, zipped
from tests.conformance.published import middle, of_agent, only_stream, stream_name
from tests.fuzz.examples import fuzz, hostile
from tests.second import VERIFY

LOG = Path(__file__).parents[1] / "vectors" / "log"
WHOLE, AGENT = packed(middle()), packed(of_agent())
MIXED = zipped([stored(n, c) if n == stream_name() else deflated(n, c) for n, c in bagged(middle()).items()])
TRUST = trust(chain())
STREAM = middle()[only_stream(middle())]
PROOF = (LOG / "roll-call.tlog-proof").read_bytes()


@given(hostile([WHOLE, AGENT, MIXED]))
@fuzz(150)
def test_whole_bundles(data: bytes) -> None:
    report = VERIFY.Report()
    VERIFY.judge_bundle(BytesIO(data), report, VERIFY.read_trust(TRUST))
    assert (report.worst == VERIFY.OK) == (data in (WHOLE, AGENT, MIXED))


@given(hostile([STREAM, chain().stream()]))
@fuzz(150)
def test_streams(data: bytes) -> None:
    report = VERIFY.Report()
    VERIFY.judge_stream(BytesIO(data).read, report, json.loads(TRUST), [], [], [], {})
    assert report.worst > VERIFY.OK


def _timestamp(data: bytes) -> None:
    VERIFY.check_timestamp({"checkpoint": "", "nonce": "1", "response": b64encode(data).decode()})


def _tree(data: bytes) -> None:
    rows = VERIFY.text_of(data).split("\n")
    VERIFY.read_logged(rows, True)
    VERIFY.hashes_of(rows[3:])


PARSERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "JSON": (
        VERIFY.strict,
        [TRUST, b'{"a":[1,2.5e-3,"\\u00e9"],"b":{"c":null}}', b"[" * 100_000, b"1e999", b"9" * 5000],
    ),
    "trust": (VERIFY.read_trust, [TRUST]),
    "policy": (lambda data: VERIFY.Policy(VERIFY.text_of(data)), [json.loads(TRUST)["policy"].encode()]),
    "note": (VERIFY.read_note, [chain().receipt(4)]),
    "head": (lambda data: VERIFY.read_one(data, "head"), [chain().receipt(4)]),
    "seal": (lambda data: VERIFY.read_one(data, "seal"), [chain().seals[0]]),
    "proof": (_tree, [PROOF.partition(b"\n\n")[0]]),
    "openings": (VERIFY.read_openings, [b'{"format":"sidecar/v1/openings","chains":[]}']),
    "disclosure": (
        lambda data: VERIFY.read_disclosure(data, ""),
        [b'{"format":"sidecar/v1/disclosure","chain":"' + b"0" * 64 + b'","segments":[]}'],
    ),
    "timestamp": (_timestamp, [bytes.fromhex("3006300302010030030201")]),
    "time": (lambda data: VERIFY.time_ns(VERIFY.text_of(data)), [b"2026-01-01T00:00:01.000000000Z"]),
}


@pytest.mark.parametrize("name", sorted(PARSERS))
@given(st.data())
@fuzz(60)
def test_parsers(name: str, data: st.DataObject) -> None:
    parse, originals = PARSERS[name]
    try:
        parse(data.draw(hostile(originals)))
    except VERIFY.Flaw as flaw:
        assert flaw.args[0] in (VERIFY.TAMPERED, VERIFY.MALFORMED) and flaw.args[1]
