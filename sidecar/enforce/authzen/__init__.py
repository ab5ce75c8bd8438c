"""AuthZEN (OpenID Authorization API 1.0): what a PEP asks over HTTPS, and what it is answered (proto/DOORS.md).

`http` and `tls` need the extra `authzen` (aiohttp), and are imported where a listener is made.
"""

from sidecar.enforce.authzen.door import AuthZenDoor
from sidecar.enforce.authzen.settings import AuthZenSettings

__all__ = ["AuthZenDoor", "AuthZenSettings"]
