"""Embedded ClickHouse behind ClickHouse's HTTP protocol.

chDB lets one process open a data folder, but a night, a reconciliation, a dashboard and a page all
want to read. This process owns the folder and answers HTTP the way ClickHouse does, enough of it for
clickhouse-connect, its SQLAlchemy dialect and Airflow's provider: queries in the parameter or the
body, ``FORMAT``, bound parameters (``param_x``), settings, sessions, streamed results, streamed and
compressed inserts, errors with ClickHouse's code and text. Not spoken: multipart external tables,
compressed responses, users and grants beyond one name and password.

    python -m scripts.chdb_server --path .local/data/clickhouse --port 8123

The password, if there is to be one, comes from CLICKHOUSE_PASSWORD.
"""

import argparse
import base64
import json
import os
import re
import secrets
import threading
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import chdb
import lz4.frame  # type: ignore[import-untyped]
import uvicorn
from backports.zstd import ZstdDecompressor
from chdb.state.sqlitelike import Connection, connect
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

# Parameters of the protocol; every other one is a setting of the query.
PROTOCOL = {
    *("query", "database", "default_format", "session_id", "session_timeout", "session_check", "query_id"),
    *("user", "password", "compress", "decompress", "quota_key", "wait_end_of_query", "role", "readonly"),
    *("buffer_size", "client_protocol_version", "send_progress_in_http_headers", "enable_http_compression"),
    *("http_headers_progress_interval_ms", "stacktrace", "cancel_http_readonly_queries_on_client_close"),
}
COMMENTS = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
INSERT_DATA = re.compile(
    rb"(?P<head>"
    + COMMENTS.encode()
    # What follows the format's name must be there: a body comes in pieces, cut anywhere.
    + rb"INSERT\s+INTO\s.*?)\s+FORMAT\s+(?P<format>\w+)\b(?:[ \t;]*\r?\n|[ \t;]+(?=[^ \t;\r\n]))",
    re.IGNORECASE | re.DOTALL,
)
READS = re.compile(
    COMMENTS + r"[\s(]*(SELECT|WITH)\b",
    re.IGNORECASE | re.DOTALL,
)
TRAILING_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*(?:SETTINGS\s[^']*)?$", re.IGNORECASE)
# Formats whose blocks can simply follow one another; the others have a header or a footer.
STREAMED = {"Native", "TabSeparated", "TSV", "CSV", "JSONEachRow", "RowBinary"}
DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=47),
    "deflate": lambda: zlib.decompressobj(wbits=47),
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": ZstdDecompressor,
}
HEAD_LIMIT = 1 << 20
SESSION_IDLE = 300.0
NOT_FOUND = {60, 81}  # UNKNOWN_TABLE, UNKNOWN_DATABASE
BAD_REQUEST = {6, 26, 27, 36, 38, 41, 43, 46, 47, 62, 70, 72, 115, 117, 130, 386}


class ClickHouseError(Exception):
    """What ClickHouse says went wrong, with its code."""

    def __init__(self, error: Exception | str) -> None:
        text = re.sub(r"^Streaming (\w+ )+failed: ", "", str(error)).strip()
        found = re.search(r"Code: (\d+)\. DB::", text)
        self.code = int(found.group(1)) if found else 1002  # UNKNOWN_EXCEPTION
        self.text = text if found else f"Code: 1002. DB::Exception: {text}. (UNKNOWN_EXCEPTION)"
        if "(version" not in self.text:
            self.text += f" (version {chdb.engine_version})"
        super().__init__(self.text)

    def response(self) -> Response:
        """The HTTP answer that ClickHouse gives for this error."""
        status = (
            404
            if self.code in NOT_FOUND
            else 400
            if self.code in BAD_REQUEST
            else 403
            if self.code == 516
            else 500
        )
        return PlainTextResponse(f"{self.text}\n", status, {"X-ClickHouse-Exception-Code": str(self.code)})


