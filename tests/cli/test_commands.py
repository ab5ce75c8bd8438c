"""Each command's output, exit code and errors, as scripts depend on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.program import made, serving, sidecar


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with a few decisions in short segments, closed in order; auditor.pem and receipt.txt beside it."""
    place = tmp_path_factory.mktemp("commands")
    ledger, _ = made(place)
    (place / "c.toml").write_text("segment_entries = 4\n")
    with serving(ledger, "--config", place / "c.toml") as server:
        for number in range(6):
            done = sidecar(
                "decide", "--server", server.address, "--agent", "billing-agent", "--action", "crm.read",
                "--resource", f"customer:c-{number}", "--json", "--receipt-out", place / "receipt.txt",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        decision = json.loads(done.stdout)["decision_id"]
        reported = sidecar(
            "outcome", decision, "--server", server.address, "--agent", "billing-agent", "--status", "failed",
            "--response", '{"error": "\\u001b[31mred"}',
        )  # fmt: skip
        assert reported.stdout.startswith("recorded at seq"), reported.stderr
        assert server.stop() == 0
    return place


def verify(place: Path, *more: str | Path) -> tuple[int, dict[str, object]]:
    done = sidecar("verify", place / "ledger", "--json", *more)
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return done.returncode, value


def test_deny_exits_one(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger) as server:
        asked = ["decide", "--server", server.address, "--agent", "nobody", "--action", "a", "--resource", "t:i"]
        denied = sidecar(*asked)
        assert (denied.returncode, denied.stdout.split()[0]) == (1, "DENY")
        bad = sidecar(*asked, "--arguments", "[1]")
        assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
    gone = sidecar(*asked)
    assert (gone.returncode, gone.stdout, gone.stderr.count("\n")) == (1, "", 1)


def test_verify_with_each_kind_of_evidence(place: Path) -> None:
    bare = verify(place)
    assert (bare[0], bare[1]["verdict"]) == (4, "UNANCHORED")
    assert any("HMAC" in str(line) for line in bare[1]["not_checked"])  # type: ignore[attr-defined]
    with_key = verify(place, "--custodian-key", place / "auditor.pem", "--receipt", place / "receipt.txt")
    assert (with_key[0], with_key[1]["verdict"]) == (4, "UNANCHORED")
    assert any("HMAC" in str(line) for line in with_key[1]["checked"])  # type: ignore[attr-defined]
    assert set(with_key[1]) >= {"verdict", "findings", "checked", "not_checked", "entries", "segments"}


def test_a_disclosure_opens_only_what_it_names(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.json"
    done = sidecar("keys", "disclose", place / "ledger", "--custodian-key", place / "auditor.pem",
                   "--segment", "1", "--segment", "2", "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert out.stat().st_mode & 0o777 == 0o600
    code, report = verify(place, "--disclosure", out)
    assert (code, report["verdict"]) == (4, "UNANCHORED")
    assert any("2 segments" in str(line) or "segments 1" in str(line) for line in report["checked"])  # type: ignore[attr-defined]
    held = json.loads(out.read_text())
    first, second = held["segments"]
    first["mac_key"], second["mac_key"] = second["mac_key"], first["mac_key"]
    out.write_text(json.dumps(held))
    code, report = verify(place, "--disclosure", out)
    assert (code, report["verdict"]) == (1, "TAMPERED")
    assert report["findings"][0]["segment"] == 1  # type: ignore[index]


def test_a_stranger_cannot_disclose(place: Path, tmp_path: Path) -> None:
    assert sidecar("keys", "custodian", "--out", tmp_path / "other.pem").returncode == 0
    done = sidecar("keys", "disclose", place / "ledger", "--custodian-key", tmp_path / "other.pem",
                   "--segment", "1", "--out", tmp_path / "d.json")  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert not (tmp_path / "d.json").exists()
    code, report = verify(place, "--custodian-key", tmp_path / "other.pem")
    assert (code, report["verdict"]) == (2, "UNANCHORED")  # a wrong key says nothing against the ledger


def test_a_segment_that_is_not_there_is_not_disclosed(place: Path, tmp_path: Path) -> None:
    done = sidecar("keys", "disclose", place / "ledger", "--custodian-key", place / "auditor.pem",
                   "--segment", "99", "--out", tmp_path / "d.json")  # fmt: skip
    assert done.returncode == 1
    assert "segment 99" in done.stderr


def test_a_segment_file_verifies_alone(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "segment"
    assert sidecar("show", place / "ledger", "--segment", "2", "--out", out).returncode == 0
    done = sidecar("verify", out, "--custodian-key", place / "auditor.pem", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"], report["segments"], report["entries"]) == (4, "UNANCHORED", 1, 4)
    assert any("context" in line or "before" in line for line in report["not_checked"])
    damaged = bytearray(out.read_bytes())
    damaged[-400] ^= 1
    out.write_bytes(damaged)
    assert sidecar("verify", out).returncode == 1


def test_trust_pins_the_chain(place: Path, tmp_path: Path) -> None:
    genesis = json.loads(sidecar("show", place / "ledger", "--seq", "0", "--json").stdout)["payload"]
    chain = verify(place)[1]["chain"]
    trust = tmp_path / "trust.json"
    pinned = {
        "format": "sidecar/v1/trust",
        "chains": [{"chain": chain, "identity": genesis["identity"]}],
        "policy": None,
        "tsa_roots": [],
        "custodians": [],
    }
    trust.write_text(json.dumps(pinned))
    assert verify(place, "--trust", trust)[0] == 4
    pinned["chains"][0]["chain"] = "00" * 32  # type: ignore[index]
    trust.write_text(json.dumps(pinned))
    assert verify(place, "--trust", trust)[0] == 1
    trust.write_text("{}")
    done = sidecar("verify", place / "ledger", "--trust", trust)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_cut_tail_is_incomplete_with_a_receipt(place: Path, tmp_path: Path) -> None:
    for segment in (0, 1):
        assert (
            sidecar("show", place / "ledger", "--segment", str(segment), "--out", tmp_path / f"{segment}").returncode
            == 0
        )
    assert sidecar("verify", tmp_path / "0").returncode == 4
    assert sidecar("verify", tmp_path / "0", "--receipt", place / "receipt.txt").returncode == 3


def test_show_prints_for_people_and_for_programs(place: Path) -> None:
    text = sidecar("show", place / "ledger", "--agent", "billing-agent").stdout
    assert text.count("ALLOW billing-agent (asserted) crm.read") == 6
    assert "failed (decision at seq" in text
    lines = [json.loads(line) for line in sidecar("show", place / "ledger", "--json").stdout.splitlines()]
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    decision = next(line["payload"]["decision_id"] for line in lines if line["payload"]["type"] == "DECISION")
    whole = sidecar("show", place / "ledger", "--decision", decision).stdout
    assert "request.action: crm.read" in whole
    missing = sidecar("show", place / "ledger", "--agent", "nobody")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)


def test_show_does_not_drive_the_terminal(place: Path) -> None:
    text = sidecar("show", place / "ledger", "--agent", "billing-agent").stdout
    whole = "".join(sidecar("show", place / "ledger", "--seq", str(seq)).stdout for seq in range(8))
    assert "\x1b" not in text + whole


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "/no/such/place"),
        ("verify", "README.md", "--custodian-key", "/no/such/key"),
        ("verify",),
        ("nonsense",),
        ("keys", "custodian"),
        ("decide", "--server", "nowhere", "--agent", "a", "--action", "b", "--resource", "t:i"),
        ("decide", "--server", "unix:/x", "--agent", "a", "--action", "b", "--resource", "no-type"),
        ("show", ".", "--segment", "1"),
        ("show", ".", "--segment", "1", "--out", "/no/such/file", "--agent", "a"),
        ("show", ".", "--segment", "1", "--out", "/no/such/file", "--outcomes"),
        ("show", ".", "--outcomes", "--openings", "README.md"),
        ("doctor", "--data-dir", "/no/such/place", "--agent-gid", "10"),
        ("prune", ".", "--request", "/no/such/file", "--days", "1", "--reason", "old", "--trust", "README.md"),
        ("prune", ".", "--note", "README.md", "--days", "1"),
        ("collector", "hold", "--data-dir", "tests", "--dev", "--release"),
        ("agents", "revoke", "--registry", "/no/such/file", "--suspend", "--key", "0a", "a"),
        ("init", "--data-dir", "/proc/no/such"),
    ],
)
def test_usage_errors_are_one_line_and_exit_two(arguments: tuple[str, ...]) -> None:
    done = sidecar(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("sidecar: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "init",
        "serve",
        "decide",
        "outcome",
        "verify",
        "show",
        "keys custodian",
        "keys authority",
        "keys disclose",
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = sidecar(*command.split(), "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout


def test_keys_are_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "a.pem"
    assert sidecar("keys", "authority", "--out", out).returncode == 0
    before = out.read_bytes()
    assert sidecar("keys", "authority", "--out", out).returncode == 2
    assert out.read_bytes() == before
    assert out.stat().st_mode & 0o777 == 0o600


def test_init_takes_every_kind_of_custodian(tmp_path: Path) -> None:
    for name, kind in (("one", "x25519"), ("two", "rsa")):
        assert sidecar("keys", "custodian", "--out", tmp_path / f"{name}.pem", "--kind", kind).returncode == 0
    assert sidecar("keys", "authority", "--out", tmp_path / "authority.pem").returncode == 0
    done = sidecar(
        "init", "--data-dir", tmp_path / "l", "--custodian", tmp_path / "one.pub.pem", "--custodian",
        tmp_path / "two.pub.pem", "--mode", "all", "--authority", tmp_path / "authority.pub.pem", "--json",
    )  # fmt: skip
    assert json.loads(done.stdout)["custodian_key"] is None
    both = ["--custodian-key", tmp_path / "one.pem", "--custodian-key", tmp_path / "two.pem"]
    assert sidecar("verify", tmp_path / "l", *both).returncode == 4
    alone = sidecar("verify", tmp_path / "l", "--custodian-key", tmp_path / "one.pem")
    assert alone.returncode == 2
    assert alone.stdout.startswith("UNANCHORED")
    assert "two" in alone.stderr
    again = sidecar("init", "--data-dir", tmp_path / "l")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


def test_a_private_key_is_not_taken_for_a_custodian(tmp_path: Path) -> None:
    assert sidecar("keys", "custodian", "--out", tmp_path / "a.pem").returncode == 0
    done = sidecar("init", "--data-dir", tmp_path / "l", "--custodian", tmp_path / "a.pem")
    assert done.returncode == 2
    assert "private key" in done.stderr
    assert not (tmp_path / "l").exists()
