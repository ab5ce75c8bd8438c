"""A rolling upgrade, and the way back: two installed versions take turns under load, and no decision is lost."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sidecar.chain.entry import EntryType
from sidecar.client import Guard, NoDecision
from tests.collecting import Collecting, collecting
from tests.faults.load import recorded
from tests.ports import free_address
from tests.program import Serving, made, serving, sidecar
from tests.test_wheel import BUILD, HOME

ASKED = 15  # decisions that must be answered between two changes
PATIENCE = 120.0  # seconds; a guard, not a measure


def installed(place: Path, version: str) -> tuple[Path | str, ...]:
    """How to run the program as of that version: a wheel of its own, and nothing of this checkout."""
    copy, site = place / f"checkout-{version}", place / f"site-{version}"
    shutil.copytree(HOME / "sidecar", copy / "sidecar", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE"):
        shutil.copy(HOME / name, copy)
    project = (HOME / "pyproject.toml").read_text()
    (copy / "pyproject.toml").write_text(
        re.sub(r'^version = ".*"$', f'version = "{version}"', project, flags=re.MULTILINE)
    )
    own = copy / "sidecar" / "__init__.py"
    own.write_text(re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', own.read_text(), flags=re.MULTILINE))
    subprocess.run([sys.executable, "-c", BUILD, str(place)], cwd=copy, check=True, capture_output=True, timeout=120)
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", str(next(place.glob(f"*-{version}-*.whl"))), str(site)], check=True
    )
    shutil.rmtree(copy)
    return (
        sys.executable,
        "-P",
        "-c",
        f"import sys; sys.path.insert(0, {str(site)!r}); from sidecar.cli import main; main()",
    )


class Callers:
    """Agents that ask all the time, and again with the same key where nobody answers. ``answered``: decision ids."""

    def __init__(self, guard: Guard, count: int) -> None:
        self.answered: list[str] = []
        self._guard, self._ended = guard, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def _ask(self) -> None:
        while not self._ended.wait(0.01):
            with contextlib.suppress(NoDecision):
                self.answered.append(self._guard.ask("crm.read", ("customer", "c-1"), {}).decision_id)

    def more(self) -> None:
        wanted, until = len(self.answered) + ASKED, time.monotonic() + PATIENCE
        while len(self.answered) < wanted:
            assert time.monotonic() < until, "nobody answers any more"
            time.sleep(0.02)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        for each in self._threads:
            each.start()
        try:
            yield
        finally:
            self._ended.set()
            for each in self._threads:
                each.join()


def test_versions_take_turns_under_load(tmp_path: Path) -> None:
    old, new = installed(tmp_path, "0.0.9"), installed(tmp_path, "0.2.0")
    ledger, key = made(tmp_path)
    address, config, place = free_address(), tmp_path / "c.toml", tmp_path / "collector"

    def collector(program: tuple[Path | str, ...]) -> contextlib.AbstractContextManager[Collecting]:
        return collecting(place, listen=address, program=program)

    def server(program: tuple[Path | str, ...]) -> contextlib.AbstractContextManager[Serving]:
        return serving(ledger, "--config", config, program=program)

    with contextlib.ExitStack() as first:
        before = first.enter_context(collector(old))
        config.write_text(before.settings())
        running = first.enter_context(server(old))
        callers = Callers(first.enter_context(running.guard()), 4)
        with callers.asking():
            callers.more()
            assert before.stop() == 0
            callers.more()  # without a collector
            with collector(new) as middle:
                callers.more()
                assert running.stop() == 0
                with server(new) as upgraded:
                    callers.more()
                    assert upgraded.stop() == 0
                with server(old) as back:  # the way back: first the sidecar ...
                    callers.more()
                    assert middle.stop() == 0
                    with collector(old) as last:  # ... then the collector
                        callers.more()
                        assert back.stop() == 0
                        trust = last.trust(tmp_path / "trust.json")
                        looked = sidecar("collector", "verify", "--data-dir", place, "--dev", "--json")
                        assert looked.returncode == 0, looked.stdout
    entries = list(recorded(ledger))
    decided = {payload["decision_id"] for header, payload in entries if header.type is EntryType.DECISION}
    assert set(callers.answered) <= decided and len(callers.answered) > 5 * ASKED
    _, *ran = [
        payload["software"] for header, payload in entries if header.type is EntryType.OPEN
    ]  # the first: sidecar init
    assert [each.rpartition(" ")[2] for each in ran] == ["0.0.9", "0.2.0", "0.0.9"]
    verified = sidecar("verify", ledger, "--custodian-key", key, "--trust", trust, "--json")
    report = json.loads(verified.stdout)
    assert (report["verdict"], report["entries"]) == ("OK", len(entries)), report["findings"]
