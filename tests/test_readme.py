"""What README.md, and two pages of docs/, tell a newcomer to type, typed in an empty directory, in its order."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.needs import needs_program
from tests.ports import free_address
from tests.program import environment

REPOSITORY = Path(__file__).parent.parent
README, APPROVALS, EXECUTORS = (
    (REPOSITORY / page).read_text() for page in ("README.md", "docs/APPROVALS.md", "docs/EXECUTORS.md")
)
PATH, COLLECTOR, EVIDENCE = (
    README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    for title in ("In fifteen minutes", "A collector", "Evidence")
)
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent
ENVIRONMENT = environment()


@contextmanager
def in_background(command: str, place: Path) -> Iterator[None]:
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=place, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert any("is ready" in line for line in process.stderr or ())
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def shell(text: str, place: Path) -> str:
    done = subprocess.run(["bash", "-ec", text], cwd=place, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def served(command: str, place: Path) -> AbstractContextManager[None]:
    """A line `VARIABLE=value sidecar serve … &` of the text."""
    variable, _, rest = command.removesuffix(" &").partition(" ")
    return in_background(f"env {variable} {rest}", place)


def test_the_fifteen_minute_path(tmp_path: Path) -> None:
    """Register an agent, write a policy, guard a function, see it proved: each block in its order, as it stands."""
    needs_program("opa")
    blocks = BLOCK.findall(PATH)
    assert [kind for kind, _ in blocks] == ["sh", "sh", "sh", "python", "sh", "sh"]
    (_, register), (_, policy), (_, start), (_, function), (_, act), (_, prove) = blocks
    shell(register, tmp_path)
    assert shell(policy, tmp_path).endswith("passed\n")
    *preparation, serving = start.strip().splitlines()
    shell("\n".join(preparation), tmp_path)
    (tmp_path / "agent.py").write_text(function)
    with served(serving, tmp_path):
        ran, _, denied = shell(act, tmp_path).partition("\n")
        assert ran == "{'name': 'Acme GmbH'}"
        assert denied.startswith("DENY  crm.delete\n  because no rule allows this (not_granted)")
        while_writing = shell(prove, tmp_path)
    for said in (while_writing, shell(prove, tmp_path)):
        assert said.startswith("UNANCHORED\n")
        assert "decisions: 2 non-repudiable (signed by a key you pinned)" in said
        assert "DECISION  ALLOW billing-agent (signature, key " in said and "crm.read customer:acme-42" in said
        assert "DECISION  DENY billing-agent (signature, key " in said and "crm.delete customer:acme-42" in said
        assert "OUTCOME   executed" in said


def test_the_walk_through_an_approval(tmp_path: Path) -> None:
    start, ask = re.findall(r"^```bash\n(.*?)^```$", APPROVALS, re.MULTILINE | re.DOTALL)
    *preparation, serving = start.strip().splitlines()
    shell("\n".join(preparation), tmp_path)
    with served(serving, tmp_path):
        said = shell(ask, tmp_path)
    assert "takes 1 of the approvers with the role finance-lead" in said
    assert "it is approved now" in said
    assert "ALLOW  payments.transfer\n  because approved by ann (approved)" in said


def test_what_it_says_of_a_collector_works(tmp_path: Path) -> None:
    address = free_address()
    collect, start, check = [
        text.replace("127.0.0.1:7473", address).replace(
            "serve --data-dir collector --dev", f"{{}} --listen {address} --web :0"
        )
        for kind, text in BLOCK.findall(COLLECTOR)
    ]
    collect = collect.replace("{}", "serve --data-dir collector --dev").strip()
    exports, *preparation, serving = start.strip().splitlines()
    assert collect.endswith(f" --listen {address} --web :0 &") and serving.endswith(" &")
    with in_background(collect.removesuffix(" &"), tmp_path):
        shell("\n".join(preparation), tmp_path)
        serve = tmp_path / "serve"
        serve.write_text(f"{exports}\nexec {serving.removesuffix(' &')}\n")
        with in_background(f"bash {serve}", tmp_path):
            said = shell(check, tmp_path)
    for each in (
        "ALLOW",
        "log key sidecar.dev/log+",
        "1 chain",
        "UNANCHORED",
        "all that is held is as it was taken",
        "\nready\n",
        "lies at",
    ):
        assert each in said, said


def test_the_integration_is_five_lines() -> None:
    code = next(text for kind, text in BLOCK.findall(PATH) if kind == "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 5


# `uvicorn service:app`, within the process that asks it; and at the end once more, without a permit.
UVICORN = """
import socket, threading, time, uvicorn
bound = socket.create_server(("127.0.0.1", 0))
port = bound.getsockname()[1]
server = uvicorn.Server(uvicorn.Config("service:app", log_level="error"))
threading.Thread(target=server.run, args=([bound],), daemon=True).start()
while not server.started:
    time.sleep(0.01)
"""
WITHOUT = """
print(httpx.post(f"http://127.0.0.1:{port}/customers/acme-42", content=leave.decision.arguments).json()["cause"])
"""


def test_the_page_on_executors_works(tmp_path: Path) -> None:
    (_, start), (_, executor), (_, agent), (_, service), (_, client) = BLOCK.findall(EXECUTORS)
    *preparation, serving = start.strip().splitlines()
    shell("\n".join(preparation), tmp_path)
    (tmp_path / "crm.py").write_text(executor)
    (tmp_path / "service.py").write_text(service)
    client = client.replace('"http://127.0.0.1:8000', 'f"http://127.0.0.1:{port}')
    (tmp_path / "all.py").write_text(agent + UVICORN + client + WITHOUT)
    with served(serving, tmp_path):
        done = subprocess.run([BIN / "python", "all.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "200 {'name': 'Acme GmbH'}\nmissing\n"), done.stderr
    said = shell("sidecar show ledger", tmp_path)
    assert said.count("OUTCOME   executed") == 2 and said.count("reported by crm-api") == 2
    assert "allow without outcome: 0" in shell("sidecar show ledger --outcomes", tmp_path)


def test_the_evidence_section(tmp_path: Path) -> None:
    """A bundle of the demo's ledger: nothing is wrong with it, and what it does not prove is said."""
    ((_, commands),) = BLOCK.findall(EVIDENCE)
    said = shell(commands, tmp_path)
    assert len(re.findall(r"^(?:OK|UNANCHORED)$", said, re.MULTILINE)) == 2
    assert re.search(r"^(?:OK|UNANCHORED): \d+ entries in \d+ segments of 1 chain$", said, re.MULTILINE)  # verify.py
    assert "Stated in the bundle as not proved:" in said and "DECISION  ALLOW billing-agent" in said
    (vouched,) = set(re.findall(r"missing at the end at (\S+): a roll-call", said))
    window = f"--from 2026-01-01 --to {vouched} --trust demo/trust.json --lean"
    assert shell(f"sidecar evidence export demo/ledger {window} --out ok.zip", tmp_path).startswith("OK\n")
