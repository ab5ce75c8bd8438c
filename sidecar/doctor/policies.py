"""The policy: the program that checks it, its source, what the gate says of it, its age; and the registry."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sidecar.api import answers
from sidecar.chain.payload import policy_time
from sidecar.doctor.finding import Finding, careful, ok, skipped, unexamined, wrong
from sidecar.doctor.patient import Patient
from sidecar.errors import EngineError, PolicySourceError, UsageError
from sidecar.identity import RegistryFile
from sidecar.parts import check_provable, policy_age, source_of, terms_of
from sidecar.policy import Candidate, OpaEngine, Refused, examine, find_opa, room_in, sockets_in


def check_opa(patient: Patient) -> Iterator[Finding]:
    """The program, where policies are gated or it is started; and the running one, where one is named."""
    config = patient.config
    if config.opa:
        yield asyncio.run(_reached(config.opa, config.entrypoint))
    elif config.engine == "opa" or config.policy_source_path or config.policy_source_git_url:
        program = find_opa()
        yield ok("opa", f"{program.path} is OPA {program.version}")
        if config.opa_room:
            yield _kept(Path(config.opa_room))
    else:
        yield skipped("opa", "the starter policy needs none")


def _kept(directory: Path) -> Finding:
    """Whether `sidecar opa` runs what a running sidecar asks for."""
    room = room_in(directory)
    if not os.access(room, os.R_OK | os.X_OK):
        mend = "start the sidecar, which makes it, or examine it as a user of the sidecar's group"
        return careful("opa", f"{room} is not there, or not for this user", mend)
    sockets = sockets_in(directory)
    wanted, answering = len(sockets), sum(map(answers, sockets))
    if answering < wanted:
        mend = f"see that `sidecar opa --room {directory}` runs as a user of the sidecar's group, and its log"
        return wrong("opa", f"{answering} of {wanted} OPAs that the sidecar asks for in {room} answer", mend)
    return ok("opa", f"{answering} OPA answers in {room}" if wanted else f"no sidecar asks for an OPA in {room} now")


async def _reached(address: str, entrypoint: str) -> Finding:
    engine = OpaEngine(address, entrypoint)
    try:
        await engine.ready()
    except EngineError as error:
        return unexamined("opa", error)
    finally:
        await engine.close()
    version = engine.version
    if not version.revision:
        mend = "let it load a bundle built with --revision"
        return wrong("opa", f"OPA at {address} names no revision of its policy: every decision is a DENY", mend)
    return ok("opa", f"OPA {version.engine_version} at {address} serves revision {version.revision}")


def check_policy(patient: Patient) -> Iterator[Finding]:
    """What is at the source now, taken through trust and gate as the sidecar would; what is in force, and its age."""
    config = patient.config
    active = patient.ledger.policy if patient.founded else None
    if config.opa:
        yield skipped("policy", "the running OPA has it; it is not gated")
        return
    if active is not None:
        revision = active["revision"][:40] or "the starter policy's"
        yield ok("policy", f"in force last: revision {revision}, from {active['source']['place']}")
    yield from _age(patient)
    with tempfile.TemporaryDirectory(prefix="sidecar-doctor-") as cache:
        source = source_of(config, Path(cache))
        if source is None:
            yield ok("policy", "the starter policy")
            return
        try:
            same = active is not None and active["source"]["place"] == source[1].place
            found = source[1].look("", active["revision"] if active is not None and same else "")
        except PolicySourceError as error:
            yield wrong("policy", f"{source[1].place}: {error}", "see that the sidecar's host reaches it")
            return
        except Refused as error:
            yield wrong("policy", f"{source[1].place}: {error}", "mend the policy; `sidecar policy check` shows all")
            return
        assert found is not None  # nothing was seen before
        yield _gated(patient, found)


def _gated(patient: Patient, found: Candidate) -> Finding:
    try:
        examined = asyncio.run(examine(find_opa(), found, terms_of(patient.config)))
    except UsageError as error:
        return unexamined("policy", error)
    if examined.bundle is None:
        mend = "mend the policy; `sidecar policy check` shows all findings"
        return wrong("policy", f"revision {found.revision[:40]} does not pass: {examined.cause}", mend)
    return ok("policy", f"revision {found.revision[:40]} passes the gate")


def _age(patient: Patient) -> Iterator[Finding]:
    age, limit = policy_age(patient.config), patient.config.policy_max_staleness
    if limit and age > limit:
        mend = "see why the sidecar cannot look at the source, in its log"
        yield wrong("policy", f"stale: its source was last asked {age:.0f} s ago, {limit:.0f} s may be", mend)


def check_registry(patient: Patient) -> Iterator[Finding]:
    """Whether it is one, and anybody in it can be proved now."""
    config = patient.config
    check_provable(config)
    if not config.registry:
        with_policy = config.policy_source_path or config.policy_source_git_url
        yield skipped("registry", "it comes with the policy" if with_policy else "none: names are merely asserted")
        return
    found = RegistryFile(Path(config.registry)).look()
    assert found is not None  # nothing was seen before
    at = policy_time(int(patient.now * 1e9))
    active = [each for each in found.principals.values() if each.status == "active"]
    provable = [each for each in active if each.spiffe_ids or any(key.valid(at) for key in each.keys.values())]
    said = f"{len(found.principals)} principals, {len(active)} active, digest {found.digest[:16]}…"
    if not any(each.kind == "agent" for each in provable):
        yield careful("registry", f"no agent in it can be proved now: {said}", "register one: sidecar agents add")
    else:
        yield ok("registry", said)
