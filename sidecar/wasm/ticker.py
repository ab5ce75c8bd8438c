"""The clock by which guest code is stopped."""

from __future__ import annotations

import threading
from typing import Final

import wasmtime

TICK: Final = 0.005  # seconds between two steps of the epoch while something runs
AT_ONCE_TICKS: Final = 2  # the longest that anybody waits for the guest who has others waiting: 10 ms
LOAD_TICKS: Final = 2_000  # for a policy's start with its data: 10 s
_REST_TICKS: Final = 40  # steps in a row that find nothing running before the ticker rests


class Ticker:
    """Moves the engine's epoch on, on a thread of its own, while something runs.

    It rests only after many steps that found nothing running: waking it costs a change of threads, in the middle of
    the decision that does so.
    """

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._running = 0
        self._busy = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="policy-wasm-ticker", daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1
            if not self._busy.is_set():
                self._busy.set()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1

    def stop(self) -> None:
        with self._lock:  # or the thread could go to rest after its last look
            self._stopping.set()
            self._busy.set()
        self._thread.join()

    def _tick(self) -> None:
        idle = 0
        while self._busy.wait() and not self._stopping.wait(TICK):
            self._engine.increment_epoch()
            with self._lock:
                idle = 0 if self._running else idle + 1
                if idle >= _REST_TICKS and not self._stopping.is_set():
                    self._busy.clear()
                    idle = 0
