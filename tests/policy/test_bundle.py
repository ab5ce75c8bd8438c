"""Bundles from somebody who means harm."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable

import pytest

from sidecar.errors import PolicyLoadError, UsageError
from sidecar.policy import STARTER_BUNDLE, STARTER_ENTRYPOINT, WasmEngine, open_bundle


def pack(*members: tuple[str, bytes], change: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            if change:
                change(header)
            archive.addfile(header, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


WASM = ("/policy.wasm", b"\0asm")


def test_the_starter_bundle_opens() -> None:
    packed = STARTER_BUNDLE.read_bytes()
    bundle = open_bundle(packed)
    assert bundle.digest == hashlib.sha256(packed).hexdigest()
    assert bundle.revision.startswith("starter-")
    assert "billing-agent" in json.loads(bundle.data)["registry"]["agents"]


def test_data_is_merged_by_directory() -> None:
    bundle = open_bundle(
        pack(WASM, ("/data.json", b'{"a":{"x":1.50}}'), ("/a/data.json", b'{"y":2}'), ("/b/c/data.json", b'{"z":3}'))
    )
    assert json.loads(bundle.data) == {"a": {"x": 1.5, "y": 2}, "b": {"c": {"z": 3}}}


def test_a_bundle_without_manifest_or_data() -> None:
    bundle = open_bundle(pack(WASM))
    assert (bundle.revision, bundle.data) == ("", b"{}")


def as_link(header: tarfile.TarInfo) -> None:
    header.type, header.linkname, header.size = tarfile.SYMTYPE, "/etc/passwd", 0


def as_hard_link(header: tarfile.TarInfo) -> None:
    header.type, header.linkname, header.size = tarfile.LNKTYPE, "policy.wasm", 0


def as_device(header: tarfile.TarInfo) -> None:
    header.type, header.size = tarfile.CHRTYPE, 0


def as_gnu_sparse(header: tarfile.TarInfo) -> None:
    header.type = tarfile.GNUTYPE_SPARSE


def as_pax_sparse(header: tarfile.TarInfo) -> None:
    header.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40), "GNU.sparse.major": "0"}


@pytest.mark.parametrize(
    ("packed", "named"),
    [
        (b"", "cut short"),
        (b"not a bundle", r"not a \.tar\.gz"),
        (gzip.compress(b"not a tar" * 200), "not a readable tar"),
        (gzip.compress(b""), "not a readable tar"),
        (pack(WASM)[:-12], "cut short"),
        (pack(WASM) + b"more", "something follows"),
        (pack(WASM) * 2, "something follows"),
        (pack(("data.json", b"{}")), "no policy.wasm"),
        (pack(WASM, ("../../etc/cron.d/x", b"")), "unsafe path"),
        (pack(WASM, ("/a/../policy.wasm", b"")), "unsafe path"),
        (pack(WASM, ("a\\b", b"")), "unsafe path"),
        (pack(WASM, ("a\nb", b"")), "unsafe path"),
        (pack(WASM, ("//etc/x", b"")), "unsafe path"),
        (pack(WASM, ("policy.wasm", b"other")), "twice"),
        (pack(("policy.wasm", b""), change=as_link), "not a plain file"),
        (pack(("policy.wasm", b""), change=as_hard_link), "not a plain file"),
        (pack(("policy.wasm", b""), change=as_device), "not a plain file"),
        (pack(("policy.wasm", b"x"), change=as_gnu_sparse), "not a "),
        (pack(("policy.wasm", b"x"), change=as_pax_sparse), "not a "),
        (pack(WASM, *((f"f{n}", b"") for n in range(4097))), "more than 4096 members"),
        (pack(WASM, ("data.json", b'{"a":1,"a":2}')), "not strict JSON"),
        (pack(WASM, ("data.json", b'{"a":NaN}')), "not strict JSON"),
        (pack(WASM, ("data.json", '{"a":1}'.encode("utf-16"))), "not strict JSON"),
        (pack(WASM, ("data.json", b"[" * 100_000)), "not strict JSON"),
        (pack(WASM, ("data.json", b"[]")), "not a JSON object"),
        (pack(WASM, ("data.json", b'{"a":{"b":1}}'), ("a/data.json", b'{"b":2}')), "repeats 'b'"),
        (pack(WASM, ("a/data.yaml", b"x: 1")), "as YAML"),
        (pack(WASM, (".manifest", b"{")), "not strict JSON"),
        (pack(WASM, (".manifest", b'{"revision":7}')), "revision"),
        (pack(WASM, (".manifest", b'{"revision":"a\\nb"}')), "revision"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_hostile_bundles_are_refused(packed: bytes, named: str) -> None:
    with pytest.raises(PolicyLoadError, match=named):
        open_bundle(packed)


def test_bundles_that_are_too_large_are_refused() -> None:
    with pytest.raises(PolicyLoadError, match="unpacks to more"):
        open_bundle(gzip.compress(bytes((64 << 20) + 1), 1))
    with pytest.raises(PolicyLoadError, match="larger than"):
        open_bundle(bytes((16 << 20) + 1))


def test_every_cut_of_a_bundle_is_refused() -> None:
    packed = pack(WASM, ("data.json", b'{"a":1}'))
    for length in range(len(packed)):
        with pytest.raises(PolicyLoadError):
            open_bundle(packed[:length])


def test_a_flipped_byte_never_goes_unnoticed_as_another_error() -> None:
    packed = bytearray(pack(WASM, ("data.json", b'{"a":1}')))
    for at in range(len(packed)):
        packed[at] ^= 0x55
        with contextlib.suppress(PolicyLoadError):
            open_bundle(bytes(packed))
        packed[at] ^= 0x55


@pytest.mark.parametrize(
    ("wat", "named"),
    [
        (None, "not a valid Wasm module"),
        ("(module)", "does not export"),
        ('(module (import "env" "memory" (memory 1)))', "does not export"),
        ('(module (import "wasi_snapshot_preview1" "fd_write" (func)))', "elsewhere than env"),
        ('(module (import "env" "system" (func)))', "which OPA does not define"),
        ('(module (import "env" "memory" (memory 60000)))', "does not start"),
        ("(module (memory 1) (memory 1))", "does not start|not a valid"),
        ("(module (func $f unreachable) (start $f))", "does not start"),
        ('(module (import "env" "opa_abort" (func (param f64))))', "does not start"),
    ],
)
def test_hostile_modules_are_refused(wat: str | None, named: str) -> None:
    import wasmtime

    wasm = b"\0asm nonsense" if wat is None else bytes(wasmtime.wat2wasm(wat))
    with pytest.raises(PolicyLoadError, match=named):
        WasmEngine(pack(("policy.wasm", wasm)), STARTER_ENTRYPOINT)


def test_an_entry_point_the_bundle_lacks() -> None:
    packed = STARTER_BUNDLE.read_bytes()
    with pytest.raises(PolicyLoadError, match="no entry point agents/other; it has: agents/decision"):
        WasmEngine(packed, "agents/other")
    with pytest.raises(UsageError, match="not a rule's path"):
        WasmEngine(packed, "../decision")
    with pytest.raises(UsageError, match="memory limit"):
        WasmEngine(packed, STARTER_ENTRYPOINT, memory_limit=1)
