"""Custodians whose RSA key stays in a token, with SoftHSM: opening, what goes wrong, and the commands of a user.

SoftHSM 2.6 does OAEP with SHA-1 alone, so it tests raw RSA by the token and the padding taken off by us.
OAEP by the token is tested with a token of our own making, as are faults that no software token can be brought to.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11.util.ec import encode_named_curve_parameters

from sidecar.chain.seeds import Custodian, Custody
from sidecar.chain.signing import PublicKey
from sidecar.chain.statement import key_id
from sidecar.custody import load_agent_token, load_custodian, load_pkcs11, open_seed, public_pem, seal_shares
from sidecar.custody.kems import seal
from sidecar.custody.pkcs11 import TokenKey
from sidecar.errors import CustodianMissing, CustodyError, UsageError
from tests.needs import cannot_run, needs_program
from tests.program import serving, sidecar

PIN = "271828"
CHAIN = bytes(range(32))
SEED = bytes(range(100, 132))
MODULES = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Initialised tokens `auditor`, `regulator` and two `twin`s; where they are, for URIs and for other processes."""

    module: str
    place: Path

    def uri(self, token: str = "auditor", key: str = "object=seed", pin: str = "pin") -> str:
        return f"pkcs11:token={token};{key}?module-path={self.module}&pin-source=file:{self.place / pin}"

    def sidecar(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return sidecar(*arguments, SOFTHSM2_CONF=str(self.place / "softhsm2.conf"))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokens]:
    tool = needs_program("softhsm2-util")
    module = next((m for m in MODULES if Path(m).is_file()), None)
    if module is None:
        cannot_run(f"needs SoftHSM's module, found at none of {', '.join(MODULES)}")
    place = tmp_path_factory.mktemp("tokens")
    (place / "store").mkdir()
    (place / "softhsm2.conf").write_text(f"directories.tokendir = {place / 'store'}\nlog.level = ERROR\n")
    (place / "pin").write_text(PIN + "\n")
    (place / "wrong-pin").write_text("314159")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(place / "softhsm2.conf")  # the module reads it in this very process
    try:
        for label in ("auditor", "regulator", "twin", "twin"):
            made = [tool, "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "161803"]
            subprocess.run(made, check=True, capture_output=True)
        _make_keys(module)
        yield Tokens(module, place)
    finally:
        pkcs11.unload(module)
        os.environ.pop("SOFTHSM2_CONF")
        if before is not None:
            os.environ["SOFTHSM2_CONF"] = before


def _make_keys(module: str) -> None:
    library: Any = pkcs11.lib(module)
    with library.get_token(token_label="auditor").open(rw=True, user_pin=PIN) as session:
        for label, key_id in (("seed", b"\1"), ("double", b"\2"), ("double", b"\3")):
            session.generate_keypair(pkcs11.KeyType.RSA, 2048, label=label, id=key_id, store=True)
        session.generate_keypair(pkcs11.KeyType.RSA, 1024, label="weak", store=True)
        session.generate_keypair(
            pkcs11.KeyType.RSA, 2048, label="signer", store=True, capabilities=pkcs11.MechanismFlag.SIGN
        )
        asking = {pkcs11.Attribute.ALWAYS_AUTHENTICATE: True}
        session.generate_keypair(pkcs11.KeyType.RSA, 2048, label="asking", store=True, private_template=asking)
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        parameters.generate_keypair(label="elliptic", store=True)
    with library.get_token(token_label="regulator").open(rw=True, user_pin=PIN) as session:
        session.generate_keypair(pkcs11.KeyType.RSA, 2048, label="seed", store=True)


def _custody(mode: str, *keys: TokenKey) -> Custody:
    names = ("ada", "bob")
    return Custody(mode, tuple(load_custodian(public_pem(k), n) for k, n in zip(keys, names, strict=False)))


def test_the_token_opens_what_was_sealed_and_its_key_cannot_be_read(tokens: Tokens) -> None:
    key = load_pkcs11(tokens.uri())
    custody = _custody("any", key)
    shares = seal_shares(custody, CHAIN, 3, SEED, os.urandom)
    assert custody.custodians[0].kem == key.kem == "rsa-oaep"
    assert open_seed([key], custody, CHAIN, 3, shares) == SEED
    library: Any = pkcs11.lib(tokens.module)
    with library.get_token(token_label="auditor").open() as session:
        private = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, label="seed")
        with pytest.raises(pkcs11.AttributeSensitive):
            private[pkcs11.Attribute.PRIVATE_EXPONENT]


