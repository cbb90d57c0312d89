"""What every web service has around its routes."""

from collections.abc import Collection, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from opentelemetry.sdk.trace import TracerProvider
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from services.common import problems, security
from services.common.front import FrontMiddleware
from services.common.limits import BodyLimitMiddleware
from services.common.observe import Metrics, ObserveMiddleware
from services.common.security import AccessControl, Principal
from services.common.settings import ServiceSettings
from services.common.tracing import trace_requests


def install(
    app: FastAPI,
    settings: ServiceSettings,
    metrics: Metrics,
    tracing: TracerProvider | None,
    *,
    quiet: Collection[str] = (),
    shorter: Mapping[str, int] | None = None,
) -> None:
    """Put around `app` what the settings say: names, origins, sizes, errors, metrics, credentials' names.

    Args:
        app: The application.
        settings: Its settings.
        metrics: Where its requests are counted.
        tracing: Where spans go.
        quiet: Endpoints whose successes are not logged, see `ObserveMiddleware`.
        shorter: Paths whose bodies may only be shorter than the settings say, with the longest.
    """
    problems.install(app)
    security.describe(app, settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "Idempotency-Key", "Content-Type"],
            expose_headers=["ETag", "Link", "X-Request-ID", "Retry-After"],
        )
    app.add_middleware(
        BodyLimitMiddleware,
        most=settings.max_body_bytes,
        shorter=shorter,
        seconds=settings.max_body_seconds,
    )
    app.add_middleware(FrontMiddleware, hosts=settings.allowed_hosts, origins=settings.cors_origins)
    app.add_middleware(ObserveMiddleware, metrics=metrics, quiet=quiet)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
    if tracing is not None:
        trace_requests(app, tracing)


def metrics_route(metrics: Metrics, access: AccessControl) -> APIRouter:
    """`/metrics`, for whoever may read them.

    Args:
        metrics: The service's.
        access: What knows who asks.
    """
    router = APIRouter(tags=["service"])

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **problems.responses(401, 403, 429),
        },
    )
    async def prometheus(_: Annotated[Principal, Depends(access.require(security.METRICS))]) -> Response:
        """The service's metrics, as Prometheus reads them."""
        content, media_type = metrics.exposition()
        return Response(content, media_type=media_type)

    return router
