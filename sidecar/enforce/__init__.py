"""The doors that the sidecar serves to gateways (proto/DOORS.md): Envoy's external authorization and access log.

Rules: a door reads what a gateway says, asks the one path, and writes its answer down as that gateway wants it. It
holds no rule of its own but those of reading, and whatever it cannot read or do is a refusal.
"""

from sidecar.enforce.envoy import ACCESS_LOG, AUTHORIZATION, EnvoyDoor, EnvoySettings

__all__ = ["ACCESS_LOG", "AUTHORIZATION", "EnvoyDoor", "EnvoySettings"]
