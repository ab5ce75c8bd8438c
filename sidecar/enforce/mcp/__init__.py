"""The MCP gateway, between a client and a server: each tool call is decided before it is passed on (`proto/DOORS.md`).

It passes the messages of both protocol generations on as they are, not through an SDK's types: what was judged is then
what the server gets, unknown members and all, a large result costs one reading, and ids, progress and
cancellation are the two sides' own. What it must understand to judge it reads strictly.

Rules: a method that the table (`methods`) does not know is refused. Nothing of a message's content goes to standard
error. Every message, list and wait is bounded.
"""

from sidecar.enforce.mcp.asked import LATE, Limits
from sidecar.enforce.mcp.catalog import Catalog
from sidecar.enforce.mcp.deciding import Deciding
from sidecar.enforce.mcp.fields import Fields, read_fields
from sidecar.enforce.mcp.gateway import Gateway
from sidecar.enforce.mcp.pinning import Pinning
from sidecar.enforce.mcp.pins import Pins, counted, load_pins, pinned
from sidecar.enforce.mcp.ports import Client
from sidecar.enforce.mcp.process import ServerProcess
from sidecar.enforce.mcp.renewed import Renewed
from sidecar.enforce.mcp.saying import Saying
from sidecar.enforce.mcp.standard import StandardClient
from sidecar.enforce.mcp.survey import survey

__all__ = [
    "LATE",
    "Catalog",
    "Client",
    "Deciding",
    "Fields",
    "Gateway",
    "Limits",
    "Pinning",
    "Pins",
    "Renewed",
    "Saying",
    "ServerProcess",
    "StandardClient",
    "counted",
    "load_pins",
    "pinned",
    "read_fields",
    "survey",
]
