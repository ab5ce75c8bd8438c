"""Envoy: what it asks (ext_authz v3), what it is answered, and what its access log tells (proto/DOORS.md, "Envoy")."""

from sidecar.enforce.envoy.service import ACCESS_LOG, AUTHORIZATION, EnvoyDoor
from sidecar.enforce.envoy.settings import EnvoySettings

__all__ = ["ACCESS_LOG", "AUTHORIZATION", "EnvoyDoor", "EnvoySettings"]
