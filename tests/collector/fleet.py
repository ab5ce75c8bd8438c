"""A fleet on hosts of its own: sidecars under load, one collector, its PostgreSQL and its S3, to be killed or cut off.

Everything is a real process that speaks real TCP. The load goes on throughout, from outside, over unix sockets.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.client import NoDecision
from sidecar.collector.storage.s3 import Bucket
from tests.collecting import Collecting, collecting
from tests.collector.stores import ACCESS, SECRET, bucket, versitygw
from tests.collector.test_log import KEY, ORIGIN, VKEY
from tests.faults.databases import Database, database
from tests.faults.hosts import Host, hosts
from tests.program import BIN, Serving, environment, made, serving

AWS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
_BETWEEN = 0.01  # seconds between two questions of one caller
_PATIENCE = 120.0  # seconds; only a failing test waits so long
_LOOKS = 0.1  # between two looks at the log's checkpoint


class Pod:
    """One sidecar and its caller. ``answered``: the ids of the decisions that the caller was told."""

    def __init__(self, host: Host, ledger: Path, custodian: Path, config: Path) -> None:
        self.host, self.ledger, self.custodian, self._config = host, ledger, custodian, config
        self.answered: list[str] = []
        self._running: contextlib.AbstractContextManager[Serving] | None = None
        self._server: Serving | None = None
        self._asked = False
        self._ended = threading.Event()
        self._caller = threading.Thread(target=self._call)

    def start(self) -> None:
        """Serve, from when it is ready."""
        self._running = serving(self.ledger, "--config", self._config, within=self.host.within)
        self._server = self._running.__enter__()
        if self._caller.ident is None:
            self._caller.start()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.ask_to_stop(number)
        assert self._server is not None and self._running is not None
        code = self._server.process.wait(_PATIENCE)
        self._running.__exit__(None, None, None)
        self._running = None
        self._asked = False
        return code

    def ask_to_stop(self, number: int = signal.SIGTERM) -> None:
        """Once; returns at once."""
        if not self._asked:
            assert self._server is not None
            self._server.process.send_signal(number)
            self._asked = True

    def end_calls(self) -> None:
        self._ended.set()
        if self._caller.ident is not None:
            self._caller.join()

    def close(self) -> None:
        self.end_calls()
        if self._running is not None:
            self._asked = False
            self.stop(signal.SIGKILL)

    def _call(self) -> None:
        assert self._server is not None
        with self._server.guard(attempts=1) as guard:
            while not self._ended.wait(_BETWEEN):
                with contextlib.suppress(NoDecision):
                    self.answered.append(guard.ask("crm.read", ("customer", "c-1"), {}).decision_id)


class Fleet:
    """``seen``: every checkpoint that the log ever showed, in the order in which it was seen."""

    def __init__(self, place: Path, at: dict[str, Host], base: Database, bucket: Bucket, pods: list[Pod]) -> None:
        self.place, self.at, self.base, self.bucket, self.pods = place, at, base, bucket, pods
        self.own = _own(place, base, bucket)
        self.seen: list[bytes] = []
        self._running: contextlib.AbstractContextManager[Collecting] | None = None
        self._collector: Collecting | None = None
        self._ended = threading.Event()
        self._observer = threading.Thread(target=lambda: at["observer"].call(self._observe))
        self._observer.start()

    # --- the collector

    def start_collector(self) -> None:
        here = self.at["collector"]
        self._running = collecting(
            self.place / "collector",
            *("--config", self.own, "--web", f"{here.address}:7474"),
            listen=f"{here.address}:7473",
            within=here.within,
            **AWS,
        )
        self._collector = self._running.__enter__()

    def stop_collector(self, number: int = signal.SIGTERM) -> int:
        assert self._collector is not None and self._running is not None
        code = self._collector.stop(number)
        self._running.__exit__(None, None, None)
        self._running = None
        return code

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """`sidecar collector ...` with this collector's settings, on a host that reaches its stores."""
        where = ("--config", self.own, "--data-dir", self.place / "collector")
        command = [*self.at["observer"].within, BIN / "sidecar", "collector", *arguments, *where]
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, env=environment(**AWS), timeout=300
        )

    # --- what goes on

    def answered(self) -> int:
        return sum(len(pod.answered) for pod in self.pods)

    def wait(self, more: int, seconds: float) -> None:
        """Until so many more decisions were answered, or that long."""
        until, ended = self.answered() + more, threading.Event()
        for _ in range(int(seconds / _BETWEEN)):
            if self.answered() >= until:
                return
            ended.wait(_BETWEEN)

    def kill(self, what: str, meanwhile: Callable[[], Any]) -> None:
        """kill -9, then ``meanwhile``, then start it again on what it left."""
        if what == "database":
            self.base.kill()
            meanwhile()
            self.base.start()
        elif what == "collector":
            self.stop_collector(signal.SIGKILL)
            meanwhile()
            self.start_collector()
        else:
            (pod,) = [each for each in self.pods if each.host.name == what]
            pod.stop(signal.SIGKILL)
            meanwhile()
            pod.start()

    def close(self) -> None:
        self._ended.set()
        self._observer.join()
        for pod in self.pods:
            pod.close()
        if self._running is not None:
            self.stop_collector(signal.SIGKILL)

    def _observe(self) -> None:
        url = f"http://{self.at['collector'].address}:7474/checkpoint"
        while not self._ended.wait(_LOOKS):
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(url, timeout=1) as page,
            ):
                found = page.read()
                if not self.seen or self.seen[-1] != found:
                    self.seen.append(found)


@contextlib.contextmanager
def fleet(place: Path, sidecars: int, *settings: str) -> Iterator[Fleet]:
    """Running, with so many sidecars; ``settings`` of a sidecar are TOML lines."""
    names = [f"sidecar{number}" for number in range(1, sidecars + 1)]
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(hosts(["collector", "database", "store", "observer", *names]))
        base = stack.enter_context(database(at["database"]))
        (place / "s3").mkdir()
        endpoint = stack.enter_context(versitygw(place / "s3", at["store"]))
        kept = at["observer"].call(lambda: bucket(endpoint))
        pods = [Pod(at[each], *_ledger(place / each, at["collector"], settings)) for each in names]
        running = Fleet(place, at, base, kept, pods)
        stack.callback(running.close)
        running.start_collector()
        for pod in pods:
            pod.start()
        yield running


def _own(place: Path, base: Database, bucket: Bucket) -> Path:
    (place / "key.pem").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (place / "postgres").write_text(base.address)
    own = place / "collector.toml"
    own.write_text(
        f'dev = true\norigin = "{ORIGIN}"\nkey_file = "{place}/key.pem"\nroll_call_seconds = 0.5\n'
        f'storage = "s3"\nretention_days = 1\ns3.bucket = "{bucket.name}"\ns3.prefix = "fleet/"\n'
        f's3.endpoint = "{bucket.endpoint}"\ns3.region = "us-east-1"\n'
        f'index = "postgres"\npostgres_file = "{place}/postgres"\n'
    )
    return own


def _ledger(place: Path, collector: Host, settings: Sequence[str]) -> tuple[Path, Path, Path]:
    place.mkdir()
    ledger, key = made(place)
    config = place / "sidecar.toml"
    shipping = ("linger = 120", "period = 0.05", "unconfirmed_start = true")
    rows = (*settings, "[collector]", f'address = "{collector.address}:7473"', f'log_key = "{VKEY}"', *shipping)
    config.write_text("\n".join(rows) + "\n")
    return ledger, key, config
