"""The dashboards' assets: whole in themselves, and their data sets are what the databases have."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import psycopg
import pytest
import yaml
from clickhouse_connect.driver.client import Client

from tallyhouse.settings import ROOT, Settings

FOLDER = ROOT / "dashboards/superset"


def load(kind: str) -> dict[Path, dict[str, Any]]:
    return {path: yaml.safe_load(path.read_text()) for path in sorted((FOLDER / kind).rglob("*.yaml"))}


def charts_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        item["meta"]
        for item in dashboard["position"].values()
        if isinstance(item, dict) and item["type"] == "CHART"
    ]


DATABASES = {item["uuid"]: item for item in load("databases").values()}
DATASETS = {item["uuid"]: item for item in load("datasets").values()}
CHARTS = {item["uuid"]: item for item in load("charts").values()}
DASHBOARDS = {item["slug"]: item for item in load("dashboards").values()}


def test_the_dashboards_that_were_promised():
    assert set(DASHBOARDS) == {"sales", "customers", "payments", "pancakes", "events", "runs"}


def test_everything_named_is_there_and_used():
    assert {item["database_uuid"] for item in DATASETS.values()} == set(DATABASES)
    assert {item["dataset_uuid"] for item in CHARTS.values()} == set(DATASETS)
    shown = [meta for dashboard in DASHBOARDS.values() for meta in charts_of(dashboard)]
    assert sorted(meta["uuid"] for meta in shown) == sorted(CHARTS)
    assert all(meta["sliceName"] == CHARTS[meta["uuid"]]["slice_name"] for meta in shown)


def test_uuids_and_slugs_are_unique():
    every = [
        item["uuid"]
        for kind in ("databases", "datasets", "charts", "dashboards")
        for item in load(kind).values()
    ]
    assert len(every) == len(set(every))
    assert len(DASHBOARDS) == len(load("dashboards"))


def test_no_password_is_in_them():
    for database in DATABASES.values():
        assert ":XXXXXXXXXX@$" in database["sqlalchemy_uri"]
        assert not (database["allow_dml"] or database["allow_ctas"] or database["allow_cvas"])


@pytest.mark.parametrize("slug", DASHBOARDS)
def test_rows_fit_the_grid_and_filters_name_columns_that_there_are(slug: str):
    dashboard = DASHBOARDS[slug]
    position = dashboard["position"]
    for row in position["GRID_ID"]["children"]:
        assert sum(position[child]["meta"]["width"] for child in position[row]["children"]) <= 12
    for item in dashboard["metadata"]["native_filter_configuration"]:
        for target in filter(None, item["targets"]):
            dataset = DATASETS[target["datasetUuid"]]
            assert target["column"]["name"] in {column["column_name"] for column in dataset["columns"]}


@pytest.mark.parametrize("uuid", CHARTS, ids=lambda uuid: CHARTS[uuid]["slice_name"])
def test_charts_ask_for_what_their_data_set_has(uuid: str):
    chart, dataset = CHARTS[uuid], DATASETS[CHARTS[uuid]["dataset_uuid"]]
    params = chart["params"]
    assert params["viz_type"] == chart["viz_type"]
    columns = {column["column_name"] for column in dataset["columns"]}
    metrics = {metric["metric_name"] for metric in dataset["metrics"]}
    asked = params.get("groupby") or []
    asked = {asked} if isinstance(asked, str) else set(asked)
    asked |= {params["x_axis"]} if "x_axis" in params else set()
    asked |= set(params.get("all_columns", []))
    assert asked <= columns
    wanted = set(params.get("metrics", [])) | ({params["metric"]} if "metric" in params else set())
    assert wanted <= metrics


@pytest.fixture(scope="module")
def warehouse(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=settings.dwh_reader_user,
        password=settings.dwh_reader_password,
        dbname=settings.dwh_db,
        autocommit=True,
    ) as connection:
        yield connection


@pytest.fixture(scope="module")
def clickhouse_of_the_stack(settings: Settings) -> Iterator[Client]:
    with clickhouse_connect.get_client(
        host=settings.clickhouse_host,
        port=settings.clickhouse_http_port,
        username=settings.clickhouse_user,
        password=settings.clickhouse_password,
    ) as client:
        yield client


@pytest.mark.integration
@pytest.mark.parametrize("uuid", DATASETS, ids=lambda uuid: DATASETS[uuid]["table_name"])
def test_data_sets_are_what_the_database_has(
    uuid: str, warehouse: psycopg.Connection, clickhouse_of_the_stack: Client
):
    """With the rights of who asks, all of its metrics over no rows, so that it costs nothing."""
    dataset = DATASETS[uuid]
    source = f"({dataset['sql']}) AS s" if dataset["sql"] else f"{dataset['schema']}.{dataset['table_name']}"
    columns = ", ".join(column["column_name"] for column in dataset["columns"])
    metrics = ", ".join(f"{metric['expression']} AS m{n}" for n, metric in enumerate(dataset["metrics"]))
    for query in (
        f"SELECT {columns} FROM {source} LIMIT 0",
        f"SELECT {metrics} FROM {source} WHERE 1 = 0",
    ):
        if DATABASES[dataset["database_uuid"]]["database_name"] == "Warehouse":
            warehouse.execute(query)
        else:
            clickhouse_of_the_stack.query(query)
