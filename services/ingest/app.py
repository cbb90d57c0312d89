"""The application: `python -m services.ingest --host 127.0.0.1 --port 8000`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import Counter

from services.common import docs, web
from services.common.collector import freeze_startup
from services.common.observe import Metrics, configure_logging
from services.common.security import AccessControl
from services.common.tracing import provider
from services.ingest import api
from services.ingest.api import Desk
from services.ingest.outbox import Outbox
from services.ingest.schemas import Schemas
from services.ingest.settings import Settings
from services.ingest.watch import Watch


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application with the settings of the environment, or those given."""
    settings = settings or Settings()
    metrics = Metrics(requests="fastapi_request_duration_seconds", errors="fastapi_error")
    tracing, access, schemas = (
        provider("ingest"),
        AccessControl(settings),
        Schemas(settings.schemas, required=settings.require_schema),
    )
    taken = Counter("wotr_ingest", "Events by what became of them.", ["result"], registry=metrics.registry)
    for result in ("accepted", "duplicate", "conflict"):
        taken.labels(result)
    outbox = Outbox(
        settings.dsn,
        linger=settings.linger_ms / 1000,
        patience=settings.commit_seconds,
        most_waiting=settings.max_waiting_events,
        registry=metrics.registry,
    )
    watch = Watch(settings, metrics.registry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        configure_logging(settings.log_level)
        freeze_startup()
        tasks = [asyncio.create_task(outbox.run()), asyncio.create_task(watch.run())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await outbox.close()

    app = FastAPI(
        title="Tallyhouse ingest",
        version="1.0.0",
        description="Takes events in, once each.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    web.install(app, settings, metrics, tracing, quiet={"/ingest", "/metrics"})
    docs.install(app)
    app.include_router(api.routes(Desk(outbox, watch, schemas, settings, taken), access))
    app.include_router(api.service_routes(watch, settings))
    app.include_router(web.metrics_route(metrics, access))
    return app


app = create_app()
