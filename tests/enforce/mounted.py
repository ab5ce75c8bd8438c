"""A Secret as kubelet mounts it: names are links through `..data`, and what it holds is replaced all at once by another
link in its place (Kubernetes' `AtomicWriter`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def mount(directory: Path, files: Mapping[str, bytes], mode: int = 0o644) -> None:
    """Put these in the place of what was there of these names. ``mode``: of all files."""
    data = directory / "..data"
    old = {each.name: each.read_bytes() for each in data.iterdir()} if data.exists() else {}
    number = len(list(directory.glob("..[0-9]*")))
    new = directory / f"..{number}"
    new.mkdir(parents=True)
    for name, content in {**old, **files}.items():
        (new / name).write_bytes(content)
        (new / name).chmod(mode)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data", name))
    (directory / "..data_tmp").symlink_to(new.name)
    os.replace(directory / "..data_tmp", data)  # noqa: PTH105  a link, and not what it leads to
