"""Seasons, weekdays, hours and the order of events."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from techmarket import business_time as bt
from techmarket.randomness import Randomness


@pytest.mark.parametrize("total", [0, 1, 3, 500, 20_000])
def test_arrivals_are_complete_and_in_order(total: int) -> None:
    arrivals = bt.Arrivals(total, "x", Randomness(1))
    index = np.arange(total, dtype=np.int64)
    moments = arrivals.time(index)
    assert arrivals.before_day[-1] == total
    assert (np.diff(moments) >= 0).all()
    if total:
        assert moments.min() >= bt.START
        assert moments.max() < bt.END


def test_arrivals_lie_on_their_kyiv_day() -> None:
    arrivals = bt.Arrivals(30_000, "x", Randomness(1))
    index = np.arange(30_000, dtype=np.int64)
    for at, moment in zip(arrivals.day(index).tolist(), arrivals.time(index).tolist(), strict=True):
        assert bt.kyiv_day(bt.to_datetime(moment)) == bt.FIRST_DAY + timedelta(days=at)


def test_december_is_busy_and_nights_are_quiet() -> None:
    arrivals = bt.Arrivals(60_000, "x", Randomness(1))
    moments = [
        datetime.fromtimestamp(t / 1e6, UTC).astimezone(bt.KYIV)
        for t in arrivals.time(np.arange(60_000, dtype=np.int64))
    ]
    december = sum((m.year, m.month) == (2025, 12) for m in moments)
    february = sum((m.year, m.month) == (2025, 2) for m in moments)
    assert december > 1.4 * february
    evening, night = (sum(m.hour in hours for m in moments) for hours in ((18, 19, 20), (2, 3, 4)))
    assert evening > 15 * night


def test_black_friday_stands_out() -> None:
    assert bt.weight(date(2025, 11, 28)) > 1.4 * bt.weight(date(2025, 11, 14))


def test_times_on_a_short_day_stay_on_it() -> None:
    """On 29 March 2026 the clocks go forward and the day has 23 hours."""
    day = date(2026, 3, 29)
    moments = bt.times_on(day, 2_000, "x", Randomness(1))
    assert moments == sorted(moments)
    assert {bt.kyiv_day(moment) for moment in moments} == {day}
