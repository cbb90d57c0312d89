"""How many rows of what a scale means."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Sizes:
    """Numbers of the things that are counted beforehand; the rest follows from them."""

    products: int
    customers: int
    orders: int
    sessions: int
    staff: int
    pancakes: int

    @classmethod
    def of(cls, scale: float) -> Self:
        """Sizes at a scale; 1 is about a million rows over all stores."""

        def scaled(count: int) -> int:
            return max(round(count * scale), 3)

        return cls(
            products=scaled(7_000),
            customers=scaled(42_000),
            orders=scaled(115_000),
            sessions=scaled(240_000),
            staff=scaled(60),
            pancakes=scaled(20_000),
        )
