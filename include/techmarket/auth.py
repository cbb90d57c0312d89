"""The Auth store: roles, the accounts of customers and staff, their sessions."""

from collections.abc import Iterator

import numpy as np

from techmarket.batches import (
    Batch,
    chunks,
    flags,
    literal,
    null_where,
    numbers,
    picked,
    safe,
    texts,
    times,
)  # fmt: skip
from techmarket.business_time import DAY, END, HOUR, MINUTE, SECOND, START, Arrivals
from techmarket.orders import Customers
from techmarket.pools import USER_AGENTS, Pools, latin
from techmarket.randomness import Bools, Ints, Randomness
from techmarket.sizes import Sizes

ROLES = (
    (1, "customer", "Покупець"), (2, "support", "Підтримка"), (3, "warehouse", "Склад"),
    (4, "manager", "Менеджер"), (5, "admin", "Адміністратор"),
)  # fmt: skip


class Auth:
    """Accounts and their visits.

    Args:
        sizes: how many.
        customers: whose accounts they are.
        pools: values to draw from.
        randomness: where the draws come from.
    """

    def __init__(self, sizes: Sizes, customers: Customers, pools: Pools, randomness: Randomness) -> None:
        self._sizes = sizes
        self._customers = customers
        self._pools = pools
        self._random = randomness
        self._arrivals = Arrivals(sizes.sessions, "session", randomness)

    def has_account(self, customer: Ints) -> Bools:
        """Some order as guests, or by phone."""
        return np.asarray(self._random.chance("customer/account", customer, 0.88) | (customer == 0))

    def _visitors(self, session: Ints) -> Ints:
        """The customer of each session; who has no account sends the nearest earlier one who has."""
        customer = self._customers.chosen("session/customer", session, self._arrivals.day(session))
        for _ in range(40):
            without = ~self.has_account(customer)
            if not without.any():
                break
            customer = np.where(without, customer - 1, customer)
        return customer

    def batches(self) -> Iterator[Batch]:
        """Every table of the store, parents before children."""
        yield Batch("roles", {
            "id": [str(key) for key, *_ in ROLES],
            "code": texts(code for _, code, _ in ROLES),
            "name": texts(name for *_, name in ROLES),
        })  # fmt: skip
        # 8 bytes per customer: the last visit is known only after all sessions have been gone through.
        last_login = np.zeros(self._customers.count, dtype=np.int64)
        for index in chunks(self._sizes.sessions):
            np.maximum.at(last_login, self._visitors(index), self._arrivals.time(index))
        yield self._staff_batch()
        for index in chunks(self._customers.count):
            owners = index[self.has_account(index)]
            yield self.user_batch(owners, self._customers.registered(owners), last_login[owners])
        for index in chunks(self._sizes.sessions):
            yield self._session_batch(index)

    def _password_hashes(self, at: Ints) -> list[str]:
        """Shaped like bcrypt's; nobody's password."""
        words = [self._random.words(f"user/password/{part}", at).tolist() for part in range(4)]
        return [
            "'$2b$12$" + "".join(f"{w:016x}" for w in four)[:53] + "'" for four in zip(*words, strict=True)
        ]

    def _staff_batch(self) -> Batch:
        r, index = self._random, np.arange(self._sizes.staff, dtype=np.int64)
        names = self._pools.uk
        firsts = [names.first[at % 2][at % len(names.first[0])] for at in index.tolist()]
        lasts = [names.last[at % 2][(at * 7 + 3) % len(names.last[0])] for at in index.tolist()]
        return Batch("users", {
            "id": safe(r.uuids("staff", index)),
            "customer_id": ["NULL"] * len(index),
            "role_id": numbers(r.weighted("staff/role", index, (50, 30, 16, 4)) + 2),
            "email": safe(
                f"{latin(one)}.{latin(two)}.{at}@techmarket.example"
                for one, two, at in zip(firsts, lasts, index.tolist(), strict=True)
            ),
            "password_hash": self._password_hashes(-1 - index),
            "full_name": texts(f"{one} {two}" for one, two in zip(firsts, lasts, strict=True)),
            "phone": ["NULL"] * len(index),
            "locale": ["'uk_UA'"] * len(index),
            "is_active": flags(~r.chance("staff/left", index, 0.1)),
            "is_verified": ["1"] * len(index),
            "failed_logins": ["0"] * len(index),
            "registered_at": times(START - 900 * DAY + r.below("staff/since", index, 1400 * DAY)),
            "last_login_at": times(END - 1 - r.below("staff/login", index, 3 * DAY)),
        })  # fmt: skip

    def user_batch(self, customer: Ints, registered: Ints, seen: Ints) -> Batch:
        """Rows of ``users``, for customers who registered and were last seen (0 for never) at these times."""
        r = self._random
        first, last = self._customers.names(customer)
        return Batch("users", {
            "id": safe(r.uuids("user", customer)),
            "customer_id": safe(self._customers.ids(customer)),
            "role_id": ["1"] * len(customer),
            "email": texts(self._customers.emails(customer, first, last)),
            "password_hash": self._password_hashes(customer),
            "full_name": texts(f"{one} {two}" for one, two in zip(first, last, strict=True)),
            "phone": self._customers.phones(customer),
            "locale": picked(("uk_UA", "en_US"), (self._customers.abroad(customer) >= 0).astype(np.int64)),
            "is_active": flags(~r.chance("user/closed", customer, 0.03)),
            "is_verified": flags(r.chance("user/verified", customer, 0.86)),
            "failed_logins": numbers(r.weighted("user/failed", customer, (85, 8, 4, 2, 1))),
            "registered_at": times(registered + 2 * MINUTE),
            "last_login_at": null_where(seen == 0, times(seen)),
        })  # fmt: skip

    def _session_batch(self, session: Ints) -> Batch:
        r, agents = self._random, USER_AGENTS
        visitor, started = self._visitors(session), self._arrivals.time(session)
        # The square favours the first browsers of the pool.
        taste = r.uniform("session/agent", session)
        agent = (taste * taste * len(agents)).astype(np.int64)
        pages = 1 + r.below("session/pages", session, 9) * r.below("session/deep", session, 5)
        ended = started + 20 * SECOND + pages * r.below("session/pace", session, 2 * MINUTE)
        lost = r.chance("session/lost", session, 0.02) & (started > END - 30 * DAY)
        open_ = lost | (ended >= END) | ((started >= END - 2 * HOUR) & r.chance("session/open", session, 0.5))
        address = r.words("session/ip", session).tolist()
        return Batch("sessions", {
            "id": safe(r.uuids("session", session)),
            "user_id": safe(r.uuids("user", visitor)),
            "ip_address": safe(ip_address(word) for word in address),
            "user_agent": [literal(agents[at][0]) for at in agent.tolist()],
            "device": picked([device for _, device in agents], agent),
            "pages_viewed": numbers(pages),
            "started_at": times(started),
            "ended_at": null_where(open_, times(np.where(open_, 0, ended))),
        })  # fmt: skip


def ip_address(word: int) -> str:
    """An address of the documentation's and private networks, one in twelve of IPv6."""
    if word % 12 == 0:
        return f"2001:db8:{word >> 16 & 0xFFFF:x}:{word >> 32 & 0xFFFF:x}::{word >> 48 & 0xFFFF:x}"
    return f"10.{word >> 16 & 0xFF}.{word >> 24 & 0xFF}.{word >> 32 & 0xFF}"
