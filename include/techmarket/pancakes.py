"""The pancake shop's only table."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np

from techmarket.batches import chunks
from techmarket.business_time import Arrivals, to_datetime
from techmarket.pools import TASTE_NOTES
from techmarket.randomness import Ints, Randomness

SYRUPS = ("maple", "honey", "blueberry", "caramel", "chocolate", "вишневий", "сметана", "none")
_STYLES = (
    "Fluffy",
    "Golden",
    "Grandma's",
    "Lviv",
    "Карпатський",
    "Buttermilk",
    "Святковий",
    "Midnight",
    "Soufflé",
)
_KINDS = ("Stack", "Flapjack", "Млинець", "Оладка", "Crêpe", "Сирник", "Pancake 🥞", "Dutch Baby")

COLUMNS = (
    "name",
    "fluffiness_level",
    "syrup_type",
    "is_buttery",
    "magical_factor",
    "created_at",
    "taste_notes",
)
"""What a row holds; the server numbers the rows. ``created_at`` is this table's business time."""

type Pancake = tuple[str, int, str, bool, Decimal, datetime, str | None]


def pancakes(randomness: Randomness, index: Ints, moments: list[datetime]) -> Iterator[Pancake]:
    """Pancakes eaten at the given times (naive UTC)."""
    r = randomness
    # The mean of two draws: most are fairly fluffy.
    fluff = (r.below("pancake/fluff", index, 10) + r.below("pancake/fluff-too", index, 11)) // 2 + 1
    notes = r.below("pancake/note", index, len(TASTE_NOTES) * 2).tolist()
    yield from zip(
        [
            f"{_STYLES[style]} {_KINDS[kind]}"
            for style, kind in zip(
                r.below("pancake/style", index, len(_STYLES)).tolist(),
                r.below("pancake/kind", index, len(_KINDS)).tolist(),
                strict=True,
            )
        ],
        np.minimum(fluff, 10).tolist(),
        [SYRUPS[at] for at in r.weighted("pancake/syrup", index, (30, 20, 15, 10, 10, 6, 6, 3)).tolist()],
        r.chance("pancake/butter", index, 0.63).tolist(),
        [Decimal(hundredths).scaleb(-2) for hundredths in r.below("pancake/magic", index, 10_000).tolist()],
        [moment.replace(tzinfo=UTC) for moment in moments],
        [TASTE_NOTES[at] if at < len(TASTE_NOTES) else None for at in notes],
        strict=True,
    )


def history(count: int, randomness: Randomness) -> Iterator[Pancake]:
    """The pancakes of the whole history, in order of time."""
    arrivals = Arrivals(count, "pancake", randomness)
    for index in chunks(count):
        moments = [to_datetime(micros) for micros in arrivals.time(index).tolist()]
        yield from pancakes(randomness, index, moments)
