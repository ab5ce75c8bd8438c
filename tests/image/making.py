"""Carries the Dockerfile out without a container engine: each stage in a bare root, each RUN as it is written there.

The Go stage's base is the bare Debian with this machine's Go in it; the last stages begin empty, as `scratch` does.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.image import bare_root
from tests.image.dockerfile import HOME, Instruction, dockerignore, expanded, ignored, parse
from tests.needs import needs_program

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Stage:
    """A stage so far. ``root``: its files. ``config``: what an image of it would be run with."""

    name: str
    root: Path
    environment: dict[str, str]
    arguments: dict[str, str] = field(default_factory=dict)
    bound: dict[str, str] = field(default_factory=dict)  # places of this machine in it
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    workdir: str = "/"
    labels: dict[str, str] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, str]:
        return {**self.arguments, **self.environment}


@contextlib.contextmanager
def made(place: Path, given: Mapping[str, str], text: str | None = None) -> Iterator[dict[str, Stage]]:
    """The stages by name, the last as "". ``given``: build arguments; those that an engine sets itself included."""
    stages: dict[str, Stage] = {}
    with contextlib.ExitStack() as stack:
        outer: dict[str, str] = {"BUILDPLATFORM": "linux", **given}
        stage: Stage | None = None
        for one in parse(text if text is not None else (HOME / "Dockerfile").read_text()):
            if one.word == "FROM":
                stage = _begun(stack, place, one, outer)
                stages[stage.name] = stage
            elif stage is None:
                name, _, default = one.rest.partition("=")
                outer.setdefault(name, default)
            else:
                _carry_out(one, stage, stages, outer, given)
        yield stages


def _begun(stack: contextlib.ExitStack, place: Path, one: Instruction, outer: Mapping[str, str]) -> Stage:
    image, _, name = expanded(one.rest, dict(outer)).partition(" AS ")
    repository, _, tag = image.partition(":")
    near = place / (name or "final")
    if repository == "scratch":
        near.mkdir(parents=True)
        return Stage(name, near, {"PATH": _PATH})
    stage_root = stack.enter_context(bare_root.writable(bare_root.debian(_point(outer)), near))
    if repository == "golang":
        home = Path(needs_program("go")).resolve().parents[1]
        assert tag.startswith("1."), tag
        return Stage(name, stage_root, {"PATH": f"/usr/local/go/bin:{_PATH}"}, bound=_go(home))
    assert repository == "debian", image
    return Stage(name, stage_root, {"PATH": _PATH})


def _point(outer: Mapping[str, str]) -> str:
    return outer["DEBIAN"].removesuffix("-slim")


def _go(home: Path) -> dict[str, str]:
    """Go itself, and what it has fetched and built before: an engine would keep that in a layer."""
    bound = {str(home): "/usr/local/go"}
    for name, there in (("GOMODCACHE", "/root/go/pkg/mod"), ("GOCACHE", "/root/.cache/go-build")):
        caches = bare_root.kept() / name.lower()
        caches.mkdir(parents=True, exist_ok=True)
        bound[str(caches)] = there
    return bound


def _carry_out(
    one: Instruction, stage: Stage, stages: Mapping[str, Stage], outer: Mapping[str, str], given: Mapping[str, str]
) -> None:
    if one.word == "ARG":
        for each in shlex.split(one.rest):
            name, _, default = each.partition("=")
            stage.arguments[name] = given.get(name, outer.get(name, default))
    elif one.word == "ENV":
        stage.environment |= _pairs(one, stage)
    elif one.word == "LABEL":
        stage.labels |= _pairs(one, stage)
    elif one.word == "SHELL":
        stage.shell = json.loads(one.rest)
    elif one.word == "WORKDIR":
        stage.workdir = expanded(one.rest, stage.known)
        (stage.root / stage.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif one.word == "RUN":
        assert not one.flags, one
        bare_root.run_in(stage.root, [*stage.shell, one.rest], stage.known, stage.workdir, stage.bound)
    elif one.word == "COPY":
        _copy(one, stage, stages)
    else:
        stage.config[one.word] = one.rest


def _pairs(one: Instruction, stage: Stage) -> dict[str, str]:
    pairs = (each.partition("=") for each in shlex.split(expanded(one.rest, stage.known)))
    return {name: value for name, _, value in pairs}


def _copy(one: Instruction, stage: Stage, stages: Mapping[str, Stage]) -> None:
    assert set(one.flags) <= {"from"}, one
    *sources, target = shlex.split(one.rest)
    into = stage.root / (target if target.startswith("/") else f"{stage.workdir}/{target}").lstrip("/")
    for source in sources:
        here = stages[one.flags["from"]].root / source.lstrip("/") if one.flags else HOME / source
        goal = into / here.name if target.endswith("/") and not here.is_dir() else into
        if one.flags:
            bare_root.copied(here, goal)
        else:
            _from_context(here, goal)


def _from_context(here: Path, goal: Path) -> None:
    """What of the directory that is built in reaches the engine at all."""
    patterns = dockerignore()
    for each in sorted(here.rglob("*")) if here.is_dir() else [here]:
        name = str(each.relative_to(HOME))
        if each.is_dir() or ignored(patterns, name):
            continue
        at = goal / each.relative_to(here) if here.is_dir() else goal
        at.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(each, at)
        shutil.copymode(each, at)
