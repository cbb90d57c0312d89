"""Asks a running platform whether it is well, and sends one event through ingest.

    python3 ci/smoke_test.py                  ingest, pancake, kaggle-data-api, pipeline-info
    python3 ci/smoke_test.py ingest           only that
    python3 ci/smoke_test.py --all            what stands behind them as well: ClickHouse, Prometheus, Airflow

Natively and on Compose alike: the addresses are those of the environment, by the keys of config/stack.env,
else the usual ports of 127.0.0.1. Needs nothing but Python.
"""

import argparse
import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

PATIENCE = float(os.environ.get("SMOKE_SECONDS", "60"))
METRICS = (
    *("fastapi_request_duration_seconds", "fastapi_error_total", "wotr_ingest_total"),
    *("postgres_status", "clickhouse_status", "kafka_status", "minio_status"),
)


class SmokeError(Exception):
    """What is not as it should be, in one line."""


def address(key: str, port: int, port_key: str = "") -> str:
    """Where a server is."""
    host = os.environ.get(f"{key}_HOST", "127.0.0.1")
    return f"http://{host}:{os.environ.get(port_key or f'{key}_PORT', port)}"


def ask(url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Asks a server.

    Returns:
        Status and text of the answer.

    Raises:
        SmokeError: It does not answer.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} | (headers or {}))  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http, from the settings
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        raise SmokeError(f"{url}: does not answer ({error})") from error


def well(url: str, holds: str = "", headers: dict[str, str] | None = None) -> str:
    """Expects 200, and a word in the text.

    Raises:
        SmokeError: The answer is another one.
    """
    status, text = ask(url, headers=headers)
    if status != 200 or holds not in text:
        raise SmokeError(f"{url}: {status}, expected 200 with {holds!r}: {text[:200]}")
    return text


def ingest() -> None:
    """Health, one event taken in, one refused, and the metrics that the dashboards draw."""
    url = address("INGEST", 8000)
    well(f"{url}/health")
    event = {"payload": {"example": "smoke", "at": time.time_ns()}}
    status, text = ask(f"{url}/ingest", event)
    if status not in (200, 201, 202) or not json.loads(text).get("id"):
        raise SmokeError(f"{url}/ingest: {status}: {text[:200]}")
    status, text = ask(f"{url}/ingest", {"payload": "not an object"})
    if status != 422:
        raise SmokeError(f"{url}/ingest took what is no event: {status}: {text[:200]}")
    exposed = well(f"{url}/metrics")
    if missing := [name for name in METRICS if name not in exposed]:
        raise SmokeError(f"{url}/metrics: lacks {', '.join(missing)}")


def pancake() -> None:
    """Health in the words of its document, its page, and its list."""
    url = address("PANCAKE", 8001)
    if json.loads(well(f"{url}/health")) != {"status": "healthy", "service": "pancake-backend"}:
        raise SmokeError(f"{url}/health: not in the words of its document")
    well(f"{url}/", "<html")
    json.loads(well(f"{url}/api/pancakes"))


def kaggle_data_api() -> None:
    """Health in the words of its document, its list, its metrics."""
    url = address("KAGGLE_DATA", 3000)
    if json.loads(well(f"{url}/health"))["status"] != "healthy":
        raise SmokeError(f"{url}/health: not in the words of its document")
    if not isinstance(json.loads(well(f"{url}/datasets"))["datasets"], list):
        raise SmokeError(f"{url}/datasets: no list of datasets")
    well(f"{url}/metrics", "http_request_duration_seconds")


def pipeline_info() -> None:
    """Health and metrics."""
    url = address("PIPELINE_INFO", 8002)
    well(f"{url}/health")
    well(f"{url}/metrics", "http_request_duration_seconds")


def clickhouse() -> None:
    """Events that were taken in have arrived."""
    url = address("CLICKHOUSE", 8123, "CLICKHOUSE_HTTP_PORT")
    database = os.environ.get("EVENTS_CLICKHOUSE_DB", "wotr")
    # As a parameter, for bodies are SQL, not JSON.
    query = f"SELECT%20count()%20FROM%20{database}.ingested_data"
    login = {
        "X-ClickHouse-User": os.environ.get("CLICKHOUSE_USER", "default"),
        "X-ClickHouse-Key": os.environ.get("CLICKHOUSE_PASSWORD", ""),
    }
    if int(well(f"{url}/?query={query}", headers=login)) == 0:
        raise SmokeError(f"{url}: no event has arrived")


def prometheus() -> None:
    """Prometheus reaches what it scrapes, and answers nobody without its login."""
    url = address("PROMETHEUS", 9090)
    query = f"{url}/api/v1/query?query=up%3D%3D0"
    status, _ = ask(query)
    if status != 401:
        raise SmokeError(f"{url}: {status} without a login, expected 401")
    user, password = (os.environ.get(f"PROMETHEUS_{key}", "") for key in ("USER", "PASSWORD"))
    login = base64.b64encode(f"{user or 'prometheus'}:{password}".encode()).decode()
    down = json.loads(well(query, headers={"Authorization": f"Basic {login}"}))["data"]["result"]
    if down:
        raise SmokeError(f"{url}: does not reach {', '.join(one['metric']['job'] for one in down)}")


def airflow() -> None:
    """Airflow's own monitor."""
    url = address("AIRFLOW", 8080)
    health = json.loads(well(f"{url}/api/v2/monitor/health"))
    ill = [part for part in ("metadatabase", "scheduler") if health[part]["status"] != "healthy"]
    if ill:
        raise SmokeError(f"{url}: {', '.join(ill)} not healthy")


SERVICES: dict[str, Callable[[], None]] = {
    "ingest": ingest,
    "pancake": pancake,
    "kaggle-data-api": kaggle_data_api,
    "pipeline-info": pipeline_info,
}
BEHIND: dict[str, Callable[[], None]] = {
    "clickhouse": clickhouse,
    "prometheus": prometheus,
    "airflow": airflow,
}


def main() -> int:
    """Asks each, again for a while when it is not well: it may still be starting.

    Returns:
        0 when all are well.
    """
    every = SERVICES | BEHIND
    parser = argparse.ArgumentParser(description="Is a running platform well?")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(every)}")
    parser.add_argument("--all", action="store_true", help="all of them")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(every)):
        parser.error(f"no check is called {', '.join(unknown)}; there are {', '.join(every)}")
    failed = 0
    deadline = time.monotonic() + PATIENCE
    for name in args.names or (every if args.all else SERVICES):
        while True:
            try:
                every[name]()
                print(f"ok      {name}")
                break
            except (SmokeError, ValueError, KeyError) as error:
                if time.monotonic() > deadline:
                    print(f"FAILED  {name}: {error}")
                    failed += 1
                    break
                time.sleep(2)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
