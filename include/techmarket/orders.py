"""The Orders store: customers, their addresses, their orders and what was in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from techmarket.batches import (
    Batch,
    chunks,
    dates,
    flags,
    money,
    null_where,
    numbers,
    picked,
    safe,
    texts,
    times,
)  # fmt: skip
from techmarket.business_time import DAY, DAYS, END, FIRST_DAY, HOUR, MINUTE, START, Arrivals
from techmarket.catalog import Catalog, positions
from techmarket.pools import CUSTOMER_NOTES, PLACES_ABROAD, PLACES_UA, Names, Pools, latin
from techmarket.randomness import Bools, Floats, Ints, Randomness
from techmarket.sizes import Sizes

CURRENCIES = ("UAH", "USD", "EUR")
RATES = (100, 4150, 4820)
"""Kopecks for one hundredth of each currency, times 100; fixed on purpose."""

SEGMENTS = ("regular", "silver", "gold", "vip")
CHANNELS = ("web", "mobile", "marketplace", "phone")
MAIL_DOMAINS = ("example.com", "example.org", "poshta.example", "mail.example")

_OLD_SHARE = 0.45  # of the customers registered before the history begins
_ITEM_WEIGHTS = (30, 27, 17, 11, 7, 4, 2, 2)
_QUANTITY_WEIGHTS = (74, 15, 5, 3, 1, 2)
_QUANTITIES = np.array([1, 2, 3, 4, 6, 10], dtype=np.int64)
_DISCOUNTS = np.array([0, 5, 10, 15, 20, 30], dtype=np.int64)


def converted(kopecks: Ints, currency: Ints) -> Ints:
    """A list price in hundredths of another currency, rounded to the nearest."""
    rate = np.array(RATES, dtype=np.int64)[currency]
    return np.asarray(np.maximum((kopecks * 100 + rate // 2) // rate, 1))


class Customers:
    """Everything that can be asked about customers, by their index, which is the order they came in.

    Args:
        count: how many there are.
        pools: values to draw from.
        randomness: where the draws come from.
    """

    def __init__(self, count: int, pools: Pools, randomness: Randomness) -> None:
        self.count = count
        self._pools = pools
        self._random = randomness
        self._old = max(int(count * _OLD_SHARE), 1)
        self._arrivals = Arrivals(count - self._old, "registration", randomness)

    def ids(self, customer: Ints) -> list[str]:
        """Keys of customers."""
        return self._random.uuids("customer", customer)

    def address_ids(self, customer: Ints, place: Ints) -> list[str]:
        """Keys of a customer's first (0), second (1) and third (2) address."""
        return self._random.uuids("address", customer * 4 + place)

    def registered(self, customer: Ints) -> Ints:
        """When each customer came."""
        old = customer < self._old
        before = START - 3 * 365 * DAY + customer * (3 * 365 * DAY // self._old)
        before = before + 8 * HOUR
        since = self._arrivals.time(np.where(old, 0, customer - self._old))
        return np.where(old, np.minimum(before, START - HOUR), since)

    def known_at(self, day: Ints) -> Ints:
        """How many customers had come before a day began."""
        return np.maximum(self._old + self._arrivals.before_day[day], 1)

    def activity(self, customer: Ints) -> Floats:
        """How readily a customer buys and visits; a few do so far more than the others."""
        u = self._random.uniform("customer/activity", customer)
        return 0.04 + u * u * u * u * 0.96

    def chosen(self, name: str, index: Ints, day: Ints) -> Ints:
        """A customer for each event: the active return, new ones come soon, old ones fade."""
        known = self.known_at(day)
        lately = self.known_at(np.maximum(day - 21, 0))
        fresh = self._random.chance(f"{name}/fresh", index, 0.22) & (known > lately)
        low = np.where(fresh, lately, 0)
        customer = low
        open_ = np.arange(len(index))
        now = START + day * DAY
        for attempt in range(12):
            at = index[open_]
            span = known[open_] - low[open_]
            candidate = low[open_] + self._random.below(f"{name}/{attempt}", at, span)
            age = np.maximum(now[open_] - self.registered(candidate), 0).astype(np.float64)
            likely = self.activity(candidate) * (0.25 + 0.75 / (1.0 + age / (120.0 * DAY)))
            customer[open_] = candidate
            open_ = open_[~self._random.chance(f"{name}/{attempt}/taken", at, likely)]
        return customer

    def abroad(self, customer: Ints) -> Ints:
        """Position in ``PLACES_ABROAD``, or -1 at home."""
        away = self._random.chance("customer/abroad", customer, 0.09)
        return np.where(away, self._random.below("customer/country", customer, len(PLACES_ABROAD)), -1)

    def currency(self, customer: Ints) -> Ints:
        """Position in ``CURRENCIES`` of what a customer pays in."""
        code = np.array([CURRENCIES.index(place[1]) for place in PLACES_ABROAD], dtype=np.int64)
        abroad = self.abroad(customer)
        return np.where(abroad < 0, 0, code[abroad])

    def names(self, customer: Ints) -> tuple[list[str], list[str]]:
        """First and last names."""
        r = self._random
        english = r.chance("customer/english", customer, np.where(self.abroad(customer) >= 0, 0.8, 0.05))
        sexes = r.below("customer/sex", customer, 2).tolist()
        firsts, lasts = r.below("customer/first", customer, 400), r.below("customer/last", customer, 400)
        first, last = [], []
        for en, sex, one, two in zip(english.tolist(), sexes, firsts.tolist(), lasts.tolist(), strict=True):
            names: Names = self._pools.en if en else self._pools.uk
            first.append(names.first[sex][one % len(names.first[sex])])
            last.append(names.last[sex][two % len(names.last[sex])])
        return first, last

    def emails(self, customer: Ints, first: list[str], last: list[str]) -> list[str]:
        """Addresses that nobody else has; some with capitals."""
        domains = self._random.weighted("customer/domain", customer, (50, 20, 20, 10)).tolist()
        return [
            f"{latin(one)[: 1 if at % 3 else 12]}.{latin(two)}{at}@{MAIL_DOMAINS[domain]}"
            if at % 50
            else f"{latin(one).title()}.{latin(two).upper()}{at}@{MAIL_DOMAINS[domain]}"
            for at, one, two, domain in zip(customer.tolist(), first, last, domains, strict=True)
        ]

    def phones(self, customer: Ints) -> list[str]:
        """Phone numbers as literals, some missing."""
        r = self._random
        operator = (50, 63, 66, 67, 68, 73, 93, 95, 96, 97, 98, 99)
        prefix = r.below("customer/operator", customer, len(operator)).tolist()
        number = r.below("customer/phone", customer, 10_000_000).tolist()
        made = [f"'+380{operator[p]}{n:07d}'" for p, n in zip(prefix, number, strict=True)]
        return null_where(r.chance("customer/no-phone", customer, 0.08), made)

    def has_third_address(self, customer: Ints) -> Bools:
        """Whether orders may go to another place than home."""
        return self._random.chance("customer/third", customer, 0.09)

    def batch(self, customer: Ints, registered: Ints) -> Batch:
        """Rows of ``customers`` who registered at these times."""
        r = self._random
        first, last = self.names(customer)
        activity = self.activity(customer)
        segment = np.searchsorted(np.array([0.35, 0.62, 0.88]), activity)
        born = (date(1950, 1, 1) - date(1970, 1, 1)) // timedelta(days=1)
        return Batch("customers", {
            "id": safe(self.ids(customer)),
            "first_name": texts(first),
            "last_name": texts(last),
            "email": texts(self.emails(customer, first, last)),
            "phone": self.phones(customer),
            "birth_date": null_where(
                r.chance("customer/no-birth", customer, 0.22),
                dates(born + r.below("customer/birth", customer, 57 * 365)),
            ),
            "segment": picked(SEGMENTS, segment),
            "marketing_opt_in": flags(r.chance("customer/opt-in", customer, 0.41)),
            "registered_at": times(registered),
        })  # fmt: skip

    def address_batch(self, customer: Ints) -> Batch:
        """Rows of ``addresses`` of these customers: home, for some an invoice's and another place."""
        r = self._random
        second = r.chance("customer/second", customer, 0.34)
        third = self.has_third_address(customer)
        owner = np.concatenate([customer, customer[second], customer[third]])
        place = np.repeat(
            np.array([0, 1, 2], dtype=np.int64), [len(customer), int(second.sum()), int(third.sum())]
        )
        order = np.argsort(owner * 4 + place)
        owner, place = owner[order], place[order]
        at = owner * 4 + place
        abroad = self.abroad(owner)
        home = r.below("address/city", at, len(PLACES_UA) * 2)
        # Half of all live in the first eight places of the list.
        home = np.where(home >= len(PLACES_UA), home % 8, home)
        streets = r.below("address/street", at, 400).tolist()
        houses, flats = r.below("address/house", at, 180).tolist(), r.below("address/flat", at, 260).tolist()
        codes = r.below("address/code", at, 1000).tolist()
        country, region, city, street, postal = [], [], [], [], []
        for away, near, lane, house, flat, code in zip(
            abroad.tolist(), home.tolist(), streets, houses, flats, codes, strict=True
        ):
            if away >= 0:
                land, _, area, town = PLACES_ABROAD[away]
                lanes = self._pools.en.streets
                country.append(land)
                street.append(f"{house + 1} {lanes[lane % len(lanes)]}")
                postal.append("" if code % 40 == 0 else f"{code % 90 + 10}{code:03d}")
            else:
                area, town, prefix = PLACES_UA[near]
                lanes = self._pools.uk.streets
                country.append("UA")
                street.append(
                    f"вул. {lanes[lane % len(lanes)]}, {house + 1}" + (f", кв. {flat}" if flat else "")
                )
                postal.append("" if code % 40 == 0 else f"{prefix}{code:03d}")
            region.append(area)
            city.append(town)
        return Batch("addresses", {
            "id": safe(self.address_ids(owner, place)),
            "customer_id": safe(self.ids(owner)),
            "kind": picked(("shipping", "billing", "shipping"), place),
            "is_default": flags(place == 0),
            "country": safe(country),
            "region": texts(region),
            "city": texts(city),
            "street": texts(street),
            "postal_code": safe(postal),
        })  # fmt: skip


@dataclass(frozen=True)
class Lines:
    """Lines of the orders of one chunk; ``order`` is the order's position in the chunk."""

    order: Ints
    number: Ints
    product: Ints
    quantity: Ints
    unit_price: Ints
    discount: Ints
    total: Ints


@dataclass(frozen=True)
class Course:
    """What became of each order of a chunk, as times in microseconds; beyond ``END`` it has not happened.

    Attributes:
        failures: failed attempts to pay, 0 to 2.
        paid: when the money came; a cancelled order may never be paid.
        refunded: when some of it went back.
        refund: hundredths given back then, 0 for none.
    """

    on_delivery: Bools
    failures: Ints
    attempted: Ints
    ever_paid: Bools
    paid: Ints
    shipped: Ints
    delivered: Ints
    cancelled: Ints
    returned: Ints
    refunded: Ints
    refund: Ints
    refund_reason: Ints
    status: Ints


STATUSES = ("pending", "paid", "shipped", "delivered", "cancelled", "returned")
NEVER = np.iinfo(np.int64).max // 2


@dataclass(frozen=True)
class Chunk:
    """Orders of one chunk, whole: Orders and Payments each write their part of it."""

    index: Ints
    customer: Ints
    currency: Ints
    ordered: Ints
    lines: Lines
    subtotal: Ints
    fee: Ints
    course: Course

    @property
    def total(self) -> Ints:
        """What was to be paid, in hundredths."""
        return self.subtotal + self.fee


class Orders:
    """Every order of the history, by index, which is the order they came in.

    Args:
        sizes: how many.
        customers: who orders.
        catalog: what is ordered.
        randomness: where the draws come from.
    """

    def __init__(self, sizes: Sizes, customers: Customers, catalog: Catalog, randomness: Randomness) -> None:
        self.count = sizes.orders
        self._customers = customers
        self._catalog = catalog
        self._random = randomness
        self._arrivals = Arrivals(sizes.orders, "order", randomness)

    def ids(self, order: Ints) -> list[str]:
        """Keys of orders."""
        return self._random.uuids("order", order)

    def chunk(self, index: Ints) -> Chunk:
        """Everything about these orders."""
        day, ordered = self._arrivals.day(index), self._arrivals.time(index)
        customer = self._customers.chosen("order/customer", index, day)
        currency = self._customers.currency(customer)
        lines = self._lines(index, ordered, currency, day)
        # bincount would sum in floats.
        subtotal = np.zeros(len(index), dtype=np.int64)
        np.add.at(subtotal, lines.order, lines.total)
        fee = self._fee(index, subtotal, currency)
        course = self._course(index, ordered, subtotal, fee, currency)
        return Chunk(index, customer, currency, ordered, lines, subtotal, fee, course)

    def _lines(self, index: Ints, ordered: Ints, currency: Ints, day: Ints) -> Lines:
        r = self._random
        counts = r.weighted("order/lines", index, _ITEM_WEIGHTS) + 1
        order = np.repeat(np.arange(len(index), dtype=np.int64), counts)
        number = positions(counts)
        at = index[order] * 16 + number
        product = self._catalog.sold("line/product", at, ordered[order])
        price = converted(self._catalog.price_at(product, ordered[order]), currency[order])
        quantity = _QUANTITIES[r.weighted("line/quantity", at, _QUANTITY_WEIGHTS)]
        sale = np.array([_on_sale(d) for d in range(DAYS)])[day[order]]
        percent = np.where(
            sale,
            _DISCOUNTS[r.weighted("line/sale", at, (30, 12, 22, 12, 14, 10))],
            _DISCOUNTS[r.weighted("line/discount", at, (78, 7, 8, 3, 3, 1))],
        )
        discount = quantity * price * percent // 100
        return Lines(order, number, product, quantity, price, discount, quantity * price - discount)

    def _fee(self, index: Ints, subtotal: Ints, currency: Ints) -> Ints:
        """Shipping: free above 1,500 hryvnias' worth, or for who collects."""
        local = np.array([7000, 500, 450], dtype=np.int64)[currency]
        free_from = np.array([150_000, 20_000, 18_000], dtype=np.int64)[currency]
        free = (subtotal >= free_from) | self._random.chance("order/collect", index, 0.2)
        return np.where(free, 0, local + 500 * (subtotal % 5) * (currency == 0))

    def _course(self, index: Ints, ordered: Ints, subtotal: Ints, fee: Ints, currency: Ints) -> Course:
        r = self._random
        ending = r.uniform("order/fate", index)
        cancel, give_back = ending < 0.065, (ending >= 0.065) & (ending < 0.105)
        on_delivery = (currency == 0) & r.chance("order/on-delivery", index, 0.18)
        by_bank = ~on_delivery & r.chance("order/by-bank", index, 0.06)
        failures = np.where(on_delivery, 0, r.weighted("order/failures", index, (880, 95, 25)))
        attempted = ordered + MINUTE // 2 + r.below("order/attempted", index, 8 * MINUTE)
        settle = np.where(
            by_bank,
            8 * HOUR + r.below("order/settle-bank", index, 3 * DAY),
            MINUTE // 20 + r.below("order/settle", index, 5 * MINUTE),
        )
        paid_online = attempted + failures * 25 * MINUTE + settle
        ready = np.where(on_delivery, ordered + HOUR, paid_online)
        shipped = ready + 8 * HOUR + r.below("order/shipped", index, 52 * HOUR)
        delivered = shipped + 18 * HOUR + r.below("order/delivered", index, 80 * HOUR)
        ever_paid = ~cancel | (~on_delivery & r.chance("order/paid-first", index, 0.4))
        paid = np.where(on_delivery, delivered, paid_online)
        paid = np.where(ever_paid, paid, NEVER)
        early = ordered + 3 * HOUR + r.below("order/cancelled", index, 40 * HOUR)
        cancelled = np.where(cancel, np.where(ever_paid, paid_online + 2 * HOUR, early), NEVER)
        returned = delivered + 2 * DAY + r.below("order/returned", index, 12 * DAY)
        returned = np.where(give_back, returned, NEVER)
        # Of the happy ones a few get some money back for a scratch.
        goodwill = ~cancel & ~give_back & r.chance("order/goodwill", index, 0.015)
        refund = np.where(cancel & ever_paid, subtotal + fee, 0)
        refund = np.where(give_back, subtotal, refund)
        refund = np.where(goodwill, (subtotal + fee) // 10, refund)
        refunded = np.where(cancel, cancelled, np.where(give_back, returned, delivered + DAY))
        refunded = refunded + 2 * HOUR + r.below("order/refunded", index, 50 * HOUR)
        reason = np.where(cancel, 0, np.where(goodwill, 1, 2 + r.below("order/reason", index, 3)))

        status = np.zeros(len(index), dtype=np.int64)
        status[(paid < END) & ~on_delivery] = 1
        ongoing = ~cancel
        status[ongoing & (shipped < END)] = 2
        status[ongoing & (delivered < END)] = 3
        status[cancelled < END] = 4
        status[returned < END] = 5
        return Course(
            on_delivery, failures, attempted, ever_paid, paid, shipped, delivered, cancelled, returned,
            refunded, refund, reason, status,
        )  # fmt: skip

    def batches(self) -> Iterator[Batch]:
        """Every table of the store, parents before children."""
        for index in chunks(self._customers.count):
            yield self._customers.batch(index, self._customers.registered(index))
            yield self._customers.address_batch(index)
        for index in chunks(self.count):
            chunk = self.chunk(index)
            yield self._order_batch(chunk)
            yield self._line_batch(chunk)

    def _order_batch(self, chunk: Chunk) -> Batch:
        r, index = self._random, chunk.index
        days = self._arrivals.day(index)
        position = (index - self._arrivals.before_day[days] + 1).tolist()
        elsewhere = self._customers.has_third_address(chunk.customer) & r.chance(
            "order/elsewhere", index, 0.4
        )
        # Nine in ten say nothing.
        note = np.where(
            r.chance("order/quiet", index, 0.88),
            len(CUSTOMER_NOTES),
            r.below("order/note", index, len(CUSTOMER_NOTES)),
        )
        return Batch("orders", {
            "id": safe(self.ids(index)),
            "order_number": safe(
                f"TM-{FIRST_DAY + timedelta(days=day):%Y%m%d}-{at:06d}"
                for day, at in zip(days.tolist(), position, strict=True)
            ),
            "customer_id": safe(self._customers.ids(chunk.customer)),
            "shipping_address_id": safe(
                self._customers.address_ids(chunk.customer, np.where(elsewhere, 2, 0).astype(np.int64))
            ),
            "status": picked(STATUSES, chunk.course.status),
            "channel": picked(CHANNELS, r.weighted("order/channel", index, (46, 38, 12, 4))),
            "currency": picked(CURRENCIES, chunk.currency),
            "subtotal": money(chunk.subtotal),
            "shipping_fee": money(chunk.fee),
            "total": money(chunk.total),
            "customer_note": picked((*CUSTOMER_NOTES, None), note),
            "ordered_at": times(chunk.ordered),
        })  # fmt: skip

    def _line_batch(self, chunk: Chunk) -> Batch:
        lines = chunk.lines
        return Batch("order_items", {
            "id": safe(self._random.uuids("line", chunk.index[lines.order] * 16 + lines.number)),
            "order_id": safe(self._random.uuids("order", chunk.index[lines.order])),
            "line_number": numbers(lines.number + 1),
            "product_id": safe(self._catalog.product_ids(lines.product)),
            "quantity": numbers(lines.quantity),
            "unit_price": money(lines.unit_price),
            "discount": money(lines.discount),
            "line_total": money(lines.total),
        })  # fmt: skip


def _on_sale(day: int) -> bool:
    """Whether the whole shop has lower prices: around Black Friday and before the holidays."""
    when = FIRST_DAY + timedelta(days=day)
    return (when.month == 11 and when.day >= 22) or (when.month == 12 and 18 <= when.day <= 24)
