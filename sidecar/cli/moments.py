"""Times on the command line: `2026-11-23T17:00:00Z`, with fraction or offset too, or a day, from 00:00 UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import click

_FORM: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2}))?")


class Moment(click.ParamType[int]):
    """Nanoseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = _FORM.fullmatch(str(value))
        try:
            if found is None:
                raise ValueError
            day, time, fraction, zone = found.groups()
            at = datetime.fromisoformat(f"{day}T{time or '00:00'}").replace(tzinfo=UTC)
            offset = datetime.fromisoformat(f"{day}T00:00{zone}").utcoffset() if zone else None
        except ValueError:
            self.fail(f"{value!r} is no time: write 2026-11-23T17:00:00Z, or a day: 2026-11-23", param, ctx)
        seconds = int(at.timestamp()) - (int(offset.total_seconds()) if offset else 0)
        return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


MOMENT: Final = Moment()
