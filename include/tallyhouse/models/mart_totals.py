"""The two queries by which a mart is held to the model that it adds up."""

from __future__ import annotations

from tallyhouse.models.definition import Definition


def totals(mart: Definition) -> tuple[str, str]:
    """Two queries whose rows must be the same: over the model that a mart adds up, and over the mart.

    They are in the SQL that definitions and marts are written in, ClickHouse's; a target that speaks another
    one translates them.

    Returns:
        Each answers the group's values, then the sums, as text, in the definition's order.
    """
    said = mart.totals
    assert said is not None  # noqa: S101 - the caller asks only those that have totals
    rows = {said.rows: "count()"} if said.rows else {}
    expected = {**rows, **said.sums}
    groups = [f"ifNull(toString({one}), '') AS g{number}" for number, one in enumerate(said.by.values())]
    left = [f"toString({one}) AS s{number}" for number, one in enumerate(expected.values())]
    mine = [f"ifNull(toString(`{one}`), '') AS g{number}" for number, one in enumerate(said.by)]
    right = [f"toString(sum(`{one}`)) AS s{number}" for number, one in enumerate(expected)]
    where = f" WHERE {said.where}" if said.where else ""
    by = ", ".join(f"g{number}" for number in range(len(groups)))
    group = f" GROUP BY {by}" if by else ""
    return (
        f"SELECT {', '.join([*groups, *left])} FROM dwh.`{said.of}`{where}{group}",
        f"SELECT {', '.join([*mine, *right])} FROM dwh.`{mart.name}`{group}",
    )
