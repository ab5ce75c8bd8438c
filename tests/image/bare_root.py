"""Bare roots: a minimal Debian by debootstrap, made once a machine, and copies of it that a test may write in.

What a container engine would bring (name resolution, the machine's proxies and its certificates) is bound into them;
nothing else of this machine is seen inside.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.needs import cannot_run, needs_program

RELEASES: Final = {"13": "trixie"}
_PLUMBING: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/opt/wheels")
_PASSED_ON: Final = ("PIP_", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GOFLAGS", "http_proxy", "https_proxy", "no_proxy")
_CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
_MACHINES_OWN: Final = "/run/machine-certificates.crt"
_PATIENCE_SECONDS: Final = 1_800


def kept() -> Path:
    """Where what takes long to make stays, for all checkouts on this machine."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "decision-sidecar-tests"


def _sources(release: str) -> dict[str, str]:
    """Where this machine gets Debian from, for another release."""
    text = "".join(
        each.read_text()
        for each in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*")))
        if each.is_file()
    )
    places = [uri.rstrip("/") for uri in re.findall(r"https?://[^\s\]]+/debian(?:-security)?/?(?=\s)", text + "\n")]
    main = [place for place in places if place.endswith("/debian") and "snapshot" not in place]
    security = [place for place in places if place.endswith("/debian-security") and "snapshot" not in place]
    if not main or not security:
        cannot_run("needs a Debian machine: apt names no mirror of Debian and its security updates")
    return {release: main[0], f"{release}-updates": main[0], f"{release}-security": security[0]}


def debian(point: str) -> Path:
    """A minimal Debian of that point release's series, as the image debian:<point>-slim is; not to be written in."""
    release = RELEASES[point.partition(".")[0]]
    if os.geteuid() != 0:
        cannot_run("needs root: only it may make a root file system and enter it")
    root = kept() / f"debian-{release}-1"
    if root.exists():
        return root
    program, sources = needs_program("debootstrap"), _sources(release)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as near:
        made = Path(near) / "root"
        command = [program, "--variant=minbase", release, str(made), sources[release]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS)
        if done.returncode:
            cannot_run(f"debootstrap could not make Debian {release}: {done.stdout.strip().splitlines()[-1:]}")
        lines = [f"deb {place} {suite} main\n" for suite, place in sources.items()]
        (made / "etc/apt/sources.list").write_text("".join(lines))
        made.chmod(0o755)
        made.rename(root)
    return root


@contextlib.contextmanager
def writable(lower: Path, place: Path) -> Iterator[Path]:
    """``lower`` under a layer of its own: what is written stays in ``place``."""
    upper, work, root = (place / name for name in ("upper", "work", "root"))
    for each in (upper, work, root):
        each.mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    done = subprocess.run(
        ["mount", "-t", "overlay", "-o", options, "overlay", str(root)], capture_output=True, text=True
    )
    if done.returncode:
        cannot_run(f"needs the right to mount an overlay: {done.stderr.strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def run_in(
    root: Path, command: Sequence[str], environment: Mapping[str, str], workdir: str, more: Mapping[str, str]
) -> None:
    """Run ``command`` to its end as root of ``root``; ``more``: places of this machine bound there, by path.

    Raises:
        AssertionError: it failed; with the end of what it said.
    """
    bound = {place: place for place in _PLUMBING if Path(place).exists()} | {_CERTIFICATES: _MACHINES_OWN, **more}
    lines = [f"mount --rbind /dev {root}/dev", f"mount -t proc proc {root}/proc", f"mount -t tmpfs tmpfs {root}/run"]
    for here, there in bound.items():
        at = shlex.quote(f"{root}{there}")
        make = f"mkdir -p {at}" if Path(here).is_dir() else f"mkdir -p $(dirname {at}) && touch {at}"
        lines += [make, f"mount --bind {shlex.quote(here)} {at}"]
    given = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    given |= {"PIP_CERT": _MACHINES_OWN, "SSL_CERT_FILE": _MACHINES_OWN, "HOME": "/root", **environment}
    assigned = shlex.join(f"{name}={value}" for name, value in given.items())
    inside = f"cd {shlex.quote(workdir)} && exec {shlex.join(command)}"
    lines.append(f"exec chroot {root} env -i {assigned} /bin/sh -c {shlex.quote(inside)}")
    script = " && ".join(lines)
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=_PATIENCE_SECONDS,
        )  # fmt: skip
        said.seek(0)
        assert done.returncode == 0, f"{shlex.join(command)[:200]}\n{said.read()[-3000:]}"


def copied(source: Path, target: Path) -> None:
    """As COPY of one stage's files to another: a directory's content, or one file, with owners and modes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--archive", "--no-target-directory", str(source), str(target)], check=True)