def test_a_key_is_found_by_label_by_id_and_by_both(tokens: Tokens) -> None:
    spki = load_pkcs11(tokens.uri()).spki
    assert load_pkcs11(tokens.uri(key="id=%01")).spki == spki
    assert load_pkcs11(tokens.uri(key="id=%01;object=seed;type=private")).spki == spki
    second, third = (load_pkcs11(tokens.uri(key=f"object=double;id=%{n:02}")).spki for n in (2, 3))
    assert len({spki, second, third}) == 3


def test_a_token_is_found_by_its_serial(tokens: Tokens) -> None:
    library: Any = pkcs11.lib(tokens.module)
    serial = library.get_token(token_label="auditor").serial.decode()
    named = tokens.uri().replace("token=auditor", f"serial={serial};model=SoftHSM%20v2;manufacturer=SoftHSM%20project")
    assert load_pkcs11(named).spki == load_pkcs11(tokens.uri()).spki
    with pytest.raises(UsageError, match="no token"):
        load_pkcs11(named.replace("SoftHSM%20v2", "SoftHSM%20v9"))


def test_a_key_that_asks_for_its_pin_each_time_opens_twice(tokens: Tokens) -> None:
    key = load_pkcs11(tokens.uri(key="object=asking"))
    custody = _custody("any", key)
    for epoch in (1, 2):
        assert open_seed([key], custody, CHAIN, epoch, seal_shares(custody, CHAIN, epoch, SEED, os.urandom)) == SEED


def test_in_mode_all_a_lost_custodian_is_named(tokens: Tokens) -> None:
    ada, bob = load_pkcs11(tokens.uri()), load_pkcs11(tokens.uri("regulator"))
    custody = _custody("all", ada, bob)
    shares = seal_shares(custody, CHAIN, 0, SEED, os.urandom)
    assert open_seed([bob, ada], custody, CHAIN, 0, shares) == SEED
    with pytest.raises(CustodianMissing, match=r"missing: custodian 1 \(bob\)$"):
        open_seed([ada], custody, CHAIN, 0, shares)
    with pytest.raises(CustodyError, match="belongs to no custodian"):
        open_seed([load_pkcs11(tokens.uri(key="id=%02"))], custody, CHAIN, 0, shares)


def _bad(spki: bytes) -> dict[str, bytes]:
    key = load_der_public_key(spki)
    assert isinstance(key, rsa.RSAPublicKey)
    good = key.encrypt(bytes(64), _oaep(hashes.SHA256()))
    size = len(good)
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return {
        "empty": b"",
        "short": good[:-1],
        "long": good + b"\0",
        "first bit": bytes((good[0] ^ 1,)) + good[1:],
        "last bit": good[:-1] + bytes((good[-1] ^ 1,)),
        "zeros": bytes(size),
        "one": bytes(size - 1) + b"\1",
        "the modulus": key.public_numbers().n.to_bytes(size, "big"),
        "above the modulus": b"\xff" * size,
        "for another key": stranger.encrypt(bytes(64), _oaep(hashes.SHA256())),
        "with SHA-1": key.encrypt(bytes(64), _oaep(hashes.SHA1())),
        "with a label": key.encrypt(bytes(64), _oaep(hashes.SHA256(), b"label")),
        "PKCS #1 v1.5": key.encrypt(bytes(64), padding.PKCS1v15()),
    }


def _oaep(algorithm: hashes.HashAlgorithm, label: bytes | None = None) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(algorithm), algorithm, label)


