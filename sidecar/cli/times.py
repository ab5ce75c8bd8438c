"""A time as an option's argument."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click


class Time(click.ParamType[int]):
    """ISO 8601 with a zone, or a day, which starts in UTC; as nanoseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The option's value."""
        if isinstance(value, int):
            return value
        try:
            found = datetime.fromisoformat(str(value))
            if found.tzinfo is None and len(str(value)) > len("2026-01-01"):
                self.fail(f"{value}: say in which zone, such as {value}Z", param, ctx)
            found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        except ValueError:
            self.fail(f"{value}: give a time such as 2026-11-25T14:00:00Z, or a day", param, ctx)
        if found.astimezone(UTC).year < 1970:
            self.fail(f"{value}: nothing was recorded before 1970", param, ctx)
        since = found - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


TIME = Time()
