"""Makes raw batches as extraction writes them, so that the jobs can be tried without any source.

python -m tests.spark_jobs.raw_batches /tmp/lake techmarket-20260101T020000-0001 10000
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tallyhouse.contracts import Kind, TableContract, load_pipeline
from tallyhouse.lake import Lake, Manifest, Part, batch_prefix, commit

WIRE = {
    Kind.BOOLEAN: pa.int8(),
    Kind.SMALLINT: pa.int16(),
    Kind.INTEGER: pa.int32(),
    Kind.BIGINT: pa.int64(),
    Kind.DOUBLE: pa.float64(),
}
SNAPSHOT = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)


def write_batch(
    lake: Lake,
    contract: TableContract,
    run_id: str,
    rows: Iterable[Mapping[str, Any]],
    *,
    snapshot_at: datetime = SNAPSHOT,
    attempt: int = 1,
    deleted: Iterable[tuple[Any, ...]] = (),
    census: dict[str, Any] | None = None,
) -> Manifest:
    """Commits rows as a raw batch of one table, and keys that the source no longer has."""
    rows = list(rows)
    prefix = batch_prefix(contract.source, contract.name, run_id, attempt)
    parts = ()
    fields = [pa.field(c.name, WIRE.get(c.type.kind, pa.string())) for c in contract.columns]
    if rows:
        columns = [
            pa.array([wire(row.get(c.name)) for row in rows], field.type)
            for c, field in zip(contract.columns, fields, strict=True)
        ]
        key = f"{prefix}/part-00000.parquet"
        with lake.create(key) as sink:
            pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), sink, compression="zstd")
        parts = (Part(key, len(rows), sink.size, sink.sha256),)
    gone = list(deleted)
    evidence = ()
    if gone:
        columns = [
            pa.array(values, WIRE.get(contract.column(name).type.kind, pa.string()))
            for name, values in zip(contract.key, zip(*gone, strict=True), strict=True)
        ]
        key = f"{prefix}/deleted/part-00000.parquet"
        with lake.create(key) as sink:
            pq.write_table(pa.Table.from_arrays(columns, names=list(contract.key)), sink)
        evidence = (Part(key, len(gone), sink.size, sink.sha256),)
    manifest = Manifest(
        run_id=run_id,
        source=contract.source,
        table=contract.name,
        attempt=attempt,
        contract_version=contract.version,
        columns=tuple({"name": field.name, "type": str(field.type)} for field in fields),
        snapshot_at=snapshot_at,
        watermark_from=None,
        watermark_to=None,
        source_rows=len(rows),
        rows=len(rows),
        digest=None,
        control_totals={
            name: str(sum(Decimal(str(row[name])) for row in rows)) for name in contract.control_totals
        },
        parts=parts,
        deleted=evidence,
        census=census,
    )
    commit(lake, manifest)
    return manifest


def wire(value: Any) -> Any:
    """A value as the wire carries it."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"
    return str(value) if isinstance(value, Decimal) else value


def write_pipeline(
    lake: Lake, pipeline: str, run_id: str, rows: Mapping[str, list[dict[str, Any]]], **options: Any
) -> None:
    """Commits a batch of every table of a pipeline, empty where no rows are given."""
    for contract in load_pipeline(pipeline).tables:
        write_batch(lake, contract, run_id, rows.get(contract.name, ()), **options)


def uuid(kind: int, number: int) -> str:
    """A key that looks like one of the stores'."""
    return f"{kind:08x}-0000-4000-8000-{number:012x}"


