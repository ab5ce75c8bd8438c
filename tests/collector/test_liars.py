"""Witness and authorities that lie to a running collector: what they say is never used, it is counted and logged, the
log goes on; once they tell the truth, that is taken.
"""

from __future__ import annotations

import contextlib
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

from sidecar.chain import cosignature, note
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.consistency import Consistency
from sidecar.chain.note import SignedNote
from sidecar.ship import GrpcLink
from tests.anchor.parties import WITNESS_NAME, OpensslAuthority, answering, witness_vkey
from tests.collecting import Collecting, collecting
from tests.collector.test_shipping import decide, until, verdict
from tests.program import made, serving, sidecar
from tests.scribe import signing_key

LIES = ("someone else's", "someone else's under this name", "another checkpoint", "rubbish")
STAMPS = ("another hash", "another nonce")
STRANGER = signing_key("stranger")
WITNESSES = {lie: (f"{WITNESS_NAME}{number}", signing_key("witness", number)) for number, lie in enumerate(LIES)}


class Liar:
    """Tells one lie again and again until it is ``honest``; ``said``: how often."""

    def __init__(self, tell: Callable[[str, bool, bytes], bytes], lie: str) -> None:
        self._tell, self._lie = tell, lie
        self.said, self.honest = 0, False

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        self.said += not self.honest
        return 200, self._tell(self._lie, self.honest, body)


def cosigned(lie: str, honest: bool, body: bytes) -> bytes:
    """A witness's answer."""
    text = note.parse(Consistency.parse(body).checkpoint).text
    read = Checkpoint.parse(text)
    other = Checkpoint(read.origin, read.size, bytes(32)).text()
    name, key = WITNESSES[lie]
    line = {
        "someone else's": cosignature.cosign(text, "stranger.example/w", STRANGER, 5),
        "someone else's under this name": cosignature.cosign(text, name, STRANGER, 5),
        "another checkpoint": cosignature.cosign(other, name, key, 5),
        "rubbish": None,
    }[lie]
    if honest:
        line = cosignature.cosign(text, name, key, 5)
    return note.encode(SignedNote(text, (line,))).partition(b"\n\n")[2] if line else b"rubbish\n"


def stamped(authority: OpensslAuthority) -> Callable[[str, bool, bytes], bytes]:
    """An authority's answers."""

    def tell(lie: str, honest: bool, query: bytes) -> bytes:
        if honest:
            return authority.reply(query)
        if lie == "another hash":
            asked = TimestampRequestBuilder().data(b"another").hash_algorithm(HashAlgorithm.SHA256).build()
            query = asked.as_bytes()
        else:
            (imprint,) = re.findall(rb"\x04\x20(.{32})", query, re.DOTALL)
            query = authority.query(imprint)
        return authority.reply(query)

    return tell


def test_liars_are_not_believed_and_the_log_goes_on(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    authority = OpensslAuthority.make(tmp_path / "tsa")
    liars = {lie: Liar(cosigned, lie) for lie in LIES} | {lie: Liar(stamped(authority), lie) for lie in STAMPS}
    with contextlib.ExitStack() as stack:
        urls = {lie: stack.enter_context(answering(liar.answer)) for lie, liar in liars.items()}
        keys = {lie: witness_vkey(key, name) for lie, (name, key) in WITNESSES.items()}
        own = tmp_path / "collector.toml"
        own.write_text(
            f"dev = true\nroll_call_seconds = 2\nwitnesses = {[f'{keys[lie]} {urls[lie]}' for lie in LIES]}\n"
            f"timestamp_urls = {[urls[lie] for lie in STAMPS]}\n"
            f'timestamp_roots = ["{tmp_path}/tsa/root.pem"]\n'
        )
        # The roll-call is that of the file, so that a checkpoint stays the newest for long enough to be stamped.
        with collecting(tmp_path / "collector", "--config", own, COLLECTOR_ROLL_CALL_SECONDS="2") as collector:
            config = tmp_path / "c.toml"
            config.write_text("segment_entries = 2\n" + collector.settings())

            def metric(name: str) -> list[float]:
                with urllib.request.urlopen(f"{collector.url}/metrics", timeout=20) as page:
                    rows = page.read().decode().splitlines()
                return [float(row.rpartition(" ")[2]) for row in rows if row.startswith(name)]

            with serving(ledger, "--config", config) as server:
                decide(server, 1)
                until(lambda: min(metric("collector_anchor_refused_total{")[: len(LIES)]) >= 1)
                (each,) = collector.status()["chains"]
                chain = bytes.fromhex(each["chain"])
                (size,) = metric("collector_log_size")
                decide(server, 2)
                until(lambda: metric("collector_log_size") > [size])  # nobody vouches, and the log goes on
                assert not list((ledger / "receipts").iterdir())  # no receipt rests on what nobody cosigned
                for lie in LIES:
                    liars[lie].honest = True
                until(lambda: bool(list((ledger / "receipts").glob("seal-*"))))
                until(lambda: min(metric("collector_anchor_refused_total{")) >= 1)
                assert asked(collector, chain) == ()
                for lie in STAMPS:
                    liars[lie].honest = True
                until(lambda: len(asked(collector, chain)) == len(STAMPS))
                assert server.stop() == 0
            assert all(liar.said for liar in liars.values())
            said = collector.said()
            assert said.count("answers without a cosignature of its own") >= 2
            assert said.count("no cosignature on this checkpoint") >= 2 and said.count("is not used: timestamp") >= 2
            trust = tmp_path / "trust.json"
            flags = ["--config", own, "--data-dir", collector.place]
            assert sidecar("collector", "trust", *flags, "--out", trust).returncode == 0
            assert collector.stop() == 0
    names = (tmp_path / "collector" / "store" / "objects" / "log" / "cosigned").rglob("*")
    kept = [note.parse(path.read_bytes()) for path in names if path.is_file()]
    assert kept and all([cosignature.verify(each, key) for key in keys.values()].count(5) == 1 for each in kept)
    report = verdict(ledger, trust)
    assert report["verdict"] == "OK", report
    assert not [each for each in report["findings"] if "timestamp" in each["reason"]], report


def asked(collector: Collecting, chain: bytes) -> tuple[bytes, ...]:
    """The timestamps that anybody who asks for receipts of this chain is given."""
    with contextlib.closing(GrpcLink(collector.address, lambda: None)) as link:
        return link.receipts(chain, [], 0).timestamps
