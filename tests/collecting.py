"""A collector as a user runs it, and sidecars that ship to it."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.program import BIN, START_SECONDS, Process, sidecar, start

QUICK = {"COLLECTOR_ROLL_CALL_SECONDS": "0.2"}


class Collecting:
    """A collector that runs. ``address``: for sidecars; ``url``: of its log; ``key``: the log's verifier key."""

    def __init__(self, process: Process, address: str, url: str, key: str, place: Path) -> None:
        self.process, self.address, self.url, self.key, self.place = process, address, url, key, place

    def settings(self, *more: str) -> str:
        """TOML for a sidecar that ships here."""
        lingering = () if any(each.startswith("linger") for each in more) else ("linger = 60",)
        rows = [f'address = "{self.address}"', f'log_key = "{self.key}"', "period = 0.05", *lingering, *more]
        return "[collector]\n" + "\n".join(rows) + "\n"

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(START_SECONDS)

    def said(self) -> str:
        """What it logged."""
        return (self.place.with_suffix(".log")).read_text()

    def status(self) -> dict[str, Any]:
        return status(self.place)

    def trust(self, out: Path) -> Path:
        done = sidecar("collector", "trust", "--data-dir", self.place, "--dev", "--out", out)
        assert done.returncode == 0, done.stderr
        return out


def status(place: Path) -> dict[str, Any]:
    done = sidecar("collector", "status", "--data-dir", place, "--dev", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# Where a collector listens that is not asked: by default it takes ports of which a machine has one each.
ANYWHERE = ("--listen", "127.0.0.1:0", "--web", "127.0.0.1:0")


@contextlib.contextmanager
def collecting(
    place: Path,
    *flags: str | Path,
    listen: str = "127.0.0.1:0",
    within: Sequence[str] = (),
    program: Sequence[str | Path] = (BIN / "sidecar",),
    **more: str,
) -> Iterator[Collecting]:
    """A collector in ``place``; killed at the end if it still runs. What it says goes to ``place`` + .log.
    ``within``: `Host.within`."""
    command: list[str | Path] = [*within, *program, "collector", "serve", "--data-dir", place]
    command += ["--listen", listen, "--web", "127.0.0.1:0"]
    command += flags or ("--dev",)
    with (
        place.with_suffix(".log").open("a") as said,
        start(command, **{**QUICK, **more}) as process,
    ):
        try:
            assert process.stderr is not None
            yield _ready(process, place, said)
        finally:
            process.kill()


def _ready(process: Process, place: Path, said: Any) -> Collecting:
    import threading

    assert process.stderr is not None
    address = url = ""
    for line in process.stderr:
        said.write(line)
        said.flush()
        if "is ready on" in line:
            address, _, url = line.partition("is ready on ")[2].strip().partition(", its log on ")
        if line.startswith("log key "):
            key = line.removeprefix("log key ").strip()
            break
    else:
        raise AssertionError(f"the collector did not start: {place.with_suffix('.log').read_text()}")

    def drain() -> None:
        for more in process.stderr or ():
            said.write(more)
            said.flush()

    threading.Thread(target=drain, daemon=True).start()
    return Collecting(process, address, url, key, place)
