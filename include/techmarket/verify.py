"""Exact row counts of every table of every store."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tallyhouse.errors import TallyhouseError
from tallyhouse.settings import Settings
from techmarket.load import unfinished
from techmarket.stores import PANCAKES, STORES, Store, mysql_store, pancake_store, place


@dataclass(frozen=True)
class Counted:
    """One store as it was found.

    Attributes:
        store: which.
        rows: of each table; empty when the store could not be read.
        trouble: one line that says why, or that a load was cut short.
    """

    store: Store
    rows: dict[str, int]
    trouble: str | None = None


def count(settings: Settings) -> list[Counted]:
    """Count all stores at once; a store that is down does not hide the others."""

    def one(store: Store) -> Counted:
        try:
            if store is PANCAKES:
                with pancake_store(settings) as pancakes:
                    found = pancakes.execute("SELECT COUNT(*) FROM pancakes").fetchone()
                    return Counted(store, {"pancakes": found[0] if found else 0})
            rows: dict[str, Any] = {}
            with mysql_store(settings, store.name) as connection, connection.cursor() as cursor:
                for table in store.tables:
                    cursor.execute(f"SELECT COUNT(*) FROM {table}")
                    ((rows[table],),) = cursor.fetchall()
                cut = unfinished(connection)
            where = place(settings, store.name)
            trouble = f"{where}: a load was cut short. Run make data again" if cut else None
            return Counted(store, rows, trouble)
        except TallyhouseError as error:
            return Counted(store, {}, str(error))

    with ThreadPoolExecutor(max_workers=len(STORES) + 1) as pool:
        return list(pool.map(one, [*STORES, PANCAKES]))


def show(counted: list[Counted], settings: Settings, console: Console) -> None:
    """Print the counts as a table, with a total for each store and for all."""
    table = Table(title="Rows in the stores", title_justify="left")
    table.add_column("store")
    table.add_column("table")
    table.add_column("rows", justify="right")
    total = 0
    for one in counted:
        for at, (name, rows) in enumerate(one.rows.items()):
            table.add_row(place(settings, one.store.name) if at == 0 else "", name, f"{rows:,}")
        store_total = sum(one.rows.values())
        total += store_total
        shown = f"[bold]{store_total:,}[/]" if one.rows else "[red]not readable[/]"
        first = "" if one.rows else place(settings, one.store.name)
        table.add_row(first, "[bold]together[/]" if one.rows else "", shown, end_section=True)
    table.add_row("[bold]all stores[/]", "", f"[bold]{total:,}[/]")
    console.print(table)
