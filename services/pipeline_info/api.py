"""The routes that speak JSON."""

import hashlib
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.common import problems, security
from services.common.problems import Problem
from services.common.security import AccessControl, Principal
from services.common.strict import StrictRoute
from services.pipeline_info import export, flow
from services.pipeline_info.models import PipelineInfo, PipelineRun, PipelineSummary, RunConditions, RunFilter
from services.pipeline_info.repository import (
    FEW,
    BadCursorError,
    Cursor,
    NewRun,
    Outcome,
    PipelineInfoRepository,
    Result,
    StoredRun,
)
from services.pipeline_info.settings import Settings

MAX_BULK = 5000
MAX_EXTRA = 256 * 1024
"""Bytes of JSON that `extra` of a run may have."""
PAGE_BYTES = 32 * 1024 * 1024
"""After so many bytes of runs a page ends, however many were asked for."""
_FEW = 20
_MOST_PIPELINES = 1000  # what a search finds; Oracle's lists have no more
_KEY_PATTERN = r"^[\x21-\x7e]+$"
_ACCESS = problems.responses(401, 403, 429, 503)
_LOCATION = {"Location": {"description": "The run's own address", "schema": {"type": "string"}}}
_STATUS = {Result.CREATED: 201, Result.REPLAYED: 200, Result.CONFLICT: 409}

Key = Annotated[str, Field(min_length=1, max_length=255, pattern=_KEY_PATTERN)]
RunId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z-]+$")]


class PageQuery(RunConditions):
    """Which runs, and which page of them."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = 100
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    cursor: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    all_data: bool = False


class ExportQuery(RunConditions):
    """Which runs, and in which form.

    Attributes:
        search: Only pipelines whose name contains this, in any case.
        raw: CSV: texts as they are, also those that a spreadsheet would take for a formula.
    """

    format: export.Format
    search: Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")] = ""
    raw: bool = False


class RunPage(BaseModel):
    """A page of runs, newest first.

    Attributes:
        total: How many match; when `total_is_exact` is false there are more than this. Null on a page by
            cursor: the first page said it.
        next_cursor: Where the next page starts; null when this is the last.
    """

    items: list[PipelineRun]
    total: int | None
    total_is_exact: bool
    limit: int | None
    offset: int
    next_cursor: str | None


class Summaries(BaseModel):
    """A summary for each pipeline."""

    items: list[PipelineSummary]
    total: int


class BulkItem(BaseModel):
    """A run of a bulk insert."""

    model_config = ConfigDict(extra="forbid")

    run: PipelineInfo
    idempotency_key: Key | None = None


class BulkItems(BaseModel):
    """Runs to insert; each is judged by itself."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[BulkItem], Field(min_length=1, max_length=MAX_BULK)]


