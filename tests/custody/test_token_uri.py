"""RFC 7512 URIs as far as custodians need them; what is not understood is refused, and no PIN is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.custody import load_pkcs11
from sidecar.custody.token_uri import TokenUri
from sidecar.errors import UsageError

WHERE = "?module-path=/lib/m.so&pin-source=file:/run/pin"


def test_every_attribute_is_read() -> None:
    read = TokenUri.parse(
        "pkcs11:token=My%20token;serial=0a1b;manufacturer=Maker;model=M%3b2;object=se%C3%ABd;id=%00%FFA;type=private"
        "?module-path=/lib/my%20m.so&pin-source=file:/run/pin"
    )
    assert read == TokenUri(
        module=Path("/lib/my m.so"),
        pin_file=Path("/run/pin"),
        token="My token",
        serial="0a1b",
        manufacturer="Maker",
        model="M;2",
        label="seëd",
        key_id=b"\x00\xffA",
    )


@pytest.mark.parametrize("source", ["file:/run/pin", "file:///run/pin", "/run/pin"])
def test_the_pin_file_can_be_written_in_the_usual_ways(source: str) -> None:
    read = TokenUri.parse(f"PKCS11:token=t;object=o?pin-source={source}&module-path=/m.so")
    assert read.pin_file == Path("/run/pin")


@pytest.mark.parametrize(
    ("uri", "mend"),
    [
        ("auditor.pem", "not a pkcs11 URI"),
        ("pkcs11:", "names no module"),
        (f"pkcs11:object=o{WHERE}", "names no token"),
        (f"pkcs11:token=t{WHERE}", "names no key; give object="),
        ("pkcs11:token=t;object=o?pin-source=file:/p", "add \\?module-path="),
        ("pkcs11:token=t;object=o?module-path=/m.so", "add &pin-source=file:"),
        ("pkcs11:token=t;object=o?module-path=m.so&pin-source=file:/p", "absolute"),
        ("pkcs11:token=t;object=o?module-path=/m.so&pin-source=file://host/p", "on this machine"),
        ("pkcs11:token=t;object=o?module-path=/m.so&pin-source=|askpass", "absolute path on this machine"),
        ("pkcs11:token=t;object=o?module-name=softhsm2&pin-source=file:/p", "module-path=/"),
        (f"pkcs11:token=t;object=o;type=cert{WHERE}", "type must be private"),
        (f"pkcs11:token=t;token=u;object=o{WHERE}", "token is given twice"),
        (f"pkcs11:token=t;object=o;slot-id=3{WHERE}", "before the \\? there may be"),
        (f"pkcs11:token=t;object=o{WHERE}&x-more=1", "after the \\? there may be"),
        (f"pkcs11:token=t;object{WHERE}", "not known"),
        (f"pkcs11:token=t;object=o%2{WHERE}", "percent-encoded"),
        (f"pkcs11:token=t;object={WHERE}", "empty"),
        (f"pkcs11:token=t;object=ë{WHERE}", "percent-encoded"),
        (f"pkcs11:token=t;object=%FF{WHERE}", "not UTF-8"),
        (f"pkcs11:token=t;object=a%00b{WHERE}", "NUL"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_mend(uri: str, mend: str) -> None:
    with pytest.raises(UsageError, match=mend) as refused:
        load_pkcs11(uri)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("uri", [f"pkcs11:token=t;object=o{WHERE}&pin-value=86420",
                                 "pkcs11:token=t;object=o;pin-value=86420", "pkcs11:86420?pin-value=86420",
                                 f"pkcs11:token=t;object=o{WHERE}&pinvalue=86420"])  # fmt: skip
def test_a_pin_in_the_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_pkcs11(uri)
    assert "86420" not in str(refused.value)
