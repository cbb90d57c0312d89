"""One small shop, generated once for the tests of this folder."""

from collections import defaultdict

import pytest

from techmarket.shop import Shop
from techmarket.sizes import Sizes
from tests.techmarket.rows import values

Table = list[dict[str, str | None]]


@pytest.fixture(scope="session")
def tables() -> dict[str, Table]:
    """Every table of the four stores at scale 0.02, as text."""
    shop = Shop(1, Sizes.of(0.02))
    found: defaultdict[str, Table] = defaultdict(list)
    for store in ("catalog", "orders", "auth", "payments"):
        for batch in shop.batches(store):
            for row in batch.rows():
                found[batch.table].append(dict(zip(batch.columns, values(row), strict=True)))
    return dict(found)
