"""Exit codes of the reading child (`dump`), and what its parent (`reader`) makes of them."""

from __future__ import annotations

from typing import Final

NOT_A_LEDGER: Final = 64
OTHER_VERSION: Final = 69
DAMAGED: Final = 65
NO_SEGMENT: Final = 66
OVERTAKEN: Final = 67
UNREADABLE: Final = 68
CAUSES: Final = {
    NOT_A_LEDGER: "ledger.mdb is there, but it is no ledger",
    OTHER_VERSION: "the ledger is of another version; use the program that wrote it",
    DAMAGED: "ledger.mdb is damaged: its keys do not rise, or a record cannot be read",
    NO_SEGMENT: "no such segment, or it is not sealed",
    OVERTAKEN: "the ledger was written to while it was read without a lock; read it again, as the sidecar's user",
    UNREADABLE: "ledger.mdb cannot be read; look at its permissions",
}