class Engine:
    """The data folder: one keeper connection, one connection for each request or named session."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.keeper = connect(self.path)  # keeps the engine open between requests
        self.sessions: dict[str, tuple[Connection, threading.Lock, float]] = {}
        self.guard = threading.Lock()

    @contextmanager
    def connection(self, params: dict[str, str]) -> Iterator[Connection]:
        """A connection with the request's database and settings; a named session keeps its own."""
        name = params.get("session_id")
        lock = threading.Lock()
        with self.guard:
            now = time.monotonic()
            for old in [
                k
                for k, (_, held, used) in self.sessions.items()
                if now - used > SESSION_IDLE and not held.locked()
            ]:
                self.sessions.pop(old)[0].close()
            if name:
                conn, lock, _ = self.sessions.get(name) or (connect(self.path), lock, now)
                self.sessions[name] = (conn, lock, now)
            else:
                conn = connect(self.path)
        with lock:
            try:
                if database := params.get("database"):
                    conn.query(f"USE `{database.replace('`', '')}`")
                for key, value in params.items():
                    if key not in PROTOCOL and not key.startswith("param_"):
                        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
                        conn.query(f"SET {re.sub(r'[^A-Za-z0-9_.]', '', key)} = '{quoted}'")
                yield conn
            except Exception as error:
                raise error if isinstance(error, ClickHouseError) else ClickHouseError(error) from error
            finally:
                if not name:
                    conn.close()


def decoder(encoding: str) -> Callable[[bytes], bytes]:
    """A streaming decompressor for a Content-Encoding; a body may be several frames in a row."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return lambda data: data
    if encoding not in DECOMPRESSORS:
        raise ClickHouseError(
            f"Code: 89. DB::Exception: Unknown compression {encoding}. (UNKNOWN_COMPRESSION_METHOD)"
        )
    frame = DECOMPRESSORS[encoding]()

    def decode(data: bytes) -> bytes:
        nonlocal frame
        out = b""
        while data:
            if frame.eof:
                frame = DECOMPRESSORS[encoding]()
            out += frame.decompress(data)
            data = frame.unused_data or b""
        return out

    return decode


async def insert(
    engine: Engine, params: dict[str, str], head: str, fmt: str, data: AsyncIterator[bytes]
) -> Response:
    """Stream an INSERT's rows into the engine as they arrive."""
    started = time.monotonic_ns()
    manager = engine.connection(params)
    conn = await run_in_threadpool(manager.__enter__)
    try:
        stream: Any = await run_in_threadpool(conn.send_insert, head, fmt)
        try:
            async for chunk in data:
                if chunk:
                    await run_in_threadpool(stream.append, chunk)
            result = await run_in_threadpool(stream.finish)
        except BaseException:
            with suppress(Exception):
                stream.cancel()
            raise
    except Exception as error:
        raise ClickHouseError(error) from error
    finally:
        manager.__exit__(None, None, None)
    written = {"written_rows": str(result.rows_written), "written_bytes": str(result.bytes_written)}
    return Response(headers=summary(started, **written))


def summary(started: int, **counts: str) -> dict[str, str]:
    """The X-ClickHouse-Summary header."""
    zero = {"read_rows": "0", "read_bytes": "0", "written_rows": "0", "written_bytes": "0"}
    return {
        "X-ClickHouse-Summary": json.dumps(zero | counts | {"elapsed_ns": str(time.monotonic_ns() - started)})
    }


def execute(engine: Engine, params: dict[str, str], sql: str, fmt: str) -> Response:
    """Run one statement; a reading one streams its result."""
    started = time.monotonic_ns()
    bound: Any = {k.removeprefix("param_"): v for k, v in params.items() if k.startswith("param_")} or None
    found = TRAILING_FORMAT.search(sql)
    fmt = found.group(1) if found else fmt
    headers = {"X-ClickHouse-Format": fmt}
    manager = engine.connection(params)
    conn = manager.__enter__()
    try:
        reads = fmt in STREAMED and READS.match(sql)
        stream: Any = conn.send_query(sql, fmt, params=bound) if reads else None
        # The first block before the status line, so that an error has its own status.
        first = stream.fetch() if stream else None
        if stream is None or first is None:  # a command, or an empty result, whose columns are wanted
            result = conn.query(sql, fmt, params=bound)
            counts = {"read_rows": str(result.rows_read()), "written_rows": str(result.rows_written())}
            body = bytes(result.bytes())
            manager.__exit__(None, None, None)
            return Response(body, headers=headers | summary(started, **counts))
    except Exception as error:
        manager.__exit__(None, None, None)
        raise ClickHouseError(error) from error

    def blocks() -> Iterator[bytes]:
        block = first
        try:
            while block is not None and block.size():
                yield bytes(block.bytes())
                block = stream.fetch()
        finally:
            with suppress(Exception):
                stream.close()
            manager.__exit__(None, None, None)

    return StreamingResponse(blocks(), headers=headers | summary(started))


