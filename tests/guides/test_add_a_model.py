"""docs/guides/add_a_model.md, done as it says in a copy of the repository: files, commands, tests."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from tallyhouse.migrate import migrate_warehouse
from tallyhouse.settings import ROOT, Settings

pytestmark = pytest.mark.integration

GUIDE = ROOT / "docs" / "guides" / "add_a_model.md"
COPIED = ("config", "docs/db", "docs/reference", "include", "spark_jobs", "sql", "tests")
FACT, MART = "fact_session", "mart_visits_daily"


def blocks() -> dict[str, str]:
    """The files that the guide writes, by the path named before each."""
    text = GUIDE.read_text(encoding="utf-8")
    found = {}
    step = r"\d\. \*\*[^*]+\*\*: `([\w/]+\.\w+)`(?:(?!\d\. \*\*).)*?\n\n   ```\w+\n(.*?)\n   ```"
    for path, body in re.findall(step, text, re.DOTALL):
        found[path] = "\n".join(line.removeprefix("   ") for line in body.splitlines()) + "\n"
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("scripts", "services"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    return tmp_path


def test_a_fact_and_a_mart_are_three_files_each() -> None:
    assert len([path for path in blocks() if FACT in path]) == 3
    assert len([path for path in blocks() if MART in path]) == 3


def test_the_guide_does_what_it_says(
    copy: Path,
    settings: Settings,
    postgres_scratch: str,
    clickhouse: Client,
    clickhouse_settings: Settings,
) -> None:
    database = postgres_scratch.rpartition("/")[2]
    migrate_warehouse(settings.model_copy(update={"dwh_db": database}))
    for path, text in blocks().items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_text(text, encoding="utf-8")
    environment = {
        **os.environ,
        **clickhouse_settings.environment(),
        "DWH_DB": database,
        "PYTHONPATH": f"{copy / 'include'}:{copy}",
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=copy,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("tallyhouse.models", "write")
    drafted = run("tallyhouse.models", "draft", "--name", f"add_{FACT}")
    assert f"dwh: dwh.{FACT} is missing" in drafted
    assert f"clickhouse: {MART} is missing" in drafted
    run("tallyhouse.migrate")
    assert "as the definitions say" in run("tallyhouse.models", "drift")
    wanted = (
        "tests/models",
        "tests/warehouse/test_models.py",
        "tests/warehouse/test_marts.py",
        "tests/spark_jobs",
    )
    # Its cases, and a run whose ledger closes only if the new fact is what its definition says.
    run("pytest", "-q", "-p", "no:cacheprovider", *wanted, "-k", f"{FACT} or {MART} or one_run")
