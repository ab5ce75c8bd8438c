"""The examples of docs/frameworks, run as they stand; README shows a line of each."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.enforce.frameworks.place import started
from tests.program import BIN, environment, serving, sidecar

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "docs" / "frameworks").glob("*.py"))
TABLE = re.findall(
    r"^\| [\w ]+ \| `(.+)` \| \[(\w+\.py)\]\(docs/frameworks/\2\) \|$", (REPOSITORY / "README.md").read_text(), re.M
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("examples")
    ledger, _, settings = started(directory)
    assert sidecar("keys", "agent", "--out", directory / "billing-agent.pem").returncode == 0
    registry, key = directory / "of-examples.json", directory / "billing-agent.pub.pem"
    assert sidecar("agents", "add", "--registry", registry, "--key", key, "billing-agent").returncode == 0
    settings["SIDECAR_REGISTRY"] = str(registry)
    with serving(ledger, "--policy", directory / "policy", dev=False, **settings) as server:
        (ledger / "sidecar.sock").symlink_to(server.socket)
        yield directory


def test_readme_lists_each_example_by_its_own_line() -> None:
    assert [name for _, name in TABLE] and {name for _, name in TABLE} == {path.name for path in EXAMPLES}
    for line, name in TABLE:
        assert line in (REPOSITORY / "docs" / "frameworks" / name).read_text()


HERE = [path for path in EXAMPLES if path.name != "with_crewai.py"]  # that one runs in `test_crewai.py`


@pytest.mark.parametrize("example", HERE, ids=lambda path: path.stem)
def test_it_runs_and_is_recorded(place: Path, example: Path) -> None:
    done = subprocess.run(
        [BIN / "python", example], cwd=place, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Acme GmbH" in done.stdout
    shown = sidecar("show", place / "ledger", "--json").stdout
    kind = example.stem.removeprefix("with_").replace("_", "-")
    assert re.search(rf'"action":"tool.call".*\\"kind\\":\\"{kind}\\".*"effect":"ALLOW"', shown)