def test_bad_ciphertexts_all_look_alike_and_the_token_still_works(tokens: Tokens) -> None:
    key = load_pkcs11(tokens.uri())
    for why, sealed in _bad(key.spki).items():
        assert key.open(sealed, b"") is None, why
    sealed = seal(Custodian("ada", "rsa-oaep", key.spki), b"still", b"")
    assert sealed is not None
    assert key.open(sealed, b"") == b"still"


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"token": "nobody"}, "no token nobody in"),
        ({"token": "twin"}, "2 tokens fit twin; add serial="),
        ({"key": "object=none"}, "no private key none; correct"),
        ({"key": "object=seed;id=%07"}, "no private key seed, id 07"),
        ({"key": "object=double"}, "2 private keys double; give object= and id= both"),
        ({"key": "object=elliptic"}, "is not RSA"),
        ({"key": "object=weak"}, "1024 bits; 2048 or more"),
        ({"key": "object=signer"}, "is not for decryption"),
        ({"pin": "no-such-file"}, "cannot read the PIN file .*No such file"),
        ({"pin": "softhsm2.conf"}, "the PIN alone"),
    ],
)
def test_what_is_not_there_is_named(tokens: Tokens, changed: dict[str, str], cause: str) -> None:
    with pytest.raises(UsageError, match=cause) as refused:
        load_pkcs11(tokens.uri(**changed))
    assert "\n" not in str(refused.value)
    assert PIN not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"12\n34", b"\xff\xfe", b"1" * 1025])
