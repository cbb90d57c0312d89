"""Plays one more business day onto filled stores, as their services would.

The day is the one after the newest price and order. What happens is drawn from (seed, day) and from
what the stores hold, so equal stores stay equal. Each act is a transaction of its own in its own store:
there is no distributed one between services either. A day cut short therefore leaves a short day with
sound stores, and the next one goes on from there.
"""

import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import psycopg
from rich.console import Console
from rich.table import Table

from tallyhouse.errors import TallyhouseError
from tallyhouse.settings import Settings
from techmarket.auth import Auth, ip_address
from techmarket.batches import Batch, times
from techmarket.business_time import HOUR, kyiv_day, midnight, to_datetime
from techmarket.catalog import WAREHOUSES, Catalog
from techmarket.day_orders import Buyer, Checkout
from techmarket.load import unfinished
from techmarket.orders import CURRENCIES, SEGMENTS, Customers
from techmarket.pancakes import COLUMNS as PANCAKE_COLUMNS
from techmarket.pancakes import pancakes
from techmarket.pools import PLACES_UA, TASTE_NOTES, USER_AGENTS, Pools, make_pools
from techmarket.randomness import Ints
from techmarket.service import Changes, Service, Today, new_uuid, several
from techmarket.sizes import Sizes
from techmarket.stores import PANCAKES, STORES, mysql_store, pancake_store, place

# Numbers of the history's customers and products end far below these.
_NEW_CUSTOMERS = 100_000_000
_NEW_PRODUCTS = 9_000_000


def play(settings: Settings, seed: int, console: Console, *, deletes: bool) -> None:
    """Play the next business day.

    Args:
        settings: where the stores are.
        seed: of all draws.
        console: where the changed rows are shown.
        deletes: also remove some rows.

    Raises:
        TallyhouseError: a store is down, empty, or its load was cut short.
    """
    changes: Changes = Counter()
    with ExitStack() as stack:
        services = {}
        for store in STORES:
            connection = stack.enter_context(mysql_store(settings, store.name))
            if unfinished(connection):
                raise TallyhouseError(
                    "its load was cut short",
                    where=place(settings, store.name),
                    remedy="Run make data again before make day",
                )
            services[store.name] = Service(store.name, connection, changes)
        shop = stack.enter_context(pancake_store(settings))
        today = Today(_newest(services, settings) + timedelta(days=1), seed)
        pools = make_pools(seed)
        checkout = Checkout(services["orders"], services["payments"], today)

        _catalog(services["catalog"], today, pools)
        newcomers = _customers(services["orders"], services["auth"], today, pools)
        checkout.go_on()
        checkout.give_back()
        checkout.take_orders(services["catalog"], newcomers)
        _auth(services["auth"], today)
        if deletes:
            checkout.forget()
            _forget(services["orders"], services["auth"], today)
        _pancakes(shop, today, changes, deletes=deletes)
    _show(today, changes, console)


def _newest(services: dict[str, Service], settings: Settings) -> date:
    """The last day that has begun: it has new prices, and mostly orders."""
    latest = [
        services["catalog"].rows("SELECT MAX(valid_from) FROM product_prices")[0][0],
        services["orders"].rows("SELECT MAX(ordered_at) FROM orders")[0][0],
    ]
    if None in latest:
        raise TallyhouseError(
            "there are no orders yet",
            where=place(settings, "orders"),
            remedy="Fill the stores first: make data",
        )
    return kyiv_day(max(latest))


