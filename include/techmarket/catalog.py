"""The Catalog store: a tree of categories, products, their prices over time, their stock."""

import json
from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np

from techmarket.batches import (
    Batch,
    chunks,
    dates,
    flags,
    literal,
    money,
    null_where,
    numbers,
    safe,
    texts,
    times,
)  # fmt: skip
from techmarket.business_time import DAY, END, FIRST_DAY, HOUR, START
from techmarket.pools import Pools
from techmarket.randomness import Floats, Ints, Randomness

# English name, Ukrainian name, its children; a leaf has the cheapest and dearest price in hryvnias and
# what one of it is called.
_TREE = (
    ("Electronics", "Електроніка", (
        ("Phones", "Телефони", (
            ("Smartphones", "Смартфони", 3999, 62999, "Smartphone", "Смартфон"),
            ("Feature phones", "Кнопкові телефони", 599, 2999, "Phone", "Телефон"),
            ("Phone cases", "Чохли для телефонів", 149, 1499, "Case", "Чохол"))),
        ("Computers", "Комп'ютери", (
            ("Laptops", "Ноутбуки", 14999, 119999, "Laptop", "Ноутбук"),
            ("Monitors", "Монітори", 3499, 34999, "Monitor", "Монітор"),
            ("Keyboards", "Клавіатури", 399, 7999, "Keyboard", "Клавіатура"),
            ("Drives", "Накопичувачі", 899, 12999, "SSD", "Накопичувач"))),
        ("Audio", "Аудіо", (
            ("Headphones", "Навушники", 299, 17999, "Headphones", "Навушники"),
            ("Speakers", "Колонки", 699, 24999, "Speaker", "Колонка"))))),
    ("Home", "Дім", (
        ("Kitchen appliances", "Кухонна техніка", (
            ("Coffee machines", "Кавомашини", 2999, 44999, "Coffee machine", "Кавомашина"),
            ("Kettles", "Чайники", 449, 4999, "Kettle", "Чайник"),
            ("Pancake pans", "Млинці та сковорідки", 349, 3499, "Pancake pan", "Млинниця"))),
        ("Cleaning", "Прибирання", (
            ("Vacuum cleaners", "Пилососи", 2499, 29999, "Vacuum cleaner", "Пилосос"),
            ("Irons", "Праски", 599, 5999, "Iron", "Праска"))),
        ("Furniture", "Меблі", (
            ("Chairs", "Крісла", 1299, 18999, "Chair", "Крісло"),
            ("Desks", "Столи", 1999, 24999, "Desk", "Стіл"))))),
    ("Clothing", "Одяг", (
        ("Women", "Жінкам", (
            ("Dresses", "Сукні", 699, 6999, "Dress", "Сукня"),
            ("Embroidered shirts", "Вишиванки", 999, 9999, "Embroidered shirt", "Вишиванка"))),
        ("Men", "Чоловікам", (
            ("Shirts", "Сорочки", 499, 3999, "Shirt", "Сорочка"),
            ("Jackets", "Куртки", 1299, 14999, "Jacket", "Куртка"))),
        ("Children", "Дітям", (
            ("Overalls", "Комбінезони", 599, 4999, "Overall", "Комбінезон"),)))),
    ("Books", "Книжки", (
        ("Fiction", "Художня література", (
            ("Novels", "Романи", 180, 890, "Novel", "Роман"),
            ("Poetry", "Поезія", 150, 690, "Poems", "Поезії"))),
        ("Non-fiction", "Нон-фікшн", (
            ("Programming", "Програмування", 350, 2490, "Handbook", "Посібник"),
            ("Cookbooks", "Кулінарні книги", 290, 1690, "Cookbook", "Кулінарна книга"))))),
    ("Sport", "Спорт", (
        ("Cycling", "Велоспорт", (
            ("Bicycles", "Велосипеди", 6999, 89999, "Bicycle", "Велосипед"),
            ("Helmets", "Шоломи", 699, 7999, "Helmet", "Шолом"))),
        ("Fitness", "Фітнес", (
            ("Dumbbells", "Гантелі", 299, 5999, "Dumbbells", "Гантелі"),
            ("Yoga mats", "Килимки для йоги", 299, 2999, "Yoga mat", "Килимок"))))),
    ("Beauty", "Краса", (
        ("Skin care", "Догляд за шкірою", (
            ("Creams", "Креми", 129, 3999, "Cream", "Крем"),
            ("Sunscreens", "Сонцезахист", 249, 1999, "Sunscreen", "Сонцезахист"))),
        ("Perfume", "Парфумерія", (
            ("Fragrances", "Аромати", 799, 11999, "Fragrance", "Аромат"),)))),
)  # fmt: skip

