"""Timestamps in the page: imprint and nonce are checked there, the rest by the line of `openssl ts` that it prints."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from sidecar.anchor import Door
from sidecar.anchor.authority import Authority
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from tests.anchor.parties import OpensslAuthority, answering
from tests.conformance.cases import TRUST
from tests.conformance.chains import files
from tests.conformance.driving import ask
from tests.conformance.packing import bagged, packed
from tests.needs import needs_program
from tests.page.browser import opened
from tests.page.core import answers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> OpensslAuthority:
    return OpensslAuthority.make(tmp_path_factory.mktemp("tsa") / "ours")


@pytest.fixture(scope="module")
def stamp(authority: OpensslAuthority) -> Timestamp:
    """On the checkpoint that the good bundle's receipt rests on."""
    receipt = next(content for name, content in files(0, 4).items() if name.endswith(".tlog-proof"))
    with answering(lambda path, body: (200, authority.reply(body))) as url:
        return Authority(Door(url), (authority.root,)).vouch(TlogProof.parse(receipt).checkpoint)


def _given(place: Path, authority: OpensslAuthority, stamp: Timestamp, *, witnesses: bool = True) -> tuple[Path, Path]:
    bundle = dict(files(0, 4))
    folder = next(name for name in bundle if name.endswith(".tlog-proof")).rpartition("/")[0]
    bundle[f"{folder}/one.timestamp"] = stamp.encode()
    (place / "stamped.zip").write_bytes(packed(bagged(bundle)))
    trust = json.loads(TRUST["trust.json"]())
    trust["tsa_roots"] = [base64.b64encode(authority.root).decode()]
    if not witnesses:
        trust["policy"] = trust["policy"].partition("\n")[0] + "\nquorum none\n"
    (place / "trust.json").write_text(json.dumps(trust))
    return place / "stamped.zip", place / "trust.json"


def test_what_the_page_prints_verifies(
    browser: Browser, authority: OpensslAuthority, stamp: Timestamp, tmp_path: Path
) -> None:
    bundle, trust = _given(tmp_path, authority, stamp)
    with opened(browser, accept_downloads=True) as it:
        assert it.verify(bundle, trust) == "OK"
        assert "signature of timestamp 1" in it.text("#unchecked")
        for link in it.page.query_selector_all("#stamps a"):
            with it.page.expect_download() as saving:
                link.click()
            saving.value.save_as(tmp_path / saving.value.suggested_filename)
        line = it.text("#stamps pre")
        it.quiet()
    (tmp_path / "roots.pem").write_bytes((authority.directory / "root.pem").read_bytes())
    assert shlex.split(line)[0] == "openssl"
    command = [needs_program("openssl"), *shlex.split(line)[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verification: OK" in done.stdout, done.stderr


def test_one_for_other_bytes_or_of_another_nonce(authority: OpensslAuthority, stamp: Timestamp, tmp_path: Path) -> None:
    """Without weight where witnesses vouch for the checkpoint, TAMPERED where nothing does; `sidecar verify` agrees."""
    wrong = {
        "nonce": replace(stamp, nonce=stamp.nonce + 1),
        "bytes": replace(stamp, response=authority.reply(authority.query(b"\x07" * 32))),
        "der": replace(stamp, response=b"\x30\x03\x02\x01\x00"),
        "cut": replace(stamp, response=stamp.response[:-1]),
    }
    asked, due = [], []
    for name, each in wrong.items():
        for witnesses in (True, False):
            place = tmp_path / f"{name}-{witnesses}"
            place.mkdir()
            bundle, trust = _given(place, authority, each, witnesses=witnesses)
            asked.append({"ask": "bundle", "path": str(bundle), "trust": str(trust)})
            due.append("OK" if witnesses else "TAMPERED")
            assert ask((sys.executable, "-m", "sidecar"), bundle, trust).verdict == due[-1], name
    assert [each["verdict"] for each in answers(asked)] == due
