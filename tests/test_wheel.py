"""What is installed from a wheel has all that its commands need: no checkout is near."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.program import environment

HOME = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def installed(place: Path) -> Path:
    """Where the wheel's content lies, as `pip install` would put it."""
    copy, site = place / "checkout", place / "site"
    shutil.copytree(HOME / "sidecar", copy / "sidecar", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HOME / name, copy)
    subprocess.run([sys.executable, "-c", BUILD, str(place)], cwd=copy, check=True, capture_output=True, timeout=120)
    shutil.rmtree(copy)
    with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    return site


def test_bench_runs_without_a_checkout(tmp_path: Path) -> None:
    site = installed(tmp_path)

    def run(*arguments: str) -> str:
        clean = environment(PYTHONPATH=str(site))
        done = subprocess.run(
            [sys.executable, "-P", *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import sidecar; print(sidecar.__file__)").strip() == str(site / "sidecar" / "__init__.py")
    assert "one durable commit" in run("-m", "sidecar", "bench", "--only", "disk", "--seconds", "0.01")
