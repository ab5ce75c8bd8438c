"""Runs a pod of rendered manifests as plain processes: what a kubelet does for it, without containers.

Each container is a process with the pod's users, groups and environment, in a mount namespace of its own whose root
holds this machine's programs, read-only, and the container's volumeMounts at their paths; nothing else of the pod.
Volumes are directories with what kubelet gives them: an emptyDir is 0777, files of ConfigMaps and Secrets are root's,
and a volume's group is fsGroup, with its setgid bit. Init containers run in order, each to its end, or, with
restartPolicy Always, until its startup probe (without one: at once); then the others. At the end the containers get
SIGTERM first, and the native sidecars after them, the last started first. The containers of a pod share its network:
this machine's, or one that a test gives it. Root in a container has the capabilities that it is given and no others.

Not here: images (every container has this machine's programs), cgroups, seccomp.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.needs import cannot_run, needs_program

HOME: Final = Path(__file__).resolve().parents[2]
_PROGRAMS: Final = Path(sys.executable).parent
_SYSTEM: Final = ("passwd", "group", "nsswitch.conf")
_OURS: Final = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/ssl",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
)
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as images have it
_PATIENCE: Final = 120.0  # seconds; a guard, not a measure
_LOOK: Final = 0.05

Document = Mapping[str, Any]


@dataclass
class Container:
    """A container that was started. ``code``: its exit status, once it ended."""

    spec: Document
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def ended(self, within: float = _PATIENCE) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(within)


@dataclass
class Pod:
    """``given``: the data of ConfigMaps and Secrets by kind and name; ``place``: the node's directory for it.

    ``network``: what to put before a command that is to run in the pod's network, ``address`` the pod's in it, and
    ``node`` calls something where probes come from. ``programs``: directories that are on every container's PATH.
    ``files``: what else is in every container, by its path there.
    """

    spec: Document
    given: Mapping[tuple[str, str], Mapping[str, bytes]]
    place: Path
    containers: dict[str, Container] = field(default_factory=dict)
    claims: Mapping[str, Path] = field(default_factory=dict)  # directories of volumes that outlive the pod
    network: tuple[str, ...] = ()
    address: str = "127.0.0.1"
    node: Callable[[Callable[[], bool]], bool] = lambda look: look()
    programs: tuple[Path, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)

    def volume(self, name: str) -> Path:
        return self.claims.get(name) or self.place / "volumes" / name

    def start(self) -> None:
        """All containers in their order. Raises AssertionError where one does not start."""
        _needs_root()
        for each in self.spec["volumes"]:
            if each["name"] not in self.claims:
                self._lay(each)
        for directory in self.claims.values():
            self._give_group(directory)
        self._hosts.write_text(_hosts(self.spec.get("hostAliases", [])))
        for each in self.spec.get("initContainers", []):
            started = self.run(each)
            if each.get("restartPolicy") == "Always":
                self._await_probe(started, "startupProbe")
            else:
                assert started.ended() == 0, f"{started.name}: {started.said}"
        for each in self.spec["containers"]:
            self.run(each)

    def run(self, spec: Document, command: list[str] | None = None) -> Container:
        """Start a container, or another command as that container."""
        name, number = spec["name"], len(list(self.place.glob(f"{spec['name']}-*.log")))
        log = self.place / f"{name}-{number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.within(spec, command or _command(spec)), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        started = Container(spec, process, log)
        if command is None:
            self.containers[name] = started
        return started

    def restart(self, name: str) -> Container:
        """As kubelet does when a container ended: the same container again, with the same volumes."""
        started = self.run(self.containers[name].spec)
        self._await_probe(started, "startupProbe")
        return started

    def ready(self, name: str, probe: str = "readinessProbe") -> bool:
        """What one asking of its probe says."""
        spec = self.containers[name].spec
        return self._probed(spec, spec[probe])

    def stop(self, seconds: float | None = None) -> dict[str, int]:
        """End the pod as kubelet does; gives the exit statuses. Raises AssertionError where its grace is not enough."""
        until = time.monotonic() + (self.spec["terminationGracePeriodSeconds"] if seconds is None else seconds)
        sidecars = [
            each["name"] for each in self.spec.get("initContainers", []) if each.get("restartPolicy") == "Always"
        ]
        groups = [[each["name"] for each in self.spec["containers"]], *([name] for name in reversed(sidecars))]
        codes = {}
        for group in groups:
            going = [self.containers[name] for name in group]
            for each in going:
                each.process.send_signal(signal.SIGTERM)
            for each in going:
                try:
                    codes[each.name] = each.ended(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    raise AssertionError(f"{each.name} did not end within the grace:\n{each.said}") from None
        return codes

    def kill(self) -> None:
        """Whatever still runs."""
        for each in self.containers.values():
            if each.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(each.process.pid, signal.SIGKILL)
                each.process.wait(_PATIENCE)

    # --- a container's surroundings

    def within(self, spec: Document, command: list[str], *, whole: bool = False) -> list[str]:
        """``command`` as the container; ``whole``: with this machine's own file system instead of the container's."""
        security = {**self.spec.get("securityContext", {}), **spec.get("securityContext", {})}
        user, group = security["runAsUser"], security.get("runAsGroup", 0)
        groups = [*self.spec["securityContext"].get("supplementalGroups", [])]
        groups += [security["fsGroup"]] if "fsGroup" in security else []
        more = ",".join(map(str, groups)) or str(group)
        path = ":".join(map(str, (_PROGRAMS, *self.programs, _PATH)))
        environment = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {each["name"]: each["value"] for each in spec.get("env", [])}
        assigned = [f"{name}={value}" for name, value in environment.items()]
        lines = ["set -e"] if whole else ["set -e", *self._root(spec)]
        root = "/" if whole else "/mnt"
        run = ["setpriv", "--no-new-privs", "chroot", f"--userspec={user}:{group}", f"--groups={more}", root]
        lines.append(f"exec {shlex.join([*run, *_bounded(security), 'env', '-i', *assigned, *command])}")
        return [*self.network, "unshare", "--mount", "/bin/sh", "-c", "\n".join(lines)]

    @property
    def _hosts(self) -> Path:
        return self.place / "hosts"

    def _root(self, spec: Document) -> list[str]:
        """The script that lays the container's root at /mnt."""
        lines = ["mount -t tmpfs -o mode=0755 tmpfs /mnt"]
        bound = {place: place for place in _OURS if Path(place).exists()}
        ours = (HOME, sys.prefix, sys.base_prefix, _real_programs(), *self.programs)
        bound |= {str(place): str(place) for place in ours}
        for place in sorted(bound):
            lines += _bind(Path(place), f"/mnt{place}", read_only=True)
        for target, source in {"/etc/hosts": self._hosts, **self.files}.items():
            lines += _bind(source, f"/mnt{target}", read_only=True)
        lines += ["mkdir -p /mnt/dev /mnt/proc", "mount --rbind /dev /mnt/dev", "mount -t proc proc /mnt/proc"]
        for each in sorted(spec.get("volumeMounts", []), key=lambda mount: str(mount["mountPath"])):
            source = self.volume(each["name"]) / each.get("subPath", "")
            lines += _bind(source, f"/mnt{each['mountPath']}", read_only=each.get("readOnly", False))
            for place in sorted(bound):  # a repository below /tmp, say: what is mounted there hides it
                if Path(place).is_relative_to(each["mountPath"]):
                    lines += _bind(Path(place), f"/mnt{place}", read_only=True)
        if spec["securityContext"].get("readOnlyRootFilesystem"):
            lines.append("mount -o remount,ro /mnt")
        return lines

    def _lay(self, volume: Document) -> None:
        directory = self.volume(volume["name"])
        directory.mkdir(parents=True)
        if "emptyDir" in volume:
            directory.chmod(0o777)
            self._give_group(directory)
            return
        projected = volume.get(
            "projected", {"sources": [volume], **volume.get("secret", {}), **volume.get("configMap", {})}
        )
        for source in projected["sources"]:
            kind = "configMap" if "configMap" in source else "secret"
            assert kind in source, f"what volume is this: {volume}"
            data = self.given[kind, source[kind].get("secretName") or source[kind]["name"]]
            items = {i["key"]: i["path"] for i in source[kind].get("items", [])} or {key: key for key in data}
            for key, path in items.items():
                (directory / path).write_bytes(data[key])
                (directory / path).chmod(projected.get("defaultMode", 0o644))
        self._give_group(directory)

    def _give_group(self, directory: Path) -> None:
        """As kubelet's SetVolumeOwnership, once: the group, what its owner may do, and setgid on directories."""
        group = self.spec["securityContext"].get("fsGroup")
        if group is None or directory.stat().st_gid == group:
            return
        for each in (directory, *directory.rglob("*")):
            mode = each.stat().st_mode & 0o7777
            os.chown(each, -1, group)
            each.chmod(mode | (0o2770 if each.is_dir() else 0o440))

    # --- probes

    def _await_probe(self, container: Container, name: str) -> None:
        until = time.monotonic() + _PATIENCE
        while name in container.spec and not self._probed(container.spec, container.spec[name]):
            assert container.process.poll() is None, f"{container.name} ended: {container.said}"
            assert time.monotonic() < until, f"{container.name} is not there: {container.said}"
            time.sleep(_LOOK)

    def _probed(self, spec: Document, probe: Document) -> bool:
        if "exec" in probe:
            command = self.within(spec, probe["exec"]["command"])
            return subprocess.run(command, capture_output=True, timeout=_PATIENCE).returncode == 0
        return self.node(lambda: self._answered(spec, probe["httpGet"]))

    def _answered(self, spec: Document, where: Document) -> bool:
        ports = {each["name"]: each["containerPort"] for each in spec["ports"]}
        port = ports.get(where["port"], where["port"])
        try:
            with urllib.request.urlopen(f"http://{self.address}:{port}{where['path']}", timeout=10) as answer:
                return 200 <= answer.status < 400
        except OSError:
            return False