def test_a_pin_file_holds_one_pin(tokens: Tokens, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pin").write_bytes(content)
    with pytest.raises(UsageError, match="must hold the PIN alone"):
        load_pkcs11(tokens.uri(pin=str(tmp_path / "pin")))


def test_a_module_that_is_none_is_refused(tokens: Tokens, tmp_path: Path) -> None:
    (tmp_path / "m.so").write_bytes(b"not ELF")
    with pytest.raises(UsageError, match="does not load as a PKCS #11 module"):
        load_pkcs11(tokens.uri().replace(tokens.module, str(tmp_path / "m.so")))
    with pytest.raises(UsageError, match="no PKCS #11 module at"):
        load_pkcs11(tokens.uri().replace(tokens.module, str(tmp_path / "none.so")))


class FaultyToken:
    """A token's private key as python-pkcs11 shows it, whose mechanisms and faults a test chooses."""

    def __init__(self, oaep_hash: hashes.HashAlgorithm | None, raw: bool = False) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.oaep_hash, self.raw = oaep_hash, raw
        self.bad: type[Exception] = pkcs11.EncryptedDataInvalid
        self.gone = False
        self.used: list[pkcs11.Mechanism] = []

    def decrypt(self, data: bytes, mechanism: pkcs11.Mechanism, mechanism_param: object, pin: str | None) -> bytes:
        self.used.append(mechanism)
        if self.gone:
            raise pkcs11.DeviceRemoved
        if mechanism == pkcs11.Mechanism.RSA_PKCS_OAEP and self.oaep_hash is not None:
            assert mechanism_param == (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, None)
            try:
                return self.key.decrypt(data, _oaep(self.oaep_hash))
            except ValueError:
                raise self.bad from None
        if mechanism == pkcs11.Mechanism.RSA_X_509 and self.raw:
            numbers = self.key.private_numbers()
            plain = pow(int.from_bytes(data, "big"), numbers.d, numbers.public_numbers.n)
            return plain.to_bytes(256, "big").lstrip(b"\0")  # as some tokens do
        raise pkcs11.MechanismInvalid


def _held(token: FaultyToken) -> TokenKey:
    return TokenKey(token, token.key.public_key(), None, "key seed in token auditor")


@pytest.mark.parametrize("bad", [pkcs11.EncryptedDataInvalid, pkcs11.GeneralError, pkcs11.FunctionFailed])
def test_oaep_by_the_token_where_it_can(bad: type[Exception]) -> None:
    token = FaultyToken(hashes.SHA256(), raw=True)
    token.bad = bad
    key = _held(token)
    sealed = token.key.public_key().encrypt(b"plain", _oaep(hashes.SHA256()))
    assert key.open(sealed, b"") == b"plain"
    for why, broken in _bad(key.spki).items():
        assert key.open(broken, b"") is None, why
    assert set(token.used) == {pkcs11.Mechanism.RSA_PKCS_OAEP}


def test_a_token_that_passes_over_the_parameters_is_found_out() -> None:
    token = FaultyToken(hashes.SHA1(), raw=True)
    key = _held(token)
    token.used.clear()
    assert key.open(token.key.public_key().encrypt(b"plain", _oaep(hashes.SHA256())), b"") == b"plain"
    assert token.used == [pkcs11.Mechanism.RSA_X_509]


def test_a_public_key_of_another_pair_is_found_out() -> None:
    token, other = FaultyToken(hashes.SHA256()), FaultyToken(hashes.SHA256())
    with pytest.raises(UsageError, match="opens nothing sealed to this key"):
        TokenKey(token, other.key.public_key(), None, "key seed in token auditor")


@pytest.mark.parametrize("make", [lambda: FaultyToken(hashes.SHA256()), lambda: FaultyToken(None, raw=True)])
def test_a_token_taken_out_is_no_finding_against_the_share(make: Callable[[], FaultyToken]) -> None:
    token = make()
    key = _held(token)
    custody = _custody("any", key)
    shares = seal_shares(custody, CHAIN, 0, SEED, os.urandom)
    assert open_seed([key], custody, CHAIN, 0, shares) == SEED
    token.gone = True
    with pytest.raises(UsageError, match=r"token auditor: the token no longer works \(DeviceRemoved\)"):
        open_seed([key], custody, CHAIN, 0, shares)


@dataclass(frozen=True, slots=True)
class Ledgers:
    """Two closed ledgers: ``one`` of custodian auditor, ``both`` in mode ``all`` of auditor and regulator."""

    one: Path
    both: Path


@pytest.fixture(scope="module")
def ledgers(tokens: Tokens, tmp_path_factory: pytest.TempPathFactory) -> Ledgers:
    place = tmp_path_factory.mktemp("ledgers")
    named: list[str | Path] = []
    for token in ("auditor", "regulator"):
        done = tokens.sidecar("keys", "public", tokens.uri(token), "--out", place / f"{token}.pub.pem")
        assert done.returncode == 0, done.stderr
        assert "PRIVATE" not in (place / f"{token}.pub.pem").read_text()
        named += ["--custodian", place / f"{token}.pub.pem"]
    for name, custodians in (("one", named[:2]), ("both", [*named, "--mode", "all"])):
        done = sidecar("init", "--data-dir", place / name, *custodians)
        assert done.returncode == 0, done.stderr
        with serving(place / name) as server:
            assert server.stop() == 0
    return Ledgers(place / "one", place / "both")


def test_a_public_key_is_not_written_over_another(tokens: Tokens, tmp_path: Path) -> None:
    out = tmp_path / "auditor.pub.pem"
    out.write_text("mine")
    done = tokens.sidecar("keys", "public", tokens.uri(), "--out", out)
    assert (done.returncode, done.stderr.count("\n"), out.read_text()) == (2, 1, "mine")


def test_verify_and_disclose_with_a_token(tokens: Tokens, ledgers: Ledgers, tmp_path: Path) -> None:
    done = tokens.sidecar("verify", ledgers.one, "--custodian-key", tokens.uri())
    assert done.returncode == 4, done.stdout + done.stderr
    assert "HMAC" in done.stdout.split("Not checked")[0]
    disclosed = tmp_path / "d.json"
    done = tokens.sidecar(
        "keys", "disclose", ledgers.one, "--custodian-key", tokens.uri(), "--segment", "0", "--out", disclosed
    )
    assert done.returncode == 0, done.stderr
    done = sidecar("verify", ledgers.one, "--disclosure", disclosed)
    assert done.returncode == 4, done.stdout
    assert "HMAC" in done.stdout.split("Not checked")[0]


def test_verify_in_mode_all(tokens: Tokens, ledgers: Ledgers) -> None:
    first, second = ("--custodian-key", tokens.uri()), ("--custodian-key", tokens.uri("regulator"))
    together = tokens.sidecar("verify", ledgers.both, *first, *second)
    assert together.returncode == 4, together.stdout + together.stderr
    assert "HMAC" in together.stdout.split("Not checked")[0]
    alone = tokens.sidecar("verify", ledgers.both, *first)
    assert (alone.returncode, alone.stderr.count("\n")) == (2, 1)
    assert alone.stdout.startswith("UNANCHORED")
    assert "missing: custodian 1 (regulator.pub)" in alone.stderr
    none = sidecar("verify", ledgers.both)
    assert none.returncode == 4, none.stdout


def test_wrong_pin_and_wrong_token(tokens: Tokens, ledgers: Ledgers) -> None:
    for uri, cause in (
        (tokens.uri(pin="wrong-pin"), "token auditor: wrong PIN"),
        (tokens.uri("nobody"), "no token nobody"),
        (tokens.uri() + f"&pin-value={PIN}", "pin-value is refused"),
    ):
        done = tokens.sidecar("verify", ledgers.one, "--custodian-key", uri)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert cause in done.stderr
        assert not any(secret in done.stderr for secret in (PIN, "314159"))
    other = tokens.sidecar("verify", ledgers.one, "--custodian-key", tokens.uri("regulator"))
    assert other.returncode == 2
    assert "belongs to no custodian" in other.stderr


def test_without_python_pkcs11_the_extra_is_named(tmp_path: Path) -> None:
    # A package of that name that cannot be imported stands before the installed one.
    (tmp_path / "pkcs11.py").write_text("raise ImportError\n")
    uri = "pkcs11:token=t;object=o?module-path=/m.so&pin-source=file:/p"
    done = sidecar("keys", "public", uri, "--out", tmp_path / "o.pem", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install 'decision-sidecar[pkcs11]'" in done.stderr
    assert sidecar("keys", "custodian", "--out", tmp_path / "k.pem", PYTHONPATH=str(tmp_path)).returncode == 0


def test_an_agents_key_in_a_token_signs_what_it_asks(tokens: Tokens, tmp_path: Path) -> None:
    signer = load_agent_token(tokens.uri(key="object=elliptic"))
    PublicKey(signer.spki).verify(signer.sign(b"message"), b"message")
    ledger, registry = tmp_path / "ledger", tmp_path / "registry.json"
    added = ("agents", "add", "--registry", registry, "--key", tokens.uri(key="object=elliptic"), "billing-agent")
    assert tokens.sidecar(*added).returncode == 0
    unfit = ("agents", "add", "--registry", registry, "--key", tokens.uri(key="object=signer"), "other-agent")
    assert "not an elliptic curve key" in tokens.sidecar(*unfit).stderr
    assert tokens.sidecar("init", "--data-dir", ledger).returncode == 0
    asked = ("--agent", "billing-agent", "--action", "crm.read", "--resource", "customer:acme-42", "--json")
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        key = ("--key", tokens.uri(key="object=elliptic"))
        done = tokens.sidecar("decide", "--server", server.address, *asked, *key)
        assert done.returncode == 0, done.stderr
        assert '"agent_proof":"signature"' in done.stdout
        assert server.stop() == 0


def test_an_agents_key_is_made_in_the_token_and_never_leaves_it(tokens: Tokens, tmp_path: Path) -> None:
    uri = tokens.uri("regulator", key="object=billing-agent;id=%07")
    made = tokens.sidecar("keys", "agent", "--type", "p256", "--out", uri)
    assert made.returncode == 0, made.stderr
    signer = load_agent_token(uri)
    assert key_id(signer.spki) in made.stdout
    PublicKey(signer.spki).verify(signer.sign(b"message"), b"message")
    library: Any = pkcs11.lib(tokens.module)
    with library.get_token(token_label="regulator").open() as session:
        private = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, label="billing-agent")
        with pytest.raises(pkcs11.AttributeSensitive):
            private[pkcs11.Attribute.VALUE]
        attributes = pkcs11.Attribute
        never = (attributes.EXTRACTABLE, attributes.DERIVE, attributes.DECRYPT)
        assert [private[each] for each in never] == [False, False, False]
        assert (private[attributes.SENSITIVE], private[attributes.SIGN]) == (True, True)
    registry = tmp_path / "registry.json"
    assert tokens.sidecar("agents", "add", "--registry", registry, "--key", uri, "billing-agent").returncode == 0
    assert base64.b64encode(signer.spki).decode() in registry.read_text()


@pytest.mark.parametrize(
    ("key", "kind", "cause"),
    [
        ("object=fresh", "ed25519", "a key in a token is P-256; add --type p256"),
        ("object=seed", "p256", "has a private key seed already"),
        ("id=%09", "p256", "a new key needs a name"),
    ],
)
def test_a_key_is_not_made_in_a_token(tokens: Tokens, key: str, kind: str, cause: str) -> None:
    done = tokens.sidecar("keys", "agent", "--type", kind, "--out", tokens.uri("regulator", key=key))
    assert (done.returncode, done.stdout, done.stderr.count("\n"), cause in done.stderr) == (2, "", 1, True), (
        done.stderr
    )


def test_a_key_in_a_token_that_agents_cannot_sign_with(tokens: Tokens) -> None:
    with pytest.raises(UsageError, match="not an elliptic curve key"):
        load_agent_token(tokens.uri(key="object=signer"))
