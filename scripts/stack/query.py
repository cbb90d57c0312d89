"""`make sql`: asks one of the stack's databases and prints the rows so that they can be read."""

import csv
import json
import sys
from contextlib import closing
from typing import Any

import clickhouse_connect
import mysql.connector
import psycopg
from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scripts.stack import readiness
from scripts.stack.context import MYSQL_STORES, Stack, StackError, console

PLACES = ("dwh", "clickhouse", "pancake", *MYSQL_STORES)
FORMATS = ("table", "vertical", "tsv", "csv", "json")

USAGE = """\
make sql Q="SELECT ..." [ON=dwh] [FORMAT=table]

ON=dwh         the warehouse in PostgreSQL: schemas dwh, ods, etl (the default)
ON=clickhouse  star schema and marts in ClickHouse
ON=auth, catalog, orders, payments, pancake  a store, as the account that extracts

FORMAT=table, vertical, tsv, csv, json; by default a table, a record below the other where the table
would not fit the terminal, and tsv where the output is no terminal.

make sql Q="SELECT pipeline, status, started_at FROM etl.run ORDER BY started_at DESC LIMIT 5"
make sql Q="SELECT table_name FROM information_schema.tables WHERE table_schema = 'ods'"
make sql ON=clickhouse Q="SELECT * FROM mart_revenue_daily ORDER BY 1 DESC LIMIT 5"
make sql ON=orders Q="SELECT status, count(*), sum(total) FROM orders GROUP BY status"
make sql ON=pancake Q="SELECT * FROM pancakes LIMIT 3" FORMAT=vertical
make sql Q="SELECT * FROM dwh.dim_product" FORMAT=csv > products.csv"""

Rows = list[tuple[Any, ...]]


def ask(stack: Stack, place: str, query: str) -> tuple[list[str], Rows]:
    """Run a query.

    Args:
        stack: whose databases.
        place: of PLACES.
        query: one statement.

    Returns:
        The names of the columns, and the rows.

    Raises:
        StackError: there is no such place, it does not answer, or it refuses the query.
    """
    if place not in PLACES:
        raise StackError(f"sql: no database is called {place}; there are {', '.join(PLACES)}")
    try:
        return ask_clickhouse(stack, query) if place == "clickhouse" else ask_relational(stack, place, query)
    except (
        psycopg.OperationalError,
        mysql.connector.OperationalError,
        mysql.connector.InterfaceError,
    ) as error:
        raise StackError(f"sql: {place}: {_first_line(error)}; does it run? 'make status'") from error
    except (psycopg.Error, mysql.connector.Error, ClickHouseError) as error:
        raise StackError(f"sql: {place}: {_first_line(error)}") from error


def ask_relational(stack: Stack, place: str, query: str) -> tuple[list[str], Rows]:
    """Run a query in PostgreSQL or in a MySQL store."""
    connection: Any
    if place == "dwh":
        connection = readiness.warehouse_connection(stack.settings)
    elif place == "pancake":
        connection = readiness.pancake_connection(stack.settings)
    else:
        connection = readiness.mysql_connection(stack.environment, place, reader=True)
    with connection, connection.cursor() as cursor:
        cursor.execute(query)
        rows = cursor.fetchall() if cursor.description else []
        return [str(column[0]) for column in cursor.description or ()], [tuple(row) for row in rows]


def ask_clickhouse(stack: Stack, query: str) -> tuple[list[str], Rows]:
    """Run a query in ClickHouse, over HTTP."""
    s = stack.settings
    client = clickhouse_connect.get_client(
        host=s.clickhouse_host,
        port=s.clickhouse_http_port,
        username=s.clickhouse_user,
        password=s.clickhouse_password,
        database=s.clickhouse_db,
        connect_timeout=5,
        query_retries=0,
    )
    with closing(client):
        found = client.query(query)
        return list(found.column_names), [tuple(row) for row in found.result_rows]


def show(columns: list[str], rows: Rows, form: str = "") -> None:
    """Print rows.

    Args:
        columns: their names.
        rows: the values.
        form: of FORMATS; by default what suits the terminal, or tsv where there is none.

    Raises:
        StackError: there is no such format.
    """
    if form and form not in FORMATS:
        raise StackError(f"sql: no format is called {form}; there are {', '.join(FORMATS)}")
    if not form:
        form = ("table" if fits(columns, rows) else "vertical") if console.is_terminal else "tsv"
    writers = {"table": _table, "vertical": _vertical, "json": _json, "csv": _csv, "tsv": _tsv}
    writers[form](columns, rows)


def _table(columns: list[str], rows: Rows) -> None:
    table = Table(*map(escape, columns), header_style="bold")
    for row in rows:
        table.add_row(*map(_cell, row))
    # One that is asked for keeps its lines whole, however long they are.
    wide = sum(_widths(columns, rows)) + 3 * len(columns) + 1
    Console(highlight=False, width=max(wide, console.width)).print(table)
    console.print(f"[dim]{len(rows)} rows[/]")


def _vertical(columns: list[str], rows: Rows) -> None:
    wide = max(map(cell_len, columns), default=0)
    for number, row in enumerate(rows, start=1):
        console.print(f"[dim]-- row {number} of {len(rows)}[/]")
        for name, value in zip(columns, row, strict=True):
            console.print(f"[bold]{escape(name.ljust(wide))}[/]  {_cell(value)}", soft_wrap=True)
    if not rows:
        console.print("[dim]0 rows[/]")


def _json(columns: list[str], rows: Rows) -> None:
    for row in rows:
        sys.stdout.write(json.dumps(dict(zip(columns, row, strict=True)), default=str) + "\n")


def _csv(columns: list[str], rows: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows([columns, *(["" if value is None else str(value) for value in row] for row in rows)])


def _tsv(columns: list[str], rows: Rows) -> None:
    for values in [columns, *(list(map(_field, row)) for row in rows)]:
        sys.stdout.write("\t".join(values) + "\n")


def fits(columns: list[str], rows: Rows) -> bool:
    """Whether a table of the rows stands in the terminal without a broken line."""
    return sum(_widths(columns, rows)) + 3 * len(columns) + 1 <= console.width


def _widths(columns: list[str], rows: Rows) -> list[int]:
    shown = [columns, *(["NULL" if value is None else str(value) for value in row] for row in rows)]
    return [
        max(cell_len(line) for line in "\n".join(cells).split("\n")) for cells in zip(*shown, strict=True)
    ]


def _cell(value: object) -> str:
    return "[dim]NULL[/]" if value is None else escape(str(value))


def _field(value: object) -> str:
    r"""A value in one field of a line: as PostgreSQL's COPY writes it, NULL as \N."""
    if value is None:
        return r"\N"
    return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:400] if lines else type(error).__name__