def _catalog(catalog: Service, today: Today, pools: Pools) -> None:
    """Launches, new names, new prices, stock counts, products that come and go."""
    dice = today.dice("catalog")
    products = catalog.count("products")
    morning = to_datetime(midnight(today.day) + 6 * HOUR)

    # First of all, because these rows are what tells the next day that this one has begun.
    priced = catalog.sample("products", "id", max(round(products * 0.01), 1), dice)
    now: dict[str, Decimal] = dict(
        catalog.rows_in(  # ordered, so that each product's newest price comes last
            "SELECT product_id, price FROM product_prices WHERE product_id IN ({}) "
            "ORDER BY product_id, valid_from",
            [row[0] for row in priced],
        )
    )
    with catalog.transaction():
        catalog.insert(
            "product_prices",
            [
                {
                    "id": new_uuid(dice),
                    "product_id": product,
                    "price": _new_price(price, dice),
                    "currency": "UAH",
                    "valid_from": morning,
                }
                for product, price in now.items()
            ],
        )

    launched = np.arange(several(products * 0.0008, dice), dtype=np.int64)
    _launch(catalog, today, pools, launched + _NEW_PRODUCTS + today.number * 100)

    renamed = catalog.sample("products", "id, name", max(round(products * 0.0015), 1), dice)
    with catalog.transaction():
        for product, name in renamed:
            ending = dice.choice((" (2026)", " — нова версія ✨", " II", ' "Limited"'))
            shorter = name.removesuffix(ending)
            catalog.update(
                "products", "name = %s", ((name + ending if shorter == name else shorter), product)
            )

    for _ in range(several(max(products * 0.001, 0.5), dice)):
        for product, active in catalog.sample("products", "id, is_active", 1, dice):
            with catalog.transaction():
                catalog.update("products", "is_active = %s", (not active, product))

    counted = catalog.sample(
        "inventory",
        "CONCAT(product_id, warehouse_code), product_id, warehouse_code, quantity",
        max(round(products * 0.3), 2),
        dice,
        key="product_id",
    )
    with catalog.transaction():
        for _, product, house, quantity in counted:
            left = max(quantity - dice.randrange(0, 9), 0) if quantity > 5 else quantity + 50
            catalog.update(
                "inventory",
                "quantity = %s, reserved = %s, counted_at = %s",
                (left, min(dice.randrange(8), left), today.at_work(dice), product, house),
                where="product_id = %s AND warehouse_code = %s",
            )


def _new_price(price: Decimal, dice: random.Random) -> Decimal:
    changed = (price * dice.randrange(88, 116) / 100).quantize(Decimal("1"), ROUND_HALF_UP)
    return max(changed, Decimal(20)) - (Decimal("0.01") if dice.random() < 0.4 else Decimal("0.00"))


def _launch(catalog: Service, today: Today, pools: Pools, index: Ints) -> None:
    if not len(index):
        return
    made = Catalog(1, pools, today.randomness())
    # The categories are the history's: their keys come from the store, by the slug's number of levels.
    leaves = catalog.rows("SELECT id FROM categories WHERE slug LIKE '%/%/%' ORDER BY slug")
    chosen = [f"'{leaves[at % len(leaves)][0]}'" for at in index.tolist()]
    batch = made.product_batch(index)
    launch_day = [f"'{today.day}'"] * len(index)
    morning = np.full(len(index), midnight(today.day) + 6 * HOUR, dtype=np.int64)
    with catalog.transaction():
        catalog.put(_with(batch, category_id=chosen, launched_on=launch_day))
        catalog.put(made.first_price_batch(index, morning))
        house = made.inventory_batch(index, 0, WAREHOUSES[0][0])
        catalog.put(_with(house, counted_at=times(morning)))


