"""The gate: what passes, what fails, what it says of it and what it keeps to itself."""

from pathlib import Path
from typing import Any

import pytest

from tallyhouse.contracts import TableContract, load_pipeline
from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake, committed_batches
from tallyhouse.quality import gate
from tallyhouse.quality.check import check
from tallyhouse.quality.report import unique_batches
from tallyhouse.quality.suites import read_suite
from tests.spark_jobs.raw_batches import pancakes, techmarket, write_pipeline


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("DATA_DOCS_URL", "http://127.0.0.1:8003/")
    return Lake.local(str(tmp_path))


def report(lake: Lake, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = lake.read_json(
        f"report/{run_id.split('-', maxsplit=1)[0]}/run={run_id}/quality.json"
    )
    return found


def text(lake: Lake, key: str) -> str:
    return Path(lake.path(key)).read_text("utf-8")


def assert_rows_are_named(lake: Lake, bad: str, found: dict[str, Any], rows: dict[str, Any]) -> None:
    """By their keys: in the report, on the run's first page, and on the page of the rule."""
    keys = {
        (table, one["column"]): one["rows"]
        for table, suite in found["suites"].items()
        for one in suite["failed"]
    }
    assert keys["orders.customers", "email"] == [f"id {rows['customers'][0]['id']}"]
    assert keys["orders.orders", "status"] == [f"id {rows['orders'][0]['id']}"]
    assert len(keys["auth.roles", "id, updated_at"]) == 2
    (item,) = keys["orders.order_items", "line_total = quantity * unit_price - discount"]
    assert item.startswith(f"id {rows['order_items'][0]['id']}, quantity ")
    index = text(lake, f"data-docs/techmarket/{bad}/index.html")
    assert f"id {rows['customers'][0]['id']}" in index
    for table, key in (("orders/customers", "customers"), ("orders/orders", "orders")):
        (page,) = (
            k for k in lake.keys(f"data-docs/techmarket/{bad}/validations/{table}") if k[-5:] == ".html"
        )
        assert rows[key][0]["id"] in text(lake, page), "the page of the rule names the row"


def test_a_pipeline(lake: Lake) -> None:
    """One run of every suite that passes, one that fails in every way there is."""
    rows = techmarket(30)
    rows["refunds"] = []
    good, bad = "techmarket-20260101T020000-0001", "techmarket-20260102T020000-0002"
    write_pipeline(lake, "techmarket", good, rows)
    check(lake, "techmarket", good)
    found = report(lake, good)
    assert found["success"]
    assert found["suites"]["orders.orders"] == {"success": True, "rows": 30, "failed": []}
    assert found["suites"]["payments.refunds"] == {"success": True, "rows": 0, "failed": []}
    assert found["data_docs_url"] == f"http://127.0.0.1:8003/techmarket/{good}/index.html"

    rows["orders"][0]["status"] = "lost"
    rows["order_items"][0]["line_total"] += 1
    rows["customers"][0]["email"] = "nobody's address"
    rows["products"][0]["name"] = None
    rows["payments"][0]["settled_at"] = rows["payments"][0]["attempted_at"].replace(year=2000)
    rows["roles"].append(dict(rows["roles"][0]))
    write_pipeline(lake, "techmarket", bad, rows)
    with pytest.raises(TallyhouseError) as raised:
        check(lake, "techmarket", bad)
    message = str(raised.value)
    assert message.startswith("auth.roles: expect_compound_columns_to_be_unique(id, updated_at)")
    assert "5 more expectations failed" in message
    assert "\n" not in message
    found = report(lake, bad)
    assert not found["success"]
    failed = {
        (table, one["expectation"], one["column"]): (one["unexpected"], one["sample"])
        for table, suite in found["suites"].items()
        for one in suite["failed"]
    }
    status = failed["orders.orders", "expect_column_values_to_be_in_set", "status"]
    assert status == (1, "lost")
    count, sample = failed[
        "orders.order_items", "unexpected_rows_expectation", "line_total = quantity * unit_price - discount"
    ]
    assert count == 1
    assert sample is not None
    assert f"id {rows['order_items'][0]['id']}" in sample
    email = failed["orders.customers", "expect_column_values_to_match_regex", "email"]
    assert email == (1, "(personal data)")
    assert_rows_are_named(lake, bad, found, rows)
    assert failed["catalog.products", "expect_column_values_to_not_be_null", "name"][0] == 1
    pair = "settled_at, attempted_at"
    assert failed["payments.payments", "expect_column_pair_values_a_to_be_greater_than_b", pair][0] == 1
    assert len(failed) == 6

    # Nothing personal anywhere, nothing of other people's servers in the pages, both runs listed.
    written = [key for key in lake.keys("") if key.endswith((".json", ".html")) and "/raw/" not in key]
    assert not [key for key in written if "nobody's address" in text(lake, key)]
    assert not [key for key in written if "nobody&#39;s" in text(lake, key)]
    pages = [key for key in lake.keys("data-docs") if key.endswith(".html")]
    assert len([key for key in pages if f"/{bad}/validations/" in key]) == 13
    for key in pages:
        for remote in ('src="http', '<link rel="stylesheet" href="http', "amazonaws"):
            assert remote not in text(lake, key), key
    index = text(lake, "data-docs/index.html")
    assert index.index(bad) < index.index(good)
    assert "failed: auth.roles, catalog.products" in index


def test_a_rule_of_the_other_pipeline(lake: Lake) -> None:
    run_id = "pancake-20260101T020000-0001"
    rows = pancakes(5)
    rows["pancakes"][0]["fluffiness_level"] = 11
    write_pipeline(lake, "pancake", run_id, rows)
    bad = rows["pancakes"][0]["id"]
    said = rf"between\(fluffiness_level\) failed in 1 rows, such as 11 \(id {bad}\)\."
    with pytest.raises(TallyhouseError, match=said) as raised:
        check(lake, "pancake", run_id)
    assert raised.value.failure("check") == {
        "task": "check",
        "table": "pancake.pancakes",
        "rule": "expect_column_values_to_be_between(fluffiness_level)",
        "count": 1,
        "sample": [f"id {bad}"],
        "message": f"pancake.pancakes: {raised.value.what}",
        "remedy": raised.value.remedy,
    }


def test_what_is_proved_of_keys(lake: Lake) -> None:
    """A key that stands twice is not proved to stand once, nor is a batch that the gate has not seen."""
    run_id = "techmarket-20260101T020000-0001"
    rows = techmarket(20)
    changed = dict(rows["orders"][0])
    changed["updated_at"] = changed["updated_at"].replace(year=changed["updated_at"].year + 1)
    rows["orders"].append(changed)  # as when a row changes between two reads of a window
    rows["refunds"] = []
    write_pipeline(lake, "techmarket", run_id, rows)
    pipeline = load_pipeline("techmarket")
    assert (
        unique_batches(lake, "techmarket", run_id, committed_batches(lake, pipeline.tables, run_id)) == set()
    )
    check(lake, "techmarket", run_id)
    batches = committed_batches(lake, pipeline.tables, run_id)
    proved = unique_batches(lake, "techmarket", run_id, batches)
    assert proved == set(batches) - {"orders.orders", "payments.refunds"}
    write_pipeline(lake, "techmarket", run_id, rows, attempt=2)
    again = committed_batches(lake, pipeline.tables, run_id)
    assert unique_batches(lake, "techmarket", run_id, again) == set()


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (
            {
                "type": "expect_column_values_to_match_strftime_format",
                "kwargs": {"column": "name", "strftime_format": "%Y"},
            },
            r"column_values\.match_strftime_format",
        ),
        (
            {
                "type": "expect_column_values_to_match_regex",
                "kwargs": {"column": "name", "regex": "(?=P)ancake"},
            },
            r"invalid perl operator",
        ),
        (
            {
                "type": "expect_column_values_to_not_be_null",
                "kwargs": {"column": "name", "row_condition": "id > 3", "condition_parser": "spark"},
            },
            "row_condition",
        ),
    ],
    ids=["kind", "pattern", "condition"],
)
def test_a_rule_that_cannot_be_counted_is_no_verdict(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, expectation: dict[str, Any], said: str
) -> None:
    def with_it(contract: TableContract) -> dict[str, Any]:
        suite = read_suite(contract)
        suite["expectations"].append(expectation | {"severity": "critical"})
        return suite

    monkeypatch.setattr("tallyhouse.quality.gate.read_suite", with_it)
    run_id = "pancake-20260101T020000-0001"
    write_pipeline(lake, "pancake", run_id, pancakes(5))
    with pytest.raises(TallyhouseError, match=said) as raised:
        check(lake, "pancake", run_id)
    assert str(raised.value).startswith("pancake.pancakes: its suite cannot be counted in DuckDB")
    assert "GATE_ENGINE=spark" in str(raised.value)
    assert lake.keys("report") == []


def test_a_run_without_batches(lake: Lake) -> None:
    with pytest.raises(TallyhouseError, match=r"no raw batch has a _manifest\.json"):
        check(lake, "pancake", "pancake-none")


@pytest.mark.parametrize(
    ("query", "personal"),
    [
        ("SELECT email FROM {batch}", True),
        ("SELECT Email AS e FROM {batch}", True),
        ("SELECT * FROM {batch}", True),
        ("SELECT id FROM {batch} WHERE status = 'emails'", False),
        (None, False),
    ],
)
def test_a_query_that_reads_personal_data_keeps_it_to_itself(query: str | None, personal: bool) -> None:
    assert gate.tells_of(("email", "phone"), [], query) is personal
    assert not gate.tells_of((), [], query)
