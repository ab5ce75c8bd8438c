"""The chart's pod as processes with users, mounts, probes and order of the rendered manifests (`kubelet`).

One pod for most of it: it is started, looked at, hurt and ended, and what it left is verified.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.chain.entry import EntryType
from tests.charts.installing import Site, site
from tests.charts.kubelet import Pod, running
from tests.faults.load import recorded
from tests.program import sidecar

PATIENCE = 120.0  # seconds; a guard, not a measure
# What an agent would try: each line is one attempt, and says so if it came through.
BREAK_IN = """
import os, socket, sys
from pathlib import Path

def attempt(what, do):
    try:
        print("CAME THROUGH", what, do())
    except OSError as error:
        print("refused", what, error.errno)

def connect(path):
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        return "connected"

def put(path):
    path.write_bytes(b"x")
    return "written"

for place in map(Path, sys.argv[1:]):
    attempt(f"list {place}", lambda: sorted(place.iterdir()))
    attempt(f"write {place}", lambda: put(place / "left-by-the-agent"))
    attempt(f"read {place}", lambda: place.read_bytes())
    attempt(f"connect {place}", lambda: connect(place))
"""


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture(scope="module")
def pod(here: Site) -> Iterator[Pod]:
    with running(here.pod) as pod:
        yield pod


def eventually(look: Callable[[], object], why: Callable[[], str] = str) -> None:
    until = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < until, why()
        time.sleep(0.05)


def told(pod: Pod, word: str) -> list[str]:
    """The decision ids that the agent was told with this word."""
    return re.findall(rf"^{word} \S+ (\S+)$", pod.containers["workload"].said, re.MULTILINE)


def went_on(pod: Pod, word: str) -> None:
    """It happened again since this was asked."""
    before = len(re.findall(rf"^{word} ", pod.containers["workload"].said, re.MULTILINE))
    eventually(
        lambda: len(re.findall(rf"^{word} ", pod.containers["workload"].said, re.MULTILINE)) > before,
        lambda: pod.containers["workload"].said[-2000:] + pod.containers["sidecar"].said[-2000:],
    )


def as_agent(pod: Pod, places: list[Path | str], *, whole: bool) -> list[str]:
    """What the break-in says, run as the workload: with its mounts, or with the node's whole file system."""
    spec = pod.containers["workload"].spec
    log = pod.place / f"break-in-{whole}.log"
    command = pod.within(spec, ["python3", "-c", BREAK_IN, *map(str, places)], whole=whole)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    log.write_text(done.stdout)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_agent_is_answered_and_each_process_is_a_user_of_its_own(pod: Pod) -> None:
    went_on(pod, "did")
    went_on(pod, "refused")
    assert pod.ready("sidecar") and pod.ready("sidecar", "livenessProbe")
    users = {name: Path(f"/proc/{each.process.pid}").stat().st_uid for name, each in pod.containers.items()}
    assert set(users) == {"opa", "sidecar", "workload"} and len(set(users.values())) == 3 and 0 not in users.values()
    for each in pod.containers.values():
        status = Path(f"/proc/{each.process.pid}/status").read_text()
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)


def test_the_agent_reaches_neither_opa_nor_ledger_nor_bundles(here: Site, pod: Pod) -> None:
    """With what it has mounted these are not even there; with the node's file system, the modes keep it out."""
    inside = ["/var/lib/sidecar", "/var/lib/sidecar/ledger", "/run/opa", "/run/opa/room", "/etc/sidecar-collector"]
    said = as_agent(pod, list(inside), whole=False)
    assert len(said) == 4 * len(inside) and all(line.startswith("refused") for line in said), said

    room = pod.volume("sidecar-opa") / "room"
    sockets, bundles = sorted(room.glob("*.sock")), sorted(room.glob("*.tar.gz"))
    assert sockets and bundles
    ledger = [here.ledger, here.ledger / "ledger.mdb", here.ledger / "identity.pem"]
    said = as_agent(pod, [room, *sockets, *bundles, *ledger], whole=True)
    assert all(line.startswith("refused") for line in said), said


