"""The application: `python -m services.kaggle_data_api --host 127.0.0.1 --port 3000`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import Counter

from services.common import docs, guard, web
from services.common.collector import freeze_startup
from services.common.guard import Guard, PoolCollector
from services.common.observe import Metrics, configure_logging
from services.common.resilience import Breaker
from services.common.security import AccessControl
from services.common.tracing import provider
from services.kaggle_data_api import api
from services.kaggle_data_api.settings import Settings
from services.kaggle_data_api.store import DatasetStore


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application over the database that the settings name."""
    settings = settings or Settings()
    metrics, tracing, access = Metrics(), provider(api.SERVICE), AccessControl(settings)
    changes = Counter("datasets_changed", "Changes by what they were.", ["action"], registry=metrics.registry)
    for action in ("create", "replace", "delete"):
        changes.labels(action)
    breaker = Breaker("the database", failures=settings.breaker_failures, seconds=settings.breaker_seconds)
    store = DatasetStore(
        settings,
        Guard(
            "postgresql",
            breaker=breaker,
            attempts=settings.retry_attempts,
            metrics=metrics,
            tracing=tracing,
        ),
    )
    metrics.registry.register(PoolCollector(breaker, store.pool))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        configure_logging(settings.log_level)
        await store.open()
        freeze_startup()
        yield
        await store.close()

    app = FastAPI(
        title="Tallyhouse Kaggle data API",
        version="1.0.0",
        description="Which Kaggle datasets this platform holds.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    # Reads are asked for a thousand times a second: only what failed is worth a line in the access log.
    web.install(app, settings, metrics, tracing, quiet=("/datasets", "/datasets/{dataset_id}"))
    guard.install(app)
    docs.install(app)
    app.include_router(api.routes(store, access, changes))

    app.include_router(web.metrics_route(metrics, access))

    return app


app = create_app()
