"""The one error type whose message is meant for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

SAMPLES = 5
"""Values or keys that a failure keeps at most."""


class TallyhouseError(Exception):
    """Says in one line what went wrong, where (table, run), and how to fix it.

    Who raises it says what it knows itself, the table at most; the run, and what the run carries, are added
    once, by `in_context` around the whole task.

    Attributes:
        what: What went wrong.
        where: The table or pipeline, and the run; None until it is known.
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
        remedy: str,
        where: str | None = None,
        transient: bool = False,
        table: str | None = None,
        rule: str | None = None,
        count: int | None = None,
        sample: Sequence[str] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy
        self.transient = transient
        self.table = table
        self.rule = rule
        self.count = count
        self.sample = tuple(sample)[:SAMPLES]

    def __str__(self) -> str:
        return f"{self._said}. {self.remedy}"

    @property
    def _said(self) -> str:
        place = self.where or self.table
        return (f"{place}: " if place else "") + self.what.rstrip(".")

    def add_context(self, about: str, run_id: str | None = None) -> None:
        """Says where it happened, unless that is known.

        Args:
            about: Such as `pipeline techmarket`; the error's own table goes before it.
            run_id: The run, where there is one.
        """
        if self.where is None:
            self.where = (self.table or about) + (f" in run {run_id}" if run_id else "")

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
            "message": self._said,
            "remedy": self.remedy,
        }

    def arguments(self) -> dict[str, Any]:
        """What it was made of, as JSON values, for another process to make it again."""
        names = ("what", "where", "remedy", "transient", "table", "rule", "count")
        return {name: getattr(self, name) for name in names} | {"sample": list(self.sample)}


@contextmanager
def in_context(about: str, run_id: str | None = None) -> Iterator[None]:
    """Adds to errors of the block where they happened; see `TallyhouseError.add_context`."""
    try:
        yield
    except TallyhouseError as error:
        error.add_context(about, run_id)
        raise


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's message, or its type where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
