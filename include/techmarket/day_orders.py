"""A day of the Orders and Payments services: old orders go on, new ones come in."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

from techmarket.orders import CHANNELS, CURRENCIES, RATES
from techmarket.payments import FAILURES, ON_DELIVERY, ONLINE_WEIGHTS
from techmarket.pools import CUSTOMER_NOTES
from techmarket.service import Row, Service, Today, new_uuid, several

_BANK_TRANSFER = 7
_CENT = Decimal("0.01")
_FREE_FROM = {"UAH": Decimal(1500), "USD": Decimal(200), "EUR": Decimal(180)}
_FEE = {"UAH": Decimal("75.00"), "USD": Decimal("5.00"), "EUR": Decimal("4.50")}
_RATE = {code: Decimal(rate) / 100 for code, rate in zip(CURRENCIES, RATES, strict=True)}


@dataclass(frozen=True)
class Buyer:
    """Who may order, and since when (naive UTC)."""

    customer: str
    address: str
    currency: str
    since: datetime | None = None


@dataclass(frozen=True)
class Payment:
    """An attempt to pay, as it is stored."""

    id: str
    method: int
    status: str


class Checkout:
    """Both services' side of ordering and paying.

    Args:
        orders: the Orders service.
        payments: the Payments service.
        today: the day.
    """

    def __init__(self, orders: Service, payments: Service, today: Today) -> None:
        self._orders = orders
        self._payments = payments
        self._today = today

    def go_on(self) -> None:
        """Move the open orders of earlier days: pay, ship, deliver, cancel."""
        dice = self._today.dice("orders/open")
        open_ = self._orders.rows(
            "SELECT id, status, total, currency, ordered_at FROM orders "
            "WHERE status IN ('pending', 'paid', 'shipped') ORDER BY id"
        )
        payments = self._payments_of([row[0] for row in open_])
        for order, status, total, currency, ordered in open_:
            tried = payments[order]
            on_delivery = any(one.method == ON_DELIVERY for one in tried)
            if status == "shipped":
                if dice.random() < 0.45:
                    for one in tried:
                        if one.status == "pending":
                            self._settle(one.id, "succeeded", self._today.at_work(dice))
                    self._status(order, "delivered")
            elif status == "paid" or on_delivery:
                if dice.random() < 0.02:
                    self._cancel(order, tried, dice)
                elif dice.random() < 0.62:
                    self._status(order, "shipped")
            elif any(one.status == "succeeded" for one in tried):
                # A day that was killed took the money and did not get to say so.
                self._status(order, "paid")
            else:
                self._go_on_paying(order, total, currency, ordered, tried, dice)

    def _go_on_paying(
        self,
        order: str,
        total: Decimal,
        currency: str,
        ordered: datetime,
        tried: Sequence[Payment],
        dice: random.Random,
    ) -> None:
        waiting = next((one for one in tried if one.status == "pending"), None)
        if dice.random() < 0.55:
            moment = self._today.at_work(dice)
            if waiting:
                self._settle(waiting.id, "succeeded", moment)
            else:
                again = self._attempt(order, dice.randrange(1, 5), total, currency, moment, dice)
                self._settle(again, "succeeded", moment + timedelta(seconds=dice.randrange(3, 90)))
            self._status(order, "paid")
        elif self._today.start - ordered > timedelta(days=2):
            self._cancel(order, tried, dice)

    def give_back(self) -> None:
        """Refund what was cancelled or returned, and let some customers return what they got."""
        dice = self._today.dice("orders/refunds")
        recent = self._orders.rows(
            "SELECT id, status, subtotal, total, currency, ordered_at FROM orders "
            "WHERE ordered_at >= %s AND status IN ('cancelled', 'returned', 'delivered') ORDER BY id",
            (self._today.start - timedelta(days=30),),
        )
        unrefunded: dict[str, str] = dict(
            self._payments.rows_in(
                "SELECT p.order_id, p.id FROM payments AS p LEFT JOIN refunds AS r ON r.payment_id = p.id "
                "WHERE p.status = 'succeeded' AND r.id IS NULL AND p.order_id IN ({}) ORDER BY p.id",
                [row[0] for row in recent],
            )
        )
        for order, status, subtotal, total, currency, ordered in recent:
            age = (self._today.start - ordered).days
            if status == "delivered" and 4 <= age <= 20 and dice.random() < 0.0035:
                self._status(order, "returned")
            if order not in unrefunded:
                continue
            if status == "cancelled" and dice.random() < 0.8:
                self._refund(unrefunded[order], total, currency, "order_cancelled", dice)
            elif status == "returned" and dice.random() < 0.8:
                reason = dice.choice(("changed_mind", "wrong_item", "defective"))
                self._refund(unrefunded[order], subtotal, currency, reason, dice)
            elif status == "delivered" and dice.random() < 0.0006:
                tenth = (total / 10).quantize(_CENT, ROUND_DOWN)
                self._refund(unrefunded[order], tenth, currency, "damaged", dice)

    def take_orders(self, catalog: Service, newcomers: Sequence[Buyer]) -> None:
        """New orders: the customers of earlier orders return, today's newcomers try the shop."""
        dice = self._today.dice("orders/new")
        count = several(self._today.share() * self._orders.count("orders"), dice)
        moments = self._today.moments("orders/new", count)
        # Who ordered often is met often among past orders, and so is what sells well among their lines.
        known = [
            Buyer(customer, address, currency)
            for _, customer, address, currency in self._orders.sample(
                "orders", "id, customer_id, shipping_address_id, currency", count, dice
            )
        ]
        lines = [dice.choices(range(1, 9), weights=(30, 27, 17, 11, 7, 4, 2, 2))[0] for _ in range(count)]
        seen = self._orders.sample("order_items", "id, product_id", sum(lines), dice)
        dice.shuffle(seen)
        prices = self._prices(catalog, sorted({product for _, product in seen}))
        wanted = [product for _, product in seen if product in prices]
        fresh = list(newcomers)
        for number, (moment, length) in enumerate(zip(moments, lines, strict=True), start=1):
            buyer = dice.choice(known) if known else None
            if (
                fresh
                and fresh[0].since
                and fresh[0].since < moment
                and (buyer is None or dice.random() < 0.3)
            ):
                buyer = fresh.pop(0)
            if buyer is None or not wanted:
                continue
            basket = list(dict.fromkeys(wanted.pop() if wanted else "" for _ in range(length)))
            self._order(number, buyer, [(one, prices[one]) for one in basket if one], moment, dice)

    def _prices(self, catalog: Service, products: Sequence[str]) -> dict[str, list[tuple[datetime, Decimal]]]:
        """Price histories of those products that are on sale."""
        found: defaultdict[str, list[tuple[datetime, Decimal]]] = defaultdict(list)
        for product, since, price in catalog.rows_in(
            "SELECT pp.product_id, pp.valid_from, pp.price FROM product_prices AS pp "
            "JOIN products AS p ON p.id = pp.product_id "
            "WHERE p.is_active AND pp.product_id IN ({}) ORDER BY pp.product_id, pp.valid_from",
            products,
        ):
            found[product].append((since, price))
        return dict(found)

    def _order(
        self,
        number: int,
        buyer: Buyer,
        basket: Sequence[tuple[str, list[tuple[datetime, Decimal]]]],
        moment: datetime,
        dice: random.Random,
    ) -> None:
        order = new_uuid(dice)
        lines: list[dict[str, Any]] = []
        for line, (product, history) in enumerate(basket, start=1):
            listed = [price for since, price in history if since <= moment]
            if not listed:
                continue
            unit = max((listed[-1] / _RATE[buyer.currency]).quantize(_CENT, ROUND_HALF_UP), _CENT)
            quantity = dice.choices((1, 2, 3, 4, 6, 10), weights=(74, 15, 5, 3, 1, 2))[0]
            percent = dice.choices((0, 5, 10, 15, 20, 30), weights=(78, 7, 8, 3, 3, 1))[0]
            discount = (unit * quantity * percent / 100).quantize(_CENT, ROUND_DOWN)
            lines.append(
                {
                    "id": new_uuid(dice),
                    "order_id": order,
                    "line_number": line,
                    "product_id": product,
                    "quantity": quantity,
                    "unit_price": unit,
                    "discount": discount,
                    "line_total": unit * quantity - discount,
                }
            )
        if not lines:
            return
        subtotal = sum((line["line_total"] for line in lines), Decimal("0.00"))
        fee = Decimal("0.00")
        if subtotal < _FREE_FROM[buyer.currency] and dice.random() >= 0.2:
            fee = _FEE[buyer.currency]
        head = {
            "id": order,
            "order_number": f"TM-{self._today.day:%Y%m%d}-{number:06d}",
            "customer_id": buyer.customer,
            "shipping_address_id": buyer.address,
            "status": "pending",
            "channel": dice.choices(CHANNELS, weights=(46, 38, 12, 4))[0],
            "currency": buyer.currency,
            "subtotal": subtotal,
            "shipping_fee": fee,
            "total": subtotal + fee,
            "customer_note": dice.choice(CUSTOMER_NOTES) if dice.random() < 0.12 else None,
            "ordered_at": moment,
        }
        with self._orders.transaction():
            self._orders.insert("orders", [head])
            self._orders.insert("order_items", lines)
        self._pay(order, subtotal + fee, buyer.currency, moment, dice)

    def _pay(self, order: str, total: Decimal, currency: str, ordered: datetime, dice: random.Random) -> None:
        """The attempts of the order's own day; whatever stays open is carried on by the next days."""
        moment = ordered + timedelta(seconds=dice.randrange(30, 500))
        if currency == "UAH" and dice.random() < 0.18:
            self._attempt(order, ON_DELIVERY, total, currency, moment, dice)
            return
        for _ in range(3):
            method = dice.choices(range(1, len(ONLINE_WEIGHTS) + 1), weights=ONLINE_WEIGHTS)[0]
            payment = self._attempt(order, method, total, currency, moment, dice)
            if method == _BANK_TRANSFER:
                return
            settled = moment + timedelta(seconds=dice.randrange(3, 300))
            if dice.random() < 0.88:
                self._settle(payment, "succeeded", settled)
                self._status(order, "paid")
                return
            self._settle(payment, "failed", settled, dice.choice(FAILURES))
            if dice.random() < 0.3:
                return
            moment += timedelta(minutes=25)

    def _attempt(
        self,
        order: str,
        method: int,
        amount: Decimal,
        currency: str,
        moment: datetime,
        dice: random.Random,
    ) -> str:
        payment = new_uuid(dice)
        row = {
            "id": payment,
            "order_id": order,
            "method_id": method,
            "amount": amount,
            "currency": currency,
            "status": "pending",
            "failure_reason": None,
            "provider_reference": f"pay_{dice.getrandbits(64):016x}",
            "attempted_at": moment,
            "settled_at": None,
        }
        with self._payments.transaction():
            self._payments.insert("payments", [row])
        return payment

    def _settle(self, payment: str, status: str, moment: datetime, reason: str | None = None) -> None:
        with self._payments.transaction():
            self._payments.update(
                "payments",
                "status = %s, failure_reason = %s, settled_at = %s",
                (status, reason, moment, payment),
            )

    def _status(self, order: str, status: str) -> None:
        with self._orders.transaction():
            self._orders.update("orders", "status = %s", (status, order))

    def _cancel(self, order: str, tried: Sequence[Payment], dice: random.Random) -> None:
        for one in tried:
            if one.status == "pending":
                reason = "not_collected" if one.method == ON_DELIVERY else "timeout"
                self._settle(one.id, "failed", self._today.at_work(dice), reason)
        self._status(order, "cancelled")

    def _refund(self, payment: str, amount: Decimal, currency: str, reason: str, dice: random.Random) -> None:
        row = {
            "id": new_uuid(dice),
            "payment_id": payment,
            "amount": amount,
            "currency": currency,
            "reason": reason,
            "refunded_at": self._today.at_work(dice),
        }
        with self._payments.transaction():
            self._payments.insert("refunds", [row])

    def _payments_of(self, orders: Sequence[str]) -> defaultdict[str, list[Payment]]:
        found: defaultdict[str, list[Payment]] = defaultdict(list)
        rows: list[Row] = self._payments.rows_in(
            "SELECT order_id, id, method_id, status FROM payments WHERE order_id IN ({}) "
            "ORDER BY order_id, attempted_at, id",
            orders,
        )
        for order, payment, method, status in rows:
            found[order].append(Payment(payment, method, status))
        return found

    def forget(self) -> None:
        """Delete some cancelled orders, with their lines, payments and refunds."""
        dice = self._today.dice("orders/delete")
        some = max(self._orders.count("orders") // 5_000, 1)
        chosen = [
            row[0] for row in self._orders.sample("orders", "id", some, dice, where="status = 'cancelled'")
        ]
        # Payments first: an order without them is sound, a payment without its order is not.
        tried = [one.id for several_ in self._payments_of(chosen).values() for one in several_]
        with self._payments.transaction():
            self._payments.delete("refunds", "payment_id", tried)
            self._payments.delete("payments", "id", tried)
        with self._orders.transaction():
            self._orders.delete("order_items", "order_id", chosen)
            self._orders.delete("orders", "id", chosen)
