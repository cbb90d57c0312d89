"""What `make ledger` shows: why a run failed comes first, and every line fits the terminal."""

import json
from decimal import Decimal
from typing import Any

import pytest

from tallyhouse.errors import TallyhouseError
from tallyhouse.ledger import CURRENT, ROWS, VERSIONS, Hop, Line
from tallyhouse.ledger import __main__ as command
from tallyhouse.ledger.__main__ import Run

RUN = "techmarket-20260102T020000-3f2a"
FAILURE = TallyhouseError(
    "expect_column_values_to_be_in_set(status) failed in 1 rows, such as lost [red]",
    where=f"orders.orders in run {RUN}",
    remedy=f"Nothing was published; see http://127.0.0.1:8003/techmarket/{RUN}/index.html, fix the source.",
    table="orders.orders",
    rule="expect_column_values_to_be_in_set(status)",
    count=1,
    sample=["id 00000000-0000-0000-0000-000000000007"],
).failure("check")
TABLES = ("auth.sessions", "catalog.product_prices", "orders.order_items", "payments.payment_methods")


def line(table: str, hop: str, rows: int, **parts: int) -> Line:
    return Line(table, hop, ROWS, Decimal(rows), Decimal(rows), {n: Decimal(v) for n, v in parts.items()})


TAKEN = [line(table, Hop.SOURCE_RAW, 1_234_567) for table in TABLES]
WHOLE = [
    *TAKEN,
    *(line(t, Hop.RAW_ACCEPTED, 1_234_567, accepted=1_234_000, superseded=567) for t in TABLES),
    *(
        line(t, Hop.ACCEPTED_ODS, 1_234_000, inserted=1_000_000, updated=200_000, unchanged=34_000)
        for t in TABLES
    ),
    *(
        line(m, hop, 1_234_567)
        for m in ("fact_order_line", "mart_payment_conversion")
        for hop in (Hop.ODS_MODEL, "postgres=clickhouse", "clickhouse=mart")
    ),
]


def shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any, width: int, run: Run, lines: list[Line]
) -> str:
    monkeypatch.setattr(command, "WIDTH", width)
    command._print_tables({run: lines})
    command._verdict({run: lines})
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 120])
def test_a_run_that_the_gate_refused_says_first_why(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shown(capsys, monkeypatch, width, Run(RUN, "techmarket", "failed", FAILURE), TAKEN)
    rows = out.splitlines()
    assert rows[0] == f"{RUN}: failed"
    assert [row.partition("  ")[0] for row in rows[1:5]] == ["failed in", "table", "rule", "rows"]
    for said in (
        "check",
        "orders.orders",
        "expect_column_values_to_be_in_set(status)",
        "lost [red]",
        "fix",
    ):
        assert said in out
    assert out.index("what to do") < out.index("source=raw"), "the reason comes before the lines"
    assert max(map(len, rows[:-1])) <= width
    assert rows[-1] == (
        f"not done: {RUN} is failed (check, orders.orders); 4938268 rows taken, every line so far closes"
    )


@pytest.mark.parametrize("width", [80, 120])
def test_a_whole_ledger_fits_and_no_number_is_broken(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shown(capsys, monkeypatch, width, Run(RUN, "techmarket", "published", None), WHOLE)
    assert max(map(len, out.splitlines())) <= width
    for name in (*TABLES, "mart_payment_conversion", "postgres=clickhouse", "1234567", "1000000 inserted"):
        assert name in out
    assert out.splitlines()[-1] == "ledger closed: 4938268 rows, 0 unexplained"


def test_an_open_line_is_named_and_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [Line("orders.orders", Hop.RAW_ACCEPTED, ROWS, Decimal(9), Decimal(7))]
    out = shown(capsys, monkeypatch, 80, Run(RUN, "techmarket", "failed", None), lines)
    assert "orders.orders raw=accepted rows: 9 != 7" in out
    assert out.splitlines()[-1] == (
        f"ledger open: 0 rows, 2 unexplained, 1 lines do not close; {RUN} is failed"
    )


def test_rows_that_differ_are_named_once_and_versions_are_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("payment_id=[7]: differs in ClickHouse", "payment_id=8: 2 times in ClickHouse")
    lines = [
        Line("fact_payment", "postgres=clickhouse", measure, Decimal(9), Decimal(10), keys=keys)
        for measure in (ROWS, "digest(all rows)")
    ]
    parts = {"before": 3, "opened": 2, "opened again": 0, "closed": -1}
    current = {name: Decimal(value) for name, value in parts.items()}
    lines.append(Line("dim_customer", Hop.ODS_MODEL, CURRENT, Decimal(4), Decimal(4), current))
    nothing = dict.fromkeys(parts, Decimal(0))
    lines.append(Line("dim_product", Hop.ODS_MODEL, VERSIONS, Decimal(0), Decimal(0), nothing))
    rows = shown(capsys, monkeypatch, 80, Run(RUN, "techmarket", "failed", None), lines).splitlines()
    assert [row for row in rows if "payment_id" in row] == [f"  fact_payment {key}" for key in keys]
    assert "dim_customer current versions of touched members: 2 opened, 1 closed" in rows
    assert not any(row.startswith("dim_product") for row in rows)


def test_json_brings_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    command._print_json({Run(RUN, "techmarket", "failed", FAILURE): TAKEN[:1]})
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"run_id": RUN, "status": "failed", "failure": FAILURE}
    assert second["hop"] == "source=raw"
