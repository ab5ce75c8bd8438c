"""NetworkPolicies as rules on a test's switch: what a cluster's network does with them, as far as the chart's need it.

A switch of :mod:`tests.faults.hosts` stands for the node, a host for a pod: what leaves it is judged where its cable
ends, and dropped without a word. A pod that a policy selects may send and get what one of its policies allows, and
nothing else; ARP and neighbours' ICMPv6 it always may. Answers to what is allowed are known by ports alone, for not
every kernel's bridges follow connections: no pod here is called by anybody whom a policy of its own does not name.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.faults.hosts import Host
from tests.needs import needs_program

Manifest = Mapping[str, Any]
NAMESPACE: Final = "agents"  # of the release, and so of its policies
_NEIGHBOURS: Final = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
_EITHER: Final = {"Egress": ("egress", "to"), "Ingress": ("ingress", "from")}


@dataclass(frozen=True, slots=True)
class PodOn:
    """A pod: its host, its labels and addresses, and the namespace that it is in."""

    host: Host
    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    namespace: str = NAMESPACE


def enforce(policies: Sequence[Manifest], pods: Sequence[PodOn]) -> None:
    """In the place of what was in force. Raises AssertionError."""
    chains, jumps = [], []
    for pod in pods:
        for direction, device in (("Egress", "iifname"), ("Ingress", "oifname")):
            if (rules := _rules(policies, pod, pods, direction)) is not None:
                name = f"{direction.lower()}_{pod.host.port}"
                body = "\n".join(["ether type arp accept", _NEIGHBOURS, *rules, "drop"])
                chains.append(f"chain {name} {{\n{body}\n}}")
                jumps.append(f'{device} "{pod.host.port}" jump {name}')
    forward = "\n".join(["type filter hook forward priority 0; policy accept;", *jumps])
    text = "\n".join(["flush ruleset", "table bridge policies {", *chains, f"chain forward {{\n{forward}\n}}", "}"])
    command = ["ip", "netns", "exec", pods[0].host.switch, needs_program("nft"), "--file", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{text}"


def _rules(policies: Sequence[Manifest], pod: PodOn, pods: Sequence[PodOn], direction: str) -> list[str] | None:
    """What may pass; None where no policy selects the pod for that direction."""
    selecting = [each["spec"] for each in policies if _selects(each["spec"]["podSelector"], pod.labels)]
    if not any(direction in each["policyTypes"] for each in selecting):
        return None
    end = "daddr" if direction == "Egress" else "saddr"
    found = []
    for way in _EITHER:
        ports = "dport" if way == direction else "sport"  # of an answer to what the other direction allows
        for spec in (each for each in selecting if way in each["policyTypes"]):
            for peer, protocol, port in _allowed(spec, way, pods):
                found.append(f"{peer.format(end=end)} {protocol} {ports} {port} accept".strip())
    return found


def _allowed(spec: Manifest, way: str, pods: Sequence[PodOn]) -> Iterator[tuple[str, str, int]]:
    """Who, by which protocol and port."""
    rules, peers = _EITHER[way]
    for rule in spec.get(rules, []):
        for peer in _peers(rule.get(peers), pods):
            for port in rule["ports"]:
                yield peer, port["protocol"].lower(), port["port"]


def _peers(given: Sequence[Manifest] | None, pods: Sequence[PodOn]) -> Iterator[str]:
    if given is None:
        yield ""
    for peer in given or ():
        if "ipBlock" in peer:
            yield f"ip {{end}} {peer['ipBlock']['cidr']}"
            continue
        for pod in pods:
            named = {"kubernetes.io/metadata.name": pod.namespace}
            where = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}})
            if _selects(where, named) and _selects(peer.get("podSelector", {}), pod.labels):
                yield from (f"{'ip6' if ':' in each else 'ip'} {{end}} {each}" for each in pod.addresses)


def _selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """A label selector; an empty one selects everything."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In"
        if labels.get(each["key"]) not in each["values"]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())