def application(path: Path, user: str, password: str) -> FastAPI:
    """The HTTP application over one data folder."""
    engine = Engine(path)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # On loopback without a password, what has to be kept out is a page in somebody's browser: it may
    # reach the port under another name, and it always says where it comes from.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])

    def check_login(request: Request) -> None:
        if "origin" in request.headers:
            raise ClickHouseError("Code: 497. DB::Exception: Web pages are not answered. (ACCESS_DENIED)")
        login = (request.headers.get("x-clickhouse-user", ""), request.headers.get("x-clickhouse-key", ""))
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            name, _, key = base64.b64decode(encoded).decode().partition(":")
            login = (name, key)
        given_user = request.query_params.get("user") or login[0] or "default"
        given_key = request.query_params.get("password") or login[1]
        if given_user != user or not secrets.compare_digest(given_key.encode(), password.encode()):
            raise ClickHouseError(
                f"Code: 516. DB::Exception: {given_user}: Authentication failed: password is incorrect, "
                "or there is no user with such name. (AUTHENTICATION_FAILED)"
            )

    @app.get("/ping")
    def ping() -> Response:
        return PlainTextResponse("Ok.\n")

    @app.api_route("/", methods=["GET", "POST"])
    async def query(request: Request) -> Response:
        try:
            check_login(request)
            response = await answer(request)
        except ClickHouseError as error:
            response = error.response()
        response.headers["X-ClickHouse-Server-Display-Name"] = "tallyhouse-embedded"
        response.headers["X-ClickHouse-Query-Id"] = request.query_params.get("query_id") or str(uuid.uuid4())
        response.headers["X-ClickHouse-Timezone"] = "UTC"
        return response

    async def answer(request: Request) -> Response:
        params = dict(request.query_params)
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise ClickHouseError(
                "Code: 48. DB::Exception: Multipart bodies are not supported here. (NOT_IMPLEMENTED)"
            )
        params.setdefault("database", request.headers.get("x-clickhouse-database", ""))
        fmt = params.get("default_format") or request.headers.get("x-clickhouse-format") or "TabSeparated"
        decode = decoder(request.headers.get("content-encoding", ""))
        body = (decode(chunk) async for chunk in request.stream())
        buffer = params["query"].encode() + b"\n" if "query" in params else b""
        if not buffer and request.method == "GET":
            return PlainTextResponse("Ok.\n")
        head = INSERT_DATA.fullmatch(buffer.strip() + b"\n") if buffer else None
        if head is None:
            async for chunk in body:
                buffer += chunk
                head = INSERT_DATA.match(buffer) if len(buffer) < HEAD_LIMIT + len(chunk) else None
                if head:
                    break

        if head is None or re.search(rb"\bSELECT\b", head["head"], re.IGNORECASE):
            async for chunk in body:
                buffer += chunk
            return await run_in_threadpool(execute, engine, params, buffer.decode().strip(), fmt)

        async def rows() -> AsyncIterator[bytes]:
            if "query" not in params or head.string is buffer:
                yield buffer[head.end() :]
            async for chunk in body:
                yield chunk

        return await insert(engine, params, head["head"].decode(), head["format"].decode(), rows())

    return app


def main() -> None:
    """Serve one data folder until told to stop."""
    parser = argparse.ArgumentParser(description="Embedded ClickHouse behind ClickHouse's HTTP protocol.")
    parser.add_argument("--path", type=Path, required=True, help="data folder, owned by this process alone")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--user", default="default")
    args = parser.parse_args()
    args.path.mkdir(parents=True, exist_ok=True)
    app = application(args.path, args.user, os.environ.get("CLICKHOUSE_PASSWORD", ""))
    uvicorn.run(
        app,
        host=args.host,
        port=args.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
