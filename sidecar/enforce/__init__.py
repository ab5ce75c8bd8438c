"""The doors (`proto/DOORS.md`): what the sidecar serves to gateways (`envoy`), what runs on the agent's side (`mcp`).

Rules: a door reads what comes, asks the one path or its client, and writes the answer down as it is wanted there. It
holds no rule of its own but those of reading, lets pass only what an ALLOW was given for, and whatever it cannot read
or do is a refusal that says why.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.enforce.envoy import ACCESS_LOG, AUTHORIZATION, EnvoyDoor, EnvoySettings

__all__ = ["ACCESS_LOG", "AUTHORIZATION", "EnvoyDoor", "EnvoySettings"]


def __getattr__(name: str) -> object:
    """What the sidecar serves is imported when used: a gateway on the agent's side needs none of it."""
    if name in __all__:
        from sidecar.enforce import envoy

        return getattr(envoy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
