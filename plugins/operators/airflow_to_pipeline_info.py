"""Airflow's finished DAG runs to the pipeline-info service."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from itertools import batched
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import psycopg
import requests
from airflow.configuration import conf
from airflow.sdk import BaseOperator

from hooks.airflow_api import AirflowApiHook
from hooks.failures import SERVER_ERRORS, find_connection, one_line_errors, refused
from hooks.lake import LakeHook
from hooks.postgres import CheckedPostgresHook
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.lake import Lake
from tallyhouse.ledger import ROWS, Hop, Line, store

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

LOCAL_ZONE = ZoneInfo("Europe/Kyiv")
POSITION = "monitor_pipelines"
OVERLAP = timedelta(minutes=10)
# A run brings its ledger, some tens of kilobytes; the service takes 16 MiB at once.
BATCH = 100
REMEDY = "The position has not moved; mend it and the next start posts it"


class AirflowToPipelineInfoOperator(BaseOperator):
    """Posts every DAG run that finished since the last position, each exactly once.

    Runs are posted many at once, with their ledgers. The position is kept in the warehouse and moves after
    each post. A run that is posted again, since the task died between the post and the move, carries the
    same idempotency key, so the service keeps one record. While the service is down the position stays,
    and the next start catches up, however many days it was.

    :param environment: name of this installation in the records (templated)
    :param pipeline_info_conn_id: connection of the service
    :param airflow_conn_id: connection of Airflow's API
    :param dwh_conn_id: connection of the warehouse
    :param lake_conn_id: connection of the lake, for links to what a run left there
    """

    template_fields: Sequence[str] = ("environment",)
    ui_color = "#eeeeee"

    def __init__(
        self,
        *,
        environment: str = "dev",
        pipeline_info_conn_id: str = "pipeline_info",
        airflow_conn_id: str = "airflow_api",
        dwh_conn_id: str = "pg_dwh",
        lake_conn_id: str = "s3_lake",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.environment = environment
        self.pipeline_info_conn_id = pipeline_info_conn_id
        self.airflow_conn_id = airflow_conn_id
        self.dwh_conn_id = dwh_conn_id
        self.lake_conn_id = lake_conn_id

    def execute(self, context: Context) -> int:
        """Posts what is new.

        Returns:
            How many runs were posted.
        """
        where = "monitor_pipelines"
        posted = 0
        with (
            one_line_errors(where),
            CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id).connect(where) as connection,
        ):
            conn = find_connection(self.pipeline_info_conn_id, where)
            url = f"{conn.schema or 'http'}://{conn.host}:{conn.port}/pipelines/bulk"
            headers = {"X-API-Key": conn.password} if conn.password else {}
            position = _position(connection)
            # A run's end may be older than its commit; what is read twice is known by its key.
            since = position - OVERLAP if position else None
            airflow = AirflowApiHook(http_conn_id=self.airflow_conn_id)
            links = _Links(airflow, LakeHook(aws_conn_id=self.lake_conn_id), where)
            for runs in batched(airflow.finished_runs(since, where), BATCH):
                records = [self._record(connection, links, run) for run in runs]
                posted += self._post(url, headers, list(zip(runs, records, strict=True)), where)
                _move(connection, datetime.fromisoformat(runs[-1]["end_date"]))
        self.log.info("%s runs posted", posted)
        return posted

    def _post(
        self,
        url: str,
        headers: dict[str, str],
        batch: list[tuple[dict[str, Any], dict[str, Any]]],
        where: str,
    ) -> int:
        """Posts runs; how many of them the service did not know yet.

        Raises:
            TallyhouseError: Not every one of them is stored now; the position must not move.
        """
        items = [
            {
                "run": record,
                "idempotency_key": f"airflow/{run['dag_id']}/{run['dag_run_id']}/{run['end_date']}",
            }
            for run, record in batch
        ]
        try:
            answer = requests.post(url, json={"items": items}, headers=headers, timeout=60)
        except requests.RequestException as error:
            raise refused(self.pipeline_info_conn_id, where, error) from error
        if not answer.ok:
            raise TallyhouseError(
                f"pipeline-info refused {len(items)} runs with {answer.status_code}: {answer.text[:200]}",
                where=where,
                remedy=REMEDY,
                transient=answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR,
            )
        results = answer.json()["items"]
        for item in results:
            if item["result"] == "conflict":
                # Posted before, and what we know of it has changed since, as when its task was cleared.
                key = items[item["index"]]["idempotency_key"]
                self.log.warning("%s is posted already, as it was then", key)
        bad = [item for item in results if item["result"] == "invalid"]
        if bad:
            run, why = batch[bad[0]["index"]][0], bad[0]["errors"]
            raise TallyhouseError(
                f"pipeline-info refused {run['dag_id']} {run['dag_run_id']} ({len(bad)} runs in all) with "
                f"{bad[0]['status']}: {str(why)[:200]}",
                where=where,
                remedy=REMEDY,
            )
        return sum(item["result"] == "created" for item in results)

    def _record(
        self, connection: psycopg.Connection[Any], links: _Links, run: dict[str, Any]
    ) -> dict[str, Any]:
        end = datetime.fromisoformat(run["end_date"])
        start = datetime.fromisoformat(run["start_date"] or run["end_date"])
        with connection.transaction():
            ours = connection.execute(
                "SELECT run_id, status, started_at, clickhouse_at, subject FROM etl.run "
                "WHERE dag_id = %s AND dag_run_id = %s ORDER BY started_at DESC LIMIT 1",
                (run["dag_id"], run["dag_run_id"]),
            ).fetchone()
            lines = store.read(connection, ours[0]) if ours else []
        if ours and run["start_date"] == run["logical_date"]:
            start = ours[2]  # `airflow dags test` records the logical date as the start
        rows = {
            hop.value: int(sum(line.left for line in lines if line.hop is hop and line.measure == ROWS))
            for hop in Hop
        }
        return {
            "pipeline_name": run["dag_id"],
            "pipeline_type": "etl" if ours else "monitoring",
            "environment": self.environment,
            "date_code": datetime.fromisoformat(run["logical_date"] or run["end_date"])
            .astimezone(LOCAL_ZONE)
            .strftime("%Y%m%d"),
            "start_utc": start.isoformat(),
            "end_utc": end.isoformat(),
            "start_local": start.astimezone(LOCAL_ZONE).isoformat(),
            "end_local": end.astimezone(LOCAL_ZONE).isoformat(),
            "elapsed_seconds": (end - start).total_seconds(),
            "rowcount": rows[Hop.SOURCE_RAW] if ours else None,
            "extra": {
                "state": run["state"],
                "dag_run_id": run["dag_run_id"],
                "run_id": ours[0] if ours else None,
                "run_status": ours[1] if ours else None,
                "rows": rows if ours else None,
                "ledger_closed": bool(ours and ours[3]) and all(line.closed for line in lines),
                "ledger": [_line(line) for line in lines],
                "links": links.of(run, run_id=ours[0] if ours else None, subject=ours[4] if ours else None),
            },
        }


class _Links:
    """Where to look when a run is looked at: log, Data Docs, lake. Airflow's own page the service knows.

    A server that does not answer costs its link, not the record.
    """

    def __init__(self, airflow: AirflowApiHook, lake: LakeHook, where: str) -> None:
        self._airflow, self._lake_hook, self._where = airflow, lake, where
        self._lake: Lake | None = None
        self._gone = False

    def of(self, run: dict[str, Any], *, run_id: str | None, subject: str | None) -> dict[str, str]:
        """The links of a run, by name."""
        found: dict[str, str] = {}
        task = self._airflow.told_by(run["dag_id"], run["dag_run_id"], self._where)
        if task is not None:
            page = "/".join(
                f"{kind}/{quote(name, safe='')}"
                for kind, name in (
                    ("dags", run["dag_id"]),
                    ("runs", run["dag_run_id"]),
                    ("tasks", task["task_id"]),
                )
            )
            found[f"log of {task['task_id']}"] = (
                f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/{page}"
            )
        if run_id is not None and not self._gone:
            report = f"report/{subject}/run={run_id}"
            try:
                if self._lake is None:
                    self._lake = self._lake_hook.get_lake(self._where)
                if f"{report}/quality.json" in self._lake.keys(report):
                    found["Data Docs"] = str(self._lake.read_json(f"{report}/quality.json")["data_docs_url"])
                if console := self._lake_hook.console(f"{report}/", self._where):
                    found["lake"] = console
            except (TallyhouseError, *SERVER_ERRORS, KeyError) as error:
                log.warning("no links into the lake: %s", first_line(error))
                self._gone = True
        return found


def _line(line: Line) -> dict[str, Any]:
    """A line of the ledger for the service; numbers as text, since JSON's are not exact."""
    return {
        "table": line.table,
        "hop": line.hop.value,
        "measure": line.measure,
        "left": str(line.left),
        "right": str(line.right),
        "parts": {name: str(value) for name, value in line.parts.items()},
    }


def _position(connection: psycopg.Connection[Any]) -> datetime | None:
    with connection.transaction():
        row = connection.execute("SELECT at FROM etl.position WHERE name = %s", (POSITION,)).fetchone()
    return row[0] if row else None


def _move(connection: psycopg.Connection[Any], at: datetime) -> None:
    # Runs that end at the same instant are read again and met by their idempotency keys.
    with connection.transaction():
        connection.execute(
            "INSERT INTO etl.position (name, at) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET at = greatest(position.at, excluded.at)",
            (POSITION, at),
        )
