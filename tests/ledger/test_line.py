from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallyhouse.errors import TallyhouseError
from tallyhouse.ledger import ROWS, Hop, Line, check_closed

NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**12), max_value=10**12)


def line(left: Decimal | int, right: Decimal | int) -> Line:
    return Line("orders.orders", Hop.RAW_ACCEPTED, ROWS, Decimal(left), Decimal(right))


@given(left=NUMBERS, right=NUMBERS)
def test_a_line_closes_exactly_when_both_sides_are_the_same_number(left: Decimal, right: Decimal) -> None:
    assert line(left, right).closed == (line(left, right).difference == 0)


def test_scale_does_not_matter_and_the_last_digit_does() -> None:
    assert line(Decimal("1.50"), Decimal("1.5")).closed
    assert not line(Decimal("0.30"), Decimal("0.31")).closed


def test_an_open_ledger_names_the_table_the_hop_and_the_difference() -> None:
    with pytest.raises(TallyhouseError) as caught:
        check_closed([line(3, 3), line(10, 8), line(1, 2)], "r1")
    message = str(caught.value)
    assert message.startswith("orders.orders: the ledger does not close: raw=accepted differs by -2 rows")
    assert "and 1 more lines" in message
    assert "\n" not in message


def test_a_closed_ledger_says_nothing() -> None:
    check_closed([line(3, 3)], "r1")
