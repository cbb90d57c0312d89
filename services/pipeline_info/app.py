"""The application: `python -m services.pipeline_info --host 127.0.0.1 --port 8002`."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.common import docs, guard, web
from services.common.collector import freeze_startup
from services.common.guard import PoolCollector
from services.common.observe import Metrics, configure_logging
from services.common.problems import Problem
from services.common.resilience import Breaker, UnavailableError
from services.common.security import AccessControl
from services.common.tracing import provider
from services.pipeline_info import api, lineage, pages
from services.pipeline_info.guarded import GuardedRepository
from services.pipeline_info.repository import PipelineInfoRepository, Result, StoreRefusedError
from services.pipeline_info.settings import Settings
from services.pipeline_info.stores import open_lineage, open_store


class _CorruptCollector(Collector):
    """How many stored records cannot be read, at the moment of the scrape."""

    def __init__(self, repository: GuardedRepository) -> None:
        self._repository = repository

    def collect(self) -> Iterable[GaugeMetricFamily]:
        try:
            corrupt = self._repository.corrupt_records()
        except UnavailableError:
            return
        records = GaugeMetricFamily("store_corrupt_records", "Stored records that cannot be read.")
        records.add_metric([], corrupt)
        yield records


def create_app(settings: Settings | None = None, repository: PipelineInfoRepository | None = None) -> FastAPI:
    """The application over `repository`, or over the store that the settings name."""
    settings = settings or Settings()
    metrics, tracing, access = Metrics(), provider("pipeline-info"), AccessControl(settings)
    inserted = Counter("runs_inserted", "Runs by what became of them.", ["result"], registry=metrics.registry)
    for result in (*Result, "invalid"):
        inserted.labels(str(result))
    inner = repository or open_store(settings)
    graph = open_lineage(settings, inner)
    store = GuardedRepository(
        inner,
        breaker=Breaker(
            f"the {settings.backend} store",
            failures=settings.breaker_failures,
            seconds=settings.breaker_seconds,
        ),
        attempts=settings.retry_attempts,
        metrics=metrics,
        tracing=tracing,
        summary_seconds=settings.summary_seconds,
    )
    metrics.registry.register(PoolCollector(store.breaker, store.pool))
    metrics.registry.register(_CorruptCollector(store))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        configure_logging(settings.log_level)
        freeze_startup()
        yield
        store.close()

    app = FastAPI(
        title="Tallyhouse pipeline-info",
        version="1.0.0",
        description="Knows every run of every pipeline.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.lineage = graph
    web.install(app, settings, metrics, tracing)
    guard.install(app)
    docs.install(app)

    async def on_refused(request: Request, error: Exception) -> Response:
        problem = Problem(422, f"{error}: make it shorter", code="not_storable")
        request.state.error_code = problem.code
        return problem.response()

    app.add_exception_handler(StoreRefusedError, on_refused)

    app.include_router(api.routes(store, settings, access, inserted))
    app.include_router(lineage.routes(graph, settings, access))
    app.include_router(pages.routes(store, graph, settings, access))
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")), name="static")

    app.include_router(web.metrics_route(metrics, access))

    _describe(app, settings)
    return app


def _describe(app: FastAPI, settings: Settings) -> None:
    """Let the OpenAPI document name the configured words, and the items of a bulk insert."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = generate()
            schemas = made["components"]["schemas"]
            bulk = api.BulkItems.model_json_schema(ref_template="#/components/schemas/{model}")
            for name, schema in bulk.pop("$defs").items():
                schemas.setdefault(name, schema)
            schemas["BulkItems"] = bulk
            for field, allowed in (
                ("pipeline_type", settings.pipeline_types),
                ("environment", settings.environments),
            ):
                if allowed:
                    schemas["PipelineInfo"]["properties"][field]["anyOf"][0]["enum"] = list(allowed)
            app.openapi_schema = made
        return app.openapi_schema

    # FastAPI's own way to change its document.
    app.openapi = document  # type: ignore[method-assign]


app = create_app()
