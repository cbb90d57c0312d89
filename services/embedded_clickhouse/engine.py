"""The data folder: its engine, a connection for each request or session, and a way to end a query."""

import os
import re
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chdb.state.sqlitelike import Connection, connect

from services.embedded_clickhouse.errors import ClickHouseError
from services.embedded_clickhouse.limits import Limits
from services.embedded_clickhouse.statement import Checker

HERE = Path(__file__).parent
# Parameters of the protocol; every other one is a setting of the query.
PROTOCOL = {
    *("query", "database", "default_format", "session_id", "session_timeout", "session_check", "query_id"),
    *("user", "password", "compress", "decompress", "quota_key", "wait_end_of_query", "role", "readonly"),
    *("buffer_size", "client_protocol_version", "send_progress_in_http_headers", "enable_http_compression"),
    *("http_headers_progress_interval_ms", "stacktrace", "cancel_http_readonly_queries_on_client_close"),
    "log_comment",  # by which this server finds a query again
}
LONGEST_SESSION = 3600.0


def _make_default(path: Path) -> None:
    """Make `default` an ordinary database, before chDB makes it one that shows the machine's files as tables.

    What chDB had put into it in an earlier time is kept: it is in an ordinary database of the number that a
    symbolic link names. The engine makes that link anew, and must not find it: it would take the number.
    """
    metadata = path / "metadata"
    statement, link = metadata / "default.sql", metadata / "default"
    if not statement.exists():
        number = link.readlink().name if link.is_symlink() else str(uuid.uuid4())
        metadata.mkdir(parents=True, exist_ok=True)
        aside = metadata / ".default.new"
        aside.write_text(f"ATTACH DATABASE _ UUID '{number}'\nENGINE = Atomic\n")
        aside.replace(statement)
    link.unlink(missing_ok=True)


@dataclass
class Lease:
    """A connection for one request.

    Attributes:
        connection: The connection.
        tag: What the engine's list of queries shows of it.
        session: The session that it belongs to, if there is one.
        idle: How long that session is kept without a request.
        stream: chDB's stream that the request opened, of a result or of an INSERT. It is here as soon as
            it is open, so that it is ended with the request whenever the client leaves.
    """

    connection: Connection
    tag: str
    session: str | None = None
    idle: float = 0.0
    stream: Any = None
    busy: bool = True
    used: float = field(default_factory=time.monotonic)