def _customers(orders: Service, auth: Service, today: Today, pools: Pools) -> list[Buyer]:
    """Customers who register, move house, are promoted, or take another name.

    Returns:
        The new ones, in the order they came.
    """
    dice = today.dice("customers")
    known = orders.count("customers")
    count = several(known * 0.55 * today.share(), dice)
    newcomers = _register(orders, auth, today, pools, count)

    for address, *_ in orders.sample(
        "addresses", "id", max(round(known * 0.002), 1), dice, where="kind = 'shipping' AND country = 'UA'"
    ):
        region, city, prefix = dice.choice(PLACES_UA)
        street = f"вул. {dice.choice(pools.uk.streets)}, {dice.randrange(1, 180)}"
        values = (region, city, street, f"{prefix}{dice.randrange(1000):03d}", address)
        with orders.transaction():
            orders.update("addresses", "region = %s, city = %s, street = %s, postal_code = %s", values)

    for customer, segment in orders.sample("customers", "id, segment", max(round(known * 0.002), 1), dice):
        up = min(SEGMENTS.index(segment) + 1, len(SEGMENTS) - 1)
        down = max(SEGMENTS.index(segment) - 1, 0)
        target = up if dice.random() < 0.7 or down == SEGMENTS.index(segment) else down
        if SEGMENTS[target] != segment:
            with orders.transaction():
                orders.update("customers", "segment = %s", (SEGMENTS[target], customer))

    for customer, first in orders.sample("customers", "id, first_name", max(round(known * 0.0005), 1), dice):
        last = dice.choice(pools.uk.last[dice.randrange(2)])
        with orders.transaction():
            orders.update("customers", "last_name = %s", (last, customer))
        # The other service hears of it, and does it in its own transaction.
        with auth.transaction():
            auth.update("users", "full_name = %s", (f"{first} {last}", customer), where="customer_id = %s")
    return newcomers


def _register(orders: Service, auth: Service, today: Today, pools: Pools, count: int) -> list[Buyer]:
    index = np.arange(count, dtype=np.int64) + _NEW_CUSTOMERS + today.number * 100_000
    made = Customers(1, pools, today.randomness())
    accounts = Auth(Sizes.of(0.000001), made, pools, today.randomness())
    buyers = []
    for at, moment in zip(index, today.moments("customers/new", count), strict=True):
        one = np.array([at], dtype=np.int64)
        since = np.array([moment], dtype="datetime64[us]").astype(np.int64)
        customer = made.batch(one, since)
        with orders.transaction():
            orders.put(_with(customer, segment=["'regular'"]))
            orders.put(made.address_batch(one))
        if accounts.has_account(one).all():
            user = accounts.user_batch(one, since, np.zeros(1, dtype=np.int64))
            with auth.transaction():
                auth.put(_with(user, is_verified=["0"]))
        home = made.address_ids(one, np.zeros(1, dtype=np.int64))[0]
        currency = CURRENCIES[int(made.currency(one)[0])]
        buyers.append(Buyer(made.ids(one)[0], home, currency, moment + timedelta(minutes=5)))
    return buyers


def _with(batch: Batch, **columns: list[str]) -> Batch:
    return replace(batch, columns={**batch.columns, **columns})


