"""A sidecar and an agent under a real SPIRE: who they are comes from the Workload API and is renewed under load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.client import AsyncGuard, Effect, Guard, Material, NoDecision, TlsFiles, TlsSpiffe, WorkloadSource
from tests.api.pages import series
from tests.authorities import Authority, Issued
from tests.identity.agents import Agent, registry_text
from tests.program import environment, made, sidecar
from tests.spire import DOMAIN, Spire, program_of_its_own, spire

NAME = "sidecar.internal"
AGENT = f"spiffe://{DOMAIN}/billing-agent"
PARTNER = Authority("ca of partner.test")
PARTNERS = "spiffe://partner.test/agent"
PRINCIPALS = (
    Agent("billing-agent", Ed25519PrivateKey.generate()).entry(keys=[], spiffe_ids=[{"id": AGENT}]),
    Agent("partner", Ed25519PrivateKey.generate()).entry(keys=[], spiffe_ids=[{"id": PARTNERS}]),
)
ROTATIONS = 2
QUESTION = ("crm.read", ("customer", "acme-42"))


@dataclass(frozen=True, slots=True)
class Fleet:
    """A served sidecar, its ledger and custodian key, and the SPIRE that it and this process live under."""

    spire: Spire
    address: str
    metrics: str
    ledger: Path
    key: Path
    place: Path

    def tls(self) -> TlsSpiffe:
        return TlsSpiffe(str(self.spire.workload_api), DOMAIN, NAME)

    def page(self) -> bytes:
        with urllib.request.urlopen(self.metrics, timeout=20) as response:
            return bytes(response.read())

    def files(self, shown: Issued) -> TlsFiles:
        """A caller who has this certificate in files."""
        (self.place / "caller.crt").write_bytes(shown.chain)
        (self.place / "caller.key").write_bytes(shown.key_pem)
        return TlsFiles(*(str(self.place / name) for name in ("caller.crt", "caller.key", "bundle.pem")), NAME)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)  # short: there are sockets in it
        program, more = program_of_its_own(place, "sidecar-program")

        def register(here: Spire) -> None:
            here.federate("partner.test", PARTNER.pem)
            federated = ["-dns", NAME, "-federatesWith", "spiffe://partner.test"]
            here.register(f"spiffe://{DOMAIN}/sidecar", program, *federated)
            here.register(AGENT, Path(sys.executable))

        with spire(place, register) as running:
            ledger, key = made(place)
            settings = place / "sidecar.toml"
            (place / "registry.json").write_bytes(registry_text(*PRINCIPALS))
            settings.write_text(
                f'data_dir = "{ledger}"\nlisten = "127.0.0.1:0"\nmetrics = "127.0.0.1:0"\nrequire = ["mtls"]\n'
                f'registry = "{place}/registry.json"\n[spiffe]\nsocket = "{running.workload_api}"\n'
            )
            command = [str(program), "-m", "sidecar", "serve", "--config", str(settings)]
            with _served(command, environment(**more)) as (address, metrics):
                yield Fleet(running, address, metrics, ledger, key, place)


@contextmanager
def _served(command: list[str], variables: dict[str, str]) -> Iterator[tuple[str, str]]:
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if "sidecar is ready on " in line:
                    break
            else:
                raise AssertionError(f"the sidecar did not start: {''.join(said)}")
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            metrics = next(json.loads(each)["message"].split()[-1] for each in said if "metrics are on" in each)
            yield said[-1].split()[-1], metrics
        finally:
            process.kill()


def test_decisions_go_on_while_both_sides_svids_are_renewed(fleet: Fleet) -> None:
    renewed = Renewals(fleet)
    failures: list[BaseException] = []
    asked = [0, 0]

    def ask_by_thread() -> None:
        with Guard(fleet.address, agent="billing-agent", tls=fleet.tls(), timeout=20, attempts=1) as guard:
            while not renewed.enough():
                asked[0] += guard.ask(*QUESTION).effect is Effect.ALLOW

    async def ask_by_stream() -> None:
        async with (
            AsyncGuard(fleet.address, agent="billing-agent", tls=fleet.tls(), timeout=20, attempts=1) as guard,
            guard.stream() as stream,
        ):
            while not renewed.enough():
                asked[1] += (await stream.ask(*QUESTION)).effect is Effect.ALLOW
                assert (await guard.ask(*QUESTION)).effect is Effect.ALLOW

    def kept(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)
            renewed.stop()

    threads = [
        threading.Thread(target=kept, args=[each]) for each in (ask_by_thread, lambda: asyncio.run(ask_by_stream()))
    ]
    for thread in threads:
        thread.start()
    renewed.watch()
    for thread in threads:
        thread.join()
    assert failures == []
    assert min(renewed.seen) >= ROTATIONS
    assert min(asked) > 10 * ROTATIONS
    after = series(fleet.page())
    errors = {key[1:] for key, value in after.items() if key[0] == "sidecar_errors_total" and value}
    assert errors <= {("CANCELLED", "DecideStream")}  # the stream was left at the end
    assert after["sidecar_tls_handshakes_total",] >= 2 * ROTATIONS  # each side's new SVIDs were really shown


class Renewals:
    """How often the agent's SVID and the sidecar's were renewed while somebody watched."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._over = fleet, threading.Event()
        self.seen = (0, 0)

    def enough(self) -> bool:
        return self._over.is_set()

    def stop(self) -> None:
        self._over.set()

    def watch(self) -> None:
        """Until there were enough of both, and the first ones have ended: who went on showing one would have failed."""
        mine = WorkloadSource(str(self._fleet.spire.workload_api), end_of)
        mine.wait()
        agents: list[float] = []
        sidecars: list[float] = []
        try:
            while not self._over.wait(0.1):
                shown = series(self._fleet.page())["sidecar_tls_certificate_end_seconds", "callers"]
                for ends, end in (agents, mine.current()), (sidecars, shown):
                    ends += [end] if end not in ends else []
                self.seen = len(agents) - 1, len(sidecars) - 1
                if min(self.seen) >= ROTATIONS and time.time() > max(agents[0], sidecars[0]):
                    return
        finally:
            mine.close()
            self.stop()


