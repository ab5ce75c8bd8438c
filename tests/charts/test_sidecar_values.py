"""A wrong value of charts/sidecar is refused with a message that names it, and where it can, the mend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .rendering import HERE, SIDECAR, template

# An install, what is set on top of it, and what the message must say.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    # the schema: kind, choice, range and form of every sort of value
    ("trial", {"sidecars": 1}, "additional properties 'sidecars' not allowed"),
    ("trial", {"policy": {"git": {"branch": "main"}}}, "at '/policy/git': additional properties 'branch' not allowed"),
    ("trial", {"workload": {"replica": 2}}, "at '/workload': additional properties 'replica' not allowed"),
    ("trial", {"policy": {"engine": "rego"}}, "at '/policy/engine': value must be one of 'wasm', 'opa'"),
    ("trial", {"workload": {"kind": "DaemonSet"}}, "at '/workload/kind': value must be one of"),
    ("trial", {"enforcement": "off"}, "at '/enforcement': value must be one of 'enforce', 'shadow'"),
    ("trial", {"require": []}, "at '/require': minItems"),
    ("trial", {"require": ["password"]}, "at '/require/0': value must be one of 'signature', 'mtls'"),
    ("trial", {"custody": {"mode": "most"}}, "at '/custody/mode'"),
    ("trial", {"custody": {"custodians": {"An Auditor": "x"}}}, "custody.custodians: An Auditor is no name"),
    ("trial", {"retention": {"profile": "forever"}}, "at '/retention/profile'"),
    ("trial", {"identity": {"kind": "password"}}, "at '/identity/kind'"),
    ("trial", {"identity": {"certManager": {"uris": ["https://example.org"]}}}, "at '/identity/certManager/uris/0'"),
    ("trial", {"identity": {"certManager": {"duration": "a day"}}}, "at '/identity/certManager/duration'"),
    ("trial", {"ledger": {"size": 10}}, "at '/ledger/size': got number, want string"),
    ("trial", {"ledger": {"size": "10 GB"}}, "at '/ledger/size'"),
    ("trial", {"ledger": {"maxMiB": 8}}, "at '/ledger/maxMiB': minimum"),
    ("trial", {"ledger": {"volume": "hostPath"}}, "at '/ledger/volume'"),
    ("trial", {"development": "yes"}, "at '/development'"),
    ("trial", {"workload": {"replicas": 1.5}}, "at '/workload/replicas'"),
    ("trial", {"workload": {"ports": [{"name": "HTTP", "containerPort": 80}]}}, "at '/workload/ports/0/name'"),
    ("trial", {"workload": {"env": [{"name": "A", "valueFrom": {"fileRef": {}}}]}}, "additional properties 'fileRef'"),
    ("trial", {"workload": {"resources": {"limits": {"memory": "lots"}}}}, "at '/workload/resources/limits/memory'"),
    ("trial", {"resources": {"limits": {"gpu": 1}}}, "at '/resources/limits': additional properties 'gpu'"),
    ("trial", {"users": {"sidecar": 0}}, "at '/users/sidecar': minimum"),
    ("trial", {"api": {"port": 443}}, "at '/api/port': minimum"),
    ("trial", {"image": {"digest": "sha256:short"}}, "at '/image/digest'"),
    ("trial", {"collector": {"address": "collector.example.org"}}, "at '/collector/address'"),
    ("trial", {"collector": {"logKey": "log"}}, "at '/collector/logKey'"),
    ("trial", {"collector": {"periodSeconds": 5}}, "at '/collector/periodSeconds': maximum"),
    ("trial", {"policy": {"git": {"url": "git.example.org/policies"}}}, "at '/policy/git/url'"),
    ("trial", {"policy": {"entrypoint": "agents.decision"}}, "at '/policy/entrypoint'"),
    ("trial", {"policy": {"gate": {"minCoverage": 101}}}, "at '/policy/gate/minCoverage': maximum"),
    ("trial", {"personal": {"subject": "customer"}}, "at '/personal/subject'"),
    ("trial", {"limits": {"permitSeconds": 0}}, "at '/limits/permitSeconds': minimum"),
    ("trial", {"metrics": {"host": "everywhere"}}, "at '/metrics/host'"),
    ("trial", {"log": {"level": "trace"}}, "at '/log/level'"),
    ("trial", {"terminationGracePeriodSeconds": 5}, "at '/terminationGracePeriodSeconds': minimum"),
    ("trial", {"podDisruptionBudget": {"maxUnavailable": "some"}}, "at '/podDisruptionBudget/maxUnavailable'"),
    ("trial", {"test": {"resource": "customer"}}, "at '/test/resource'"),
    # what belongs together, or must not come together
    ("token", {"custody": {"custodians": None}}, "custody.custodians is empty, so nobody could ever check the ledger"),
    ("token", {"registry": {"json": ""}}, "registry is not set, so no agent could be proved"),
    ("token", {"registry": {"configMap": "other"}}, "registry.json and registry.configMap are both set"),
    ("token", {"registry": {"json": "{"}}, "registry.json is no JSON"),
    ("opa", {"policy": {"git": {"allowedSigners": ""}}}, "policy.git.allowedSigners is empty"),
    ("opa", {"policy": {"git": {"acceptUnsigned": True}}}, "policy.git.allowedSigners and policy.git.acceptUnsigned"),
    ("opa", {"policy": {"git": {"secret": ""}}}, "policy.git.auth is ssh, but policy.git.secret names no Secret"),
    ("opa", {"policy": {"git": {"auth": "none"}}}, "policy.git.secret is set, but policy.git.auth is none"),
    ("opa", {"users": {"sidecar": 10099}}, "policy.git.auth is ssh, which knows only the image's own user"),
    ("opa", {"policy": {"git": {"auth": "password"}}}, "policy.git.username is empty"),
    (
        "opa",
        {"policy": {"git": {"subdirectory": "a/../../b"}}},
        "policy.git.subdirectory a/../../b leaves the repository",
    ),
    ("token", {"policy": {"engine": "opa"}}, "policy.engine is opa, but policy.git.url is empty"),
    ("token", {"policy": {"git": {"ref": "main"}}}, "policy.git has settings, but policy.git.url is empty"),
    ("token", {"require": ["mtls"]}, "require names mtls, but agents come by a unix socket"),
    ("token", {"api": {"listen": "tls"}}, "api.listen is tls, but identity.kind is none"),
    ("token", {"identity": {"kind": "secret"}}, "identity.kind is secret, but identity.secret names no Secret"),
    ("token", {"identity": {"secret": "tls"}}, "identity.secret is set, but identity.kind is none"),
    ("token", {"identity": {"kind": "certManager"}}, "identity.certManager.issuerRef.name is empty"),
    ("production", {"identity": {"spiffe": {"trustDomain": ""}}}, "identity.spiffe.trustDomain is empty"),
    ("token", {"collector": {"logKey": ""}}, "collector.logKey is empty"),
    ("token", {"collector": {"caCertificate": ""}}, "collector.caCertificate is empty"),
    ("token", {"collector": {"tokenSecret": ""}}, "nothing lets this sidecar into the collector"),
    ("token", {"collector": {"lingerSeconds": 50}}, "terminationGracePeriodSeconds 60 leaves no time for collector."),
    ("token", {"collector": {"address": ""}}, "collector has settings, but collector.address is empty"),
    (
        "token",
        {"identity": {"kind": "spiffe", "spiffe": {"trustDomain": "x"}}},
        "collector.caCertificate and identity.kind",
    ),
    (
        "token",
        {"workload": {"replicas": 2}},
        "collector.tokenSecret is good for one ledger, but workload.replicas is 2",
    ),
    (
        "token",
        {"ledger": {"volume": "ephemeral"}},
        "collector.tokenSecret is good for one ledger, but with ledger.volume",
    ),
    ("opa", {"ledger": {"keepMiB": 100}}, "ledger.keepSeconds and ledger.keepMiB need collector.address"),
    ("token", {"retention": {"profile": "hipaa"}}, "retention.profile is hipaa, but retention.authority is empty"),
    (
        "token",
        {"workload": {"kind": "Deployment"}},
        "ledger.volume is perReplica, which replicas of a Deployment cannot",
    ),
    ("token", {"ledger": {"size": "10Gi"}}, "ledger.size 10Gi has no room for ledger.maxMiB 10240"),
    ("token", {"personal": {"fields": ["/purpose"]}}, "personal.subject is empty"),
    ("token", {"personal": {"copy": {"enabled": True}}}, "personal.subject is empty"),
    (
        "development",
        {"personal": {"subject": "/context/user", "copy": {"enabled": True}}},
        "personal.copy is for keys that outlive a pod's volume",
    ),
    ("trial", {"tracing": {"endpoint": "collector:4317"}}, "at '/tracing/endpoint'"),
    ("token", {"users": {"opa": 10010}}, "users.workload, users.sidecar, users.opa and users.envoy must differ"),
    ("token", {"users": {"socketGroup": 10001}}, "users.socketGroup must be none of the four"),
    # ways out
    ("trial", {"egress": {"redirects": {}}}, "at '/egress': additional properties 'redirects' not allowed"),
    ("trial", {"egress": {"redirect": {"port": 80}}}, "at '/egress/redirect/port': minimum"),
    ("redirect", {"egress": {"redirect": {"hosts": ["API"]}}}, "at '/egress/redirect/hosts/0'"),
    ("gateway", {"egress": {"gateway": {"agents": [{}]}}}, "at '/egress/gateway/agents/0'"),
    ("redirect", {"egress": {"gateway": {"enabled": True}}}, "egress.redirect and egress.gateway are both enabled"),
    ("redirect", {"egress": {"door": {"gateway": ""}}}, "egress.door.gateway is empty"),
    ("token", {"egress": {"door": {"gateway": "edge"}}}, "egress.door.gateway is set, but nothing of ours asks there"),
    ("token", {"egress": {"door": {"agent": "a"}}}, "egress.door has settings, but egress.door.gateway is empty"),
    ("redirect", {"egress": {"redirect": {"image": ""}}}, "egress.redirect.image is empty"),
    ("redirect", {"egress": {"redirect": {"envoy": {"image": ""}}}}, "egress.redirect.envoy.image is empty"),
    ("redirect", {"egress": {"redirect": {"envoy": {"configuration": ""}}}}, "envoy.configuration is empty"),
    ("redirect", {"egress": {"door": {"agent": ""}}}, "egress.door.agent is empty"),
    ("redirect", {"egress": {"redirect": {"port": 15002}}}, "no listener with port_value: 15002"),
    (
        "redirect",
        {"egress": {"redirect": {"envoy": {"configuration": "port_value: 15001\n'failure_mode_allow' :  True"}}}},
        "has failure_mode_allow: true",
    ),
    ("redirect", {"egress": {"redirect": {"envoy": {"configuration": "port_value: 15001"}}}}, "has no filter envoy"),
    ("redirect", {"users": {"envoy": 10001}}, "users.workload, users.sidecar, users.opa and users.envoy must differ"),
    ("gateway", {"workload": {"image": ""}}, "egress.gateway is enabled, but workload.image is empty"),
    ("gateway", {"egress": {"gateway": {"agents": []}}}, "egress.gateway.agents is empty"),
    ("gateway", {"networkPolicy": {"enabled": False}}, "egress.gateway is NetworkPolicies"),
    # PEPs
    ("trial", {"authzen": {"listen": "http"}}, "at '/authzen/listen': value must be one of 'tls', 'socket'"),
    ("trial", {"authzen": {"url": "http://a"}}, "at '/authzen/url'"),
    ("trial", {"authzen": {"from": [{}]}}, "at '/authzen/from/0'"),
    ("trial", {"authzen": {"agent": "a"}}, "authzen has settings, but authzen.gateway is empty"),
    ("authzen", {"identity": {"kind": "none"}}, "authzen.listen is tls, but identity.kind is none"),
    ("authzen", {"authzen": {"from": []}}, "authzen.from is empty, so no PEP could come"),
    ("authzen", {"authzen": {"port": 9464}}, "authzen.port 9464 is another port of the pod's already"),
    ("authzen", {"authzen": {"listen": "socket"}}, "authzen.from is for authzen.listen=tls"),
    (
        "gateway",
        {"authzen": {"gateway": "edge", "listen": "socket"}},
        "with egress.gateway the workload is Envoy, and no PEP",
    ),
    # what would be seen, or reached, by whom it must not
    ("token", {"custody": {"custodians": {"auditor": "-----BEGIN PRIVATE KEY-----"}}}, "auditor holds a private key"),
    (
        "token",
        {"custody": {"custodians": {"auditor": "MCow"}}},
        "custody.custodians.auditor is no PEM with BEGIN PUBLIC",
    ),
    (
        "token",
        {"retention": {"authority": "-----BEGIN EC PRIVATE KEY-----"}},
        "retention.authority holds a private key",
    ),
    ("token", {"collector": {"caCertificate": "-----BEGIN RSA PRIVATE KEY-----"}}, "caCertificate holds a private key"),
    ("opa", {"policy": {"git": {"allowedSigners": "-----BEGIN OPENSSH PRIVATE KEY-----"}}}, "holds a private key"),
    (
        "token",
        {"workload": {"env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]}},
        "workload.env: KEY takes a Secret into the environment",
    ),
    (
        "opa",
        {"workload": {"volumeMounts": [{"name": "sidecar-opa", "mountPath": "/run/opa"}]}},
        "workload.volumeMounts: sidecar-opa is the sidecar's own",
    ),
    ("opa", {"workload": {"volumes": [{"name": "sidecar-tmp"}]}}, "workload.volumes: sidecar-tmp is a name of"),
    *(
        (install, {"workload": {"volumes": [{"name": "x", **volume}]}}, message)
        for install, volume, message in (
            ("token", {"persistentVolumeClaim": {"claimName": "sidecar-ledger-a-0"}}, "x is the claim sidecar-ledger-"),
            ("token", {"hostPath": {"path": "/"}}, "x is a hostPath"),
            ("opa", {"secret": {"secretName": "policies-ssh"}}, "which is not for it (policy.git.secret)"),
            (
                "cert-manager",
                {"secret": {"secretName": "billing-sidecar-identity"}},
                "the Secret billing-sidecar-identity, which is not for it",
            ),
            (
                "redirect",
                {"projected": {"sources": [{"configMap": {"name": "a"}}, {"secret": {"name": "payments-credential"}}]}},
                "shows the workload the Secret payments-credential, which is not for it",
            ),
        )
    ),
    (
        "token",
        {"workload": {"env": [{"name": "KEY", "value": "-----BEGIN PRIVATE KEY-----"}]}},
        "workload.env: KEY holds a private key",
    ),
    (
        "redirect",
        {
            "egress": {
                "redirect": {
                    "envoy": {"configuration": "port_value: 15001\nenvoy.filters.http.ext_authz\ngeneric_secret"}
                }
            }
        },
        "configuration holds a credential",
    ),
    ("opa", {"policy": {"git": {"url": "https://ann:word@git.example.org/p.git"}}}, "policy.git.url holds credentials"),
]


@pytest.mark.parametrize(("install", "wrong", "message"), REFUSED, ids=[message[:60] for *_, message in REFUSED])
def test_a_wrong_value_is_named(install: str, wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(wrong))
    ran = template(SIDECAR, "--values", HERE / "installs" / f"{install}.yaml", "--values", file)
    assert ran.status == 1
    assert message in ran.err
    assert ran.out == ""


def test_a_private_key_is_never_repeated(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    key = "-----BEGIN PRIVATE KEY-----\nVERYSECRET\n-----END PRIVATE KEY-----\n"
    file.write_text(yaml.safe_dump({"custody": {"custodians": {"auditor": key}}}))
    ran = template(SIDECAR, "--values", HERE / "installs" / "token.yaml", "--values", file)
    assert (ran.status, "VERYSECRET" in ran.err + ran.out) == (1, False)


def schemas(at: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, at
    for name, below in at.get("properties", {}).items():
        yield from schemas(below, f"{path}/{name}")
    if isinstance(at.get("items"), dict):
        yield from schemas(at["items"], f"{path}/0")


# Kubernetes' own, handed on: the schemas of its versions are for what comes of them.
HANDED_ON = {"/global", "/workload/affinity", "/workload/tolerations/0", "/workload/topologySpreadConstraints/0"}
HANDED_ON |= {f"/workload/{kind}Probe" for kind in ("startup", "readiness", "liveness")}
HANDED_ON |= {f"/networkPolicy/{rules}/0" for rules in ("dns", "metricsFrom", "ingress", "egress")} | {
    "/authzen/from/0"
}
HANDED_ON |= {"/workload/env/0/valueFrom/secretKeyRef", "/workload/volumes/0", "/workload/volumeMounts/0"}


def test_the_schema_lets_no_unknown_name_through() -> None:
    schema = yaml.safe_load((SIDECAR / "values.schema.json").read_text())
    objects = {path: each for path, each in schemas(schema) if each.get("type") == "object"}
    open_ones = {path for path, each in objects.items() if "additionalProperties" not in each}
    assert open_ones == HANDED_ON
    values = yaml.safe_load((SIDECAR / "values.yaml").read_text())
    for path, each in objects.items():
        known: Any = values
        for name in filter(None, path.split("/")):
            known = known.get(name) if isinstance(known, dict) else None
        if each.get("properties") and isinstance(known, dict) and not path.endswith(("/requests", "/limits")):
            assert known.keys() == each["properties"].keys() - {"global"}, path  # every value is said, with its default