def _auth(auth: Service, today: Today) -> None:
    """Sessions that end, sessions that begin, accounts that are closed or verified."""
    dice = today.dice("auth")
    yesterdays = auth.rows(
        "SELECT id, started_at FROM sessions WHERE ended_at IS NULL AND started_at < %s ORDER BY id",
        (today.start,),
    )
    with auth.transaction():
        for session, started in yesterdays:
            if dice.random() < 0.9:
                ended = max(today.start, started) + timedelta(seconds=dice.randrange(60, 3600))
                auth.update("sessions", "ended_at = %s, pages_viewed = pages_viewed + 1", (ended, session))

    count = several(today.share() * auth.count("sessions"), dice)
    moments = today.moments("sessions/new", count)
    # Who came often is met often among past sessions.
    visitors = [row[1] for row in auth.sample("sessions", "id, user_id", max(count // 2, 1), dice)]
    evening = to_datetime(midnight(today.day + timedelta(days=1)))
    for moment in moments:
        user = dice.choice(visitors)
        agent, device = USER_AGENTS[int(dice.random() ** 2 * len(USER_AGENTS))]
        pages = 1 + dice.randrange(9) * dice.randrange(5)
        ended = moment + timedelta(seconds=20 + pages * dice.randrange(120))
        still_open = ended >= evening - timedelta(hours=1)
        row = {
            "id": new_uuid(dice),
            "user_id": user,
            "ip_address": ip_address(dice.getrandbits(64)),
            "user_agent": agent,
            "device": device,
            "pages_viewed": pages,
            "started_at": moment,
            "ended_at": None if still_open else ended,
        }
        with auth.transaction():
            auth.insert("sessions", [row])
            auth.update("users", "last_login_at = %s", (moment, user))

    for user, active in auth.sample("users", "id, is_active", several(count * 0.02, dice), dice):
        with auth.transaction():
            auth.update("users", "is_active = %s, failed_logins = 0", (not active, user))
    for (user,) in auth.sample("users", "id", several(count * 0.1, dice), dice, where="NOT is_verified"):
        with auth.transaction():
            auth.update("users", "is_verified = TRUE", (user,))


def _forget(orders: Service, auth: Service, today: Today) -> None:
    """Delete some sessions, and addresses that no order needs."""
    dice = today.dice("delete")
    old = f"ended_at < '{today.start - timedelta(days=90)}'"
    some = max(auth.count("sessions") // 2_000, 1)
    with auth.transaction():
        auth.delete("sessions", "id", [r[0] for r in auth.sample("sessions", "id", some, dice, where=old)])
    needed = "EXISTS (SELECT 1 FROM orders AS o WHERE o.shipping_address_id = addresses.id)"
    free = f"kind = 'billing' AND NOT {needed}"
    some = max(orders.count("addresses") // 4_000, 1)
    with orders.transaction():
        gone = [row[0] for row in orders.sample("addresses", "id", some, dice, where=free)]
        orders.delete("addresses", "id", gone)


def _pancakes(shop: psycopg.Connection, today: Today, changes: Changes, *, deletes: bool) -> None:
    """A day at the pancake shop: new ones, and second thoughts about old ones."""
    dice = today.dice("pancakes")
    found = shop.execute("SELECT COUNT(*), MAX(id) FROM pancakes").fetchone()
    eaten, newest = (int(found[0]), int(found[1] or 0)) if found else (0, 0)
    count = several(today.share() * max(eaten, 1), dice)
    moments = today.moments("pancakes/new", count)
    rows = list(pancakes(today.randomness(), np.arange(count, dtype=np.int64), moments))
    with shop.cursor() as cursor, shop.transaction():
        marks = ", ".join(["%s"] * len(PANCAKE_COLUMNS))
        cursor.executemany(f"INSERT INTO pancakes ({', '.join(PANCAKE_COLUMNS)}) VALUES ({marks})", rows)
        changes[PANCAKES.name, "pancakes", "inserted"] += len(rows)
        for _ in range(several(max(eaten * 0.002, 1), dice)):
            values = (dice.choice(TASTE_NOTES), dice.randrange(1, 11), dice.randrange(1, max(newest, 1) + 1))
            cursor.execute(
                "UPDATE pancakes SET taste_notes = %s, fluffiness_level = %s WHERE id = %s", values
            )
            changes[PANCAKES.name, "pancakes", "updated"] += cursor.rowcount
        for _ in range(several(max(eaten * 0.0005, 1), dice) if deletes else 0):
            cursor.execute("DELETE FROM pancakes WHERE id = %s", (dice.randrange(1, max(newest, 1) + 1),))
            changes[PANCAKES.name, "pancakes", "deleted"] += cursor.rowcount


def _show(today: Today, changes: Changes, console: Console) -> None:
    """Print what was changed."""
    verbs = ("inserted", "updated", "deleted")
    table = Table(title=f"Business day {today.day:%A} {today.day}", title_justify="left")
    table.add_column("store")
    table.add_column("table")
    for verb in verbs:
        table.add_column(verb, justify="right")
    for store in (*STORES, PANCAKES):
        for name in store.tables:
            row = [changes[store.name, name, verb] for verb in verbs]
            if any(row):
                table.add_row(store.name, name, *(f"{n:,}" if n else "" for n in row))
    table.add_section()
    totals = [sum(n for (*_, kind), n in changes.items() if kind == verb) for verb in verbs]
    table.add_row("[bold]all[/]", "", *(f"[bold]{n:,}[/]" for n in totals))
    console.print(table)
