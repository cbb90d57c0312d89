"""Fills the stores.

A table ``load_in_progress`` stands in each MySQL store from before the first row until after the last
row of all stores. Whoever finds it knows that a load was cut short, and starts over.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from queue import Full, Queue
from threading import Event, Thread
from typing import Final

from mysql.connector.abstracts import MySQLConnectionAbstract

from tallyhouse.errors import TallyhouseError
from tallyhouse.settings import Settings
from techmarket.batches import Batch
from techmarket.pancakes import COLUMNS as PANCAKE_COLUMNS
from techmarket.progress import Progress
from techmarket.shop import Shop
from techmarket.stores import PANCAKES, STORES, Store, mysql_store, pancake_store, place

MARKER: Final = "load_in_progress"
_ROWS_A_STATEMENT: Final = 1_000
_AHEAD: Final = 4
_POOL_BYTES_A_ORDER: Final = 2_500
_POOL_BYTES: Final = 3 << 30


def unfinished(connection: MySQLConnectionAbstract) -> bool:
    """Whether a load of this store was cut short, or is going on."""
    return bool(_rows(connection, f"SHOW TABLES LIKE '{MARKER}'"))


def state(settings: Settings) -> tuple[list[str], list[str]]:
    """Which stores hold rows, and in which a load was cut short.

    Returns:
        Two lists of store names.

    Raises:
        TallyhouseError: a store cannot be read.
    """
    filled, broken = [], []
    for store in STORES:
        with mysql_store(settings, store.name) as connection:
            if unfinished(connection):
                broken.append(store.name)
            if any(_rows(connection, f"SELECT 1 FROM {table} LIMIT 1") for table in store.tables):
                filled.append(store.name)
    with pancake_store(settings) as pancakes:
        if pancakes.execute("SELECT 1 FROM pancakes LIMIT 1").fetchone():
            filled.append(PANCAKES.name)
    return filled, broken


def fill(settings: Settings, shop: Shop, progress: Progress, *, replace: bool) -> None:
    """Put the whole history into the stores.

    Args:
        settings: where they are.
        shop: what goes in.
        progress: told of every statement's rows.
        replace: empty filled stores first; a load that was cut short is always replaced.

    Raises:
        TallyhouseError: a store is not empty, or failed.
    """
    filled, broken = state(settings)
    if filled and not broken and not replace:
        raise TallyhouseError(
            "the store already holds rows",
            where=place(settings, filled[0]),
            remedy="Add --replace to empty all stores and start over, or --if-empty to keep what is there",
        )
    if broken:
        progress.say("An earlier load was cut short: starting over.")
    for store in STORES:
        with mysql_store(settings, store.name) as connection:
            _run(connection, f"CREATE TABLE IF NOT EXISTS {MARKER} (note CHAR(1))")
            _run(connection, "SET foreign_key_checks = 0")
            for table in store.tables:
                _run(connection, f"TRUNCATE TABLE {table}")
    for store in STORES:
        with _room(settings, store, shop.sizes.orders * _POOL_BYTES_A_ORDER):
            _fill_store(settings, store, shop, progress)
    with pancake_store(settings) as pancakes:
        pancakes.execute("TRUNCATE pancakes RESTART IDENTITY")
        with pancakes.cursor().copy(f"COPY pancakes ({', '.join(PANCAKE_COLUMNS)}) FROM STDIN") as copy:
            rows = shop.pancakes()
            while part := list(islice(rows, _ROWS_A_STATEMENT)):
                for row in part:
                    copy.write_row(row)
                progress.advance(PANCAKES.name, "pancakes", len(part))
    for store in STORES:
        with mysql_store(settings, store.name) as connection:
            _run(connection, f"DROP TABLE {MARKER}")


@contextmanager
def _room(settings: Settings, store: Store, wanted: int) -> Iterator[None]:
    """A buffer pool that holds the store while it is filled; as it was afterwards.

    Keys come in no order, so each page is met again and again: out of a small pool, the disk decides.
    """
    pool = "innodb_buffer_pool_size"
    with ExitStack() as opened:
        try:
            administrator = opened.enter_context(mysql_store(settings, store.name, administrator=True))
        except TallyhouseError:  # a server of somebody else's: it has the size that it has
            yield
            return
        before = _number(administrator, f"SELECT @@GLOBAL.{pool}")
        _run(administrator, f"SET GLOBAL {pool} = {max(before, min(wanted, _POOL_BYTES))}")
        try:
            yield
        finally:
            _run(administrator, f"SET GLOBAL {pool} = {before}")


def _fill_store(settings: Settings, store: Store, shop: Shop, progress: Progress) -> None:
    """Stream one store's rows; they are made in a thread, while the server works on the ones before."""
    ahead: Queue[tuple[Batch, list[str]] | BaseException | None] = Queue(_AHEAD)
    stop = Event()

    def offer(item: tuple[Batch, list[str]] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ahead.put(item, timeout=0.2)
                return
            except Full:
                continue

    def make() -> None:
        try:
            for batch in shop.batches(store.name):
                offer((batch, list(statements(batch))))
                if stop.is_set():
                    return
            offer(None)
        except BaseException as error:
            offer(error)

    maker = Thread(target=make, name=f"make-{store.name}", daemon=True)
    maker.start()
    try:
        with mysql_store(settings, store.name) as connection:
            # Parents are there by construction, and the keys are unique: checking would double the time.
            _run(connection, "SET foreign_key_checks = 0, unique_checks = 0")
            while (item := ahead.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                batch, made = item
                for statement in made:
                    _run(connection, statement)
                connection.commit()
                progress.advance(store.name, batch.table, len(batch))
    finally:
        stop.set()
        maker.join()


def statements(batch: Batch) -> Iterator[str]:
    """INSERT statements of many rows each.

    LOAD DATA LOCAL would be faster still, but MySQL 8.4 refuses it by default.
    """
    head = f"INSERT INTO {batch.table} ({', '.join(batch.columns)}) VALUES "
    rows = batch.rows()
    while part := ",".join(islice(rows, _ROWS_A_STATEMENT)):
        yield head + part


def _run(connection: MySQLConnectionAbstract, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _number(connection: MySQLConnectionAbstract, query: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(query)
        ((number,),) = cursor.fetchall()
        return int(str(number))


def _rows(connection: MySQLConnectionAbstract, statement: str) -> list[object]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())
