"""Every shape of tests/source, taken from either engine: names, keys and types out of the ordinary."""

from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tallyhouse.contracts import SourceContract, TableContract
from tallyhouse.contracts.load import OVERLAYS, REPOSITORY, read_source
from tallyhouse.extract import mysql as source
from tallyhouse.extract.preflight import check_columns
from tallyhouse.extract.to_raw import write_batch
from tallyhouse.lake import Lake
from tallyhouse.servers import MySqlServer
from tallyhouse.source.mysql import read
from tallyhouse.source.plan import make

pytestmark = pytest.mark.integration

SHAPES = REPOSITORY / "tests" / "source" / "mysql.sql"


def contract_of(server: MySqlServer) -> SourceContract:
    """The contract that `make source` would write."""
    with closing(server.connect()) as connection:
        plan = make("probe", connection, read(connection), "mysql_probe", [])
    overlay = yaml.safe_load(plan.files[OVERLAYS / "probe.yaml"])
    return read_source("probe", overlay, plan.files[REPOSITORY / "docs" / "db" / "probe_mysql.dbml"])


def rows(server: MySqlServer, table: TableContract, lake: Lake, run_id: str) -> list[dict]:
    """What raw holds of a table; its count and digest were compared with the source's."""
    manifest = write_batch(
        source.open_stream(server, table, None), lake, table, run_id=run_id, attempt=1, watermark=None
    )
    keys = [part.key for part in manifest.parts]
    return [row for batch in lake.read_batches(keys) for row in batch.to_pylist()]


def test_every_shape_is_taken_and_keys_are_what_the_collation_says(mysql_scratch, tmp_path: Path) -> None:
    mysql_scratch.create(SHAPES.read_text(encoding="utf-8"))
    mysql_scratch.cursor.execute("CREATE TABLE nothing (`if` INT, UNIQUE KEY (`if`))")
    server = mysql_scratch.server
    contract, lake = contract_of(server), Lake.local(str(tmp_path))
    with closing(server.connect()) as connection:
        for table in contract.tables:
            check_columns(connection, "mysql", table)
    taken = {table.in_source: rows(server, table, lake, "r1") for table in contract.tables}
    assert taken["nothing"] == []
    assert [row["a_b_c_d_s"] for row in taken["order-items"]] == [7, None]
    # The same row twice is two rows, each with a number of its own.
    lines = taken["log_lines"]
    assert len(lines) == 5
    assert len({(row["_row"], row["_copy"]) for row in lines}) == 5
    assert sorted(row["_copy"] for row in lines if row["line"] == "twice") == [1, 2]

    coupons = next(table for table in contract.tables if table.in_source == "coupons")
    assert coupons.key == ("_key_code", "_key_region")
    before = {tuple(row[name] for name in coupons.key) for row in taken["coupons"]}
    assert len(before) == 3
    mysql_scratch.cursor.execute("UPDATE coupons SET code = 'spring', region = 'UA' WHERE code = 'SPRING'")
    mysql_scratch.cursor.execute("UPDATE coupons SET code = 'ete' WHERE code = 'été'")
    after = rows(server, coupons, lake, "r2")
    assert {row["code"] for row in after} == {"spring", "ete", "autumn"}
    assert {tuple(row[name] for name in coupons.key) for row in after} == before
