"""Receipted segments leave the pod's disk: the sidecar goes on, says what is gone, and the collector has all of it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import grpc
import pytest

from sidecar.errors import SidecarError
from sidecar.v1 import decision_pb2_grpc
from tests.api.running import request
from tests.collecting import collecting
from tests.collector.test_shipping import until, verdict
from tests.ports import free_address
from tests.program import made, serving, sidecar


def let_go(metrics: str) -> float:
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=20) as page:
        rows = dict(row.rsplit(" ", 1) for row in page.read().decode().splitlines() if not row.startswith("#"))
    return float(rows["sidecar_let_go_entries"])


def test_a_pod_that_keeps_the_end(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    config, metrics = tmp_path / "c.toml", free_address()
    reported = ["--agent", "billing-agent", "--status", "executed"]
    with collecting(tmp_path / "collector") as collector:
        config.write_text("segment_entries = 3\nledger_keep_seconds = 0.001\n" + collector.settings())
        with serving(ledger, "--config", config, "--metrics", metrics) as server, server.guard() as guard:
            old = [guard.ask("crm.read", ("customer", f"c-{n}"), {}, idempotency_key=f"k{n}") for n in range(9)]
            until(lambda: let_go(metrics) >= 4)
            told = sidecar("outcome", "--server", server.address, old[0].decision_id, *reported)
            assert told.returncode != 0 and "the collector has them" in told.stderr, told.stderr
            with pytest.raises(SidecarError, match="no longer kept here"):
                guard.ask("crm.read", ("customer", "c-0"), {}, idempotency_key="k0")
            again = guard.ask("crm.read", ("customer", "c-8"), {}, idempotency_key="k8")
            assert again.decision_id == old[8].decision_id
            assert server.stop() == 0
        with serving(ledger, "--config", config) as server:  # goes on from what is left, with a receipt of what is not
            with server.guard() as guard:
                fresh = guard.ask("crm.read", ("customer", "c-21"), {})
            done = sidecar("outcome", "--server", server.address, fresh.decision_id, *reported)
            assert done.returncode == 0, done.stderr
            with grpc.insecure_channel(server.address) as channel:
                stub = decision_pb2_grpc.DecisionServiceStub(channel)
                with pytest.raises(grpc.RpcError, match="no longer kept here, so this receipt"):
                    stub.Decide(request(last_receipt=old[0].receipt), timeout=30)
            assert server.stop() == 0
        trust = collector.trust(tmp_path / "trust.json")
        assert collector.status()["alarms"] == []
        whole = sidecar("collector", "verify", "--data-dir", collector.place, "--dev", "--json", "--workers", "1")
        assert whole.returncode == 0, whole.stdout
    report = verdict(ledger, trust, "--custodian-key", key)
    bad = [(f["verdict"], f["segment"], f["seq"]) for f in report["findings"] if f["verdict"] != "OK"]
    assert bad == [("INCOMPLETE", 0, 0)], report
    assert any("nothing was missing at the end" in line for line in report["checked"])
    assert report["entries"] < json.loads(whole.stdout)["chains"][0]["entries"]
