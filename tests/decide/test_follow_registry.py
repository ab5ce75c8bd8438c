"""Following the registry's file, whatever else the process is at."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from sidecar.api import Metrics
from sidecar.decide import RegistryFollower
from sidecar.identity import RegistryFile
from tests.decide.test_in_force import Place
from tests.people import person, registry_text


def test_it_is_read_while_all_threads_are_taken(tmp_path: Path) -> None:
    """Who is about to be barred may have asked for what takes them all."""
    go = threading.Event()
    file = tmp_path / "registry.json"
    file.write_bytes(registry_text(person("billing-agent", "agent")))

    async def main() -> None:
        place = Place(tmp_path / "ledger")
        follower = RegistryFollower(RegistryFile(file), place.in_force, Metrics("test"))
        await follower.first()
        taken = [asyncio.ensure_future(asyncio.to_thread(go.wait)) for _ in range(64)]
        await asyncio.sleep(0)
        file.write_bytes(registry_text(person("billing-agent", "agent") | {"status": "suspended"}))
        try:
            async with asyncio.timeout(30):
                await follower.look()
        finally:
            go.set()
        known = place.in_force.registry
        assert known is not None and known.read.principals["billing-agent"].status == "suspended"
        await asyncio.gather(*taken)
        place.ledger.close()

    asyncio.run(main())
