"""Pancakes in PostgreSQL, by SQLAlchemy."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import create_engine, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

from services.common.guard import Guard
from services.common.resilience import UnavailableError
from services.pancake.models import Pancake, PancakeCreate
from services.pancake.settings import Settings

log = logging.getLogger(__name__)

MISSING = "42P01"  # SQLSTATE of a table that is not there


class PancakeStore:
    """The table `pancakes`. Nothing is connected before the first call.

    Args:
        settings: Where the database is.
        guard: Tries again what failed for a moment.
    """

    def __init__(self, settings: Settings, guard: Guard) -> None:
        seconds = settings.store_timeout
        self.engine = create_engine(
            settings.url,
            poolclass=QueuePool,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=seconds,
            pool_pre_ping=True,  # a connection that the server dropped is replaced, not handed out
            connect_args={
                "connect_timeout": max(1, round(seconds)),
                "options": f"-c timezone=UTC -c statement_timeout={round(seconds * 1000)}",
                "application_name": "pancake",
            },
        )
        self.guard = guard
        self._where = settings.where
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def add(self, new: PancakeCreate) -> Pancake:
        """Store a pancake; when it is returned it is on disk.

        Raises:
            UnavailableError: The database does not answer. It is tried again only while nothing can have
                been stored; the message says when that is not known.
        """

        def work(session: Session) -> Pancake:
            pancake = Pancake(**new.model_dump())
            session.add(pancake)
            session.flush()
            try:
                session.commit()
            except DBAPIError as error:
                raise self._away(
                    "the database went away while it stored the pancake, which may be there:"
                    " look at the list before you send it again",
                    error,
                    transient=False,
                ) from error
            return pancake

        return self.guard.call("insert", lambda: self._session(work))

    def newest(self, limit: int, before: int | None) -> list[Pancake]:
        """Pancakes by descending id, those below `before` when it is given.

        Raises:
            UnavailableError: The database does not answer.
        """
        query = select(Pancake).order_by(Pancake.id.desc()).limit(limit)
        if before is not None:
            query = query.where(Pancake.id < before)
        return self.guard.call("list", lambda: self._session(lambda s: list(s.scalars(query))))

    def ping(self) -> None:
        """Raise unless the table can be read; asks it itself, whatever the breaker says.

        Raises:
            UnavailableError: The database does not answer, or has no such table.
        """
        self._session(lambda session: session.scalars(select(Pancake).limit(1)).all())

    def pool(self) -> dict[str, int]:
        """Connections by state."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - made so above
        return {"used": pool.checkedout(), "idle": pool.checkedin()}

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def _session[T](self, work: Callable[[Session], T]) -> T:
        try:
            with self._sessions() as session:
                return work(session)
        except (DataError, IntegrityError):
            raise
        except PoolTimeoutError as error:
            raise self._away("every connection to the database is in use", error, transient=False) from error
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == MISSING:
                remedy = "run python -m services.pancake.migrate"
                raise self._away(f"the table is missing: {remedy}", error, transient=False) from error
            raise self._away("the database does not answer", error) from error

    def _away(self, what: str, error: Exception, *, transient: bool = True) -> UnavailableError:
        """The error for clients; where the database is, and what it said, is for the log alone."""
        log.warning("%s: %s", self._where, str(error).splitlines()[0])
        return UnavailableError(what, transient=transient)
