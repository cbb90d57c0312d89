"""The HTTP application: what a request asks, and how its answer is sent."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from services.embedded_clickhouse.bodies import limited, received
from services.embedded_clickhouse.engine import Engine, Lease
from services.embedded_clickhouse.errors import ClickHouseError
from services.embedded_clickhouse.limits import Limits
from services.embedded_clickhouse.login import Login
from services.embedded_clickhouse.statement import Incomplete, Insert, Statement, insert_head

log = logging.getLogger(__name__)

# Formats whose blocks can simply follow one another; the others have a header or a footer.
STREAMED = {"Native", "TabSeparated", "TSV", "CSV", "JSONEachRow", "RowBinary"}
_SHORT = 1 << 14
"""Bytes of a statement that is read at once; a longer one is read beside the event loop."""
LOOK_SECONDS = 0.25
"""How often it is looked whether the client of a running query is still there."""


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Work:
    """Runs the engine's calls beside the event loop, and ends those whose client went away.

    Queries have threads of their own, and so has the ending of queries: nothing else ever waits for one.

    Args:
        engine: The engine.
        queries: How many queries run at once.
    """

    def __init__(self, engine: Engine, queries: int) -> None:
        self._engine = engine
        self._queries = ThreadPoolExecutor(queries + 4, "query")
        self._endings = ThreadPoolExecutor(4, "ending")
        self._left: set[asyncio.Task[None]] = set()

    async def run[T](self, request: Request, lease: Lease, call: Callable[[], T]) -> T:
        """What a call of the engine returns.

        Raises:
            ClientGone: The client left; the query is being ended.
            ClickHouseError: The engine says that it went wrong.
        """
        future = asyncio.get_running_loop().run_in_executor(self._queries, call)
        try:
            while not (await asyncio.wait({future}, timeout=LOOK_SECONDS))[0]:
                if await request.is_disconnected():
                    raise ClientGone
        except BaseException:
            await asyncio.shield(self._end(lease, future))
            raise
        try:
            return future.result()
        except ClickHouseError:
            raise
        except Exception as error:
            raise ClickHouseError(error) from error

    async def quick[T](self, call: Callable[[], T]) -> T:
        """What a call that waits for no query returns."""
        return await asyncio.get_running_loop().run_in_executor(self._queries, call)

    def _end(self, lease: Lease, future: "asyncio.Future[Any]") -> "asyncio.Task[None]":
        async def ending() -> None:
            loop = asyncio.get_running_loop()
            while not future.done():
                await loop.run_in_executor(self._endings, self._engine.kill, lease)
                await asyncio.wait({future}, timeout=LOOK_SECONDS)
            future.exception()

        return self.apart(ending())

    def apart(self, work: Any) -> "asyncio.Task[None]":
        """Do something to its end, even when the request's own task is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        return task


