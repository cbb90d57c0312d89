"""The one error type whose message is meant for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SAMPLES = 5
"""Values or keys that a failure keeps at most."""


class TallyhouseError(Exception):
    """Says in one line what went wrong, where (table, run), and how to fix it.

    Attributes:
        what: What went wrong.
        where: The table or pipeline, and the run.
        remedy: What to do about it.
        transient: Whether trying again later may help, as with a server that is down.
        table: The table or model that it is about, such as `orders.orders`; None where it is about none.
        rule: What does not hold, such as `expect_column_values_to_be_in_set(status)`, or a hop of the ledger.
        count: How many rows break the rule, or by how many a ledger line differs.
        sample: Some of what breaks the rule, values or keys; never personal data.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str,
        remedy: str,
        transient: bool = False,
        table: str | None = None,
        rule: str | None = None,
        count: int | None = None,
        sample: Sequence[str] = (),
    ) -> None:
        super().__init__(f"{where}: {what.rstrip('.')}. {remedy}")
        self.what = what
        self.where = where
        self.remedy = remedy
        self.transient = transient
        self.table = table
        self.rule = rule
        self.count = count
        self.sample = tuple(sample)[:SAMPLES]

    def failure(self, task: str | None) -> dict[str, Any]:
        """What `etl.run` keeps of it, and the run's pages show.

        Args:
            task: The task that it ended.
        """
        return {
            "task": task,
            "table": self.table,
            "rule": self.rule,
            "count": self.count,
            "sample": list(self.sample),
            "message": f"{self.where}: {self.what.rstrip('.')}",
            "remedy": self.remedy,
        }

    def arguments(self) -> dict[str, Any]:
        """What it was made of, as JSON values, for another process to make it again."""
        names = ("what", "where", "remedy", "transient", "table", "rule", "count")
        return {name: getattr(self, name) for name in names} | {"sample": list(self.sample)}


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's message, or its type where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
