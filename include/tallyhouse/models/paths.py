"""How a model's inputs hang together: which of them lead from one to another, and by which columns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from tallyhouse.contracts import TableContract
from tallyhouse.models.definition import EXISTING, Definition
from tallyhouse.models.load import definition, table_of


@dataclass(frozen=True)
class Link:
    """Two columns of two inputs that are equal where their rows are joined, as `<input>.<column>`."""

    left: str
    right: str


@dataclass(frozen=True)
class Path:
    """The way from an input to the rows that the model has.

    Attributes:
        inputs: Every input on the way, in the order of the definition: `rows_of` first.
        links: What joins them.
        at: Of a dimension with history: the time `<input>.<column>` that picks the version.
    """

    inputs: tuple[str, ...]
    links: tuple[Link, ...]
    at: str | None


def paths(model: Definition, name: str) -> list[Path]:
    """Every way on which rows of an input reach rows of the model.

    There are several where a join matches one of several columns.

    Args:
        model: The model.
        name: One of its inputs.
    """
    found = []
    for links in _links(model, name):
        at = model.joins[name].at if name in model.joins else None
        wanted = {name, model.driver} | {one.partition(".")[0] for link in links for one in (link.right,)}
        ends = links
        if at and (other := at.partition(".")[0]) not in wanted:
            # The time stands in a row on another way from the model's own row.
            ends = (*links, *next(iter(_links(model, other))))
            wanted |= {one.partition(".")[0] for link in ends for one in (link.left, link.right)}
        inputs = tuple(one for one in model.inputs if one in wanted)
        found.append(Path(inputs, tuple(dict.fromkeys(ends)), at))
    return found


def _links(model: Definition, name: str) -> list[tuple[Link, ...]]:
    """The links from an input down to the driver: one tuple per way."""
    if name == model.driver:
        return [()]
    if name == EXISTING:
        (key,) = table_of(model, model.driver).key
        return [(Link(f"{EXISTING}.{model.natural_key}", f"{model.driver}.{key}"),)]
    match = model.joins[name].match
    ways = []
    for references in product(*match.values()):
        own = tuple(
            Link(f"{name}.{column}", reference) for column, reference in zip(match, references, strict=True)
        )
        inputs = dict.fromkeys(reference.partition(".")[0] for reference in references)
        for rest in product(*(_links(model, one) for one in inputs)):
            ways.append((*own, *(link for links in rest for link in links)))
    return ways


def key_of(model: Definition, name: str) -> tuple[str, ...]:
    """The columns that tell an input's rows apart; for a dimension with history, members."""
    if name == EXISTING:
        return model.key
    join = model.joins.get(name)
    if join and join.dimension:
        dimension = definition(join.dimension)
        return (dimension.natural_key or dimension.key[0],)
    return table_of(model, name).key


def is_single(model: Definition, name: str) -> bool:
    """Whether at most one row of an input belongs to a row of the model (at the time that counts)."""
    if name == model.driver:
        return True
    join = model.joins.get(name)
    if join is None:
        return False
    references = [one for many in join.match.values() for one in many]
    return set(key_of(model, name)) <= set(join.match) and all(
        is_single(model, one.partition(".")[0]) for one in references if one.partition(".")[0] != EXISTING
    )


def only_presence(model: Definition, name: str) -> bool:
    """Whether a model takes nothing of an input but that its row is there."""
    join = model.joins.get(name)
    if join is None or join.dimension:
        return False
    contract: TableContract = table_of(model, name)
    return not join.columns and set(join.match) == set(contract.key)
