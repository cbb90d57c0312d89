"""The one list of Airflow's connections, filled from the settings."""

from pathlib import Path

import pytest
import yaml

from scripts.stack.context import Stack, StackError, render_connections
from tallyhouse.contracts import load_source
from tallyhouse.contracts.load import OVERLAYS
from tallyhouse.settings import ROOT

TEMPLATE = ROOT / "config" / "connections.yaml"
IDS = {
    *("mysql_auth", "mysql_catalog", "mysql_orders", "mysql_payments", "pg_pancake", "pg_dwh"),
    "pg_rebuild",
    *(
        "s3_lake",
        "s3_events",
        "clickhouse_dwh",
        "duckdb_dwh",
        "spark_default",
        "pipeline_info",
        "airflow_api",
    ),
    *("kaggle", "kaggle_data"),
}


@pytest.fixture
def values() -> dict[str, str]:
    return Stack().settings.environment() | {"AIRFLOW_ADMIN_PASSWORD": "secret"}


def test_every_connection_is_filled(values: dict[str, str]) -> None:
    text = render_connections(TEMPLATE, values)
    found = yaml.safe_load(text)
    assert set(found) == IDS | {load_source(path.stem).conn_id for path in OVERLAYS.glob("*.yaml")}
    assert "${" not in text
    for name, connection in found.items():
        assert connection["conn_type"], name
        assert isinstance(connection.get("port", 0), int), name


def test_extraction_uses_the_account_of_least_privilege(values: dict[str, str]) -> None:
    found = yaml.safe_load(render_connections(TEMPLATE, values))
    for name in IDS:
        if name.startswith("mysql_") or name == "pg_pancake":
            assert found[name]["login"] == values["ETL_READER_USER"], name


def test_a_password_full_of_signs_stays_one_value(values: dict[str, str]) -> None:
    odd = "a: 'b' #{c} \"d\" %$"
    found = yaml.safe_load(render_connections(TEMPLATE, values | {"DWH_PASSWORD": odd}))
    assert found["pg_dwh"]["password"] == odd


def test_an_unknown_placeholder_is_named(tmp_path: Path, values: dict[str, str]) -> None:
    template = tmp_path / "connections.yaml"
    template.write_text("one: {conn_type: http, host: '${NOWHERE_HOST}'}\n")
    with pytest.raises(StackError, match=r"no setting is called NOWHERE_HOST; add it to config/stack\.env"):
        render_connections(template, values)


@pytest.mark.integration
def test_what_holds_secrets_is_its_owners_alone() -> None:
    stack = Stack()
    for file in (stack.connections_file, stack.run / "env.sh", stack.local / "secrets.json"):
        assert file.stat().st_mode & 0o077 == 0, f"{file} can be read by others"
