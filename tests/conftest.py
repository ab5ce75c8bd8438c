"""Long runs are for `make soak`: tests marked `soak` are left out unless SIDECAR_SOAK=1."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import warnings
from collections.abc import Generator
from pathlib import Path

import pytest

# Begun before all others (`make test`), so that no worker ends alone.
LONGEST = (
    "test_readme.py",
    "test_docs.py",
    "test_types.py",
    "collector/test_partitions.py",
    "collector/test_kills.py",
    "ledger/test_kill.py",
    "faults/test_signals.py",
    "faults/test_policy_disk.py",
    "page/test_page.py",
    "cli/test_bench.py",
    "collector/test_serving.py",
    "cli/test_demo.py",
    "enforce/test_frameworks.py",
    "enforce/test_frameworks_retries.py",
    "enforce/test_crewai.py",
    "enforce/test_mcp_gateway.py",
    "enforce/test_mcp_listen.py",
    "enforce/test_mcp_outside.py",
    "decide/test_activation.py",
    "charts/test_sidecar_chart.py",
    "conformance/test_conformance.py",
    "collector/test_shipping.py",
    "collector/test_upgrade.py",
    "page/test_judgement.py",
    "policy/test_gate.py",
    "cli/test_policy_in_force.py",
    "attacks/test_attack_01_flip.py",
    "policy/test_git_source.py",
    "policy/test_opa_room.py",
    "evidence/test_second_verifier.py",
    "languages/test_examples.py",
    "verify/test_ahead.py",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: runs for minutes; only with SIDECAR_SOAK=1 (`make soak`)")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Garbage is not looked for, which is a third of its time, nor ever again in what it has made, which stays."""
    gc.disable()
    try:
        _compile_a_share(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _compile_a_share(config: pytest.Config) -> None:
    """What pytest makes of a test module and keeps (`.pyc`) is made by one worker, where all would begin with the same.

    A module that cannot be imported is one no more; pytest tries it again, and says why.
    """
    here, worker = Path(__file__).parent, getattr(config, "workerinput", None)
    if worker is None or config.args != config.getini("testpaths"):
        return
    for path in sorted(here.rglob("test_*.py"))[int(worker["workerid"][2:]) :: worker["workercount"]]:
        name = ".".join(path.with_suffix("").relative_to(here.parent).parts)
        with contextlib.suppress(Exception, pytest.skip.Exception), warnings.catch_warnings():
            warnings.simplefilter("error")
            importlib.import_module(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))
    if os.environ.get("SIDECAR_SOAK") == "1":
        return
    soaks = [item for item in items if item.get_closest_marker("soak")]
    if soaks:
        config.hook.pytest_deselected(items=soaks)
        items[:] = [item for item in items if item not in soaks]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Ids that are the same in every worker: no memory addresses, no bytes that differ from run to run."""
    plain = isinstance(val, str | int | float | bool | type | None) and len(repr(val)) < 80
    return None if plain else argname
