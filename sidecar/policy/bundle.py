"""Reading an OPA bundle (.tar.gz) whose origin is not trusted (format: OPA's documentation, "Bundles", file format).

Everything is bounded before it is unpacked, nothing touches the file system, and members that could mean two things
are refused: links, devices, sparse files, paths that climb, names given twice. Signatures are not checked here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from sidecar.errors import PolicyLoadError

MAX_BUNDLE_BYTES: Final = 16 << 20
MAX_UNPACKED_BYTES: Final = 64 << 20
MAX_MEMBERS: Final = 4096
_GZIP: Final = 31  # zlib's window bits for a gzip stream


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: the Wasm module, ``data`` as JSON bytes, the manifest's revision, the file's SHA-256 in hex."""

    wasm: bytes
    data: bytes
    revision: str
    digest: str


def open_bundle(packed: bytes) -> Bundle:
    """Open a bundle of at most 16 MiB that unpacks to at most 64 MiB.

    Raises `PolicyLoadError` when it is not a bundle, tries to trick the reader, or has no ``policy.wasm``.
    """
    files = unpack(packed)
    wasm = files.get("policy.wasm")
    if wasm is None:
        raise PolicyLoadError("the policy bundle has no policy.wasm; build it with: opa build -t wasm -e ENTRYPOINT")
    return Bundle(
        wasm=wasm,
        data=_merge_data(files),
        revision=_revision(files.get(".manifest", b"{}")),
        digest=hashlib.sha256(packed).hexdigest(),
    )


def unpack(packed: bytes) -> dict[str, bytes]:
    """The files of a bundle by their paths, within the bounds above. Raises `PolicyLoadError`."""
    return _read_members(_inflate(packed))


def pack(members: dict[str, bytes]) -> bytes:
    """A .tar.gz whose bytes depend on nothing but ``members``: sorted, no times, no owners."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(members[name]), 0o644
            archive.addfile(header, io.BytesIO(members[name]))
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=0)


def _inflate(packed: bytes) -> bytes:
    if len(packed) > MAX_BUNDLE_BYTES:
        raise PolicyLoadError(f"the policy bundle is larger than {MAX_BUNDLE_BYTES} bytes")
    inflater = zlib.decompressobj(_GZIP)
    try:
        unpacked = inflater.decompress(packed, MAX_UNPACKED_BYTES + 1)
    except zlib.error:
        raise PolicyLoadError("the policy bundle is not a .tar.gz file") from None
    if len(unpacked) > MAX_UNPACKED_BYTES:
        raise PolicyLoadError(f"the policy bundle unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    if not inflater.eof or inflater.unused_data:
        raise PolicyLoadError("the policy bundle is cut short, or something follows it")
    return unpacked


def _read_members(unpacked: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            for count, member in enumerate(archive, 1):
                if count > MAX_MEMBERS:
                    raise PolicyLoadError(f"the policy bundle has more than {MAX_MEMBERS} members")
                if not member.isdir():
                    _add_member(files, archive, member)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, KeyError, RecursionError):
        raise PolicyLoadError("the policy bundle is not a readable tar archive") from None
    return files


def _add_member(files: dict[str, bytes], archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    name = _safe_name(member.name)
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
        raise PolicyLoadError(f"the policy bundle's member {name!r} is not a plain file")
    if name in files:
        raise PolicyLoadError(f"the policy bundle has {name!r} twice")
    stream = archive.extractfile(member)
    content = b"" if stream is None else stream.read()
    if len(content) != member.size:
        raise PolicyLoadError("the policy bundle is cut short, or something follows it")
    files[name] = content


def _safe_name(name: str) -> str:
    parts = name.removeprefix("/").removeprefix("./").split("/")
    if any(part in ("", ".", "..") or not part.isprintable() or "\\" in part for part in parts):
        raise PolicyLoadError(f"the policy bundle has a member with an unsafe path: {ascii(name)[:100]}")
    return "/".join(parts)


def _revision(manifest: bytes) -> str:
    parsed = _parse_object(manifest, ".manifest")
    revision = parsed.get("revision", "")
    if not isinstance(revision, str) or len(revision) > 256 or (not revision.isprintable() and revision):
        raise PolicyLoadError("the policy bundle's .manifest: revision is not a short line of text")
    return revision


def _merge_data(files: dict[str, bytes]) -> bytes:
    """The `data` document: each data.json under the path of its directory."""
    for name in files:
        if PurePosixPath(name).name in ("data.yaml", "data.yml"):
            raise PolicyLoadError(f"the policy bundle holds data as YAML ({name}); build it with: opa build")
    names = sorted(name for name in files if PurePosixPath(name).name == "data.json")
    documents = {name: _parse_object(files[name], name) for name in names}
    if names == ["data.json"]:
        return files["data.json"]  # as written: no number loses a digit
    root: dict[str, Any] = {}
    for name, document in documents.items():
        for part in reversed(PurePosixPath(name).parent.parts):
            document = {part: document}
        _merge(root, document, name)
    return json.dumps(root, ensure_ascii=False, allow_nan=False).encode()


def _merge(into: dict[str, Any], document: dict[str, Any], name: str) -> None:
    for key, value in document.items():
        if key not in into:
            into[key] = value
        elif isinstance(into[key], dict) and isinstance(value, dict):
            _merge(into[key], value, name)
        else:
            raise PolicyLoadError(f"the policy bundle's {name} repeats {key!r} of another data.json")


def _parse_object(raw: bytes, name: str) -> dict[str, Any]:
    try:
        parsed = json.loads(raw, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        raw.decode()  # json would also take UTF-16
    except (ValueError, RecursionError):
        raise PolicyLoadError(f"the policy bundle's {name} is not strict JSON") from None
    if not isinstance(parsed, dict):
        raise PolicyLoadError(f"the policy bundle's {name} is not a JSON object")
    return parsed


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("duplicate key")
    return made


def _no_constant(name: str) -> object:
    raise ValueError(name)
