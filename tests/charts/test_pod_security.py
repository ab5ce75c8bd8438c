"""The rules find what they are for: each is broken once, by the pod that the chart renders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from .pod_security import violations
from .rendering import workload_of

Pod = dict[str, Any]


def first(pod: Pod) -> Pod:
    return pod["spec"]["initContainers"][0]


def of(pod: Pod, **more: Any) -> None:
    first(pod)["securityContext"].update(more)


def of_pod(pod: Pod, **more: Any) -> None:
    pod["spec"]["securityContext"].update(more)


BROKEN: dict[str, Callable[[Pod], object]] = {
    "hostNetwork": lambda pod: pod["spec"].update(hostNetwork=True),
    "hostPID": lambda pod: pod["spec"].update(hostPID=True),
    "hostIPC": lambda pod: pod["spec"].update(hostIPC=True),
    "volume etc: hostPath": lambda pod: pod["spec"]["volumes"].append({"name": "etc", "hostPath": {"path": "/etc"}}),
    "volume nfs: nfs": lambda pod: pod["spec"]["volumes"].append({"name": "nfs", "nfs": {}}),
    "sysctl kernel.msgmax": lambda pod: of_pod(pod, sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "runAsUser 0": lambda pod: of_pod(pod, runAsUser=0),
    "sidecar: privileged": lambda pod: of(pod, privileged=True),
    "sidecar: allowPrivilegeEscalation": lambda pod: first(pod)["securityContext"].pop("allowPrivilegeEscalation"),
    "sidecar: capabilities are not dropped": lambda pod: of(pod, capabilities={"drop": ["NET_RAW"]}),
    "sidecar: capability SYS_PTRACE": lambda pod: of(pod, capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
    "sidecar: procMount": lambda pod: of(pod, procMount="Unmasked"),
    "sidecar: hostPort 9464": lambda pod: first(pod)["ports"][0].update(hostPort=9464),
    "sidecar: a probe or hook names a host": lambda pod: first(pod)["livenessProbe"]["httpGet"].update(host="10.0.0.1"),
    "sidecar: runAsUser 0": lambda pod: of(pod, runAsUser=0),
    "sidecar: runAsNonRoot is false": lambda pod: of(pod, runAsNonRoot=False),
    "sidecar: seccompProfile is not one": lambda pod: of(pod, seccompProfile={"type": "Unconfined"}),
    "sidecar: appArmorProfile": lambda pod: of(pod, appArmorProfile={"type": "Unconfined"}),
    "sidecar: seLinuxOptions": lambda pod: of(pod, seLinuxOptions={"type": "spc_t"}),
    "sidecar: hostProcess": lambda pod: of(pod, windowsOptions={"hostProcess": True}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_not_restricted_is_found(what: str) -> None:
    pod = copy.deepcopy(workload_of("trial"))
    assert violations(pod) == []
    BROKEN[what](pod)
    assert what in violations(pod)


def test_a_container_has_what_it_does_not_say_from_its_pod() -> None:
    pod = copy.deepcopy(workload_of("trial"))
    for name in ("runAsNonRoot", "seccompProfile"):
        del first(pod)["securityContext"][name]
    assert violations(pod) == []
    for name in ("runAsNonRoot", "seccompProfile"):
        del pod["spec"]["securityContext"][name]
    assert violations(pod) == ["sidecar: runAsNonRoot is not set", "sidecar: seccompProfile is not set"]
