"""Programs a test starts: found here, or the test says why it does not run.

A machine without the program skips the test. Where nothing may be skipped (`SIDECAR_NO_SKIP=1`, set by `.ci/run`,
which installs the programs first) the same absence is a failure.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

_HOW_TO_GET = {
    "opa": "`make opa` takes opa >= 1.21.3 from PATH or builds it with Go",
    "spire-server": "`make spire` builds it with Go 1.25 or later",
    "spire-agent": "`make spire` builds it with Go 1.25 or later",
    "helm": "`make helm` builds it with Go 1.26 or later",
    "cargo": "install cargo with the system's package manager",
    "go": "install Go 1.21 or later",
    "node": "install nodejs, 18 or later, with the system's package manager",
    "npm": "install npm with the system's package manager",
    "chromium": "install chromium with the system's package manager",
    "git": "install git with the system's package manager",
    "sshd": "install openssh-server with the system's package manager",
    "ssh": "install openssh-client with the system's package manager",
    "openssl": "install openssl with the system's package manager",
    "curl": "install curl with the system's package manager",
    "rsync": "install rsync with the system's package manager",
    "debootstrap": "install debootstrap with the system's package manager",
    "ip": "install iproute2 with the system's package manager",
    "nft": "install nftables with the system's package manager",
    "cc": "install gcc and libc6-dev with the system's package manager",
    "h2load": "install nghttp2-client with the system's package manager",
    "pdftotext": "install poppler-utils with the system's package manager",
    "promtool": "install prometheus with the system's package manager",
    "java": "install a Java runtime, 11 or later, with the system's package manager",
    "mvn": "install maven with the system's package manager: it brings veraPDF",
    "softhsm2-util": "install softhsm2 with the system's package manager",
}


def needs_program(name: str) -> str:
    """The absolute path of the program ``name``, from the tests' own environment first, then from PATH."""
    beside_python = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join([beside_python, os.environ.get("PATH", os.defpath)]))
    if found is None:
        how = _HOW_TO_GET.get(name, f"put {name} on PATH")
        cannot_run(f"needs the program {name}, which this machine lacks: {how}")
    return found


def cannot_run(message: str) -> NoReturn:
    """Skips the test for what this machine lacks, or fails it where nothing may be skipped."""
    if os.environ.get("SIDECAR_NO_SKIP") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
