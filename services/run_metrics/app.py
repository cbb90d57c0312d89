"""What the warehouse knows of its runs, for Prometheus: asked at each scrape, nothing stored.

Read from `etl.run` and `etl.ledger` themselves, so a run that nobody reported is counted as well.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tallyhouse.settings import Settings

log = logging.getLogger("run_metrics")

# By pipeline: its newest run, and the newest one that was published.
RUNS = """
    WITH newest AS (
        SELECT DISTINCT ON (pipeline) * FROM etl.run_state ORDER BY pipeline, started_at DESC
    ), published AS (
        SELECT pipeline, max(published_at) AS at FROM etl.run WHERE status = 'published' GROUP BY pipeline
    ), pending AS (
        SELECT pipeline, count(*) AS runs FROM etl.run_state
        WHERE status = 'published' AND missing <> '{}' GROUP BY pipeline
    ), lines AS (
        SELECT l.run_id, count(*) AS all_lines, count(*) FILTER (WHERE NOT l.closed) AS open_lines,
            sum(l.left_value) FILTER (WHERE l.hop = 'source=raw' AND l.measure = 'rows') AS taken
        FROM etl.ledger AS l JOIN newest ON newest.run_id = l.run_id GROUP BY l.run_id
    )
    SELECT n.pipeline, extract(epoch FROM n.started_at), extract(epoch FROM p.at),
        extract(epoch FROM coalesce(n.shown_at, n.published_at, clock_timestamp()) - n.started_at),
        (n.status = 'failed')::int, (n.status = 'running')::int, coalesce(pending.runs, 0),
        coalesce(l.all_lines, 0), coalesce(l.open_lines, 0), coalesce(l.taken, 0)
    FROM newest AS n
    LEFT JOIN published AS p ON p.pipeline = n.pipeline
    LEFT JOIN pending ON pending.pipeline = n.pipeline
    LEFT JOIN lines AS l ON l.run_id = n.run_id
    ORDER BY n.pipeline
"""
METRICS = {
    "pipeline_last_started_timestamp_seconds": "When the newest run began.",
    "pipeline_last_published_timestamp_seconds": "When the newest published run was published.",
    "pipeline_last_run_seconds": "How long the newest run took, or has taken up to now.",
    "pipeline_last_run_failed": "1 when the newest run failed.",
    "pipeline_running": "1 while a run is open.",
    "pipeline_runs_not_shown": "Runs that PostgreSQL shows and some target does not yet.",
    "pipeline_ledger_lines": "Lines of the newest run's ledger.",
    "pipeline_ledger_open_lines": "Lines of it that do not close.",
    "pipeline_rows_taken": "Rows that the newest run took from its sources.",
}
# Of each pipeline's newest run: why it failed, or why a target does not show it.
FAILURES = """
    SELECT DISTINCT ON (pipeline) pipeline, failure ->> 'task', failure ->> 'table', failure ->> 'rule',
        left(failure ->> 'message', 300), left(failure ->> 'remedy', 300), failure IS NOT NULL
    FROM etl.run_state ORDER BY pipeline, started_at DESC
"""
REFUSED = "SELECT count(*) FROM etl.refused_run"
WHY = ("pipeline", "task", "table", "rule", "message", "remedy")


class RunMetrics(Collector):
    """The metrics of runs.

    Args:
        settings: Where the warehouse is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """None beforehand: to be registered must not need the warehouse."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Asks the warehouse; when it does not answer, only that."""
        try:
            with self._lock:
                rows, failures, refused = self._ask(RUNS), self._ask(FAILURES), self._ask(REFUSED)
        except psycopg.Error as error:
            log.warning("the warehouse does not answer: %s", str(error).splitlines()[0])
            yield GaugeMetricFamily("pipeline_warehouse_up", "1 while the warehouse answers.", 0)
            return
        yield GaugeMetricFamily("pipeline_warehouse_up", "1 while the warehouse answers.", 1)
        for number, (name, said) in enumerate(METRICS.items(), start=1):
            family = GaugeMetricFamily(name, said, labels=["pipeline"])
            for row in rows:
                if row[number] is not None:  # a pipeline that was never published has no such time
                    family.add_metric([row[0]], float(row[number]))
            yield family

        why = GaugeMetricFamily(
            "pipeline_last_run_failure",
            "1 when the newest run failed, with the reason in its labels.",
            labels=WHY,
        )
        for *labels, failed in failures:
            why.add_metric([label or "" for label in labels], int(failed))
        yield why
        yield GaugeMetricFamily(
            "pipeline_runs_refused", "DAG runs that pipeline-info refused.", refused[0][0]
        )

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        s = self._settings
        try:
            if self._connection is None:
                self._connection = psycopg.connect(
                    host=s.postgres_host,
                    port=s.postgres_port,
                    user=s.dwh_reader_user,
                    password=s.dwh_reader_password,
                    dbname=s.dwh_db,
                    connect_timeout=3,
                    options="-c statement_timeout=8000",
                    autocommit=True,
                )
            return self._connection.execute(query).fetchall()
        except psycopg.Error:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(psycopg.Error):
                    connection.close()
            raise