@contextlib.contextmanager
def running(pod: Pod) -> Iterator[Pod]:
    """A pod that was started; what still runs of it at the end is killed."""
    try:
        pod.start()
        yield pod
    finally:
        pod.kill()


def given(documents: list[Document]) -> dict[tuple[str, str], dict[str, bytes]]:
    """What the ConfigMaps among rendered manifests hold."""
    maps = [each for each in documents if each["kind"] == "ConfigMap"]
    return {("configMap", each["metadata"]["name"]): {k: v.encode() for k, v in each["data"].items()} for each in maps}


def _command(spec: Document) -> list[str]:
    """The image's entry point is `sidecar` (Dockerfile); a manifest's ``command`` goes in its place."""
    return [*spec.get("command", ["sidecar"]), *spec.get("args", [])]


def _hosts(aliases: Sequence[Document]) -> str:
    """What kubelet writes into each container's /etc/hosts."""
    return "127.0.0.1 localhost\n" + "".join(f"{each['ip']} {' '.join(each['hostnames'])}\n" for each in aliases)


def _bounded(security: Document) -> list[str]:
    """Root's capabilities, as far as it has any; nobody else has them."""
    if security["runAsUser"] != 0:
        return []
    given = ",".join(["-all", *(f"+{name.lower()}" for name in security["capabilities"].get("add", []))])
    return ["setpriv", f"--inh-caps={given}", f"--bounding-set={given}"]


def _bind(source: Path, target: str, *, read_only: bool) -> list[str]:
    at = shlex.quote(target)
    make = f"mkdir -p {at}" if source.is_dir() else f"[ -e {at} ] || {{ mkdir -p $(dirname {at}); touch {at}; }}"
    lines = [make, f"mount --bind {shlex.quote(str(source))} {at}"]
    return [*lines, f"mount -o remount,bind,ro {at}"] if read_only else lines


def _real_programs() -> Path:
    """Where `opa` really lies: in the virtual environment it may be a link."""
    return Path(needs_program("opa")).resolve().parent


def _needs_root() -> None:
    if os.geteuid() != 0:
        cannot_run("needs root: only it may run processes as several users, with mounts of their own")
    for name in ("unshare", "setpriv", "chroot"):
        needs_program(name)
