"""The settings of the door for Envoy: each has an effect, or is refused before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.config import Config
from sidecar.doors import envoy_of
from sidecar.enforce.envoy import EnvoySettings
from sidecar.errors import UsageError
from tests.program import made, sidecar

FILES = {f"doors_envoy_tls_{name}_file": f"/{name}" for name in ("cert", "key", "client_ca")}


def of(place: Path, **settings: Any) -> EnvoySettings | None:
    return envoy_of(Config(data_dir=str(place / "ledger"), **settings))


def test_what_is_set_is_had(tmp_path: Path) -> None:
    assert of(tmp_path) is None
    assert of(tmp_path, doors_envoy_gateway="edge") == EnvoySettings("edge", "socket")
    more = {"doors_envoy_agent": "a", "doors_envoy_headers": ("x-hint",), "doors_envoy_body_bytes": 100}
    assert of(
        tmp_path, doors_envoy_gateway="edge", doors_envoy_listen="127.0.0.1:7000", **FILES, **more
    ) == EnvoySettings("edge", "mtls", "a", ("x-hint",), 100)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"doors_envoy_agent": "a"}, "doors.envoy.gateway is not"),
        ({"doors_envoy_gateway": "edge", "doors_envoy_listen": "127.0.0.1:7000"}, "is a port"),
        ({"doors_envoy_gateway": "edge", "doors_envoy_listen": "nowhere", **FILES}, "is not host:port"),
        (
            {"doors_envoy_gateway": "edge", "doors_envoy_listen": "127.0.0.1:7000", "doors_envoy_tls_cert_file": "/c"},
            "port",
        ),
        (
            {
                "doors_envoy_gateway": "edge",
                "doors_envoy_listen": "127.0.0.1:7",
                "doors_envoy_spiffe_socket": "/s",
                **FILES,
            },
            "is a port",
        ),
        ({"doors_envoy_gateway": "edge", **FILES}, "not on a unix socket"),
        ({"doors_envoy_gateway": "edge", "doors_envoy_socket_mode": "0666"}, "must shut others out"),
        ({"doors_envoy_gateway": "edge", "doors_envoy_socket_mode": "0664"}, "must shut others out"),
        ({"doors_envoy_gateway": "edge", "doors_envoy_headers": ("authorization",)}, "carries secrets"),
        ({"doors_envoy_gateway": "edge", "doors_envoy_headers": tuple("a" * n for n in range(1, 40))}, "more than 32"),
        ({"doors_envoy_gateway": "edge", "doors_envoy_body_bytes": 0}, "body_bytes"),
    ],
)
def test_what_is_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        of(tmp_path, **settings)


def test_a_directory_where_anybody_may_put_another_socket(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match="anybody can write"):
        of(tmp_path, doors_envoy_gateway="edge", doors_envoy_listen=f"unix:{tmp_path}/envoy.sock")
    tmp_path.chmod(0o1777)
    assert of(tmp_path, doors_envoy_gateway="edge", doors_envoy_listen=f"unix:{tmp_path}/envoy.sock") is not None


def test_at_the_edge_it_is_one_line(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    done = sidecar("serve", "--data-dir", ledger, "--dev", SIDECAR_DOORS_ENVOY_AGENT="a")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "doors.envoy.gateway is not" in done.stderr
