"""Airflow's finished DAG runs to the pipeline-info service."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
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

from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.lake import Lake
from tallyhouse.ledger import ROWS, Hop, Line, store
from tallyhouse_airflow.hooks.airflow_api import AirflowApiHook
from tallyhouse_airflow.hooks.failures import SERVER_ERRORS, find_connection, one_line_errors, refused
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.hooks.run_conf import check_conf

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

LOCAL_ZONE = ZoneInfo("Europe/Kyiv")
POSITION = "monitor_pipelines"
OVERLAP = timedelta(minutes=10)
# A run brings its ledger, some tens of kilobytes; the service takes 16 MiB at once.
BATCH = 100
REASON = 500
"""Characters of what the service said that are kept."""
# What refuses the account or the address refuses every run: nothing of it is about a run.
NOT_OF_A_RUN = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
)
LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
# The service takes keys of printable ASCII signs up to this length.
KEY = re.compile(r"[!-~]{1,255}")
Item = tuple[dict[str, Any], dict[str, Any]]
"""A DAG run as Airflow describes it, and its record."""


@dataclass
class Posted:
    """What became of runs: how many the service stored, and which it refused, with status and reason."""

    created: int = 0
    refused: list[tuple[dict[str, Any], int, str]] = field(default_factory=list)


class AirflowToPipelineInfoOperator(BaseOperator):
    """Posts every DAG run that finished since the last position, each exactly once.

    Runs are posted many at once, with their ledgers. The position is kept in the warehouse and moves after
    each post. A run that is posted again, since the task died between the post and the move, carries the
    same idempotency key, so the service keeps one record. While the service is down the position stays,
    and the next start catches up, however many days it was. A run that the service refuses is set aside in
    `etl.refused_run`, and the later ones are posted.

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

    def execute(self, context: Context) -> dict[str, int]:
        """Posts what is new.

        Returns:
            How many runs were `posted`, and how many were `refused` and set aside.
        """
        posted = refused = 0
        with one_line_errors(POSITION):
            check_conf(context)
        with (
            one_line_errors(POSITION),
            CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id).connect() as connection,
        ):
            conn = find_connection(self.pipeline_info_conn_id)
            url = f"{conn.schema or 'http'}://{conn.host}:{conn.port}/pipelines/bulk"
            headers = {"X-API-Key": conn.password} if conn.password else {}
            position = _position(connection)
            # A run's end may be older than its commit; what is read twice is known by its key.
            since = position - OVERLAP if position else None
            airflow = AirflowApiHook(http_conn_id=self.airflow_conn_id)
            links = _Links(airflow, LakeHook(aws_conn_id=self.lake_conn_id))
            for runs in batched(airflow.finished_runs(since), BATCH):
                records = [self._record(connection, links, run) for run in runs]
                found = self._post(url, headers, list(zip(runs, records, strict=True)))
                _set_aside(connection, runs, found)
                _move(connection, datetime.fromisoformat(runs[-1]["end_date"]))
                posted += found.created
                refused += len(found.refused)
                for run, status, reason in found.refused:
                    self.log.error(
                        "pipeline-info refused %s %s with %s: %s. It is set aside in etl.refused_run",
                        *(run["dag_id"], run["dag_run_id"], status, reason),
                    )
        self.log.info("%s runs posted, %s refused", posted, refused)
        return {"posted": posted, "refused": refused}

    def _post(self, url: str, headers: dict[str, str], batch: list[Item]) -> Posted:
        """Posts runs.

        Raises:
            TallyhouseError: The service does not answer, or does not let us in; the position must not move.
        """
        items = [{"run": record, "idempotency_key": idempotency_key(run)} for run, record in batch]
        try:
            answer = requests.post(url, json={"items": items}, headers=headers, timeout=60)
        except requests.RequestException as error:
            raise refused(self.pipeline_info_conn_id, error) from error
        if not answer.ok:
            said = answer.text[:REASON]
            if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status_code in NOT_OF_A_RUN:
                raise _not_now(len(items), answer.status_code, said)
            if len(batch) == 1:
                return Posted(refused=[(batch[0][0], answer.status_code, said)])
            # It refused all of them for the sake of some: which ones, halves tell.
            half = len(batch) // 2
            parts = [self._post(url, headers, part) for part in (batch[:half], batch[half:])]
            return Posted(
                sum(part.created for part in parts), [one for part in parts for one in part.refused]
            )
        found = Posted()
        for item in answer.json()["items"]:
            run = batch[item["index"]][0]
            if item["result"] == "conflict":
                # Posted before, and what we know of it has changed since, as when its task was cleared.
                self.log.warning("%s %s is posted already, as it was then", run["dag_id"], run["dag_run_id"])
            elif item["result"] == "invalid":
                if item["status"] in NOT_OF_A_RUN:
                    raise _not_now(1, item["status"], str(item["errors"])[:REASON])
                found.refused.append((run, item["status"], str(item["errors"])[:REASON]))
            else:
                found.created += item["result"] == "created"
        return found

    def _record(
        self, connection: psycopg.Connection[Any], links: _Links, run: dict[str, Any]
    ) -> dict[str, Any]:
        end = datetime.fromisoformat(run["end_date"])
        start = datetime.fromisoformat(run["start_date"] or run["end_date"])
        with connection.transaction():
            ours = connection.execute(
                "SELECT run_id, status, started_at, shown_at, pipeline, failure FROM etl.run_state "
                "WHERE dag_id = %s AND dag_run_id = %s ORDER BY started_at DESC LIMIT 1",
                (run["dag_id"], run["dag_run_id"]),
            ).fetchone()
            lines = store.read(connection, ours[0]) if ours else []
        if ours and run["start_date"] == run["logical_date"]:
            start = ours[2]  # `airflow dags test` records the logical date as the start
        rows = {
            str(hop): int(sum(line.left for line in lines if line.hop == hop and line.measure == ROWS))
            for hop in dict.fromkeys((*Hop, *(line.hop for line in lines)))
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
                "failure": ours[5] if ours else None,
                "rows": rows if ours else None,
                "ledger_closed": bool(ours and ours[3]) and all(line.closed for line in lines),
                "ledger": [_line(line) for line in lines],
                "links": links.of(run, run_id=ours[0] if ours else None, pipeline=ours[4] if ours else None),
            },
        }


