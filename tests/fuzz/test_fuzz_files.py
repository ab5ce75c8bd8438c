"""Files that operators hand in: disclosures, trust files, bundles, keys, URIs, configurations. Refused in one line."""

from __future__ import annotations

import gzip
import io
import tarfile
import tomllib
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import strictjson
from sidecar.config import load
from sidecar.custody import generate_authority, generate_custodian, load_authority, load_custodian, load_private
from sidecar.custody.token_uri import TokenUri
from sidecar.errors import Malformed, PolicyLoadError, SidecarError, UsageError
from sidecar.policy import open_bundle
from sidecar.policy.bundle import MAX_UNPACKED_BYTES
from sidecar.verify import Disclosure, parse_disclosure, parse_trust
from sidecar.verify.trust import FORMAT as TRUST
from tests.fuzz.examples import fuzz, hostile
from tests.notary import Notary
from tests.scribe import public, story

STORY = story()
DISCLOSURE = Disclosure(STORY.chain_id, STORY.keys).encode()
TRUSTED = strictjson.dumps(
    {
        "format": TRUST,
        "chains": [{"chain": STORY.chain_id.hex(), "identity": public(STORY.identity).hex()}],
        "policy": Notary(witnesses=2).policy(),
        "tsa_roots": ["MAMCAQA="],
        "custodians": ["ab" * 32],
    }
)
X25519, RSA, AUTHORITY = generate_custodian("x25519"), generate_custodian("rsa"), generate_authority()
PEMS = [*X25519, *RSA, *AUTHORITY]
URI = "pkcs11:token=My%20token;object=se%C3%ABd;id=%00%FF;type=private?module-path=/m.so&pin-source=file:/run/pin"
CONFIG = b"""
data_dir = "/var/lib/sidecar"
listen = "127.0.0.1:7000"
dev = true
engine = "wasm"
evaluate_timeout = 0.5
segment_entries = 100
custodians = ["a.pem", "b.pem"]
socket_mode = "0600"
"""


def one_line(error: SidecarError) -> None:
    assert str(error) and "\n" not in str(error)


@given(hostile([DISCLOSURE]))
@fuzz(500)
def test_a_disclosure_is_read_whole_or_refused(data: bytes) -> None:
    try:
        read = parse_disclosure(data)
    except Malformed as error:
        one_line(error)
        return
    assert parse_disclosure(read.encode()) == read


@given(hostile([TRUSTED]))
@fuzz(500)
def test_a_trust_file_is_read_whole_or_refused(data: bytes) -> None:
    try:
        read = parse_trust(data)
    except Malformed as error:
        one_line(error)
        return
    assert read.chains


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """A tar archive with members of any name and type, some of it changed afterwards; packed, or cut short."""
    plain = io.BytesIO()
    names = st.sampled_from(["policy.wasm", "/policy.wasm", "data.json", "a/data.json", ".manifest", "../x", "a//b"])
    with tarfile.open(fileobj=plain, mode="w", format=draw(st.sampled_from([0, 1, 2]))) as archive:
        for _ in range(draw(st.integers(1, 4))):
            member = tarfile.TarInfo(draw(names | st.text("/.abé\n\\", min_size=1, max_size=12)))
            content = draw(st.sampled_from([b"", b"\0asm", b'{"a":{"b":1}}', b'{"revision":"r"}']) | st.binary())
            member.size = len(content)
            member.type = draw(st.sampled_from([*[tarfile.REGTYPE] * 6, b"1", b"2", b"5", b"S", b"x", b"L", b"?"]))
            member.linkname = draw(st.sampled_from(["", "policy.wasm", "/etc/passwd"]))
            archive.addfile(member, io.BytesIO(content))
    data = bytearray(plain.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    packed = gzip.compress(bytes(data), 1, mtime=0)
    return packed[: draw(st.integers(0, len(packed)))] if draw(st.integers(0, 9)) == 0 else packed


@given(archives() | hostile([gzip.compress(b"\0" * 1024, mtime=0)]))
@fuzz(500)
def test_a_bundle_is_opened_or_refused(packed: bytes) -> None:
    try:
        bundle = open_bundle(packed)
    except PolicyLoadError as error:
        one_line(error)
        return
    assert isinstance(strictjson.parse_object(bundle.data), dict)


@given(st.integers(0, 4))
@fuzz(5)
def test_a_bundle_that_unpacks_without_end_takes_bounded_memory(extra: int) -> None:
    packed = gzip.compress(bytes((MAX_UNPACKED_BYTES + extra * (16 << 20)) + 1), 1, mtime=0)
    tracemalloc.start()
    try:
        open_bundle(packed)
    except PolicyLoadError as error:
        one_line(error)
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_UNPACKED_BYTES
    finally:
        tracemalloc.stop()


@given(hostile(PEMS))
@fuzz(800)
def test_a_key_is_read_or_refused(pem: bytes) -> None:
    for read in (load_private, load_authority):
        try:
            read(pem)
        except UsageError as error:
            one_line(error)
    try:
        custodian = load_custodian(pem, "auditor")
    except UsageError as error:
        one_line(error)
        return
    assert custodian.kem in ("hpke", "rsa-oaep") and b"PRIVATE KEY-----" not in pem


@given(hostile([URI.encode()]))
@fuzz(800)
def test_a_token_uri_is_read_or_refused_and_never_repeated(data: bytes) -> None:
    uri = data.decode(errors="replace")
    try:
        read = TokenUri.parse(uri)
    except UsageError as error:
        assert "se%C3%ABd" not in str(error) and "My%20token" not in str(error)
        one_line(error)
        return
    assert read.module.is_absolute() and read.pin_file.is_absolute()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "sidecar.toml"


@given(
    data=hostile([CONFIG]),
    variables=st.dictionaries(st.sampled_from(["SIDECAR_DEV", "SIDECAR_SEGMENT_SECONDS"]), st.text()),
)
@fuzz(500)
def test_a_configuration_is_taken_or_refused(place: Path, data: bytes, variables: dict[str, str]) -> None:
    place.write_bytes(data)
    try:
        config, _ = load(place, variables, {})
    except UsageError as error:
        one_line(error)
        return
    said = tomllib.loads(data.decode())
    assert config.data_dir == said["data_dir"] and len(config.digest()) == 32
