"""Odd places, broken streams and hostile ledgers: one line, the exit code that is promised, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.stream import MAGIC, Kind, record
from tests.attacks.expect import at
from tests.program import BIN, environment, made, serving, sidecar
from tests.scribe import ACTIVATED, Scribe


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new ledger, and auditor.pem beside it."""
    place = tmp_path_factory.mktemp("misuse")
    made(place)
    return place


def refused(code: int, *arguments: str | Path) -> str:
    done = sidecar(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    return done.stderr


def redirected(redirections: str, *arguments: str | Path) -> int:
    """The exit code of a command whose standard streams a shell has redirected or closed."""
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", BIN / "sidecar", *arguments]
    return subprocess.run(
        [str(c) for c in command], env=environment(), stderr=subprocess.DEVNULL, timeout=60
    ).returncode


def test_a_connection_string_that_is_no_text_is_usage(tmp_path: Path) -> None:
    (tmp_path / "address").write_bytes(b"\xff\xfe")
    config = tmp_path / "collector.toml"
    config.write_text(
        f'data_dir = "{tmp_path}"\ndev = true\nindex = "postgres"\npostgres_file = "{tmp_path}/address"\n'
    )
    assert "is not text" in refused(2, "collector", "status", "--config", config)


def test_a_ledger_that_is_not_there_is_usage_one_that_is_rubbish_malformed(tmp_path: Path) -> None:
    assert "no ledger in" in refused(2, "verify", tmp_path)
    (tmp_path / "ledger.mdb").write_bytes(b"x" * 9000)
    done = sidecar("verify", tmp_path)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (1, "MALFORMED", "")


def test_what_has_no_end_is_not_read_for_ever(place: Path) -> None:
    for option in ("--trust", "--disclosure", "--custodian-key"):
        assert "has no end" in refused(2, "verify", place / "ledger", option, "/dev/zero")
    done = sidecar("verify", "/dev/zero")
    assert (done.returncode, done.stdout.split()[0]) == (1, "MALFORMED")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_verify_with_closed_streams(place: Path, closed: str) -> None:
    assert redirected(closed, "verify", place / "ledger") == 4


def test_an_answer_that_cannot_be_printed_is_no_verdict(place: Path) -> None:
    assert redirected("> /dev/full", "verify", place / "ledger") == 2


def test_no_file_of_the_ledger_becomes_a_standard_stream(tmp_path: Path) -> None:
    """Libraries write to standard error by number; were that the ledger's, they would write into it."""
    ledger, _ = made(tmp_path)
    script = 'exec "$@" <&- >&-'
    socket = f"unix:{tmp_path / 's'}"
    command = ["sh", "-c", script, "sh", str(BIN / "sidecar"), "serve", "--data-dir", str(ledger), "--dev"]
    with subprocess.Popen([*command, "--listen", socket], stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stderr is not None
        assert b"ready" in process.stderr.readline()
        streams = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in (0, 1)]
        process.terminate()
        assert process.wait(60) == 0
    assert streams == [os.devnull] * 2


def test_a_segment_that_cannot_be_written_out_leaves_no_file(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(1, "show", place / "ledger", "--segment", "99", "--out", out)
    assert not out.exists()
    refused(2, "show", place / "ledger", "--segment", "0", "--out", tmp_path / "nowhere" / "out")


def test_a_ledger_needs_a_directory_with_a_name() -> None:
    refused(2, "init", "--data-dir", "/")


def test_arguments_are_as_strict_as_the_protocol(tmp_path: Path) -> None:
    """What a second parser would read otherwise is not asked: here the last of two keys would win silently."""
    asked = ["decide", "--server", f"unix:{tmp_path / 'none'}", "--agent", "a", "--action", "b", "--resource", "t:i"]
    assert "twice" in refused(2, *asked, "--arguments", '{"amount": 1, "amount": 9}')
    (tmp_path / "latin1").write_bytes('{"name": "Müller"}'.encode("latin-1"))
    assert "UTF-8" in refused(2, *asked, "--arguments", f"@{tmp_path / 'latin1'}")


def test_a_receipt_that_cannot_be_kept_is_not_exit_zero(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger) as server:
        asked = ["--server", server.address, "--agent", "billing-agent", "--action", "crm.read"]
        out = tmp_path / "nowhere" / "receipt"
        done = sidecar("decide", *asked, "--resource", "customer:c-1", "--receipt-out", out)
    assert (done.returncode, done.stderr.count("\n"), done.stdout.split()[0]) == (2, 1, "ALLOW")


def test_the_file_that_is_wrong_is_named(place: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    disclosed = sidecar("keys", "disclose", place / "ledger", "--custodian-key", place / "auditor.pem",
                        "--segment", "0", "--out", good)  # fmt: skip
    assert disclosed.returncode == 0
    bad.write_text("{}")
    assert str(bad) in refused(2, "verify", place / "ledger", "--disclosure", good, "--trust", bad)


def test_show_goes_on_past_what_is_no_entry(tmp_path: Path) -> None:
    """A payload that was changed is never shown as if it were recorded; what is beside it is."""
    scribe = Scribe()
    scribe.open()
    edited = scribe.decision("DENY")
    scribe.decision("DENY")
    scribe.head()
    entry = scribe.records[at(scribe.records, edited)]
    entry.body = entry.body.replace(b"inv-1", b"inv-9")
    file = tmp_path / "edited"
    file.write_bytes(scribe.stream())
    done = sidecar("show", file, "--agent", "billing-agent")
    assert done.returncode == 1
    assert done.stdout.count("invoice:inv-1") == 1 and "inv-9" not in done.stdout
    assert f"seq {edited}: its payload is not the one that its header commits to" in done.stderr


def test_show_of_an_entry_with_a_strange_member(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.open()
    strange = {**ACTIVATED, "event": "observed", "bundle_digest": "", "agent": "billing-agent"}
    scribe.write(EntryType.POLICY, strictjson.dumps(strange))
    file = tmp_path / "strange"
    file.write_bytes(scribe.stream())
    assert "no such entry" in refused(1, "show", file, "--agent", "billing-agent")


def test_disclosing_from_a_cut_entry(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut"
    file.write_bytes(MAGIC + record(Kind.ENTRY, b"abc"))
    asked = ["--custodian-key", place / "auditor.pem", "--segment", "0", "--out", tmp_path / "d.json"]
    assert "segment 0" in refused(1, "keys", "disclose", file, *asked)


def test_a_ledgers_database_is_no_stream(place: Path) -> None:
    for command in ("verify", "show", "replay"):
        assert f"name its directory, {place / 'ledger'}" in refused(2, command, place / "ledger" / "ledger.mdb")


def test_a_group_without_a_command_says_which_there_are() -> None:
    for group in ((), ("keys",)):
        done = sidecar(*group)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == sidecar(*group, "--help").stdout


def test_a_mistyped_name_is_answered_by_the_nearest(tmp_path: Path) -> None:
    assert "Did you mean 'verify'?; see `sidecar --help`" in refused(2, "verfy")
    assert "; see `sidecar outcome --help`" in refused(2, "outcome", "some-id")
    (tmp_path / "c.toml").write_text("data_dri = 'ledger'\n")
    assert "'data_dri'; perhaps it is data_dir" in refused(2, "serve", "--config", tmp_path / "c.toml")


def test_what_is_wrong_with_a_file_is_said_with_its_name(place: Path, tmp_path: Path) -> None:
    public = place / "auditor.pub.pem"
    assert f"{public}: " in refused(2, "verify", place / "ledger", "--custodian-key", public)
    twice = ("--custodian", public, "--custodian", public)
    assert "name each custodian once" in refused(2, "init", "--data-dir", tmp_path / "new", *twice)
    assert "make its directory first" in refused(2, "keys", "agent", "--out", tmp_path / "none" / "a.pem")
    assert not list(tmp_path.iterdir())


def test_a_shell_can_complete_commands() -> None:
    said = sidecar(_SIDECAR_COMPLETE="bash_complete", COMP_WORDS="sidecar keys cust", COMP_CWORD="2")
    assert said.stdout == "plain,custodian\n"


def test_directories_may_have_odd_names() -> None:
    """A socket's address is a URI for gRPC, which would take `%20` for a space and end at `#`."""
    with tempfile.TemporaryDirectory(prefix="s p%20#?ü") as place:  # pytest's own can be too long for a socket's path
        ledger, _ = made(Path(place))
        with serving(ledger) as server:
            who = ("--agent", "billing-agent", "--action", "crm.read", "--resource", "customer:c")
            assert sidecar("decide", "--server", server.address, *who).stdout.startswith("ALLOW")
            assert sidecar("health", "--server", server.address).returncode == 0
            assert server.stop() == 0
