"""An OPA of our own under test: the policy it serves, and the questions put to it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from sidecar.errors import EngineError
from sidecar.policy import BuiltPolicy, GateSettings, OpaProgram, Pace, SupervisedOpa, build_files, read_policy
from sidecar.policy.opa_process import OpaProcess

ENTRYPOINT = "p/decision"
POLICY = """package p

default decision := {"effect": "DENY", "reasons": [], "obligations": []}

decision := {"effect": "ALLOW", "reasons": [], "obligations": [], "echo": input.purpose} if not input.arguments.mode

decision := {"sum": sum(numbers.range(1, input.arguments.n))} if input.arguments.mode == "allocate"

decision := {"said": true} if {
	input.arguments.mode == "print"
	print("secret", input.arguments.secret)
}
"""

QUICK = Pace(probe_every=0.05, hung_after=0.5, first_delay=0.01, longest_delay=0.05)
PATIENT = Pace(probe_every=0.05, hung_after=60, first_delay=0.01, longest_delay=0.05)


async def built(program: OpaProgram, policy: Path) -> BuiltPolicy:
    return await build_files(program, read_policy(policy), GateSettings(ENTRYPOINT))


@contextlib.asynccontextmanager
async def supervised(program: OpaProgram, policy: Path, **options: Any) -> AsyncIterator[SupervisedOpa]:
    engine = SupervisedOpa(program, await built(program, policy), ENTRYPOINT, **{"pace": QUICK, **options})
    try:
        yield engine
    finally:
        await engine.close()


async def eventually(engine: SupervisedOpa, document: dict[str, Any]) -> Any:
    """The first decision that comes; only asking again is done for it. At most a minute."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(EngineError):
                return await engine.evaluate(document, 5)
            await asyncio.sleep(0.01)


async def gone(engine: SupervisedOpa, process: OpaProcess) -> None:
    """Return when this run of OPA has ended and is no longer asked. At most a minute."""
    async with asyncio.timeout(60):
        await asyncio.wait({process.ended})
        for _ in iter(lambda: engine.process is process, False):
            await asyncio.sleep(0.01)


def running(engine: SupervisedOpa) -> OpaProcess:
    assert engine.process is not None
    return engine.process


def proc_of(process: OpaProcess) -> Path:
    return Path("/proc", str(process.pid))


def socket_of(process: OpaProcess) -> Path:
    return Path(process.address.removeprefix("unix:"))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def address_space(process: OpaProcess) -> int:
    """Bytes of virtual memory."""
    return int((proc_of(process) / "statm").read_text().split()[0]) * resource.getpagesize()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(120):
            await main()

    asyncio.run(limited())
