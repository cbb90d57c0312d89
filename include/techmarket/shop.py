"""The whole business of one seed and scale, store by store."""

from collections.abc import Iterator

from techmarket.auth import Auth
from techmarket.batches import Batch
from techmarket.catalog import Catalog
from techmarket.orders import Customers, Orders
from techmarket.pancakes import Pancake, history
from techmarket.payments import Payments
from techmarket.pools import make_pools
from techmarket.randomness import Randomness
from techmarket.sizes import Sizes


class Shop:
    """Makes every row of the history, as often as it is asked.

    Args:
        seed: of all draws.
        sizes: how much of everything.
    """

    def __init__(self, seed: int, sizes: Sizes) -> None:
        self.sizes = sizes
        self._random = Randomness(seed)
        self._pools = make_pools(seed)
        self._catalog = Catalog(sizes.products, self._pools, self._random)
        self._customers = Customers(sizes.customers, self._pools, self._random)
        self._orders = Orders(sizes, self._customers, self._catalog, self._random)

    def batches(self, store: str) -> Iterator[Batch]:
        """Rows of one of the four stores, parents before children."""
        match store:
            case "catalog":
                return self._catalog.batches()
            case "orders":
                return self._orders.batches()
            case "auth":
                return Auth(self.sizes, self._customers, self._pools, self._random).batches()
            case "payments":
                return Payments(self._orders, self._random).batches()
        raise ValueError(f"no store {store!r}")

    def pancakes(self) -> Iterator[Pancake]:
        """Rows of the pancake shop."""
        return history(self.sizes.pancakes, self._random)