def test_opa_listens_on_no_port(pod: Pod) -> None:
    """The containers of a pod share loopback."""
    keeper = pod.containers["opa"].process.pid
    started = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    programs = [each for each in started if Path(f"/proc/{each}/comm").read_text() == "opa\n"]
    assert programs
    held = {str(each.readlink()) for program in programs for each in Path(f"/proc/{program}/fd").iterdir()}
    assert any(each.startswith("socket:") for each in held)
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    listening = {f"socket:[{line.split()[9]}]" for table in tables for line in table if line.split()[3] == "0A"}
    assert listening and not held & listening


def test_the_break_in_would_come_through_where_it_can(here: Site, pod: Pod) -> None:
    """Else it would show nothing: the agent's own socket takes connections, and the room's owner gets in."""
    said = as_agent(pod, ["/run/sidecar/sidecar.sock"], whole=False)
    assert any(line.startswith("CAME THROUGH connect") for line in said), said
    said = as_agent(pod, ["/run/sidecar"], whole=False)  # its volume is the node's, mounted to be read only
    assert not any(line.startswith("CAME THROUGH write") for line in said), said


def test_the_sidecar_is_killed_and_goes_on_with_the_same_volume(here: Site, pod: Pod) -> None:
    went_on(pod, "did")
    before = set(told(pod, "did"))
    pod.containers["sidecar"].process.send_signal(signal.SIGKILL)
    assert pod.containers["sidecar"].ended() == -signal.SIGKILL
    went_on(pod, "none")  # nobody answers: nothing is done
    done = len(told(pod, "did"))
    went_on(pod, "none")
    assert len(told(pod, "did")) == done
    pod.restart("sidecar")
    went_on(pod, "did")
    assert before < set(told(pod, "did"))


def test_opa_is_killed_and_started_again(pod: Pod) -> None:
    went_on(pod, "did")
    pod.containers["opa"].process.send_signal(signal.SIGKILL)
    pod.containers["opa"].ended()
    pod.restart("opa")
    went_on(pod, "did")


def test_it_ends_in_order_sealed_and_shipped(here: Site, pod: Pod) -> None:
    """Last: the agent, then the sidecar, then OPA; every decision told is in the ledger, and at the collector."""
    went_on(pod, "did")
    answered = set(told(pod, "did")) | set(told(pod, "refused"))
    codes = pod.stop()
    assert list(codes) == ["workload", "sidecar", "opa"] and set(codes.values()) == {0}, codes
    entries = list(recorded(here.ledger))
    assert entries[-1][0].type is EntryType.CLOSE
    decided = {payload["decision_id"] for header, payload in entries if header.type is EntryType.DECISION}
    assert answered <= decided and len(answered) > 4
    trust = here.place / "trust.json"
    config = ("--config", here.place / "collector.toml", "--data-dir", here.place / "collector")
    assert sidecar("collector", "trust", *config, "--out", trust).returncode == 0
    verified = sidecar("verify", here.ledger, "--custodian-key", here.custodian, "--trust", trust)
    assert verified.stdout.startswith("UNANCHORED") or verified.stdout.startswith("OK"), verified.stdout
    assert "TAMPERED" not in verified.stdout and "INCOMPLETE" not in verified.stdout
    (held,) = json.loads(sidecar("collector", "status", *config, "--json").stdout)["chains"]
    assert held["seq"] == entries[-1][0].seq and held["unanchored_seconds"] is None
    looked = sidecar("collector", "verify", *config)
    assert looked.returncode == 0, looked.stdout + looked.stderr


def test_helm_test_passes(here: Site) -> None:
    """Its pod, in the order of its containers: one decision is asked for, allowed, and verified."""
    with running(here.test) as pod:
        assert pod.containers["verify"].ended() == 0, pod.containers["verify"].said
        report = json.loads(pod.containers["verify"].said)
        assert report["verdict"] == "UNANCHORED" and report["decisions"]["signed"] == 1
