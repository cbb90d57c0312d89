"""The application: `python -m services.pancake --host 127.0.0.1 --port 8001`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import Counter

from services.common import guard, security, web
from services.common.collector import freeze_startup
from services.common.guard import Guard, PoolCollector
from services.common.observe import Metrics, configure_logging
from services.common.resilience import Breaker
from services.common.security import AccessControl, Principal
from services.common.tracing import provider
from services.pancake import api
from services.pancake.settings import Settings
from services.pancake.store import PancakeStore

STATIC = Path(__file__).with_name("static")
# What is not from here is not loaded and not run.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application over the database that the settings name."""
    settings = settings or Settings()
    metrics, tracing, access = Metrics(), provider("pancake"), AccessControl(settings)
    created = Counter("pancakes_created", "Pancakes stored.", registry=metrics.registry)
    breaker = Breaker("the database", failures=settings.breaker_failures, seconds=settings.breaker_seconds)
    store = PancakeStore(
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
        freeze_startup()
        yield
        store.close()

    app = FastAPI(
        title="Tallyhouse pancake",
        version="1.0.0",
        description="Takes pancakes and shows them.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    web.install(app, settings, metrics, tracing)
    guard.install(app)
    app.include_router(api.routes(store, access, created))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page(
        _: Annotated[Principal, Depends(access.require(security.READ, browser=True))],
    ) -> FileResponse:
        """The page: a form and the list."""
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    app.include_router(web.metrics_route(metrics, access))

    return app


app = create_app()
