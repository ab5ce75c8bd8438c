"""Of which version a collector's objects are: one of them says it (proto/SHIPPING.md, "What is kept")."""

from __future__ import annotations

from typing import Final

from sidecar.chain.limits import FORMAT
from sidecar.collector.storage import Storage
from sidecar.collector.storage.port import create_same
from sidecar.errors import StorageError, UsageError

_NAME: Final = "format"
_TEXT: Final = f"{FORMAT}\n".encode()
_LIMIT: Final = 1_024


def of_this_format(storage: Storage, *, mark: bool) -> Storage:
    """The store, if its objects are of this version. ``mark``: say so in one that says nothing yet, since it is new.

    Raises:
        UsageError: they are of another; nothing was changed. StorageError: it cannot be read or written.
    """
    try:
        found = storage.read(_NAME, _LIMIT)
    except StorageError as error:
        raise UsageError(f"{error}: it says of which version the objects are") from None
    if found not in (None, _TEXT):
        raise UsageError(
            f"the collector's objects are of another version than {FORMAT}; use the program that wrote them, or a "
            "newer one: they were not touched"
        )
    if mark and found is None:
        create_same(storage, _NAME, _TEXT)
    return storage
