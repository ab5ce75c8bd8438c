"""The settings of the door for Envoy: each has an effect, or is refused before anything is made."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from sidecar.config import Config
from sidecar.doors import envoy_of
from sidecar.enforce.envoy import EnvoySettings
from sidecar.errors import UsageError
from tests.program import made, serving, sidecar

FILES = {f"doors_envoy_tls_{name}_file": f"/{name}" for name in ("cert", "key", "client_ca")}


def of(place: Path, **settings: Any) -> EnvoySettings | None:
    return envoy_of(Config(data_dir=str(place / "ledger"), **settings))


def test_what_is_set_is_had(tmp_path: Path) -> None:
    assert of(tmp_path) is None
    assert of(tmp_path, doors_envoy_gateway="edge") == EnvoySettings("edge", "socket")
    more = {"doors_envoy_agent": "a", "doors_envoy_headers": ("x-hint",), "doors_envoy_body_bytes": 100}
    more |= {"doors_envoy_connection_seconds": 20.0}
    assert of(
        tmp_path, doors_envoy_gateway="edge", doors_envoy_listen="127.0.0.1:7000", **FILES, **more
    ) == EnvoySettings("edge", "mtls", "a", ("x-hint",), 100, 20.0)


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
        ({"doors_envoy_gateway": "edge", "doors_envoy_connection_seconds": 20.0}, "leave it out on a unix socket"),
        (
            {
                "doors_envoy_gateway": "edge",
                "doors_envoy_listen": "127.0.0.1:7000",
                "doors_envoy_connection_seconds": 0.5,
                **FILES,
            },
            "from 1 to 86400",
        ),
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


def test_the_directory_of_the_socket_is_made_where_others_may_write_beside_it(tmp_path: Path) -> None:
    """As a pod's volume is: charts/sidecar, egress.door."""
    ledger, _ = made(tmp_path)
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2777)
    (tmp_path / "door.toml").write_text(f'[doors.envoy]\ngateway = "edge"\nlisten = "unix:{volume}/door/envoy.sock"\n')
    with serving(ledger, "--config", tmp_path / "door.toml") as server:
        assert stat.S_IMODE((volume / "door").stat().st_mode) == 0o2750
        assert (volume / "door" / "envoy.sock").is_socket()
        assert server.stop() == 0


def test_at_the_edge_it_is_one_line(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    done = sidecar("serve", "--data-dir", ledger, "--dev", SIDECAR_DOORS_ENVOY_AGENT="a")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "doors.envoy.gateway is not" in done.stderr
