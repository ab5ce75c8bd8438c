"""The local book: entries made, committed in groups by one thread, sealed in segments; read again for verifying.

Rules: nothing is answered before it is durable; a commit that failed is never tried again; what is stored is never
repaired. The room knows nothing of policies, takes clock and entropy as arguments, and imports `lmdb` in `store` alone.

Its names are imported when one is used, those of reading without the rest.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.ledger.clock import Clock, Moment, SystemClock, kernel_clock_error_ms
    from sidecar.ledger.directory import load_identity
    from sidecar.ledger.draft import Draft, Recorded
    from sidecar.ledger.epoch import WrapSeed
    from sidecar.ledger.founding import create
    from sidecar.ledger.given import Decision, Entry, Proof, Usage
    from sidecar.ledger.glance import Glance, glance_at
    from sidecar.ledger.ledger import Ledger
    from sidecar.ledger.look import has_ledger
    from sidecar.ledger.options import Options
    from sidecar.ledger.pruning import Cut, carry_out
    from sidecar.ledger.reader import first_kept, ledger_stream
    from sidecar.ledger.sealing import Sealing, unopened
    from sidecar.ledger.shipping import Left
    from sidecar.ledger.trimming import Keep
    from sidecar.ledger.writer import Position

__all__ = [
    "Clock",
    "Cut",
    "Decision",
    "Draft",
    "Entry",
    "Glance",
    "Keep",
    "Ledger",
    "Left",
    "Moment",
    "Options",
    "Position",
    "Proof",
    "Recorded",
    "Sealing",
    "SystemClock",
    "Usage",
    "WrapSeed",
    "carry_out",
    "create",
    "first_kept",
    "glance_at",
    "has_ledger",
    "kernel_clock_error_ms",
    "ledger_stream",
    "load_identity",
    "unopened",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sidecar.ledger import look, reader  # all that reading one needs: a tenth of the room

    files: tuple[ModuleType, ...] = (look, reader)
    if not any(name in vars(file) for file in files):
        from sidecar.ledger import (
            clock,
            directory,
            draft,
            epoch,
            founding,
            given,
            glance,
            ledger,
            options,
            pruning,
            sealing,
            shipping,
            trimming,
            writer,
        )

        files = (
            clock, directory, draft, epoch, founding, given, glance, ledger, options, pruning, sealing, shipping,
            trimming, writer,
        )  # fmt: skip
    return next(vars(file)[name] for file in files if name in vars(file))
