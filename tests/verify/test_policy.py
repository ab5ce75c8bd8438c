"""C2SP tlog-policy: what is read, what is refused, and which witnesses make a quorum."""

from __future__ import annotations

from itertools import combinations

import pytest

from sidecar.chain.cosignature import COSIGNATURE
from sidecar.chain.note import VerifierKey
from sidecar.errors import Malformed, SignatureInvalid
from sidecar.verify.policy import NotListed, Policy
from tests.notary import Notary
from tests.scribe import public, signing_key


def log_key(name: str = "a") -> str:
    return str(VerifierKey(f"log.example/{name}", public(signing_key("log", name))))


def witness_key(name: str) -> str:
    return str(VerifierKey(f"witness.example/{name}", public(signing_key("witness", name)), COSIGNATURE))


# The example of the specification, with keys.
EXAMPLE = f"""\
# comment
log {log_key()}

witness X1 {witness_key("X1")}
witness X2\t{witness_key("X2")} https://x2.example/
 witness X3 {witness_key("X3")}\x20
\t# comment
group X-witnesses 2 X1 X2 X3

witness Y1 {witness_key("Y1")}
witness Y2 {witness_key("Y2")}
witness Y\u00e9 {witness_key("Y3")}
group Y-witnesses any Y1 Y2 Y\u00e9

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def test_the_example_of_the_format() -> None:
    policy = Policy.parse(EXAMPLE)
    assert [key.name for key in policy.logs] == ["log.example/a"] and len(policy.witnesses) == 6
    names = list(policy.witnesses)
    for count in range(7):
        for chosen in combinations(names, count):
            enough = sum(n[0] == "X" for n in chosen) >= 2 and any(n[0] == "Y" for n in chosen)
            assert policy.reached(dict.fromkeys(chosen, 0)) is enough


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("quorum none\n", True),
        (f"witness w {witness_key('w')}\nquorum w\n", False),
        (f"witness w {witness_key('w')}\ngroup g all w\nquorum g\n", False),
    ],
)
def test_who_is_enough_without_anybody(text: str, reached: bool) -> None:
    assert Policy.parse(text).reached({}) is reached
    assert Policy.parse(text).reached({"w": 1})


W, V, L = f"witness w {witness_key('w')}\n", f"witness v {witness_key('v')}\n", f"log {log_key()}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        L,
        "quorum none",
        "quorum none\nquorum none\n",
        "quorum none more\n",
        "quorum w\n" + W,
        "quorum\n",
        "unknown line\nquorum none\n",
        "Quorum none\n",
        L + L + "quorum none\n",
        f"log {witness_key('w')}\nquorum none\n",
        f"witness w {log_key()}\nquorum none\n",
        f"log {log_key()[:-1]}\nquorum none\n",
        f"log {log_key()} url more\nquorum none\n",
        W + W + "quorum none\n",
        W + f"witness x {witness_key('w')}\nquorum none\n",
        f"witness none {witness_key('w')}\nquorum none\n",
        W + "group w all w\nquorum none\n",
        W + "group none all w\nquorum none\n",
        W + "group g 0 w\nquorum g\n",
        W + "group g 2 w\nquorum g\n",
        W + "group g 01 w\nquorum g\n",
        W + "group g one w\nquorum g\n",
        W + "group g all\nquorum none\n",
        W + "group g all none\nquorum g\n",
        W + "group g all v\n" + V + "quorum g\n",
        W + "group g all w w\nquorum g\n",
        W + V + "group g all w\ngroup h all w v\nquorum h\n",
        "group g all g\nquorum g\n",
        L.replace(" ", "\x0b") + "quorum none\n",
        L + f"witness w {VerifierKey('w.example', public(signing_key('log', 'a')), COSIGNATURE)}\nquorum w\n",
        "quorum none\r\n",
        "#" * 300_000 + "\nquorum none\n",
    ],
)
def test_no_policy(text: str) -> None:
    with pytest.raises(Malformed):
        Policy.parse(text)


@pytest.mark.parametrize("kind", ["log", "witness", "group"])
def test_no_more_than_the_limits(kind: str) -> None:
    def line(i: int) -> str:
        if kind == "log":
            return f"log {log_key(str(i))}\n"
        if kind == "witness":
            return f"witness w{i} {witness_key(str(i))}\n"
        return f"witness w{i} {witness_key(str(i))}\ngroup g{i} all w{i}\n" if i < 1 else f"group g{i} all g{i - 1}\n"

    Policy.parse("".join(map(line, range(64))) + "quorum none\n")
    with pytest.raises(Malformed):
        Policy.parse("".join(map(line, range(65))) + "quorum none\n")


def test_a_log_that_changes_its_key_is_listed_with_both() -> None:
    old, new = Notary(signing_key("old")), Notary(signing_key("new"))
    both = Policy.parse(old.policy().replace("quorum none\n", "") + new.policy())
    for notary in (old, new):
        assert both.judge(notary.signed()).enough
    with pytest.raises(SignatureInvalid):
        both.judge(Notary(signing_key("mallory")).signed())
    with pytest.raises(NotListed):
        both.judge(Notary(signing_key("old"), "log.example.org/other").signed())
