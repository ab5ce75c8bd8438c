"""Paths, hosts and queries: whatever passes is read alike by servers that decode once, twice or never."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.enforce.envoy.target import host_of, parameters_of, path_of
from sidecar.errors import RequestError
from tests.fuzz.examples import fuzz

PIECES = st.sampled_from(
    ["/", "//", ".", "..", "%2e", "%2F", "%5c", "\\", "%25", "%252f", "%2", "%", ";", "%3b", "a", "B", "~", "%7E",
     "%41", "%c3%a9", "%C0%AE", "%ef%bc%8f", "%E2%80%A5", "%00", "é", " ", "?", "#", "@", ":", "+", "%0a", "*"]
)  # fmt: skip
TARGETS = st.lists(PIECES, max_size=12).map("".join).map(lambda rest: "/" + rest)


def segments(path: bytes) -> list[bytes]:
    """As a server reads them that strips parameters, takes a backslash for a slash, and resolves dots."""
    plain = [part.split(b";")[0] for part in re.split(rb"[/\\]", path)]
    return posixpath.normpath(b"/".join(plain)).strip(b"/").split(b"/")


@given(TARGETS | st.text(max_size=20).map(lambda rest: "/" + rest))
@fuzz(1_500)
def test_what_passes_has_the_same_segments_for_everybody(target: str) -> None:
    try:
        path = path_of(target)
    except RequestError:
        return
    assert path_of(path) == path
    count, read = path.rstrip("/").count("/"), target.encode()
    for _ in range(3):
        found = segments(read)
        assert len(found) == max(count, 1), (target, read)
        assert b"." not in found and b".." not in found
        read = unquote_to_bytes(read)
    assert unquote_to_bytes(path) == unquote_to_bytes(target)


@given(TARGETS)
@fuzz(300)
def test_a_second_encoding_is_one_too_many(target: str) -> None:
    """What still is an encoding after it was decoded once."""
    try:
        path_of(target)
    except RequestError:
        return
    assert not re.search(rb"%[0-9A-Fa-f]{2}", unquote_to_bytes(target))


@pytest.mark.parametrize(
    ("authority", "scheme", "host"),
    [
        ("API.Example.com", "https", "api.example.com"),
        ("api.example.com:443", "https", "api.example.com"),
        ("api.example.com:443", "http", "api.example.com:443"),
        ("[2001:DB8::1]:8443", "https", "[2001:db8::1]:8443"),
        ("localhost", "http", "localhost"),
    ],
)
def test_hosts(authority: str, scheme: str, host: str) -> None:
    assert host_of(authority, scheme) == host


BAD_HOSTS = (
    "",
    "a b",
    "user@a",
    "a.",
    "a..b",
    ".a",
    "a:",
    "a:b",
    "a:123456",
    "a/b",
    "é.com",
    "ban\u212a.example",  # the Kelvin sign, whose small letter is that of K
    "a,b",
    "a%2eb",
    "-a",
    "[::1",
    "a" * 300,
)


@pytest.mark.parametrize("authority", BAD_HOSTS)
def test_hosts_that_are_none(authority: str) -> None:
    with pytest.raises(RequestError):
        host_of(authority, "https")


def test_parameters() -> None:
    assert parameters_of("a=1&a=2&b&c=%20+x") == {"a": ["1", "2"], "b": [""], "c": ["  x"]}
    assert parameters_of("") == {}
    assert parameters_of("a=1%3Bb=2") == {"a": ["1;b=2"]}
    for bad in ("a=1;admin=true", "a=%", "a=%zz", "a=%ff", "a=#", "a= ", "a=é", "&".join(["a=1"] * 300)):
        with pytest.raises(RequestError):
            parameters_of(bad)
