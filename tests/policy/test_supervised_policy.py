"""What an OPA of our own serves: directories, bundle files, and what is refused before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import EngineUnavailable, UsageError
from sidecar.policy import BuiltPolicy, OpaProgram, Pace, SupervisedOpa, find_opa

from .supervision import (
    run,
    supervised,
)


def test_a_directory_is_served_as_a_bundle(program: OpaProgram, policy: Path, request_document: dict[str, Any]) -> None:
    async def main() -> None:
        async with supervised(program, policy) as engine:
            before = engine.version
            await engine.ready()
            answer = await engine.evaluate(request_document, 30)
            assert answer.result["effect"] == "ALLOW"  # type: ignore[index]
            assert answer.version == engine.version == before
            assert (before.engine, before.engine_version, before.revision) == ("opa", program.version, "r42")
            assert len(before.bundle_digest) == 64
        with pytest.raises(EngineUnavailable, match="closed"):
            await engine.evaluate(request_document, 30)
        with pytest.raises(EngineUnavailable, match="closed"):
            await engine.ready()

    run(main)


def test_a_mounted_config_map_is_a_directory_of_links(
    program: OpaProgram, policy: Path, tmp_path: Path, request_document: dict[str, Any]
) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    policy.rename(mounted / "..2026_11_23")
    (mounted / "..data").symlink_to("..2026_11_23")
    for name in ("policy.rego", ".manifest"):
        (mounted / name).symlink_to(Path("..data", name))

    async def main() -> None:
        async with supervised(program, mounted) as engine:
            await engine.ready()
            assert (await engine.evaluate(request_document, 30)).version.revision == "r42"

    run(main)


def test_an_entry_point_that_is_none(program: OpaProgram) -> None:
    with pytest.raises(UsageError, match="entry point"):
        SupervisedOpa(program, BuiltPolicy.of(b""), "p/../decision")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("echo Version: 1.21.2", r"opa is OPA 1\.21\.2; install 1\.21\.3 or later"),
        ("echo Version: 0.70.0", r"opa is OPA 0\.70\.0; install"),
        ("echo Version: 1.22.0-dev", "does not say its version"),
        ("exit 1", "does not say its version"),
    ],
)
def test_an_opa_that_is_too_old_is_never_run(tmp_path: Path, said: str, named: str) -> None:
    (tmp_path / "opa").write_text(f"#!/bin/sh\n{said}\n")
    (tmp_path / "opa").chmod(0o700)
    with pytest.raises(UsageError, match=named):
        find_opa(str(tmp_path / "opa"))


def test_no_opa_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not on PATH: install OPA 1\.21\.3 or later"):
        find_opa(str(tmp_path / "opa"))


def test_paces_that_are_none() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Pace(hung_after=0)
    with pytest.raises(ValueError, match="longest_delay"):
        Pace(first_delay=2, longest_delay=1)


def test_a_policy_in_rego_v0(program: OpaProgram, policy: Path, request_document: dict[str, Any]) -> None:
    (policy / ".manifest").write_text('{"revision": "old", "rego_version": 0}')
    (policy / "policy.rego").write_text('package p\n\ndecision = {"effect": "DENY"} { input.purpose }\n')
    (policy / "policy_test.rego").unlink()

    async def main() -> None:
        async with supervised(program, policy) as engine:
            await engine.ready()
            assert (await engine.evaluate(request_document, 30)).result == {"effect": "DENY"}

    run(main)
