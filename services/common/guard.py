"""A store behind retries, a circuit breaker, metrics and traces, and what clients see when it is away."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from fastapi import FastAPI, Request, Response
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.common.observe import Metrics
from services.common.problems import Problem
from services.common.resilience import Breaker, UnavailableError, again, again_async
from services.common.tracing import span


class Guard:
    """Calls a store, and again when it does not answer for a moment.

    Args:
        name: The store's kind, for spans.
        breaker: Opens when the store keeps failing.
        attempts: How often a call is tried.
        metrics: Where durations go.
        tracing: Where spans go.
    """

    def __init__(
        self,
        name: str,
        *,
        breaker: Breaker,
        attempts: int,
        metrics: Metrics,
        tracing: TracerProvider | None = None,
    ) -> None:
        self.breaker = breaker
        self._name, self._metrics = name, metrics
        self._tracer = tracing.get_tracer(__name__) if tracing else None
        self._again, self._again_async = again(attempts), again_async(attempts)

    def call[T](self, operation: str, work: Callable[[], T]) -> T:
        """Do `work`; it is repeated only after a transient `UnavailableError`.

        Raises:
            UnavailableError: The store does not answer, or is left alone for a while.
        """

        def once() -> T:
            with self.breaker.calling(), self._observed(operation):
                return work()

        result: T = self._again(once)
        return result

    async def call_async[T](self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        """As `call`, for work that is awaited.

        Raises:
            UnavailableError: The store does not answer, or is left alone for a while.
        """

        async def once() -> T:
            with self.breaker.calling(), self._observed(operation):
                return await work()

        result: T = await self._again_async(once)
        return result

    @contextmanager
    def _observed(self, operation: str) -> Iterator[None]:
        started, outcome = time.perf_counter(), "error"
        try:
            with span(self._tracer, f"store {operation}", **{"db.system.name": self._name}):
                yield
            outcome = "ok"
        except UnavailableError:
            outcome = "unavailable"
            raise
        finally:
            seconds = time.perf_counter() - started
            self._metrics.store.labels(operation, outcome).observe(seconds)


class PoolCollector(Collector):
    """A store's connections and breaker at the moment of the scrape.

    Args:
        breaker: The store's.
        pool: Connections by state.
    """

    def __init__(self, breaker: Breaker, pool: Callable[[], Mapping[str, int]]) -> None:
        self._breaker, self._pool = breaker, pool

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """See prometheus_client."""
        pool = GaugeMetricFamily("store_pool_connections", "Connections by state.", labels=["state"])
        for state, number in self._pool().items():
            pool.add_metric([state], number)
        yield pool
        opened = GaugeMetricFamily("store_breaker_open", "1 while the store is left alone.")
        opened.add_metric([], int(self._breaker.open))
        yield opened


def install(app: FastAPI) -> None:
    """Make `app` answer 503 with Retry-After when its store is away."""

    async def on_unavailable(request: Request, error: Exception) -> Response:
        retry_after = error.retry_after if isinstance(error, UnavailableError) else 1
        problem = Problem(
            503,
            str(error),
            code="store_unavailable",
            headers={"Retry-After": str(max(1, round(retry_after)))},
        )
        request.state.error_code = problem.code
        return problem.response()

    app.add_exception_handler(UnavailableError, on_unavailable)
