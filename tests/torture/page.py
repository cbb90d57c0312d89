"""The page of what becomes of every value: docs/reference/values.md."""

from collections.abc import Iterable
from itertools import groupby

from tallyhouse.settings import ROOT
from tests.torture.matrix import STORES, Finding

PAGE = ROOT / "docs/reference/values.md"
SERVERS = {"mariadb": "MariaDB 11.4", "mysql": "MySQL 9.7", "postgres": "PostgreSQL 17"}
HEAD = """\
# What becomes of every value

Written by `make torture`, which takes each value from a real server through every store and fails if one
changes it without a word; do not edit. `=`: the store holds the very value. `policy`: its type cannot hold
the value, so the contract's `on_bad_value` says what happens and the ledger counts it; raw has `kept` the
source's own words. `refused`: ClickHouse's type cannot hold it, found before anything is published.

The stores are those that a value passes: the raw Parquet, what the gate's suites see (DuckDB), the accepted
Parquet (Spark), `ods` in PostgreSQL, `ods` as Spark reads it again for later runs, and ClickHouse.
"""


def render(findings: Iterable[Finding]) -> str:
    """The page."""
    lines = [HEAD]
    for engine, of_engine in groupby(findings, lambda finding: finding.engine):
        lines += [f"## {SERVERS[engine]}", "", f"| type | value | {' | '.join(STORES)} |"]
        lines.append("| --- | --- |" + " --- |" * len(STORES))
        for finding in of_engine:
            cells = " | ".join(finding.stores[store] for store in STORES)
            lines.append(f"| {_code(finding.type.ddl)} | {_code(finding.case.name)} | {cells} |")
        lines.append("")
    return "\n".join(lines)


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    shown = text.strip().replace("|", "\\|")
    return f"{fence}{shown}{fence}" if shown else "empty"
