"""The Payments store: attempts to pay orders, and what was given back."""

from collections.abc import Iterator

import numpy as np

from techmarket.batches import (
    Batch,
    chunks,
    flags,
    money,
    null_where,
    numbers,
    picked,
    safe,
    texts,
    times,
)  # fmt: skip
from techmarket.business_time import END, MINUTE
from techmarket.orders import CURRENCIES, Chunk, Orders
from techmarket.randomness import Ints, Randomness

METHODS = (
    (1, "card_visa", "Visa", "LiqPay", True),
    (2, "card_mastercard", "Mastercard", "LiqPay", True),
    (3, "apple_pay", "Apple Pay", "WayForPay", True),
    (4, "google_pay", "Google Pay", "WayForPay", True),
    (5, "privat24", "Приват24", "ПриватБанк", True),
    (6, "mono_parts", "Покупка частинами", "monobank", True),
    (7, "bank_transfer", "Банківський переказ", "—", True),
    (8, "cash_on_delivery", "Післяплата", "Нова пошта", False),
    (9, "bonus_points", "Бонуси «Тех»", "TechMarket", True),
)
"""Key, code, name, provider, whether online; the last one is no longer offered."""

ONLINE_WEIGHTS = (30, 24, 14, 12, 10, 6, 4)
ON_DELIVERY = 8
FAILURES = ("insufficient_funds", "card_declined", "3ds_failed", "timeout", "limit_exceeded")
REASONS = ("order_cancelled", "damaged", "changed_mind", "wrong_item", "defective")
PAYMENT_STATUSES = ("pending", "succeeded", "failed")
MOST_ATTEMPTS = 4


class Payments:
    """Payments and refunds of the history's orders.

    Args:
        orders: what was to be paid.
        randomness: where the draws come from.
    """

    def __init__(self, orders: Orders, randomness: Randomness) -> None:
        self._orders = orders
        self._random = randomness

    def batches(self) -> Iterator[Batch]:
        """Every table of the store, parents before children."""
        yield Batch("payment_methods", {
            "id": [str(key) for key, *_ in METHODS],
            "code": texts(code for _, code, *_ in METHODS),
            "name": texts(name for _, _, name, *_ in METHODS),
            "provider": texts(provider for *_, provider, _ in METHODS),
            "is_online": ["1" if online else "0" for *_, online in METHODS],
            "is_active": flags(np.arange(len(METHODS)) < len(METHODS) - 1),
        })  # fmt: skip
        for index in chunks(self._orders.count):
            chunk = self._orders.chunk(index)
            yield self._payment_batch(chunk)
            refunds = self._refund_batch(chunk)
            if len(refunds):
                yield refunds

    def _payment_batch(self, chunk: Chunk) -> Batch:
        r, course = self._random, chunk.course
        # The failed attempts, then the one that succeeds or waits. A cancelled, unpaid order ends with a
        # failure, or was never tried.
        last = course.ever_paid | course.on_delivery
        tried = np.where(last, course.failures + 1, course.failures)
        order = np.repeat(np.arange(len(chunk.index), dtype=np.int64), tried)
        number = (np.arange(len(order)) - np.repeat(np.cumsum(tried) - tried, tried)).astype(np.int64)
        attempted = course.attempted[order] + number * 25 * MINUTE
        happened = attempted < END
        order, number, attempted = order[happened], number[happened], attempted[happened]
        at = chunk.index[order] * MOST_ATTEMPTS + number
        failed = number < course.failures[order]
        settled = np.where(failed, attempted + MINUTE // 30, course.paid[order])
        # Cash that was never collected, because the order was cancelled, has failed as well.
        refused = ~failed & ~course.ever_paid[order] & (course.cancelled[order] < END)
        failed = failed | refused
        settled = np.where(refused, course.cancelled[order], settled)
        open_ = settled >= END
        status = np.where(open_, 0, np.where(failed, 2, 1))
        method = np.where(
            course.on_delivery[order], ON_DELIVERY, r.weighted("payment/method", at, ONLINE_WEIGHTS) + 1
        )
        reference = r.words("payment/reference", at).tolist()
        return Batch("payments", {
            "id": safe(r.uuids("payment", at)),
            "order_id": safe(self._orders.ids(chunk.index[order])),
            "method_id": numbers(method),
            "amount": money(chunk.total[order]),
            "currency": picked(CURRENCIES, chunk.currency[order]),
            "status": picked(PAYMENT_STATUSES, status),
            "failure_reason": null_where(
                status != 2,
                [
                    "'not_collected'" if no_cash else f"'{FAILURES[reason]}'"
                    for no_cash, reason in zip(
                        refused.tolist(), r.below("payment/reason", at, len(FAILURES)).tolist(), strict=True
                    )
                ],
            ),
            "provider_reference": safe(f"pay_{word:016x}" for word in reference),
            "attempted_at": times(attempted),
            "settled_at": null_where(open_, times(np.where(open_, 0, settled))),
        })  # fmt: skip

    def _refund_batch(self, chunk: Chunk) -> Batch:
        course = chunk.course
        given = (course.refund > 0) & (course.refunded < END)
        order = np.flatnonzero(given).astype(np.int64)
        succeeded: Ints = chunk.index[order] * MOST_ATTEMPTS + course.failures[order]
        return Batch("refunds", {
            "id": safe(self._random.uuids("refund", chunk.index[order])),
            "payment_id": safe(self._random.uuids("payment", succeeded)),
            "amount": money(course.refund[order]),
            "currency": picked(CURRENCIES, chunk.currency[order]),
            "reason": picked(REASONS, course.refund_reason[order]),
            "refunded_at": times(course.refunded[order]),
        })  # fmt: skip
