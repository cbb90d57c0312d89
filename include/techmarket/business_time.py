"""When things happen: business days of Kyiv, with their seasons, weekdays and hours.

All times are microseconds since 1970 in UTC, as int64; a day is an offset from ``FIRST_DAY``.
"""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

from techmarket.randomness import Ints, Randomness

KYIV = ZoneInfo("Europe/Kyiv")
FIRST_DAY = date(2024, 7, 2)
LAST_DAY = date(2026, 1, 1)
"""The history's last business day; ``day`` goes on with the next."""
DAYS = (LAST_DAY - FIRST_DAY).days + 1

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 3600 * SECOND
DAY = 24 * HOUR

_MONTHS = (0.86, 0.88, 0.96, 0.95, 0.97, 0.92, 0.90, 1.00, 1.06, 1.04, 1.25, 1.42)
_WEEKDAYS = (1.02, 1.00, 0.98, 1.00, 1.08, 1.02, 0.90)
_HOURS = (10, 5, 3, 2, 2, 4, 10, 20, 40, 55, 65, 65, 60, 60, 60, 60, 60, 65, 70, 75, 80, 70, 50, 25)
# Cumulative share of the day's events at each full hour, in 2**30ths, so that it stays in whole numbers.
_DOMAIN = 1 << 30
_EDGES = np.array([sum(_HOURS[:h]) * _DOMAIN // sum(_HOURS) for h in range(25)], dtype=np.int64)


def weight(day: date) -> float:
    """How busy a day is; about 1 for a common day of the first year."""
    busy = _MONTHS[day.month - 1] * _WEEKDAYS[day.weekday()]
    if day.month == 11 and 22 <= day.day <= 30:  # Black Friday and the days around it
        busy *= 1.9 if day.weekday() == 4 else 1.35
    if day.month == 12 and day.day > 24:
        busy *= 0.75
    if (day.month, day.day) == (1, 1):
        busy *= 0.45
    return busy * (1.0 + 0.3 * ((day - FIRST_DAY).days / 365.0))


@cache
def midnight(day: date) -> int:
    """The start of a Kyiv day, in microseconds UTC."""
    local = datetime(day.year, day.month, day.day, tzinfo=KYIV)
    return int(local.timestamp()) * SECOND


def day_start(day: int) -> int:
    """The start of the day with this offset."""
    return midnight(FIRST_DAY + timedelta(days=day))


START = day_start(0)
END = day_start(DAYS)
"""The first moment after the history."""

_STARTS = np.array([day_start(d) for d in range(DAYS + 1)], dtype=np.int64)


def kyiv_day(moment: datetime) -> date:
    """The business day of a naive UTC time."""
    return moment.replace(tzinfo=UTC).astimezone(KYIV).date()


def to_datetime(micros: int) -> datetime:
    """A naive UTC datetime, as the stores keep it."""
    return datetime(1970, 1, 1) + timedelta(microseconds=micros)


def within_day(share: Ints) -> Ints:
    """Time since midnight at which ``share`` (of 2**30) of a day's events have happened."""
    hour = np.searchsorted(_EDGES, share, side="right") - 1
    low = _EDGES[hour]
    return np.asarray(hour * HOUR + (share - low) * HOUR // (_EDGES[hour + 1] - low))


class Arrivals:
    """A number of events spread over the history, busy days getting more; in order of time.

    Args:
        total: how many events, numbered 0 to ``total - 1``.
        name: name of the draw of their times.
        randomness: where the draws come from.
    """

    def __init__(self, total: int, name: str, randomness: Randomness) -> None:
        self.total = total
        self._name = f"{name}/time"
        self._randomness = randomness
        weights = np.array([weight(FIRST_DAY + timedelta(days=d)) for d in range(DAYS)])
        edges = np.concatenate([[0.0], np.cumsum(weights)])
        self.before_day: Ints = (edges * total / edges[-1] + 1e-6).astype(np.int64)
        """How many events lie before each day (and, last, in all)."""
        self.before_day[-1] = total

    def day(self, index: Ints) -> Ints:
        """Day offset of each event."""
        found = np.searchsorted(self.before_day, index, side="right") - 1
        return np.minimum(found, DAYS - 1).astype(np.int64)

    def time(self, index: Ints) -> Ints:
        """Time of each event, never falling with the index."""
        day = self.day(index)
        first = self.before_day[day]
        count = self.before_day[day + 1] - first
        # One event per equal share of the day keeps the times in order without sorting.
        inside = (self._randomness.words(self._name, index) >> np.uint64(34)).astype(np.int64)
        share = ((index - first) * _DOMAIN + inside) // count
        return np.asarray(np.minimum(_STARTS[day] + within_day(share), _STARTS[day + 1] - SECOND))


def times_on(day: date, count: int, name: str, randomness: Randomness) -> list[datetime]:
    """Ordered times of ``count`` events on one day."""
    index = np.arange(count, dtype=np.int64)
    inside = (randomness.words(name, index) >> np.uint64(34)).astype(np.int64)
    share = (index * _DOMAIN + inside) // max(count, 1)
    last = midnight(day + timedelta(days=1)) - SECOND
    return [to_datetime(min(int(t) + midnight(day), last)) for t in within_day(share)]
