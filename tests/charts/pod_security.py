"""The rules of Kubernetes' Pod Security Standards, level "restricted", over pods as they are written in a manifest.

Source: the page "Pod Security Standards" of Kubernetes' documentation, as of 1.37, baseline and restricted, for Linux.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_VOLUMES: Final = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_syncookies",
    }
)
_SECCOMP: Final = ("RuntimeDefault", "Localhost")
_SELINUX: Final = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")

Spec = dict[str, Any]


def violations(pod: Spec) -> list[str]:
    """What of the pod's spec is not restricted, in words; empty for one that is."""
    spec = pod["spec"]
    annotations = pod.get("metadata", {}).get("annotations") or {}
    found = [*_of_pod(spec), *(f"annotation {name}" for name in annotations if "apparmor" in name)]
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            found += [
                f"{container['name']}: {what}" for what in _of_container(container, spec.get("securityContext", {}))
            ]
    return found


def _of_pod(spec: Spec) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    if spec.get("hostUsers") is True:
        yield "hostUsers"
    for volume in spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']}: {kind}"
    context = spec.get("securityContext", {})
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _of_both(context)


def _of_container(container: Spec, of_pod: Spec) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities are not dropped"
    for added in set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"capability {added}"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"hostPort {port['hostPort']}"
    for hook in (*container.get("lifecycle", {}).values(), *(container.get(f"{kind}Probe", {}) for kind in _PROBES)):
        if hook.get("httpGet", {}).get("host") or hook.get("tcpSocket", {}).get("host"):
            yield "a probe or hook names a host"
    yield from _of_both(context)
    if context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not set"
    if context.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type") not in _SECCOMP:
        yield "seccompProfile is not set"


_PROBES: Final = ("startup", "readiness", "liveness")


def _of_both(context: Spec) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield "runAsUser 0"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false"
    if context.get("seccompProfile", {"type": "RuntimeDefault"}).get("type") not in _SECCOMP:
        yield "seccompProfile is not one"
    if context.get("appArmorProfile", {"type": "RuntimeDefault"}).get("type") not in _SECCOMP:
        yield "appArmorProfile"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in _SELINUX or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