class Streamed(Response):
    """A result that is sent block by block, as fast as the client takes it.

    Args:
        work: Runs the engine's calls.
        request: The request.
        lease: The connection, with the stream open on it.
        first: The stream's first block.
        headers: The answer's.
        seconds: How long the client may take none.
        done: Ends the stream and gives the connection back.
    """

    def __init__(
        self,
        work: Work,
        request: Request,
        lease: Lease,
        first: Any,
        headers: dict[str, str],
        seconds: float,
        done: Callable[[], None],
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._work, self._request, self._lease = work, request, lease
        self._first, self._seconds, self._done = first, seconds, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            block = self._first
            while block is not None and block.size():
                async with asyncio.timeout(self._seconds):
                    await send(
                        {"type": "http.response.body", "body": bytes(block.bytes()), "more_body": True}
                    )
                # What is sent to a client that left goes nowhere, without an error.
                if await self._request.is_disconnected():
                    raise ClientGone
                block = await self._work.run(self._request, self._lease, self._lease.stream.fetch)
            await send({"type": "http.response.body", "body": b""})
        except ClientGone:
            pass
        except TimeoutError:
            log.warning("a client took nothing of its result for %g seconds: it is ended", self._seconds)
            raise
        finally:
            await asyncio.shield(self._work.apart(self._work.quick(self._done)))


class Server:
    """What is behind the two addresses, `/` and `/ping`.

    Args:
        engine: The engine.
        login: Who may ask.
        limits: How much one request may cost.
    """

    def __init__(self, engine: Engine, login: Login, limits: Limits) -> None:
        self._engine, self._login, self._limits = engine, login, limits
        self._work = Work(engine, limits.queries)

    async def ping(self, request: Request) -> Response:
        """That the server lives; answered without the engine."""
        try:
            self._login.check_door(request)
        except ClickHouseError as error:
            return error.response()
        return PlainTextResponse("Ok.\n")

    async def query(self, request: Request) -> Response:
        """The answer to a statement."""
        try:
            self._login.check_door(request)
            self._login.check_account(request)
            response = await self._answer(request)
        except ClickHouseError as error:
            response = error.response()
        except ClientGone:
            response = Response(status_code=499)
        response.headers["X-ClickHouse-Server-Display-Name"] = "tallyhouse-embedded"
        response.headers["X-ClickHouse-Query-Id"] = request.query_params.get("query_id") or str(uuid.uuid4())
        response.headers["X-ClickHouse-Timezone"] = "UTC"
        return response

    async def _answer(self, request: Request) -> Response:
        params = dict(request.query_params)
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise ClickHouseError(
                "Code: 48. DB::Exception: Multipart bodies are not supported here. (NOT_IMPLEMENTED)"
            )
        params.setdefault("database", request.headers.get("x-clickhouse-database", ""))
        if params.get("readonly", "0") not in ("0", "1", "2"):
            raise ClickHouseError("Code: 36. DB::Exception: readonly is 0, 1 or 2. (BAD_ARGUMENTS)")
        body = received(request, self._limits.body_seconds)
        text = params.get("query", "").encode() + b"\n" if "query" in params else b""
        if not text and request.method == "GET":
            return PlainTextResponse("Ok.\n")
        head, text = await self._read(text, body)
        if head:
            return await self._insert(request, params, head, text, body)
        try:
            statement = text.decode().strip()
        except UnicodeDecodeError as error:
            raise ClickHouseError(
                f"Code: 62. DB::Exception: Syntax error: the statement is not UTF-8: {error}. (SYNTAX_ERROR)"
            ) from error
        checked = await self._work.quick(lambda: self._engine.checker.check(statement))
        return await self._execute(request, params, statement, checked)

    async def _read(self, text: bytes, body: AsyncIterator[bytes]) -> tuple[Insert | None, bytes]:
        """Read until it is clear that rows follow, or to the end."""
        looked = 0
        undecided = True
        if text:
            head, undecided = await self._look(text, whole=True), False
            if head:
                return head, text
        async for piece in limited(body, self._limits.statement_bytes):
            text += piece
            # Looked at again only when it doubled, so that a body in small pieces costs no more.
            if undecided and len(text) >= 2 * looked:
                looked = len(text)
                try:
                    head, undecided = await self._look(text, whole=False), False
                except Incomplete:
                    continue
                if head:
                    return head, text
        return await self._look(text, whole=True) if undecided else None, text

    async def _look(self, text: bytes, *, whole: bool) -> Insert | None:
        def look() -> Insert | None:
            return insert_head(text.decode("latin-1"), whole=whole)

        return look() if len(text) < _SHORT else await self._work.quick(look)

    def _reads_only(self, request: Request, params: dict[str, str]) -> bool:
        return request.method == "GET" or params.get("readonly", "0") != "0"

    async def _insert(
        self, request: Request, params: dict[str, str], head: Insert, text: bytes, body: AsyncIterator[bytes]
    ) -> Response:
        """Stream an INSERT's rows into the engine as they arrive."""
        started = time.monotonic_ns()
        words = text[: head.head_end].decode()
        await self._work.quick(lambda: self._engine.checker.check(words))
        if self._reads_only(request, params):
            raise _readonly()
        lease = await self._work.quick(lambda: self._engine.lease(params, reads_only=False))

        def open_stream() -> None:
            lease.stream = lease.connection.send_insert(words, head.format)

        try:
            await self._work.run(request, lease, open_stream)

            async def rows() -> AsyncIterator[bytes]:
                yield text[head.data_start :]
                async for piece in body:
                    yield piece

            async for piece in limited(rows(), self._limits.insert_bytes):
                if piece:
                    # Not `run`: it would take the next piece of the body for itself.
                    await self._appended(lease, piece)
            result = await self._work.run(request, lease, lease.stream.finish)
            lease.stream = None
        finally:
            await self._released(lease)
        written = {"written_rows": str(result.rows_written), "written_bytes": str(result.bytes_written)}
        return Response(headers=summary(started, **written))

    async def _appended(self, lease: Lease, piece: bytes) -> None:
        try:
            await self._work.quick(lambda: lease.stream.append(piece))
        except Exception as error:
            raise ClickHouseError(error) from error

    async def _released(self, lease: Lease) -> None:
        await asyncio.shield(self._work.apart(self._work.quick(lambda: self._engine.release(lease))))

    async def _execute(
        self, request: Request, params: dict[str, str], sql: str, checked: Statement
    ) -> Response:
        """Run one statement; a reading one streams its result."""
        started = time.monotonic_ns()
        reads_only = self._reads_only(request, params)
        # A session's connection cannot be made read-only for one request: its parser says what is meant.
        if reads_only and params.get("session_id") and not self._engine.reads_only(sql):
            raise _readonly()
        asked = params.get("default_format") or request.headers.get("x-clickhouse-format")
        fmt = checked.format or asked or "TabSeparated"
        headers = {"X-ClickHouse-Format": fmt}
        bound: Any = {
            k.removeprefix("param_"): v for k, v in params.items() if k.startswith("param_")
        } or None
        lease = await self._work.quick(lambda: self._engine.lease(params, reads_only=reads_only))
        connection = lease.connection

        def first_block() -> Any:
            # The first block before the status line, so that an error has its own status.
            lease.stream = connection.send_query(sql, fmt, params=bound)
            return lease.stream.fetch()

        kept = False
        try:
            if fmt in STREAMED and checked.is_query:
                first = await self._work.run(request, lease, first_block)
                if first is not None:
                    kept = True
                    headers |= summary(started)
                    seconds = self._limits.send_seconds
                    release = self._engine.release
                    return Streamed(
                        self._work, request, lease, first, headers, seconds, lambda: release(lease)
                    )
            # A command, or an empty result, whose columns are wanted.
            result = await self._work.run(request, lease, lambda: connection.query(sql, fmt, params=bound))
            counts = {"read_rows": str(result.rows_read()), "written_rows": str(result.rows_written())}
            return Response(bytes(result.bytes()), headers=headers | summary(started, **counts))
        finally:
            if not kept:
                await self._released(lease)


def _readonly() -> ClickHouseError:
    return ClickHouseError(
        "Code: 164. DB::Exception: Cannot execute query in readonly mode. For queries over HTTP, method GET "
        "implies readonly. You should use method POST for modifying queries. (READONLY)"
    )


def summary(started: int, **counts: str) -> dict[str, str]:
    """The X-ClickHouse-Summary header."""
    zero = {"read_rows": "0", "read_bytes": "0", "written_rows": "0", "written_bytes": "0"}
    return {
        "X-ClickHouse-Summary": json.dumps(zero | counts | {"elapsed_ns": str(time.monotonic_ns() - started)})
    }


def application(engine: Engine, login: Login, limits: Limits) -> FastAPI:
    """The HTTP application over one data folder."""
    server = Server(engine, login, limits)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/ping", server.ping, methods=["GET", "HEAD"], response_model=None)
    app.add_api_route("/", server.query, methods=["GET", "POST"], response_model=None)
    return app
