"""The application: `uvicorn services.ingest.app:app --host 127.0.0.1 --port 8000`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import Counter

from services.common import problems, security
from services.common.collector import freeze_startup
from services.common.limits import BodyLimitMiddleware
from services.common.observe import Metrics, ObserveMiddleware, configure_logging, tracer
from services.common.security import Gate
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
    tracing, gate, schemas = (
        tracer("ingest"),
        Gate(settings),
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
        redoc_url=None,
    )
    problems.install(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "Idempotency-Key", "Content-Type"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(BodyLimitMiddleware, most=settings.max_body_bytes)
    app.add_middleware(ObserveMiddleware, metrics=metrics, tracing=tracing, quiet={"/ingest", "/metrics"})
    app.include_router(api.routes(Desk(outbox, watch, schemas, settings, taken), gate))
    app.include_router(api.service_routes(watch, settings, metrics, gate))
    describe(app, settings)
    return app


def describe(app: FastAPI, settings: Settings) -> None:
    """Let the OpenAPI document name the credentials that are taken."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = generate()
            security.name_credentials(made, settings)
            app.openapi_schema = made
        return app.openapi_schema

    # FastAPI's own way to change its document.
    app.openapi = document  # type: ignore[method-assign]


app = create_app()
