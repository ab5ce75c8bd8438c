"""What docs/ tells an operator to type, typed: in one empty directory, in order, as far as it can be without a cluster.

`helm upgrade --install` becomes `helm template`; `in_collector`, which docs/INSTALL.md defines with kubectl, runs the
command here, with the pod's paths as they are on this machine. Blocks marked `text` need the cluster itself: of those
the commands of ours are held to their own options.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from sidecar.cli import cli
from tests.authorities import Authority
from tests.charts.test_alerts import rules
from tests.collecting import QUICK
from tests.needs import needs_program
from tests.program import BIN, environment, serving

REPOSITORY: Final = Path(__file__).parents[1]
DOCS: Final = REPOSITORY / "docs"
PAGES: Final = sorted(DOCS.glob("*.md"))
OTHERS: Final = ("*.md", "proto/*.md", "rego/*.md", "charts/**/README.md")
FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The command with the pod's paths as they are here. Pattern and place are quoted: they hold slashes.
IN_COLLECTOR: Final = """
in_collector() {
  local all=() a
  for a in "$@"; do
    a="${a//"/tmp/case.zip"/"$POD/case.zip"}"
    all+=("${a//"/etc/collector"/"$POD"}")
  done
  "${all[@]}"
}
"""


def blocks(page: str, kind: str) -> list[str]:
    return [text for found, text in FENCE.findall((DOCS / page).read_text()) if found == kind]


class Operator:
    """Types what a page says."""

    def __init__(self, place: Path) -> None:
        self._place, self._pod, self._clone = place, place.parent / "pod", place.parent / "clone"
        for each in (place, self._pod, self._clone, place.parent / "home/.ssh"):
            each.mkdir(parents=True)
        subprocess.run(["cp", "-r", REPOSITORY / "charts", self._clone / "charts"], check=True)
        self._environment = environment(
            HOME=str(place.parent / "home"),
            CLONE=str(self._clone),
            CONFIG="/etc/collector/collector.toml",
            POD=str(self._pod),
        )

    def types(self, text: str) -> str:
        text = re.sub(r"helm upgrade --install (\S+)", r"helm template \1", text)
        done = subprocess.run(
            ["bash", "-euc", f"{IN_COLLECTOR}{text}"],
            cwd=self._place,
            env=self._environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def config(self) -> Path:
        return self._pod / "collector.toml"


def kinds(text: str) -> list[str]:
    """Of the manifests in what Helm said."""
    return [each["kind"] for each in yaml.safe_load_all(text[text.index("---\n") :]) if each]


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    for program in ("opa", "helm", "git", "ssh"):
        needs_program(program)
    found = Operator(tmp_path / "here")
    found.types(
        "ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519\n"
        "git config --global user.email ann@example.org && git config --global user.name Ann"
    )
    return found


def test_from_nothing_to_a_verified_decision(operator: Operator, tmp_path: Path) -> None:
    """docs/INSTALL.md, then what docs/UPGRADE.md and docs/RECOVER.md ask of a collector that is well."""
    keys, policies, collector, pinned, ours, own, proof = blocks("INSTALL.md", "sh")
    here = tmp_path / "here"
    operator.types(keys)
    assert "passed\n" in operator.types(policies)
    rendered = operator.types(collector)
    assert {"StatefulSet", "PrometheusRule", "ServiceMonitor", "NetworkPolicy"} <= set(kinds(rendered))
    (here / "collector-ca.pem").write_bytes(Authority("collector").pem)

    origin = yaml.safe_load((here / "collector.yaml").read_text())["origin"]
    listeners = 'listen = "127.0.0.1:0"\nweb = ":0"\n'
    operator.config.write_text(f'data_dir = "{tmp_path}/collector"\norigin = "{origin}"\n{listeners}')
    with collector_of(operator.config) as address:
        operator.types(pinned)
        assert kinds(operator.types(ours)).count("StatefulSet") == 1
        assert kinds(operator.types(own)).count("StatefulSet") == 1
        decide(here, address)
        assert "ALLOW" in operator.types(proof)
        assert "unanchored" in operator.types("".join(blocks("UPGRADE.md", "sh")[:1]))
        typed = f"{pinned}{proof}{blocks('UPGRADE.md', 'sh')[0]}".replace("/etc/collector/collector.toml", "$CONFIG")
        for line in "".join(blocks("RECOVER.md", "sh")).splitlines():
            if line.startswith("in_collector") and line not in typed:
                operator.types(line)
    assert json.loads((here / "trust.json").read_text())["chains"]
    verified = operator.types("sidecar verify case.zip --trust trust.json --custodian-key auditor.pem || test $? -eq 4")
    assert verified.startswith(("OK\n", "UNANCHORED\n"))
    assert "StatefulSet" in kinds(operator.types(blocks("UPGRADE.md", "sh")[1]))


class collector_of:
    """A collector with this configuration, and where sidecars find it."""

    def __init__(self, config: Path) -> None:
        command = [BIN / "sidecar", "collector", "serve", "--config", config]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(**QUICK))

    def __enter__(self) -> str:
        assert self._process.stderr is not None
        ready = next(line for line in self._process.stderr if "is ready" in line)
        return ready.split()[5].rstrip(",")

    def __exit__(self, *_: object) -> None:
        assert self._process.stderr is not None
        self._process.terminate()
        self._process.stderr.read()
        self._process.stderr.close()
        assert self._process.wait(60) == 0


def decide(here: Path, address: str) -> None:
    """The workload's pod: sidecar and agent, with the policies, keys and token that the operator made."""
    settings = {
        "SIDECAR_CUSTODIANS": str(here / "auditor.pub.pem"),
        "SIDECAR_AUTHORITY": str(here / "authority.pub.pem"),
        "SIDECAR_RETENTION": "eu-ai-act",
        "SIDECAR_POLICY_SOURCE_GIT_URL": f"file://{here / 'policies'}",
        "SIDECAR_POLICY_TRUST_ALLOWED_SIGNERS": str(here / "policies/allowed_signers"),
        "SIDECAR_COLLECTOR_ADDRESS": address,
        "SIDECAR_COLLECTOR_LOG_KEY": (here / "log.vkey").read_text().strip(),
        "SIDECAR_COLLECTOR_TOKEN_FILE": str(here / "token"),
        "SIDECAR_COLLECTOR_LINGER": "60",
    }
    agent = REPOSITORY / "charts/examples/workload/files/agent.py"
    with serving(here / "ledger", "--init", dev=False, **settings) as server:
        ran = subprocess.run(
            [BIN / "python", agent, "--rounds", "1"],
            env=environment(
                DECISION_SIDECAR=server.address, AGENT_KEY=str(here / "billing-agent.pem"), APPROVAL_SECONDS="0.1"
            ),
            capture_output=True,
            text=True,
            check=True,
        )
        assert "paid 40 EUR" in ran.stdout
        assert server.stop() == 0


