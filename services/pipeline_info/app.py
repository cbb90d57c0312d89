"""The HTTP interface: `uvicorn services.pipeline_info.app:app --host 127.0.0.1 --port 8002`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, FastAPI, Header, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from services.common import problems
from services.common.problems import Problem
from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.models import PipelineInfo, PipelineRun, PipelineSummary, RunFilter
from services.pipeline_info.repository import (
    KeyReusedError,
    PipelineInfoRepository,
    StoreUnavailableError,
)
from services.pipeline_info.settings import Settings


class PageQuery(RunFilter):
    """Which runs, and which page of them."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = 100
    offset: Annotated[int, Field(ge=0, le=2**31)] = 0
    all_data: bool = False

    def filter(self) -> RunFilter:
        """The conditions alone."""
        return RunFilter.model_validate(self.model_dump(include=set(RunFilter.model_fields)))


class RunPage(BaseModel):
    """A page of runs, newest first, and how many there are in all."""

    items: list[PipelineRun]
    total: int
    limit: int | None
    offset: int


class Summaries(BaseModel):
    """A summary for each pipeline."""

    items: list[PipelineSummary]
    total: int


class Health(BaseModel):
    """The service answers."""

    status: str
    backend: str
    corrupt_records: int


class _StrictJson(Request):
    """Reads bodies by orjson: what could not be written back (NaN, lone surrogates) is no JSON."""

    async def json(self) -> object:
        return orjson.loads(await self.body())


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictJson(request.scope, request.receive))

        return handle


def _check_word(field: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and allowed and value not in allowed:
        what = f"{value!r} is not one of {', '.join(allowed)}"
        raise Problem(
            422, f"body.{field}: {what}", code="invalid", errors=[{"where": f"body.{field}", "what": what}]
        )


def _routes(repository: PipelineInfoRepository, settings: Settings) -> APIRouter:
    router = APIRouter(route_class=_Route)

    @router.get("/health", tags=["service"])
    def health() -> Health:
        """Whether the service lives."""
        return Health(status="ok", backend=repository.name, corrupt_records=repository.corrupt_records())

    @router.get("/pipelines", tags=["runs"], responses=problems.responses(503))
    def get_pipelines() -> Summaries:
        """A summary for each pipeline: runs, averages, the last run."""
        found = repository.get_pipelines_summary()
        return Summaries(items=found, total=len(found))

    @router.get("/get_pipeline_info", tags=["runs"], responses=problems.responses(422, 503))
    def get_pipeline_info(query: Annotated[PageQuery, Query()]) -> RunPage:
        """The runs that match every given filter, newest first, a page of them or all."""
        wanted = query.filter()
        if query.all_data:
            runs = repository.get_pipeline_info(wanted)
            return RunPage(items=runs, total=len(runs), limit=None, offset=0)
        return RunPage(
            items=repository.get_pipeline_info(wanted, limit=query.limit, offset=query.offset),
            total=repository.count_pipeline_info(wanted),
            limit=query.limit,
            offset=query.offset,
        )

    @router.post(
        "/pipelines",
        tags=["runs"],
        status_code=201,
        responses={
            200: {"model": PipelineRun, "description": "The key was known: the run stored under it"},
            **problems.responses(400, 409, 422, 503),
        },
    )
    def insert_pipeline_info(
        record: Annotated[PipelineInfo, Body()],
        response: Response,
        idempotency_key: Annotated[
            str | None, Header(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")
        ] = None,
    ) -> PipelineRun:
        """Store a run.

        With an `Idempotency-Key`, the same run posted again is not stored again: the answer is 200 and the
        run as it was stored. The key with another body is refused with 409.
        """
        _check_word("pipeline_type", record.pipeline_type, settings.pipeline_types)
        _check_word("environment", record.environment, settings.environments)
        try:
            inserted = repository.insert_pipeline_info(record, idempotency_key=idempotency_key)
        except KeyReusedError as error:
            raise Problem(
                409,
                f"Idempotency-Key {idempotency_key} belongs to a run with another content: use a new key",
                code="key_reused",
            ) from error
        if not inserted.created:
            response.status_code = 200
        return inserted.run

    return router


def create_app(settings: Settings | None = None, repository: PipelineInfoRepository | None = None) -> FastAPI:
    """The application over `repository`, or over the one that the settings name."""
    settings = settings or Settings()
    app = FastAPI(
        title="Tallyhouse pipeline-info",
        version="1.0.0",
        description="Knows every run of every pipeline.",
    )
    problems.install(app)

    async def on_unavailable(_: Request, error: Exception) -> Response:
        return Problem(503, str(error), code="store_unavailable", headers={"Retry-After": "5"}).response()

    app.add_exception_handler(StoreUnavailableError, on_unavailable)
    app.include_router(_routes(repository or JsonlPipelineRepository(settings.file), settings))
    return app


app = create_app()