def end_of(material: Material) -> float:
    return x509.load_pem_x509_certificate(material.chain).not_valid_after_utc.timestamp()


def test_who_is_proved_is_in_the_entry_and_nobody_elses_name_is_taken(fleet: Fleet) -> None:
    with Guard(fleet.address, agent="billing-agent", tls=fleet.tls(), timeout=20) as guard:
        decision = guard.ask(*QUESTION)
    entry = shown(fleet, "--seq", str(decision.seq))
    assert (entry["agent"]["proof"], entry["agent"]["spiffe_id"]) == ("mtls", AGENT)
    before = series(fleet.page())["sidecar_unproved_total", "name"]
    with (
        Guard(fleet.address, agent="partner", tls=fleet.tls(), timeout=20) as guard,
        pytest.raises(NoDecision, match="is not billing-agent, who is proved"),
    ):
        guard.ask(*QUESTION)
    assert series(fleet.page())["sidecar_unproved_total", "name"] == before + 1
    entry = shown(fleet, "--seq", str(decision.seq + 1))
    assert (entry["type"], entry["code"], entry["principal"]) == ("REJECTED", "PERMISSION_DENIED", "billing-agent")


def shown(fleet: Fleet, *which: str) -> dict[str, Any]:
    done = sidecar("show", fleet.ledger, "--json", *which)
    assert done.returncode == 0, done.stderr
    payload = json.loads(done.stdout.splitlines()[0])["payload"]
    assert isinstance(payload, dict)
    return payload


def test_a_federated_domain_proves_its_own_workloads_and_nobody_elses(fleet: Fleet) -> None:
    ours = PARTNER.issue(PARTNERS)
    with Guard(fleet.address, agent="partner", tls=fleet.files(ours), timeout=20) as guard:
        assert guard.ask(*QUESTION).effect is Effect.DENY  # unknown to the policy; but answered
    before = series(fleet.page()).get(("sidecar_rejected_total", "UNAUTHENTICATED"), 0)
    stolen = PARTNER.issue(AGENT)
    with (
        Guard(fleet.address, agent="billing-agent", tls=fleet.files(stolen), timeout=20) as guard,
        pytest.raises(NoDecision, match="root of its own trust domain"),
    ):
        guard.ask(*QUESTION)
    assert series(fleet.page())["sidecar_rejected_total", "UNAUTHENTICATED"] == before + 1
    shown = sidecar("show", fleet.ledger, "--json")
    assert "root of its own trust domain" in shown.stdout, shown.stderr


def test_a_sidecar_of_another_name_or_trust_domain_is_not_asked(fleet: Fleet) -> None:
    socket = str(fleet.spire.workload_api)
    for tls, timeout in (
        (TlsSpiffe(socket, DOMAIN, "other.internal"), 20),
        (TlsSpiffe(socket, "partner.test", NAME), 2),  # all of it is waited for that domain's roots
    ):
        with Guard(fleet.address, agent="billing-agent", tls=tls, timeout=timeout, attempts=1) as guard:
            with pytest.raises(NoDecision) as none:
                guard.ask(*QUESTION)
            assert none.value.cause == "unreachable"


def test_a_program_that_is_not_registered_gets_no_svid_and_no_decision(fleet: Fleet) -> None:
    program, more = program_of_its_own(fleet.place, "stranger")
    code = (
        "from sidecar.client import Guard, TlsSpiffe\n"
        f"guard = Guard({fleet.address!r}, agent='billing-agent', timeout=2, tls={fleet.tls()!r})\n"
        "guard.ask('crm.read', ('customer', 'acme-42'))\n"
    )
    done = subprocess.run([program, "-c", code], capture_output=True, text=True, env=environment(**more), timeout=60)
    assert done.returncode != 0
    assert "gave no usable SVID" in done.stderr.splitlines()[-1]


def test_without_its_agent_a_sidecar_goes_on_and_says_so(fleet: Fleet) -> None:
    """The last one here: the agent does not come back."""
    fleet.spire.end_agent()
    while not series(fleet.page())["sidecar_tls_faults_total",]:
        time.sleep(0.05)
    shown = fleet.files(PARTNER.issue(PARTNERS))
    with Guard(fleet.address, agent="partner", tls=shown, timeout=20) as guard:
        assert guard.ask(*QUESTION).effect is Effect.DENY
