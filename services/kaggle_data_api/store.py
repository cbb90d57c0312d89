"""Datasets in PostgreSQL, by psycopg without threads: each read is one prepared statement."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from services.common.guard import Guard
from services.common.resilience import UnavailableError
from services.kaggle_data_api.models import Cursor, DatasetWrite
from services.kaggle_data_api.settings import Settings

log = logging.getLogger(__name__)

type Row = dict[str, Any]

_COLUMNS: LiteralString = (
    "id, name, description, source_url, created_at, ref, version, licence, files::text AS files, total_bytes,"
    " updated_at"
)
_WRITABLE: LiteralString = "name, description, source_url, ref, version, licence, files, total_bytes"
_VALUES: LiteralString = (
    "%(name)s, %(description)s, %(source_url)s, %(ref)s, %(version)s, %(licence)s, %(files)s, %(total_bytes)s"
)
# The words as the column `search` has them; of the last one the beginning is enough. No word finds nothing.
_WORDS: LiteralString = "(nullif(plainto_tsquery('simple', dataset_words(%(q)s))::text, '') || ':*')::tsquery"
_TRUSTED_SECONDS = 1.0
# Classes of SQLSTATE that say that the server is away, starting, stopping, or out of something.
_AWAY = ("08", "53", "57", "58", "28", "3D000", "40", "55P03")


class TakenError(Exception):
    """Another dataset has this `ref`."""


class _Connection(psycopg.AsyncConnection[Row]):
    """A connection that knows when it last worked."""

    worked = 0.0


async def _check(connection: _Connection) -> None:
    """Ask a connection whether it lives before it is handed out, unless it was of use a moment ago."""
    if time.monotonic() - connection.worked > _TRUSTED_SECONDS:
        await AsyncConnectionPool.check_connection(connection)


class DatasetStore:
    """The table `datasets`. Nothing is connected before the first call.

    Args:
        settings: Where the database is.
        guard: Tries again what failed for a moment.
    """

    def __init__(self, settings: Settings, guard: Guard) -> None:
        self.guard = guard
        self._settings = settings
        self._pool = self._new_pool()

    def _new_pool(self) -> AsyncConnectionPool[_Connection]:
        seconds = self._settings.store_timeout
        return AsyncConnectionPool(
            self._settings.database_url.get_secret_value(),
            min_size=0,
            max_size=self._settings.pool_size,
            timeout=seconds,
            reconnect_timeout=seconds,
            open=False,
            connection_class=_Connection,
            check=_check,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "connect_timeout": max(2, round(seconds)),
                "application_name": "kaggle-data-api",
                "options": f"-c timezone=UTC -c statement_timeout={round(seconds * 1000)}",
                "prepare_threshold": 1,
            },
        )

    async def open(self) -> None:
        """Let connections be made; none is waited for."""
        if self._pool.closed:
            self._pool = self._new_pool()  # one that was closed does not open again
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def page(self, limit: int, after: Cursor | None, q: str | None, ref: str | None) -> list[Row]:
        """Datasets by name, from a cursor on.

        Args:
            limit: The most.
            after: The last dataset of the page before.
            q: Words that its name or description has to have, the last one by its beginning.
            ref: Kaggle's name of it.

        Raises:
            UnavailableError: The database does not answer.
        """
        conditions: list[LiteralString] = []
        if after is not None:
            conditions.append("(name, id) > (%(name)s, %(id)s)")
        if q is not None:
            conditions.append(f"search @@ {_WORDS}")
        if ref is not None:
            conditions.append("ref = %(ref)s")
        where: LiteralString = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        query: LiteralString = f"SELECT {_COLUMNS} FROM datasets {where}ORDER BY name, id LIMIT %(limit)s"
        values = {
            "limit": limit,
            "q": q,
            "ref": ref,
            "name": after.name if after else None,
            "id": after.id if after else None,
        }
        return await self._read("list", query, values)

    async def get(self, number: int) -> Row | None:
        """The dataset of that id, if there is one.

        Raises:
            UnavailableError: The database does not answer.
        """
        rows = await self._read("get", f"SELECT {_COLUMNS} FROM datasets WHERE id = %(id)s", {"id": number})
        return rows[0] if rows else None

    async def add(self, new: DatasetWrite) -> Row:
        """Store a dataset; when it is returned it is on disk.

        Raises:
            TakenError: Its `ref` is another dataset's.
            UnavailableError: The database does not answer. It is tried again only while nothing can have
                been stored; the message says when that is not known.
        """
        query: LiteralString = f"INSERT INTO datasets ({_WRITABLE}) VALUES ({_VALUES}) RETURNING {_COLUMNS}"
        rows = await self._write("insert", query, _values(new))
        return rows[0]

    async def replace(self, number: int, new: DatasetWrite) -> Row | None:
        """Put a dataset in the place of the one of that id, if there is one.

        Raises:
            TakenError: Its `ref` is another dataset's.
            UnavailableError: The database does not answer.
        """
        query: LiteralString = (
            f"UPDATE datasets SET ({_WRITABLE}, updated_at) = ({_VALUES}, now())"
            f" WHERE id = %(id)s RETURNING {_COLUMNS}"
        )
        rows = await self._write("replace", query, _values(new) | {"id": number})
        return rows[0] if rows else None

    async def remove(self, number: int) -> bool:
        """Delete the dataset of that id; whether there was one.

        Raises:
            UnavailableError: The database does not answer.
        """
        query: LiteralString = "DELETE FROM datasets WHERE id = %(id)s RETURNING id"
        return bool(await self._write("delete", query, {"id": number}))

    async def ping(self) -> None:
        """Raise unless the table can be read; asks it itself, whatever the breaker says.

        Raises:
            UnavailableError: The database does not answer, or its schema is not up to date.
        """
        async with self._connection() as connection:
            await connection.execute(f"SELECT {_COLUMNS} FROM datasets LIMIT 1")

    def pool(self) -> dict[str, int]:
        """Connections by state."""
        found = self._pool.get_stats()
        idle = found.get("pool_available", 0)
        return {"used": found.get("pool_size", 0) - idle, "idle": idle}

    async def _read(self, operation: str, query: LiteralString, values: Row) -> list[Row]:
        async def work() -> list[Row]:
            async with self._connection() as connection:
                cursor = await connection.execute(query, values)
                return await cursor.fetchall()

        return await self._guarded(operation, work)

    async def _write(self, operation: str, query: LiteralString, values: Row) -> list[Row]:
        async def work() -> list[Row]:
            async with self._connection() as connection:
                await connection.execute("BEGIN")
                cursor = await connection.execute(query, values)
                rows = await cursor.fetchall()
                try:
                    await connection.execute("COMMIT")
                except psycopg.OperationalError as error:
                    raise self._away(
                        f"the database went away during the {operation}, which may be done:"
                        " look at the dataset before you send it again",
                        error,
                        transient=False,
                    ) from error
                return rows

        return await self._guarded(operation, work)

    async def _guarded(self, operation: str, work: Callable[[], Awaitable[list[Row]]]) -> list[Row]:
        return await self.guard.call_async(operation, work)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        try:
            async with self._pool.connection() as connection:
                yield connection
                connection.worked = time.monotonic()
        except (PoolTimeout, PoolClosed) as error:
            what = "the database does not answer, or every connection to it is in use"
            raise self._away(what, error, transient=False) from error
        except psycopg.errors.UniqueViolation as error:
            raise TakenError(error.diag.constraint_name) from error
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.UndefinedFunction,
        ) as error:
            remedy = "run python -m services.kaggle_data_api.migrate up"
            raise self._away(f"the schema is not up to date: {remedy}", error, transient=False) from error
        except psycopg.Error as error:
            state = error.sqlstate
            if not (state.startswith(_AWAY) if state else isinstance(error, psycopg.OperationalError)):
                raise
            # A statement that was too slow once would be so again, and would only add to the load.
            raise self._away("the database does not answer", error, transient=state != "57014") from error

    def _away(self, what: str, error: Exception, *, transient: bool) -> UnavailableError:
        """The error for clients; where the database is, and what it said, is for the log alone."""
        log.warning("%s: %s", self._settings.where, (str(error).splitlines() or [type(error).__name__])[0])
        return UnavailableError(what, transient=transient)


def _values(new: DatasetWrite) -> Row:
    content = new.model_dump()
    files = content["files"]
    return content | {
        "files": Jsonb(files, dumps=orjson.dumps),
        "total_bytes": sum(file["bytes"] for file in files),
    }