def test_keys_are_taken_away_and_replaced_as_it_says(operator: Operator, tmp_path: Path) -> None:
    """docs/RECOVER.md, of an agent's key. What it says of a loss is typed in tests/collector/test_loss.py."""
    revoke, rotate = (each for each in blocks("RECOVER.md", "sh") if "--registry" in each)
    operator.types(
        "for name in billing-agent support-agent; do sidecar keys agent --out $name.pem\n"
        "sidecar agents add --registry registry.json --key $name.pub.pem $name; done"
    )
    operator.types(revoke)
    operator.types(rotate)
    billing, support = json.loads((tmp_path / "here/registry.json").read_text())["principals"]
    assert billing["status"] == "revoked" and len(support["keys"]) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_ours_has_these_options(page: Path) -> None:
    """Also of blocks that need a cluster."""
    said = list(ours_in(page.read_text()))
    for words in said:
        known(words)
    assert said or page.stem not in ("INSTALL", "UPGRADE", "RECOVER")


def ours_in(text: str) -> Iterator[list[str]]:
    """The words after `sidecar` of each command, also within a pod or `once.py`."""
    for kind, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines() if kind in ("sh", "text") else ():
            if "sidecar " in line or "once.py" in line:
                for words in commands(line):
                    if "sidecar" in words[:1] or words[:2] == ["in_collector", "sidecar"]:
                        yield words[words.index("sidecar") + 1 :]
                    elif words[:1] == ["python3"] and "--" in words:
                        yield words[words.index("--") + 1 :]


def commands(line: str) -> Iterator[list[str]]:
    """The simple commands of a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;()<>"):
            yield words
            words = []
        else:
            words.append(word)


def known(words: list[str]) -> None:
    """Raises AssertionError: there is no such command, or it has no such option."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, f"{command.name} has no {word}"


@pytest.mark.parametrize("words", [["verify", "--no-such-thing"], ["no-such-command"]])
def test_a_command_that_is_none_is_found(words: list[str]) -> None:
    with pytest.raises(AssertionError):
        known(words)


@pytest.mark.parametrize(
    "page",
    [*PAGES, *(each for kind in OTHERS for each in sorted(REPOSITORY.glob(kind)))],
    ids=lambda page: page.relative_to(REPOSITORY).as_posix(),
)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target


def test_each_target_of_make_that_a_page_names_is_one() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    texts = [each.read_text() for each in (*PAGES, REPOSITORY / "README.md")]
    named = {word for text in texts for word in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)}
    assert {"check", "test", "soak"} <= named <= targets


def anchors(text: str) -> set[str]:
    """As a forge makes them of headings, a second one of the same words with a number; and those that are written."""
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE):
        name = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        found.add(
            name if name not in found else next(f"{name}-{n}" for n in range(1, 99) if f"{name}-{n}" not in found)
        )
    return found


def test_each_alarm_has_its_page() -> None:
    text = (DOCS / "ALARMS.md").read_text()
    told = dict(re.findall(r"^## (\w+)\n\n(.+)$", text, re.MULTILINE))
    alarms = {rule["alert"]: rule["labels"]["severity"] for rule in rules()}
    assert set(told) == set(alarms)
    for name, severity in alarms.items():
        assert told[name].startswith(f"**{severity}**. ") and len(told[name]) > 60, name
    assert {name.lower() for name in alarms} <= anchors(text)


def test_the_sizes_are_those_of_the_formulas() -> None:
    known_names: dict[str, Any] = {}
    for block in blocks("SIZING.md", "python"):
        exec(block, known_names)
    rows = re.findall(r"^\|(.+)\| ([\d.]+) GiB \|$", (DOCS / "SIZING.md").read_text(), re.MULTILINE)
    figures = [([float(number) for number in re.findall(r"[\d.]+", told)], float(size)) for told, size in rows]
    formula = {2: known_names["ledger_gib"], 3: known_names["collector_gib"]}
    assert len(figures) == 6
    for arguments, size in figures:
        assert round(formula[len(arguments)](*arguments), 2) == size