def techmarket(orders: int, seed: int = 7) -> dict[str, list[dict[str, Any]]]:
    """Rows of every TechMarket table around so many orders (about ten rows an order in all)."""
    rng = random.Random(seed)  # noqa: S311
    start = datetime(2025, 1, 1, tzinfo=UTC)
    stamp = datetime(2026, 1, 1, 1, 0, tzinfo=UTC)
    technical = {"created_at": stamp, "updated_at": stamp}
    customers, products = max(orders // 3, 5), max(orders // 20, 5)

    def money(low: int, high: int) -> Decimal:
        return Decimal(rng.randint(low * 100, high * 100)).scaleb(-2)

    rows: dict[str, list[dict[str, Any]]] = {t.name: [] for t in load_pipeline("techmarket").tables}
    rows["roles"] = [
        {"id": i, "code": c, "name": c.title()} | technical for i, c in enumerate(("customer", "staff"), 1)
    ]
    rows["categories"] = [
        {
            "id": uuid(1, i),
            "parent_category_id": uuid(1, (i - 1) // 4) if i >= 4 else None,
            "name": f"Category {i}",
            "name_uk": f"Категорія {i}",
            "slug": f"category-{i}",
            "sort_order": i,
            "is_active": True,
        }
        | technical
        for i in range(40)
    ]
    rows["payment_methods"] = [
        {"id": i, "code": c, "name": c.title(), "provider": "LiqPay", "is_online": True, "is_active": True}
        | technical
        for i, c in enumerate(("card", "cash", "transfer"), 1)
    ]
    for i in range(products):
        rows["products"].append(
            {
                "id": uuid(2, i),
                "category_id": uuid(1, rng.randrange(40)),
                "sku": f"SKU-{i:06d}",
                "name": f"Ноутбук {i}",
                "brand": "Brand",
                "description": "Опис " * 10,
                "weight_kg": Decimal(rng.randint(100, 9000)).scaleb(-3),
                "attributes": '{"color": "чорний"}',
                "is_active": rng.random() > 0.1,
                "launched_on": "2024-05-06",
            }
            | technical
        )
        rows["product_prices"].extend(
            {
                "id": uuid(3, i * 2 + n),
                "product_id": uuid(2, i),
                "price": money(100, 50000),
                "currency": "UAH",
                "valid_from": start + timedelta(days=100 * n),
            }
            | technical
            for n in range(2)
        )
        rows["inventory"].append(
            {
                "product_id": uuid(2, i),
                "warehouse_code": "KYV-1",
                "quantity": rng.randrange(100),
                "reserved": 0,
                "reorder_level": 5,
                "counted_at": start,
            }
            | technical
        )
    for i in range(customers):
        person = {"phone": f"+38067{i:07d}", "registered_at": start + timedelta(minutes=i)}
        rows["customers"].append(
            {
                "id": uuid(4, i),
                "first_name": "Олена",
                "last_name": f"Шевченко-{i}",
                "email": f"olena{i}@example.com",
                "birth_date": "1990-02-03",
                "segment": "regular",
                "marketing_opt_in": i % 2 == 0,
            }
            | person
            | technical
        )
        rows["addresses"].append(
            {
                "id": uuid(5, i),
                "customer_id": uuid(4, i),
                "kind": "shipping",
                "is_default": True,
                "country": "UA",
                "region": "Київська",
                "city": "Київ",
                "street": f"Хрещатик {i}",
                "postal_code": "01001",
            }
            | technical
        )
        rows["users"].append(
            {
                "id": uuid(6, i),
                "customer_id": uuid(4, i),
                "role_id": 1,
                "email": f"olena{i}@example.com",
                "password_hash": "$2b$12$" + "x" * 53,
                "full_name": f"Олена Шевченко-{i}",
                "locale": "uk_UA",
                "is_active": True,
                "is_verified": True,
                "failed_logins": 0,
                "last_login_at": None,
            }
            | person
            | technical
        )
    for i in range(orders):
        at = start + timedelta(seconds=rng.randrange(360 * 86400))
        rows["sessions"].append(
            {
                "id": uuid(7, i),
                "user_id": uuid(6, i % customers),
                "ip_address": "203.0.113.7",
                "user_agent": "Mozilla/5.0",
                "device": "desktop",
                "pages_viewed": rng.randrange(30),
                "started_at": at - timedelta(minutes=9),
                "ended_at": at,
            }
            | technical
        )
        lines = []
        for line in range(1, rng.randint(1, 5)):
            quantity, price, discount = rng.randint(1, 3), money(100, 9000), money(0, 50)
            lines.append(
                {
                    "id": uuid(9, i * 10 + line),
                    "order_id": uuid(8, i),
                    "line_number": line,
                    "product_id": uuid(2, rng.randrange(products)),
                    "quantity": quantity,
                    "unit_price": price,
                    "discount": discount,
                    "line_total": quantity * price - discount,
                }
                | technical
            )
        rows["order_items"] += lines
        subtotal = sum((line["line_total"] for line in lines), Decimal("0.00"))
        customer = rng.randrange(customers)
        rows["orders"].append(
            {
                "id": uuid(8, i),
                "order_number": f"TM-{i:08d}",
                "customer_id": uuid(4, customer),
                "shipping_address_id": uuid(5, customer),
                "status": "delivered",
                "channel": "web",
                "currency": "UAH",
                "subtotal": subtotal,
                "shipping_fee": Decimal("75.00"),
                "total": subtotal + 75,
                "customer_note": None,
                "ordered_at": at,
            }
            | technical
        )
        rows["payments"].append(
            {
                "id": uuid(10, i),
                "order_id": uuid(8, i),
                "method_id": rng.randint(1, 3),
                "amount": subtotal + 75,
                "currency": "UAH",
                "status": "succeeded",
                "failure_reason": None,
                "provider_reference": f"ref-{i}",
                "attempted_at": at + timedelta(minutes=1),
                "settled_at": at + timedelta(minutes=2),
            }
            | technical
        )
        if i % 20 == 0:
            rows["refunds"].append(
                {
                    "id": uuid(11, i),
                    "payment_id": uuid(10, i),
                    "amount": subtotal + 75,
                    "currency": "UAH",
                    "reason": "defect",
                    "refunded_at": at + timedelta(days=3),
                }
                | technical
            )
    return rows


def pancakes(count: int) -> dict[str, list[dict[str, Any]]]:
    """Rows of the pancake table."""
    return {
        "pancakes": [
            {
                "id": i,
                "name": f"Pancake {i}",
                "fluffiness_level": i % 10 + 1,
                "syrup_type": "maple",
                "is_buttery": i % 2 == 0,
                "magical_factor": Decimal(i % 1000).scaleb(-2),
                "created_at": datetime(2025, 6, 1, tzinfo=UTC) + timedelta(hours=i),
                "taste_notes": None,
            }
            for i in range(1, count + 1)
        ]
    }


if __name__ == "__main__":
    folder, run_id, count = sys.argv[1:]
    name = run_id.split("-")[0]
    made = techmarket(int(count)) if name == "techmarket" else pancakes(int(count))
    write_pipeline(Lake.local(folder), name, run_id, made)
    print({table: len(rows) for table, rows in made.items()}, sum(map(len, made.values())))