class BulkRequest(BaseModel):
    """As `BulkItems`, the items not looked at yet, so that a bad one does not refuse the others."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[Any], Field(min_length=1, max_length=MAX_BULK)]


class BulkResult(BaseModel):
    """What became of one run: `status` is what it would have got by itself."""

    index: int
    result: Literal["created", "replayed", "conflict", "invalid"]
    status: int
    id: str | None
    errors: list[dict[str, str]] = Field(default_factory=list)


class BulkResults(BaseModel):
    """What became of each run, in the order in which they were sent."""

    items: list[BulkResult]
    created: int
    replayed: int
    conflict: int
    invalid: int


class Health(BaseModel):
    """The service lives."""

    status: Literal["ok"]
    backend: str


class Readiness(BaseModel):
    """The store answers."""

    status: Literal["ready"]
    backend: str
    corrupt_records: int


def conditional(request: Request, body: bytes, media_type: str = "application/json") -> Response:
    """An answer with an ETag of its content; 304 when the client has it."""
    tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization, X-API-Key"}
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def filter_of(
    query: RunConditions, principal: Principal, only_pipelines: tuple[str, ...] | None = None
) -> RunFilter:
    """What a query asks for, within what the asker may see."""
    conditions = {name: getattr(query, name) for name in RunConditions.model_fields}
    return RunFilter.model_construct(
        **conditions, only_environments=principal.environments, only_pipelines=only_pipelines
    )


def named_like(word: str, summaries: Sequence[PipelineSummary]) -> tuple[str, ...] | None:
    """The pipelines whose name contains a word, in any case; None, for all, when there is no word."""
    if not word:
        return None
    names = {item.pipeline_name for item in summaries if item.pipeline_name}
    return tuple(sorted(name for name in names if word.lower() in name.lower()))[:_MOST_PIPELINES]


def visible(items: list[PipelineSummary], principal: Principal) -> list[PipelineSummary]:
    """The summaries that the asker may see."""
    return [item for item in items if principal.may_use(item.environment)]


class Rules:
    """What a run has to keep when it comes in, beyond the model, which what is stored keeps as well.

    These are the configured words, the size of `extra`, and numbers of the ledger that pages can work with.
    """

    def __init__(self, settings: Settings) -> None:
        self._allowed = (
            ("pipeline_type", settings.pipeline_types),
            ("environment", settings.environments),
        )

    def errors(self, record: PipelineInfo) -> list[dict[str, str]]:
        """What is wrong with a run, as where and what."""
        found = [{"where": where, "what": what} for where, what in islice(flow.too_large(record.extra), _FEW)]
        if (size := len(orjson.dumps(record.extra))) > MAX_EXTRA:
            what = f"it has {size} bytes as JSON: send at most {MAX_EXTRA}, and link to the rest"
            found.append({"where": "extra", "what": what})
        for field, allowed in self._allowed:
            value = getattr(record, field)
            if value is not None and allowed and value not in allowed:
                found.append({"where": field, "what": f"{value!r} is not one of {', '.join(allowed)}"})
        return found

    def check(self, record: PipelineInfo) -> None:
        """Refuse a run with 422."""
        if errors := self.errors(record):
            raise Problem(422, f"{errors[0]['where']}: {errors[0]['what']}", code="invalid", errors=errors)


def page_of(
    repository: PipelineInfoRepository,
    wanted: RunFilter,
    *,
    limit: int,
    offset: int = 0,
    after: Cursor | None = None,
) -> tuple[list[StoredRun], bool]:
    """At most `limit` runs, fewer when they are large; and whether more follow."""
    runs: list[StoredRun] = []
    size = 0
    while True:
        # One more than is shown tells whether more follow.
        asked = min(limit + 1 - len(runs), min(max(FEW, len(runs)), 5 * FEW) + 1)
        found = repository.get_pipeline_info(wanted, limit=asked, offset=0 if runs else offset, after=after)
        for place, run in enumerate(found):
            if len(runs) == limit or (runs and size + len(run.doc) > PAGE_BYTES):
                return runs, True
            runs.append(run)
            size += len(run.doc)
            after = run.cursor() if place == len(found) - 1 else after
        if len(found) < asked:
            return runs, False


def _link(place: str) -> dict[str, Any]:
    """The OpenAPI link from an answer that names a run to that run."""
    return {"run": {"operationId": "get_run", "parameters": {"run_id": f"$response.body#/{place}"}}}


def _audited(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    return [{"id": outcome.stored.id, "result": outcome.result.value} for outcome in outcomes]


def routes(  # noqa: PLR0915 - one function a route
    repository: PipelineInfoRepository, settings: Settings, access: AccessControl, inserted: Counter
) -> APIRouter:
    """The routes over a store."""
    router = APIRouter(route_class=StrictRoute)
    rules = Rules(settings)
    Reader = Annotated[Principal, Depends(access.require(security.READ))]
    Writer = Annotated[Principal, Depends(access.require(security.WRITE))]

    @router.get("/health", tags=["service"])
    async def health() -> Health:
        """Whether the service lives; does not ask the store."""
        return Health(status="ok", backend=repository.name)

    @router.get("/ready", tags=["service"], responses=problems.responses(503))
    def ready() -> Readiness:
        """Whether the service can work: the store answers."""
        repository.ping()
        return Readiness(
            status="ready", backend=repository.name, corrupt_records=repository.corrupt_records()
        )

    @router.get(
        "/pipelines",
        tags=["runs"],
        response_model=Summaries,
        responses={304: {"description": "Not modified"}, **_ACCESS},
    )
    def get_pipelines(request: Request, principal: Reader) -> Response:
        """A summary for each pipeline: runs, averages, the last run."""
        found = visible(repository.get_pipelines_summary(), principal)
        body = Summaries(items=found, total=len(found)).model_dump_json().encode()
        return conditional(request, body)

    @router.get(
        "/get_pipeline_info",
        tags=["runs"],
        response_model=RunPage,
        responses={
            200: {"links": _link("items/0/id")},
            304: {"description": "Not modified"},
            **problems.responses(400, 422),
            **_ACCESS,
        },
    )
    def get_pipeline_info(
        query: Annotated[PageQuery, Query()], request: Request, principal: Reader
    ) -> Response:
        """The runs that match every given filter, newest first: a page of them, or all.

        Pages by `cursor` (from `next_cursor`) cost the same however deep they are and never repeat or miss
        a run; `offset` is there for old clients. `all_data` streams every run. A page of runs with much in
        `extra` may end before `limit`: there are more as long as there is a `next_cursor`.
        """
        wanted = filter_of(query, principal)
        if query.all_data:
            batches = export.started(repository.iter_pipeline_info(wanted))
            return StreamingResponse(export.page(batches), media_type="application/json")
        if query.cursor is not None and query.offset:
            raise Problem(400, "offset and cursor do not go together: leave one out", code="bad_cursor")
        try:
            after = Cursor.decode(query.cursor) if query.cursor is not None else None
        except BadCursorError as error:
            raise Problem(400, str(error), code="bad_cursor") from error
        runs, more = page_of(repository, wanted, limit=query.limit, offset=query.offset, after=after)
        total: int | None = None
        if after is None:
            # The page's own end tells the total, if it is there; to count is what costs.
            seen = query.offset + len(runs)
            known = not more and (runs or not query.offset)
            bound = settings.total_bound
            total = seen if known else repository.count_pipeline_info(wanted, bound=bound + 1)
        rest = orjson.dumps(
            {
                "total": total if total is None else min(total, settings.total_bound),
                "total_is_exact": total is not None and total <= settings.total_bound,
                "limit": query.limit,
                "offset": query.offset,
                "next_cursor": runs[-1].cursor().encode() if more else None,
            }
        )
        return conditional(request, b'{"items":[' + b",".join(run.doc for run in runs) + b"]," + rest[1:])

    @router.get(
        "/get_pipeline_info/{run_id}",
        tags=["runs"],
        response_model=PipelineRun,
        responses={304: {"description": "Not modified"}, **problems.responses(404, 422), **_ACCESS},
    )
    def get_run(run_id: RunId, request: Request, principal: Reader) -> Response:
        """One run."""
        stored = repository.get_run(run_id)
        if stored is None or not principal.may_use(stored.run().environment):
            raise Problem(404, f"there is no run {run_id}")
        return conditional(request, stored.doc)

    @router.post(
        "/pipelines",
        tags=["runs"],
        status_code=201,
        response_model=PipelineRun,
        responses={
            200: {
                "model": PipelineRun,
                "description": "The key was known: the run stored under it",
                "headers": _LOCATION,
                "links": _link("id"),
            },
            201: {"headers": _LOCATION, "links": _link("id")},
            **problems.responses(400, 409, 413, 422),
            **_ACCESS,
        },
    )
    def insert_pipeline_info(
        record: Annotated[PipelineInfo, Body()],
        principal: Writer,
        idempotency_key: Annotated[
            str | None, Header(min_length=1, max_length=255, pattern=_KEY_PATTERN)
        ] = None,
    ) -> Response:
        """Store a run.

        With an `Idempotency-Key`, the same run posted again is not stored again: the answer is 200 and the
        run as it was stored. The key with another body is refused with 409. Keys are each principal's own.
        """
        rules.check(record)
        if not principal.may_use(record.environment):
            raise Problem(403, f"{principal.name} may not add runs of environment {record.environment}")
        outcome = repository.insert_pipeline_info(
            record, idempotency_key=idempotency_key, principal=principal
        )
        inserted.labels(outcome.result.value).inc()
        if outcome.result == Result.CONFLICT:
            raise Problem(
                409,
                f"Idempotency-Key {idempotency_key} belongs to a run with another content: use a new key",
                code="key_reused",
            )
        access.audit(principal, "insert", _audited([outcome]))
        return Response(
            outcome.stored.doc,
            status_code=_STATUS[outcome.result],
            media_type="application/json",
            headers={"Location": f"/get_pipeline_info/{outcome.stored.id}"},
        )

    @router.post(
        "/pipelines/bulk",
        tags=["runs"],
        response_model=BulkResults,
        responses={
            200: {"links": _link("items/0/id")},
            207: {"model": BulkResults, "description": "At least one run was refused"},
            **problems.responses(400, 413, 422),
            **_ACCESS,
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BulkItems"}}},
            }
        },
    )
    def insert_bulk(
        body: Annotated[BulkRequest, Body()], principal: Writer, response: Response
    ) -> BulkResults:
        """Store many runs by one transaction, with a result for each.

        A run that is not valid, or whose key belongs to another run, is refused by itself and the others
        are stored. An item's `idempotency_key` means what the header means for a single run.
        """
        results, good = _judge(body.items, rules, principal)
        outcomes = repository.insert_many(
            [NewRun(item.run, item.idempotency_key, principal) for _, item in good]
        )
        for (index, _), outcome in zip(good, outcomes, strict=True):
            conflict = outcome.result == Result.CONFLICT
            results[index] = BulkResult(
                index=index,
                result=outcome.result.value,
                status=_STATUS[outcome.result],
                id=None if conflict else outcome.stored.id,
                errors=[{"where": "idempotency_key", "what": "belongs to another run"}] if conflict else [],
            )
        if outcomes:
            access.audit(principal, "insert", _audited([o for o in outcomes if o.result != Result.CONFLICT]))
        items = [results[index] for index in range(len(body.items))]
        counts = dict.fromkeys(("created", "replayed", "conflict", "invalid"), 0)
        for item in items:
            counts[item.result] += 1
        for name, count in counts.items():
            inserted.labels(name).inc(count)
        if counts["conflict"] or counts["invalid"]:
            response.status_code = 207
        return BulkResults(items=items, **counts)

    @router.get(
        "/download/pipeline_info",
        tags=["runs"],
        response_class=StreamingResponse,
        responses={
            200: {
                "content": {"text/csv": {"schema": {"type": "string"}}, "application/jsonl": {}},
                "description": "Every run that matches, newest first",
                "headers": {"Content-Disposition": {"schema": {"type": "string"}}},
            },
            **problems.responses(422),
            **_ACCESS,
        },
    )
    def download(query: Annotated[ExportQuery, Query()], principal: Reader) -> StreamingResponse:
        """Every run that matches, as a file, streamed in constant memory.

        In CSV a text that a spreadsheet would take for a formula has an apostrophe before it, unless `raw`.
        """
        found = None
        if query.search:
            found = named_like(query.search, visible(repository.get_pipelines_summary(), principal))
        batches = export.started(repository.iter_pipeline_info(filter_of(query, principal, found)))
        csv = query.format == export.Format.CSV
        content = export.rows(batches, raw=query.raw) if csv else export.lines(batches)
        return StreamingResponse(
            content,
            media_type=export.MEDIA_TYPES[query.format],
            headers={"Content-Disposition": f'attachment; filename="pipeline_info.{query.format.value}"'},
        )

    return router


def _judge(
    items: list[Any], rules: Rules, principal: Principal
) -> tuple[dict[int, BulkResult], list[tuple[int, BulkItem]]]:
    """Tell the runs of a bulk insert that can be stored from those that cannot."""
    refused: dict[int, BulkResult] = {}
    good: list[tuple[int, BulkItem]] = []
    for index, item in enumerate(items):
        status = 422
        try:
            parsed = BulkItem.model_validate(item)
            errors = rules.errors(parsed.run)
            if not errors and not principal.may_use(parsed.run.environment):
                status, errors = 403, [{"where": "environment", "what": "not yours to add to"}]
        except ValidationError as error:
            errors = [
                {"where": ".".join(map(str, each["loc"])), "what": each["msg"]} for each in error.errors()
            ]
        if errors:
            refused[index] = BulkResult(index=index, result="invalid", status=status, id=None, errors=errors)
        else:
            good.append((index, parsed))
    return refused, good
