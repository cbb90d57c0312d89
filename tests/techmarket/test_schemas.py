"""sql/oltp is made from docs/db, and both MySQL 8.4 and MariaDB can run it."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import sqlfluff

from tallyhouse.settings import ROOT, Settings

SCHEMAS = sorted((ROOT / "sql/oltp").glob("*.sql"))


def test_every_store_has_a_schema() -> None:
    assert [path.name for path in SCHEMAS] == [
        "01_auth_schema.sql",
        "02_catalog_schema.sql",
        "03_orders_schema.sql",
        "04_payments_schema.sql",
        "05_pancake_schema.sql",
    ]


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_a_schema_parses_in_its_dialect(path: Path) -> None:
    text = path.read_text("utf-8")
    sqlfluff.parse(text, dialect="postgres" if "pancake" in path.name else "mysql")
    assert text.splitlines()[0].startswith("-- generated, do not edit")
    assert "utf8mb4_0900_ai_ci" not in text, "MariaDB does not know it"


@pytest.mark.parametrize("path", [p for p in SCHEMAS if "pancake" not in p.name], ids=lambda path: path.stem)
def test_every_table_has_its_technical_columns(path: Path) -> None:
    tables = re.findall(r"CREATE TABLE .*?\n\);", path.read_text("utf-8"), re.DOTALL)
    assert len(tables) >= 3
    for table in tables:
        assert "`created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL" in table
        assert "DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL" in table
        assert re.search(r"`id` (char\(36\)|smallint) PRIMARY KEY", table) or "PRIMARY KEY (" in table


@pytest.fixture
def dbml2sql(settings: Settings) -> str:
    tool = Path(os.environ.get("DBML2SQL", settings.cache / "dbml/node_modules/.bin/dbml2sql"))
    assert tool.exists(), "dbml2sql is not set up: make setup"
    return str(tool)


def _dbml(root: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "scripts/dbml.sh", *arguments],
        env={**os.environ, "DBML2SQL": tool},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in ("docs/db", "sql/oltp", "scripts"):
        (tmp_path / folder).mkdir(parents=True)
    for path in [*(ROOT / "docs/db").glob("*.dbml"), *SCHEMAS, ROOT / "scripts/dbml.sh"]:
        target = tmp_path / path.relative_to(ROOT)
        target.write_bytes(path.read_bytes())
        target.chmod(path.stat().st_mode)
    return tmp_path


def test_the_schemas_are_what_the_dbml_says(dbml2sql: str) -> None:
    done = _dbml(ROOT, dbml2sql, "--check")
    assert done.returncode == 0, done.stderr


def test_a_difference_is_one_line_with_its_remedy(dbml2sql: str, copy: Path) -> None:
    dbml = copy / "docs/db/orders_mysql.dbml"
    dbml.write_text(
        dbml.read_text("utf-8").replace("last_name varchar(100)", "last_name varchar(120)"), "utf-8"
    )
    done = _dbml(copy, dbml2sql, "--check")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "dbml: sql/oltp/03_orders_schema.sql differs from its DBML; run scripts/dbml.sh and commit the result"
    ]
    assert _dbml(copy, dbml2sql).returncode == 0
    assert "`last_name` varchar(120)" in (copy / "sql/oltp/03_orders_schema.sql").read_text("utf-8")


def test_broken_dbml_names_its_file(dbml2sql: str, copy: Path) -> None:
    (copy / "docs/db/auth_mysql.dbml").write_text("Tabel users {\n  id int\n}\n", "utf-8")
    done = _dbml(copy, dbml2sql, "--check")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "docs/db/auth_mysql.dbml does not compile" in done.stderr


def test_a_missing_tool_is_one_line() -> None:
    done = _dbml(ROOT, "/nowhere/dbml2sql", "--check")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("run 'make setup', or set DBML2SQL to an installed @dbml/cli")