class Engine:
    """One data folder, opened by this process alone.

    Args:
        path: The folder.
        lake: Addresses of S3 servers that queries may name, such as `http://127.0.0.1:9000`.
        limits: What a query may cost.
    """

    def __init__(self, path: Path, lake: tuple[str, ...], limits: Limits) -> None:
        self._limits = limits
        servers = "|".join(re.escape(address.rstrip("/")) for address in lake)
        # Read by config.xml and users.xml.
        os.environ |= {
            "EMBEDDED_CLICKHOUSE_USERS": str(HERE / "users.xml"),
            "EMBEDDED_CLICKHOUSE_MEMORY": str(limits.memory),
            "EMBEDDED_CLICKHOUSE_QUERY_MEMORY": str(limits.query_memory),
            "EMBEDDED_CLICKHOUSE_SECONDS": str(limits.query_seconds),
            "EMBEDDED_CLICKHOUSE_RESULT_ROWS": str(limits.result_rows),
            "EMBEDDED_CLICKHOUSE_RESULT_BYTES": str(limits.result_bytes),
            "EMBEDDED_CLICKHOUSE_STATEMENT_BYTES": str(limits.statement_bytes),
            "EMBEDDED_CLICKHOUSE_LAKE_GRANT": (
                "GRANT READ, WRITE ON S3('({})/.*')".format(servers.replace("\\", "\\\\"))
                if servers
                else "GRANT SELECT ON *.*"
            ),
        }
        _make_default(path)
        self._path = str(path)
        self._keeper = connect(f"{self._path}?config-file={HERE / 'config.xml'}")
        self._keeper.query("DROP DATABASE IF EXISTS _files")
        self._guard = threading.Lock()
        self._sessions: dict[str, Lease] = {}
        self._running = 0
        self.checker = Checker(
            self._names("table_functions"),
            self._names("table_engines") | self._names("database_engines"),
            self._names("functions"),
        )

    def _names(self, table: str) -> set[str]:
        return set(str(self._keeper.query(f"SELECT name FROM system.{table}", "TSV")).split())

    def lease(self, params: dict[str, str], *, reads_only: bool) -> Lease:
        """A connection with the request's database and settings; a named session keeps its own.

        Args:
            params: The request's.
            reads_only: The request may change nothing, neither rows nor tables.

        Raises:
            ClickHouseError: Too many queries run, the session is busy, or a setting is not to be had.
        """
        with self._guard:
            if self._running >= self._limits.queries:
                raise ClickHouseError(
                    "Code: 202. DB::Exception: Too many simultaneous queries. "
                    f"Maximum: {self._limits.queries}. "
                    "(TOO_MANY_SIMULTANEOUS_QUERIES)"
                )
            name = params.get("session_id")
            lease = self._session(name, params) if name else None
            self._running += 1
        try:
            if lease is None:
                # Settings of the connection's own text are not held to the account's bounds.
                readonly = "&readonly=2" if reads_only and params.get("readonly") != "1" else ""
                tag = uuid.uuid4().hex
                lease = Lease(connect(f"{self._path}?log_comment={tag}{readonly}"), tag)
            self._prepare(lease, params)
        except BaseException as error:
            self.release(lease)
            raise ClickHouseError(error) if isinstance(error, Exception) else error from error
        return lease

    def _session(self, name: str, params: dict[str, str]) -> Lease:
        now = time.monotonic()
        idle = [(lease.used, key) for key, lease in self._sessions.items() if not lease.busy]
        gone = {key for used, key in idle if now - used > self._sessions[key].idle}
        if name not in self._sessions and len(self._sessions) - len(gone) >= self._limits.sessions:
            gone |= {key for _, key in sorted(idle)[:1]}
        for key in gone:
            self._sessions.pop(key).connection.close()
        lease = self._sessions.get(name)
        if lease is not None and lease.busy:
            raise ClickHouseError(
                f"Code: 373. DB::Exception: Session {name[:100]} is locked by a concurrent client. "
                "(SESSION_IS_LOCKED)"
            )
        if lease is None and params.get("session_check") == "1":
            raise ClickHouseError(
                f"Code: 372. DB::Exception: Session {name[:100]} not found. (SESSION_NOT_FOUND)"
            )
        if lease is None:
            if len(self._sessions) >= self._limits.sessions:
                raise ClickHouseError(
                    f"Code: 202. DB::Exception: Too many sessions. Maximum: {self._limits.sessions}. "
                    "(TOO_MANY_SIMULTANEOUS_QUERIES)"
                )
            tag = uuid.uuid4().hex
            lease = self._sessions[name] = Lease(connect(f"{self._path}?log_comment={tag}"), tag, name)
        asked = params.get("session_timeout", "")
        lease.idle = min(float(asked), LONGEST_SESSION) if asked.isdigit() else self._limits.session_seconds
        lease.busy = True
        return lease

    @staticmethod
    def _prepare(lease: Lease, params: dict[str, str]) -> None:
        if database := params.get("database"):
            lease.connection.query(f"USE `{database.replace('`', '').replace(chr(92), '')}`")
        settings = {
            re.sub(r"[^A-Za-z0-9_]", "", key): value
            for key, value in params.items()
            if key not in PROTOCOL and not key.startswith("param_")
        }
        if not lease.session and params.get("readonly", "0") != "0":
            settings["readonly"] = params["readonly"]
        if settings:
            quoted = (value.replace("\\", "\\\\").replace("'", "\\'") for value in settings.values())
            pairs = zip(settings, quoted, strict=True)
            lease.connection.query("SET " + ", ".join(f"{key} = '{value}'" for key, value in pairs))

    def release(self, lease: Lease | None) -> None:
        """End what is open on a connection and give it back; one without a session is closed."""
        if lease is not None and lease.stream is not None:
            # A stream that ended says so, and that is no news.
            with suppress(Exception):
                lease.stream.cancel()
            lease.stream = None
        if lease is not None and lease.session is None:
            lease.connection.close()
        with self._guard:
            self._running -= 1
            if lease is not None:
                lease.used, lease.busy = time.monotonic(), False

    def reads_only(self, statement: str) -> bool:
        """Whether a statement changes nothing, by the engine's own parser."""
        return bool(self._keeper._conn.classify_query(statement)["query_class"].name == "READ_ONLY")

    def kill(self, lease: Lease) -> None:
        """Ask the engine to end what runs on a connection."""
        with suppress(Exception):
            self._keeper.query(f"KILL QUERY WHERE Settings['log_comment'] = '{lease.tag}' ASYNC")

    def close(self) -> None:
        """Close every connection."""
        for lease in self._sessions.values():
            lease.connection.close()
        self._keeper.close()