def idempotency_key(run: dict[str, Any]) -> str:
    """The key under which the service knows a DAG run.

    Airflow permits ids of 250 signs, and letters of any alphabet in those of DAGs; where they do not fit
    into a key their hash stands for them.
    """
    key = f"airflow/{run['dag_id']}/{run['dag_run_id']}/{run['end_date']}"
    if KEY.fullmatch(key):
        return key
    return f"airflow/sha256/{hashlib.sha256(key.encode()).hexdigest()}"


def _not_now(runs: int, status: int, said: str) -> TallyhouseError:
    return TallyhouseError(
        f"pipeline-info refused {runs} runs with {status}: {said}",
        remedy="The position has not moved; check the service and the key of its connection, and the next "
        "start posts them",
        transient=status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in LATER,
    )


def _set_aside(connection: psycopg.Connection[Any], runs: Sequence[dict[str, Any]], found: Posted) -> None:
    """Keeps the refused ones of the runs that were posted; of those that are stored now nothing is kept."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            "DELETE FROM etl.refused_run WHERE dag_id = %s AND dag_run_id = %s",
            [(run["dag_id"], run["dag_run_id"]) for run in runs],
        )
        cursor.executemany(
            "INSERT INTO etl.refused_run (dag_id, dag_run_id, ended_at, status, reason) "
            "VALUES (%s, %s, %s, %s, %s)",
            [
                (run["dag_id"], run["dag_run_id"], run["end_date"], status, reason)
                for run, status, reason in found.refused
            ],
        )


class _Links:
    """Where to look when a run is looked at: log, Data Docs, lake. Airflow's own page the service knows.

    A server that does not answer costs its link, not the record.
    """

    def __init__(self, airflow: AirflowApiHook, lake: LakeHook) -> None:
        self._airflow, self._lake_hook = airflow, lake
        self._lake: Lake | None = None
        self._gone = False

    def of(self, run: dict[str, Any], *, run_id: str | None, pipeline: str | None) -> dict[str, str]:
        """The links of a run, by name."""
        found: dict[str, str] = {}
        task = self._airflow.told_by(run["dag_id"], run["dag_run_id"])
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
            report = f"report/{pipeline}/run={run_id}"
            try:
                if self._lake is None:
                    self._lake = self._lake_hook.get_lake()
                if f"{report}/quality.json" in self._lake.keys(report):
                    found["Data Docs"] = str(self._lake.read_json(f"{report}/quality.json")["data_docs_url"])
                if console := self._lake_hook.console(f"{report}/"):
                    found["lake"] = console
            except (TallyhouseError, *SERVER_ERRORS, KeyError) as error:
                log.warning("no links into the lake: %s", first_line(error))
                self._gone = True
        return found


def _line(line: Line) -> dict[str, Any]:
    """A line of the ledger for the service; numbers as text, since JSON's are not exact."""
    return {
        "table": line.table,
        "hop": str(line.hop),
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
