"""Pancakes: one table, taken whole every night."""

from __future__ import annotations

from spark_jobs.models import dim_pancake, fact_pancake_rating
from spark_jobs.night import Night


def build(night: Night) -> None:
    """Writes the increments of every model: all pancakes, as the snapshot is."""
    with night.warehouse():
        pancakes = night.current_whole("pancakes")
        night.write(
            {
                "dim_pancake": dim_pancake.build(pancakes),
                "fact_pancake_rating": fact_pancake_rating.build(pancakes),
            }
        )
