"""Files of the shape and the size of Olist's dataset: its columns, forms of values and numbers of rows."""

import csv
import io
import random
from datetime import datetime, timedelta

REF = "olistbr/brazilian-ecommerce"
SELLERS, ITEMS = "olist_sellers_dataset.csv", "olist_order_items_dataset.csv"
OTHER = "product_category_name_translation.csv"
SELLER_COLUMNS = ["seller_id", "seller_zip_code_prefix", "seller_city", "seller_state"]
ITEM_COLUMNS = [
    *("order_id", "order_item_id", "product_id", "seller_id"),
    *("shipping_limit_date", "price", "freight_value"),
]
CITIES = [
    ("sao paulo", "SP"),
    ("rio de janeiro", "RJ"),
    ("santa barbara d'oeste", "SP"),
    ("brasilia, df", "DF"),
]


def sellers(number: int = 3095, seed: int = 7) -> list[list[str]]:
    rng = random.Random(seed)  # noqa: S311 - made-up data
    rows = []
    for _ in range(number):
        city, state = rng.choice(CITIES)
        rows.append([f"{rng.getrandbits(128):032x}", f"{rng.randrange(1000, 99999):05d}", city, state])
    return rows


def items(of: list[list[str]], number: int = 112_650, seed: int = 8) -> list[list[str]]:
    rng = random.Random(seed)  # noqa: S311 - made-up data
    start = datetime(2016, 9, 19)
    rows: list[list[str]] = []
    while len(rows) < number:
        order = f"{rng.getrandbits(128):032x}"
        for place in range(1, rng.choice((1, 1, 1, 1, 2, 3)) + 1):
            at = start + timedelta(seconds=rng.randrange(110_000_000))
            rows.append(
                [
                    *(order, str(place), f"{rng.getrandbits(128):032x}", rng.choice(of)[0]),
                    *(f"{at:%Y-%m-%d %H:%M:%S}", f"{rng.randrange(85, 673500) / 100:.2f}"),
                    f"{rng.randrange(0, 40968) / 100:.2f}",
                ]
            )
    return rows[:number]


def text(columns: list[str], rows: list[list[str]]) -> bytes:
    """As the real file has it: every text of the heading in quotes, and what needs them."""
    sink = io.StringIO()
    sink.write(",".join(f'"{column}"' for column in columns) + "\n")
    csv.writer(sink, lineterminator="\n").writerows(rows)
    return sink.getvalue().encode()


def files(number: int = 112_650) -> dict[str, bytes]:
    of = sellers(min(3095, number))
    return {
        SELLERS: text(SELLER_COLUMNS, of),
        ITEMS: text(ITEM_COLUMNS, items(of, number)),
        OTHER: b"product_category_name,product_category_name_english\nbeleza_saude,health_beauty\n",
    }
