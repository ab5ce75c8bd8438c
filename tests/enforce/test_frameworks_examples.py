"""The examples of docs/frameworks, run as they stand; README shows a line of each."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import needs_program
from tests.program import BIN, environment, sidecar
from tests.test_readme import BLOCK, PATH, README, served, shell

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "docs" / "frameworks").glob("*.py"))
TABLE = re.findall(r"^\| [\w ]+ \| `(.+)` \| \[(\w+\.py)\]\(docs/frameworks/\2\) \|$", README, re.M)
FRAMEWORKS = README.partition("\n### Frameworks\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of the fifteen minutes, with the rule for the examples' tool, and its sidecar."""
    needs_program("opa")
    directory = tmp_path_factory.mktemp("examples")
    (_, register), (_, policy), (_, start), *_ = BLOCK.findall(PATH)
    ((_, tools),) = BLOCK.findall(FRAMEWORKS)
    *preparation, serving = start.strip().splitlines()
    shell("\n".join([register, policy.replace("sidecar policy check policy\n", ""), *preparation]), directory)
    assert shell(tools, directory).endswith("passed\n")
    with served(serving, directory):
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
