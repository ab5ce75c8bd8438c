"""Containers and bags that are wrong: nothing, or little, of what is in them is judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conformance.packing import Files, Item, bagged, deflated, items, manifest, stored, zipped
from tests.conformance.published import CASES, HERE, Due, Published, at, middle, published, rows, with_rows
from tests.scribe import flip

# --- the container: nothing else is judged


def container(name: str) -> Any:
    return published(f"container-{name}", "MALFORMED")


def _one_lies(**changed: object) -> bytes:
    members = items(bagged(middle()))
    members[2] = members[2].lies(**changed)
    return zipped(members)


for _name, _changed in {
    "encrypted": {"flags": 1},
    "with-a-data-descriptor": {"flags": 8},
    "utf8-flag": {"flags": 0x800},
    "made-on-unix": {"made": 0x314},
    "needs-zip64": {"needed": 45},
    "symlink": {"made": 0x314, "external": 0o120777 << 16},
    "directory-attribute": {"external": 0x10},
    "method-lzma": {"method": 14},
    "with-a-date": {"date": 0x5821},
    "with-a-time": {"time": 1},
    "with-an-extra-field": {"extra": b"\x01\x00\x00\x00"},
    "with-a-comment": {"comment": b"hello"},
    "text-attribute": {"internal": 1},
    "size-lies": {"size": 1},
    "packed-size-lies": {"packed": 7},
    "offset-lies": {"offset": 0},
    "gap-between-members": {"before": b"PK"},
    "local-name-lies": {"local": {"name": b"data/case.jsoN"}},
    "local-size-lies": {"local": {"size": 1}},
    "local-crc-lies": {"local": {"crc": 1}},
    "local-method-lies": {"local": {"method": 8}},
    "local-flags-lie": {"local": {"flags": 8}},
    "path-traversal": {"name": b"data/../../etc/passwd"},
    "absolute-name": {"name": b"/data/case"},
    "drive-name": {"name": b"C:data"},
    "backslash": {"name": b"data\\case"},
    "dot-name": {"name": b"data/./case"},
    "hidden-name": {"name": b"data/.case"},
    "trailing-dot": {"name": b"data/case."},
    "trailing-slash": {"name": b"data/folder/"},
    "double-slash": {"name": b"data//case"},
    "name-not-ascii": {"name": "data/c\u00e4se".encode()},
    "name-with-a-zero": {"name": b"data/case\0.json"},
    "name-with-a-newline": {"name": b"data/case\n.json"},
    "empty-name": {"name": b""},
    "long-name": {"name": b"data/" + b"a" * 236},
    "duplicate-name": {"name": b"data/case.json"},
    "duplicate-in-other-case": {"name": b"data/CASE.json"},
    "below-a-file": {"name": b"data/case.json/x"},
}.items():
    CASES[f"container-{_name}"] = Published(lambda changed=_changed: _one_lies(**changed), Due("MALFORMED"))  # type: ignore[misc]


@container("empty")
def _() -> bytes:
    return b""


@container("no-zip")
def _() -> bytes:
    return b"this is no zip file, but it is long enough to be one" * 4


@container("data-before")
def _() -> bytes:
    members = items(bagged(middle()))
    return zipped([members[0].lies(before=b"#!/bin/sh\n"), *members[1:]])


@container("data-after")
def _() -> bytes:
    return zipped(items(bagged(middle())), after=b"\0")


@container("archive-comment")
def _() -> bytes:
    return zipped(items(bagged(middle())), end=lambda f: [*f[:6], 2], after=b"hi")


@container("two-disks")
def _() -> bytes:
    return zipped(items(bagged(middle())), end=lambda f: [0, 1, *f[2:]])


@container("count-lies")
def _() -> bytes:
    return zipped(items(bagged(middle())), end=lambda f: [*f[:2], f[2] - 1, f[3] - 1, *f[4:]])


@container("directory-offset-lies")
def _() -> bytes:
    return zipped(items(bagged(middle())), end=lambda f: [*f[:5], f[5] - 1, 0])


@container("cut-short")
def _() -> bytes:
    return zipped(items(bagged(middle())))[:-1]


@container("members-overlap")
def _() -> bytes:
    members = items(bagged(middle()))
    inner = members[2]
    outer = members[1].lies(data=members[1].data + inner.header() + inner.data, size=0, crc=0)
    return zipped([members[0], outer, inner.lies(offset=5), *members[3:]])


@container("stream-deflated")
def _() -> bytes:
    return zipped([deflated(name, content) for name, content in bagged(middle()).items()])


@container("bomb")
def _() -> bytes:
    return zipped([*items(bagged(middle())), deflated("data/zeros", bytes(8 << 20))])


@container("deflated-cut-short")
def _() -> bytes:
    return _repacked("data/case.json", lambda item: item.lies(data=item.data[:-3]))


@container("deflated-with-a-tail")
def _() -> bytes:
    return _repacked("data/case.json", lambda item: item.lies(data=item.data + b"\0"))


@container("deflated-longer-than-said")
def _() -> bytes:
    return _repacked("data/case.json", lambda item: item.lies(size=item.size - 1))


@container("deflated-shorter-than-said")
def _() -> bytes:
    return _repacked("data/case.json", lambda item: item.lies(size=item.size + 1))


@container("crc-lies")
def _() -> bytes:
    return _repacked("data/case.json", lambda item: item.lies(crc=item.crc ^ 1))


def _repacked(name: str, change: Callable[[Item], Item]) -> bytes:
    """One file deflated, and changed."""
    return zipped([change(deflated(n, c)) if n == name else stored(n, c) for n, c in bagged(middle()).items()])


# --- the bag


def _bag(change: Callable[[Files], Files]) -> bytes:
    return zipped(items(change(bagged(middle()))))


def _tagged(made: Files) -> Files:
    """The tag manifest anew."""
    tags = {name: made[name] for name in ("bag-info.txt", "bagit.txt", "manifest-sha256.txt")}
    return {**made, "tagmanifest-sha256.txt": manifest(tags)}


def _listing(change: Callable[[bytes], bytes]) -> bytes:
    return _bag(lambda made: _tagged({**made, "manifest-sha256.txt": change(made["manifest-sha256.txt"])}))


BAGS: dict[str, Callable[[], bytes]] = {
    "digest-lies": lambda: _listing(lambda m: (b"0" if m[:1] != b"0" else b"1") + m[1:]),
    "line-missing": lambda: _listing(lambda m: m[m.index(b"\n") + 1 :]),
    "line-extra": lambda: _listing(lambda m: m + b"0" * 64 + b"  data/zzz\n"),
    "line-twice": lambda: _listing(lambda m: m[: m.index(b"\n") + 1] + m),
    "lines-out-of-order": lambda: _listing(lambda m: b"".join(sorted(m.splitlines(True), reverse=True))),
    "line-with-one-space": lambda: _listing(lambda m: m.replace(b"  ", b" ")),
    "last-line-without-end": lambda: _listing(lambda m: m[:-1]),
    "upper-case-digest": lambda: _listing(lambda m: m[:64].upper() + m[64:]),
    "tag-digest-lies": lambda: _bag(lambda m: {**m, "bag-info.txt": b"Contact-Name: nobody\n"}),
    "other-declaration": lambda: _bag(lambda m: _tagged({**m, "bagit.txt": b"BagIt-Version: 0.97\n"})),
    "no-tag-manifest": lambda: _bag(lambda m: {n: c for n, c in m.items() if n != "tagmanifest-sha256.txt"}),
    "no-manifest": lambda: _bag(lambda m: {n: c for n, c in m.items() if n != "manifest-sha256.txt"}),
    "file-outside": lambda: _bag(lambda m: {**m, "README.txt": b"hello"}),
}
for _name, _make in BAGS.items():
    CASES[f"bag-{_name}"] = Published(_make, Due("MALFORMED"))


@published("bag-content-altered-and-place-told", "MALFORMED", HERE, 3, 13)
def _() -> bytes:
    made = bagged(middle())
    there = rows(made)
    where = at(there, 13)
    there[where] = there[where][0], flip(there[where][1], 40)
    altered = with_rows(made, there)
    return zipped(items(altered))
