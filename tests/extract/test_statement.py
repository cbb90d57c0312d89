from datetime import UTC, datetime, timedelta, timezone

from tallyhouse.contracts import load_source
from tallyhouse.extract.statement import build

ORDERS = load_source("orders").table("orders")


def test_what_a_driver_would_change_travels_as_text() -> None:
    columns = build("mysql", ORDERS, None).columns
    assert "CAST(w.`total` AS CHAR) AS `total`" in columns
    assert "CAST(w.`ordered_at` AS CHAR) AS `ordered_at`" in columns
    assert "w.`status` AS `status`" in columns


def test_the_window_is_half_open_and_in_utc() -> None:
    kyiv = timezone(timedelta(hours=2))
    watermark = datetime(2026, 1, 2, 5, 4, 5, 678901, tzinfo=kyiv)
    assert build("mysql", ORDERS, watermark).condition == "w.`updated_at` >= '2026-01-02 03:04:05.678901'"
    assert (
        build("postgres", ORDERS, watermark).condition
        == "w.\"updated_at\" >= '2026-01-02 03:04:05.678901+00'"
    )


def test_without_a_cursor_the_whole_table_is_taken() -> None:
    pancakes = load_source("pancake").table("pancakes")
    assert build("postgres", pancakes, datetime.now(UTC)).condition == "TRUE"
    assert build("mysql", ORDERS, None).condition == "TRUE"


def test_the_source_sums_what_the_contract_controls() -> None:
    count, digest, *sums = build("mysql", ORDERS, None).totals
    assert count == "CAST(COUNT(*) AS CHAR)"
    assert "SHA2(CONCAT(" in digest
    assert sums == [
        "CAST(COALESCE(SUM(w.`subtotal`), 0) AS CHAR)",
        "CAST(COALESCE(SUM(w.`shipping_fee`), 0) AS CHAR)",
        "CAST(COALESCE(SUM(w.`total`), 0) AS CHAR)",
    ]
