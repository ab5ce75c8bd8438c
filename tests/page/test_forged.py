"""Three verifiers, asked about what an operator with every key can write (`tests/conformance/forged.py`)."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from sidecar.verify import Evidence, verify_stream
from tests.conformance.forged import forged
from tests.page.core import answers
from tests.second import first_bad, second


def test_three_verifiers_say_what_is_due(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    wrong = []
    cases = list(forged())
    for number, each in enumerate(cases):
        evidence = Evidence(receipts=each.receipts)
        ours, theirs = first_bad(verify_stream(BytesIO(each.stream).read, evidence)), second(each.stream, evidence)[0]
        if not ours == theirs == each.due:
            wrong.append((each.name, each.due, ours, theirs))
        (tmp_path / str(number)).write_bytes(each.stream)
        held = [data.decode() for data in each.receipts]
        asked.append({"ask": "stream", "path": str(tmp_path / str(number)), "receipts": held})
    for each, answer in zip(cases, answers(asked), strict=True):
        bad = answer["first_bad"] or {"segment": None, "seq": None}
        told = answer["verdict"], bad["segment"], bad["seq"] and float(bad["seq"])  # node reads numbers as doubles
        if told != (*each.due[:2], each.due[2] and float(each.due[2])):
            wrong.append((each.name, each.due, told, answer["reason"]))
    assert not wrong, wrong[:6]
    assert len(cases) > 130 and len({each.name for each in cases}) == len(cases)
