"""One command with the volumes and settings of a StatefulSet's container, while that is scaled to none.

    kubectl scale statefulset collector -n audit --replicas=0
    kubectl get statefulset collector -n audit -o json \\
      | python3 once.py collector -- collector reindex --config /etc/collector/collector.toml \\
      | kubectl create -n audit -f -
    kubectl logs -n audit -f collector-once

Reads the StatefulSet from standard input, prints a Pod: the container named, alone, with these arguments, and the first
replica's claims (--replica N: another's). Only the standard library.
"""

import argparse
import json
import sys
from typing import Any

_KEPT = ("name", "image", "imagePullPolicy", "env", "securityContext", "resources", "volumeMounts")
_CARRIED = ("serviceAccountName", "securityContext", "imagePullSecrets", "nodeSelector", "tolerations", "affinity")


def pod(found: dict[str, Any], container: str, arguments: list[str], replica: int) -> dict[str, Any]:
    """The Pod. Raises ValueError: there is no such container."""
    template, name = found["spec"]["template"], found["metadata"]["name"]
    spec = template["spec"]
    every = [*spec.get("initContainers", []), *spec["containers"]]
    of_it = [each for each in every if each["name"] == container]
    if not of_it:
        raise ValueError(f"no container {container}; there are {', '.join(each['name'] for each in every)}")
    one = {key: of_it[0][key] for key in _KEPT if key in of_it[0]} | {"args": arguments}
    needed = {mount["name"] for mount in one.get("volumeMounts", [])}
    claims = [
        {"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}-{replica}"}}
        for claim in (each["metadata"]["name"] for each in found["spec"].get("volumeClaimTemplates", []))
    ]
    carried = {key: spec[key] for key in _CARRIED if key in spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        # Without the labels of the StatefulSet's pods: no Service finds it. NetworkPolicies do not hold for it either.
        "metadata": {"name": f"{name}-once"},
        "spec": {
            **carried,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": [one],
            "volumes": [each for each in [*spec.get("volumes", []), *claims] if each["name"] in needed],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One command in the place of a StatefulSet's container.")
    parser.add_argument("container")
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--replica", type=int, default=0)
    asked = parser.parse_args()
    try:
        made = pod(json.load(sys.stdin), asked.container, asked.arguments, asked.replica)
    except (ValueError, KeyError) as error:
        sys.exit(f"once.py: {error}")
    json.dump(made, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