WAREHOUSES = (("KYIV-1", 1.0), ("LVIV-1", 0.7), ("ODESA-1", 0.5))
"""Each warehouse, and the share of products it keeps."""

_COLOURS = ("чорний", "білий", "сірий", "червоний", "navy blue", "olive", "бірюзовий", "rosé")
_SERIES = ("Pro", "Mini", "Max", "Lite", "Plus", "Classic", "Eco", "X", "Зоря", "Дніпро", "Карпати", "Мрія")
_OLDEST = START - 540 * DAY

MAX_CHANGES = 6
"""A product's price changes at most so often during the history."""


class Leaf:
    """A category that has products."""

    def __init__(self, index: int, low: int, high: int, noun: str, noun_uk: str) -> None:
        self.index, self.low, self.high, self.noun, self.noun_uk = index, low, high, noun, noun_uk


class Catalog:
    """Everything that can be asked about products, by their index.

    A product's index is its rank: product 0 sells best.

    Args:
        products: how many there are.
        pools: values to draw from.
        randomness: where the draws come from.
    """

    def __init__(self, products: int, pools: Pools, randomness: Randomness) -> None:
        self.products = products
        self._pools = pools
        self._random = randomness
        self._categories: list[tuple[int | None, str, str, str]] = []
        self._leaves: list[Leaf] = []
        self._plant()
        self._low = np.array([leaf.low for leaf in self._leaves], dtype=np.int64)
        self._high = np.array([leaf.high for leaf in self._leaves], dtype=np.int64)
        # Zipf's law; 8 bytes per product are kept for it.
        self._popularity: Floats = np.cumsum(1.0 / (np.arange(products, dtype=np.float64) + 3.0))

    def _plant(self) -> None:
        """Number the tree by levels, so that a parent always comes before its children."""

        def slug(*names: str) -> str:
            return "/".join(name.lower().replace(" ", "-") for name in names)

        for name, name_uk, _ in _TREE:
            self._categories.append((None, name, name_uk, slug(name)))
        middle: list[tuple[int, str, tuple[tuple[str, str, int, int, str, str], ...]]] = []
        for root, (name, _, children) in enumerate(_TREE):
            for child, child_uk, leaves in children:
                middle.append((len(self._categories), name, leaves))
                self._categories.append((root, child, child_uk, slug(name, child)))
        for parent, top, leaves in middle:
            for name, name_uk, low, high, noun, noun_uk in leaves:
                self._leaves.append(Leaf(len(self._categories), low, high, noun, noun_uk))
                self._categories.append((parent, name, name_uk, slug(top, self._categories[parent][1], name)))

    def product_ids(self, product: Ints) -> list[str]:
        """Keys of products."""
        return self._random.uuids("product", product)

    def launched(self, product: Ints) -> Ints:
        """When each product came on sale; the best sellers were there from the first day."""
        early = self._random.chance("product/early", product, 0.75) | (product < 25)
        before = _OLDEST + self._random.below("product/launch", product, 480) * DAY
        during = START + self._random.below("product/launch", product, (END - START) // DAY - 20) * DAY
        return np.where(early, before, during) + 7 * HOUR

    def sold(self, name: str, index: Ints, moment: Ints) -> Ints:
        """A product for each order line, of those on sale at that moment."""
        product = np.zeros(len(index), dtype=np.int64)
        open_ = np.arange(len(index))
        for attempt in range(4):
            drawn = self._random.uniform(f"{name}/{attempt}", index[open_]) * self._popularity[-1]
            candidate = np.searchsorted(self._popularity, drawn, side="right").astype(np.int64)
            candidate = np.minimum(candidate, self.products - 1)
            fits = self.launched(candidate) <= moment[open_]
            product[open_[fits]] = candidate[fits]
            open_ = open_[~fits]
        return product

    def _leaf(self, product: Ints) -> Ints:
        return self._random.below("product/leaf", product, len(self._leaves))

    def _changes(self, product: Ints) -> Ints:
        return self._random.weighted("product/changes", product, (14, 20, 22, 18, 12, 8, 6))

    def _change_time(self, product: Ints, change: Ints) -> Ints:
        """When a price came into force; change 0 is the first price."""
        launch = self.launched(product)
        since = np.maximum(launch, START)
        span = (END - since) // np.maximum(self._changes(product), 1)
        inside = span // 10 + self._random.below("price/time", product * 8 + change, span * 8 // 10)
        return np.where(change == 0, launch, since + (change - 1) * span + inside)

    def _price(self, product: Ints, change: Ints) -> Ints:
        """List price number ``change``, in kopecks."""
        leaf = self._leaf(product)
        # The square favours the cheap end.
        place = self._random.uniform("product/price", product)
        base = self._low[leaf] + (place * place * (self._high[leaf] - self._low[leaf])).astype(np.int64)
        # From 12 % below to 15 % above, and 1.5 % dearer with each change; in thousandths.
        factor = 880 + self._random.below("price/factor", product * 8 + change, 270) + 15 * change
        hryvnias = np.where(change == 0, base, base * factor // 1000)
        return np.maximum(hryvnias, 20) * 100 - np.where(hryvnias % 3 == 0, 1, 0)

    def price_at(self, product: Ints, moment: Ints) -> Ints:
        """The list price in force, in kopecks."""
        count = self._changes(product)
        since = np.maximum(self.launched(product), START)
        span = (END - since) // np.maximum(count, 1)
        change = np.clip((moment - since) // span + 1, 0, count)
        change = np.where(moment < since, 0, change)
        change = np.where(self._change_time(product, change) > moment, change - 1, change)
        return self._price(product, np.maximum(change, 0))

    def batches(self) -> Iterator[Batch]:
        """Every table of the store, parents before children."""
        yield self._category_batch()
        for index in chunks(self.products):
            yield self.product_batch(index)
        for index in chunks(self.products):
            count = self._changes(index) + 1
            product = np.repeat(index, count)
            change = positions(count)
            yield Batch("product_prices", {
                "id": safe(self._random.uuids("price", product * 8 + change)),
                "product_id": safe(self.product_ids(product)),
                "price": money(self._price(product, change)),
                "currency": ["'UAH'"] * len(product),
                "valid_from": times(self._change_time(product, change)),
            })  # fmt: skip
        for index in chunks(self.products):
            for house, (code, share) in enumerate(WAREHOUSES):
                kept = index[self._random.chance(f"stock/{code}", index, share)]
                if len(kept):
                    yield self.inventory_batch(kept, house, code)

    def first_price_batch(self, product: Ints, moment: Ints) -> Batch:
        """A first price for each product, in force from the given times."""
        first = np.zeros(len(product), dtype=np.int64)
        return Batch("product_prices", {
            "id": safe(self._random.uuids("price", product * 8)),
            "product_id": safe(self.product_ids(product)),
            "price": money(self._price(product, first)),
            "currency": ["'UAH'"] * len(product),
            "valid_from": times(moment),
        })  # fmt: skip

    def _category_batch(self) -> Batch:
        index = np.arange(len(self._categories), dtype=np.int64)
        ids = safe(self._random.uuids("category", index))
        parents = [parent for parent, *_ in self._categories]
        return Batch("categories", {
            "id": ids,
            "parent_category_id": ["NULL" if parent is None else ids[parent] for parent in parents],
            "name": texts(name for _, name, _, _ in self._categories),
            "name_uk": texts(name_uk for _, _, name_uk, _ in self._categories),
            "slug": texts(slug for *_, slug in self._categories),
            "sort_order": numbers(index * 10),
            "is_active": flags(index < len(index) - 1),
        })  # fmt: skip

    def product_batch(self, product: Ints) -> Batch:
        """Rows of ``products``."""
        r, pools = self._random, self._pools
        leaves = [self._leaves[at] for at in self._leaf(product).tolist()]
        brands = [pools.brands[at] for at in r.below("product/brand", product, len(pools.brands)).tolist()]
        series = [_SERIES[at] for at in r.below("product/series", product, len(_SERIES)).tolist()]
        numbers_ = r.below("product/number", product, 900).tolist()
        ukrainian = r.chance("product/ukrainian", product, 0.55).tolist()
        names = [
            f"{leaf.noun_uk if uk else leaf.noun} {brand} {line} {number + 100}"
            + (" 🔥" if number % 97 == 0 else ' 15.6"' if number % 41 == 0 else "")
            for leaf, uk, brand, line, number in zip(leaves, ukrainian, brands, series, numbers_, strict=True)
        ]
        grams = r.below("product/weight", product, 24_000)
        said = r.below("product/phrase", product, 200).tolist()
        kind = r.below("product/description", product, 100).tolist()
        days = (self.launched(product) - START) // DAY
        category = np.array([leaf.index for leaf in leaves], dtype=np.int64)
        return Batch("products", {
            "id": safe(self.product_ids(product)),
            "category_id": safe(r.uuids("category", category)),
            "sku": safe(
                f"TM-{leaf.index:03d}-{at:07d}" for leaf, at in zip(leaves, product.tolist(), strict=True)
            ),
            "name": texts(names),
            "brand": texts(brands),
            "description": texts(
                self._description(k, name, at) for k, name, at in zip(kind, names, said, strict=True)
            ),
            "weight_kg": null_where(
                r.chance("product/no-weight", product, 0.08),
                [f"{g // 1000}.{g % 1000:03d}" for g in (grams + 50).tolist()],
            ),
            "attributes": [
                literal(self._attributes(n, colour))
                for n, colour in zip(numbers_, r.below("product/colour", product, 8).tolist(), strict=True)
            ],
            "is_active": flags(~r.chance("product/gone", product, 0.04)),
            "launched_on": null_where(
                r.chance("product/no-launch", product, 0.03),
                dates(days + (FIRST_DAY - date(1970, 1, 1)) // timedelta(days=1)),
            ),
        })  # fmt: skip

    def _description(self, kind: int, name: str, said: int) -> str | None:
        if kind < 9:
            return None
        if kind < 13:
            return ""
        english, ukrainian = self._pools.phrases_en[said], self._pools.phrases_uk[said]
        if kind < 30:
            return f"{name}\n\n• {ukrainian}\n• {english}\n• Гарантія 24 місяці ✅"
        return f"{ukrainian} {english}." if kind % 2 else f'"{english}" — {name}'

    @staticmethod
    def _attributes(number: int, colour: int) -> str | None:
        if number % 7 == 0:
            return None
        made: dict[str, object] = {"color": _COLOURS[colour], "warranty_months": (6, 12, 24, 36)[number % 4]}
        if number % 5 == 0:
            made["tags"] = ["хіт", "sale 🔥"] if number % 2 else []
        return json.dumps(made, ensure_ascii=False)

    def inventory_batch(self, product: Ints, house: int, code: str) -> Batch:
        """Rows of ``inventory`` of one warehouse."""
        r, at = self._random, product * 4 + house
        quantity = r.below("stock/quantity", at, 240) * r.below("stock/some", at, 5)
        return Batch("inventory", {
            "product_id": safe(self.product_ids(product)),
            "warehouse_code": [f"'{code}'"] * len(product),
            "quantity": numbers(quantity),
            "reserved": numbers(np.minimum(r.below("stock/reserved", at, 12), quantity)),
            "reorder_level": numbers(10 * (1 + r.below("stock/reorder", at, 6))),
            "counted_at": times(END - 1 - r.below("stock/counted", at, 45 * DAY)),
        })  # fmt: skip


def positions(counts: Ints) -> Ints:
    """0, 1, ... ``count - 1`` for each count, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0, dtype=np.int64) - np.repeat(ends - counts, counts)
