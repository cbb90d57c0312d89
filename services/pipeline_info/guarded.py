"""A store behind retries, a circuit breaker, metrics, traces and a short-lived cache of summaries."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from opentelemetry.sdk.trace import TracerProvider

from services.common.guard import Guard
from services.common.observe import Metrics
from services.common.resilience import Breaker
from services.pipeline_info.models import PipelineSummary, RunFilter
from services.pipeline_info.repository import (
    Cursor,
    Landed,
    Pending,
    PipelineInfoRepository,
    RunRow,
    StoredRun,
)


class GuardedRepository(PipelineInfoRepository):
    """Passes every call on to a store, and again when that does not answer for a moment.

    Inserts may be repeated because runs have their ids before they are written.

    Args:
        inner: The store.
        breaker: Opens when the store keeps failing.
        attempts: How often a call is tried.
        metrics: Where durations go.
        tracing: Where spans go.
        summary_seconds: How old a summary may be.
    """

    def __init__(
        self,
        inner: PipelineInfoRepository,
        *,
        breaker: Breaker,
        attempts: int,
        metrics: Metrics,
        tracing: TracerProvider | None = None,
        summary_seconds: float = 0,
    ) -> None:
        self.inner = inner
        self.name = inner.name
        self.breaker = breaker
        guard = Guard(inner.name, breaker=breaker, attempts=attempts, metrics=metrics, tracing=tracing)
        self._call = guard.call
        self._summary_seconds = summary_seconds
        self._summary_lock = threading.Lock()
        self._summary: tuple[float, list[PipelineSummary]] | None = None

    def get_pipeline_info(
        self, wanted: RunFilter, *, limit: int, offset: int = 0, after: Cursor | None = None
    ) -> list[StoredRun]:
        """See the contract."""
        return self._call(
            "read", lambda: self.inner.get_pipeline_info(wanted, limit=limit, offset=offset, after=after)
        )

    def list_runs(self, wanted: RunFilter, *, limit: int, after: Cursor | None = None) -> list[RunRow]:
        """See the contract."""
        return self._call("list", lambda: self.inner.list_runs(wanted, limit=limit, after=after))

    def count_pipeline_info(self, wanted: RunFilter, *, bound: int | None = None) -> int:
        """See the contract."""
        return self._call("count", lambda: self.inner.count_pipeline_info(wanted, bound=bound))

    def get_pipelines_summary(self) -> list[PipelineSummary]:
        """See the contract; one caller asks the store, the others wait for its answer."""
        with self._summary_lock:
            now = time.monotonic()
            if self._summary is None or now - self._summary[0] >= self._summary_seconds:
                self._summary = (now, self._call("summary", self.inner.get_pipelines_summary))
            return self._summary[1]

    def get_run(self, run_id: str) -> StoredRun | None:
        """See the contract."""
        return self._call("read_one", lambda: self.inner.get_run(run_id))

    def _owners_of(self, keys: Sequence[str]) -> dict[str, Landed]:
        return self._call("keys", lambda: self.inner._owners_of(keys))

    def _insert(self, pending: Sequence[Pending]) -> list[Landed]:
        landed = self._call("insert", lambda: self.inner._insert(pending))
        self._summary = None
        return landed

    def ping(self) -> None:
        """See the contract; asks the store itself, whatever the breaker says."""
        self.inner.ping()

    def corrupt_records(self) -> int:
        """See the contract."""
        return self.inner.corrupt_records()

    def pool(self) -> dict[str, int]:
        """See the contract."""
        return self.inner.pool()

    def close(self) -> None:
        """See the contract."""
        self.inner.close()
