"""Literals hold their values, whatever those are."""

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from techmarket.batches import Batch, chunks, literal, money
from techmarket.load import statements
from techmarket.orders import RATES, converted
from tests.techmarket.rows import values

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.one_of(st.none(), TEXT), min_size=1))
def test_a_text_comes_back(texts: list[str | None]) -> None:
    row = f"({','.join(literal(text) for text in texts)})"
    assert values(row) == tuple(texts)


@given(st.lists(st.integers(0, 10**13)))
def test_money_is_exact(cents: list[int]) -> None:
    made = money(np.array(cents, dtype=np.int64))
    assert [Decimal(text) for text in made] == [Decimal(c) / 100 for c in cents]
    assert all(text.split(".")[1].isdigit() and len(text.split(".")[1]) == 2 for text in made)


@given(st.integers(1, 10**9), st.integers(0, len(RATES) - 1))
def test_conversion_is_to_the_nearest_hundredth(kopecks: int, currency: int) -> None:
    one = np.array([kopecks], dtype=np.int64)
    found = int(converted(one, np.array([currency], dtype=np.int64))[0])
    exact = Decimal(kopecks) * 100 / RATES[currency]
    assert found == 1 or abs(found - exact) <= Decimal("0.5")
    assert found >= 1


@given(st.integers(0, 5000), st.integers(1, 700))
def test_chunks_cover_everything_once(total: int, size: int) -> None:
    assert [int(i) for chunk in chunks(total, size) for i in chunk] == list(range(total))


def test_statements_have_a_thousand_rows_at_most() -> None:
    made = list(statements(Batch("t", {"a": ["1"] * 2_500, "b": ["'x'"] * 2_500})))
    assert [statement.count("(1,'x')") for statement in made] == [1000, 1000, 500]
    assert made[0].startswith("INSERT INTO t (a, b) VALUES (1,'x'),")
