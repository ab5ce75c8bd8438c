"""Workers that want the same thing at once: one makes it, all have it; what is half made is not there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kept import kept


def test_one_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    made: list[Path] = []
    together = threading.Barrier(4)

    def make(at: Path) -> None:
        made.append(at)
        at.mkdir()
        (at / "whole").touch()

    def ask() -> bool:
        together.wait(60)
        return (kept(tmp_path / "cache" / "it", make) / "whole").exists()

    with ThreadPoolExecutor(4) as threads:
        assert all(asked.result() for asked in [threads.submit(ask) for _ in range(4)])
    assert len(made) == 1


def test_what_could_not_be_made_whole_is_made_again(tmp_path: Path) -> None:
    def broken_off(at: Path) -> None:
        at.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "it", broken_off)
    assert not (tmp_path / "it").exists()
    assert kept(tmp_path / "it", Path.mkdir).is_dir()
