"""What a model of the warehouse is: one YAML file per model, validated here.

Everything that can be derived from a definition is derived by the other modules of this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tallyhouse.contracts.types import ColumnType, Kind

EXISTING = "existing"
"""The input of a dimension with history that holds its own versions in the warehouse."""

COUNTS = ("ubigint", "usmallint")
"""Types of whole numbers that only marts have: unsigned, of 64 and of 16 bits."""

UNKNOWN_KEY = -1
"""The surrogate key of the member that a fact names when its dimension has none."""

BUSINESS_ZONE = "Europe/Kyiv"
"""The zone whose calendar says which business day an event belongs to."""

OPEN_PAST, OPEN_FUTURE = "1900-01-01 00:00:00+00", "2299-12-31 00:00:00+00"
"""Where the first version of a member begins and its last one ends."""


class ModelKind(StrEnum):
    """What a model is."""

    DIMENSION = "dimension"
    FACT = "fact"
    MART = "mart"
    CALENDAR = "calendar"


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_tuple, json_schema_input_type=str | list[str]),
]


class Strict(BaseModel):
    """Refuses keys that it does not know, with the nearest one that it does."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for key in values:
                if key not in known:
                    near = get_close_matches(str(key), sorted(known), n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
                    raise ValueError(f"unknown key {key!r}; {hint}")
        return values


class ModelColumn(Strict):
    """A column of a model.

    Attributes:
        type: As in DBML, such as `decimal(12,2)`; marts also have `ubigint` and `usmallint`.
        nullable: Whether it may be NULL.
        of: What it is made of, as `<input>.<column>`; the inputs are `rows_of`, the joins and, of a mart,
            its models.
        member_of: The dimension whose surrogate key it holds.
        business_day: Whether it is the calendar day, in the business zone, of the time that it is made of.
        computed: Whether the model's function works it out. A column that is made of one other column is a
            copy of it, which is checked, unless this is said.
        low_cardinality: Whether few distinct values are expected, so that a column store keeps a dictionary.
        unknown: Its value in the unknown member of a dimension, where the default does not fit.
        description: What a reader has to know beside its name.
    """

    type: str
    nullable: bool = False
    of: Names = ()
    member_of: str | None = None
    business_day: bool = False
    computed: bool = False
    low_cardinality: bool = False
    unknown: str | int | bool | None = None
    description: str = ""

    @property
    def column_type(self) -> ColumnType:
        """The parsed type; not for the counts of marts."""
        return ColumnType.parse(self.type)


class Join(Strict):
    """Rows that a model needs beside those that it has one row of each for.

    Attributes:
        table: The source table; the join's own name where it is not said.
        dimension: Instead of a table: the dimension whose rows or versions are joined.
        match: Its column, by the column `<input>.<column>` that it equals; a list where there are several.
        at: Of a dimension with history: the time `<input>.<column>` that picks the version.
        columns: The columns that the model takes of it beside those in `match`. The model's function sees no
            others. Where a table gives none, only whether its row exists matters.
    """

    table: str | None = None
    dimension: str | None = None
    match: dict[str, Names] = Field(min_length=1)
    at: str | None = None
    columns: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.table and self.dimension:
            raise ValueError("a join has a table or a dimension, not both")
        if self.at and not self.dimension:
            raise ValueError("`at` picks the version of a dimension; a table has none")
        return self

    @property
    def taken(self) -> tuple[str, ...]:
        """Every column that the model's function sees."""
        return tuple(dict.fromkeys((*self.match, *self.columns)))


class Measures(Strict):
    """Numbers whose sums must agree wherever the model is.

    Attributes:
        sum: The columns.
        by: The column that the sums are told apart by, such as the currency.
    """

    sum: tuple[str, ...]
    by: str | None = None


class Totals(Strict):
    """What the sums of a mart's columns must equal, in ClickHouse's SQL over the model that it adds up.

    Attributes:
        of: The model.
        where: Which of its rows are in the mart.
        by: The mart's columns that the sums are told apart by, each with its expression over the model.
        rows: The mart's column whose sum is the number of the model's rows.
        sums: The mart's columns that are summed, each with its expression over the model.
    """

    of: str
    where: str | None = None
    by: dict[str, str] = {}
    rows: str | None = None
    sums: dict[str, str] = {}


class ClickHouse(Strict):
    """How ClickHouse keeps the model.

    Attributes:
        order_by: Columns of its sorting key.
        partition_by: Expression of its partitions.
    """

    order_by: tuple[str, ...] = Field(min_length=1)
    partition_by: str | None = None


class Definition(Strict):
    """A model: a dimension, a fact or a mart.

    Attributes:
        name: Of its tables; the file's name.
        pipeline: The folder that the file is in.
        kind: What it is.
        history: Whether a dimension keeps versions (SCD2) instead of the current state (type 1).
        description: What it is, in a line.
        grain: What one row stands for.
        rows_of: The source table of which each live row is one row of the model, or one member.
        whole: Whether any change builds the whole model again, from whole tables.
        models: Of a mart: the models that it is built of.
        key: Its primary key.
        natural_key: Of a dimension: the column with the key of `rows_of`.
        joins: What else it needs, by the name of its function's argument.
        measures: What reconciliation sums.
        totals: Of a mart: what its sums must equal.
        indexes: Columns with an index of their own in PostgreSQL, beside the keys.
        clickhouse: How ClickHouse keeps it.
        columns: In order.
    """

    name: str = Field(default="", exclude=True)
    pipeline: str = Field(default="", exclude=True)
    kind: ModelKind
    history: bool = False
    description: str
    grain: str
    rows_of: str | None = None
    whole: bool = False
    models: tuple[str, ...] = ()
    key: Names = Field(min_length=1)
    natural_key: str | None = None
    joins: dict[str, Join] = {}
    measures: Measures | None = None
    totals: Totals | None = None
    indexes: tuple[str, ...] = ()
    clickhouse: ClickHouse
    columns: dict[str, ModelColumn] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        return self

    @property
    def is_built(self) -> bool:
        """Whether Spark builds it and both stores hold it."""
        return self.kind in (ModelKind.DIMENSION, ModelKind.FACT)

    @property
    def driver(self) -> str:
        """`rows_of` of a dimension or fact."""
        assert self.rows_of is not None  # noqa: S101 - validated
        return self.rows_of

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments of its function, in order."""
        own = (EXISTING,) if self.history else ()
        return (self.driver, *self.joins, *own)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions that it joins."""
        return tuple(dict.fromkeys(join.dimension for join in self.joins.values() if join.dimension))

    @property
    def tables(self) -> tuple[str, ...]:
        """The source tables that it is built of."""
        joined = (join.table or name for name, join in self.joins.items() if not join.dimension)
        return tuple(dict.fromkeys((self.driver, *joined)))

    @property
    def spark_schema(self) -> str:
        """Its columns and types as Spark's DDL."""
        return ", ".join(f"`{name}` {column.column_type.spark}" for name, column in self.columns.items())

    @property
    def unknown_member(self) -> dict[str, Any]:
        """The row that facts point at where a dimension has none, by column."""
        return {name: _unknown(self, name, column) for name, column in self.columns.items()}


def _unknown(model: Definition, name: str, column: ModelColumn) -> Any:
    if column.unknown is not None:
        return column.unknown
    if name in model.key or column.member_of:
        return UNKNOWN_KEY
    if model.history and name in ("valid_to", "is_current"):
        return OPEN_FUTURE if name == "valid_to" else True
    return None if column.nullable else _filler(column.column_type, natural=name == model.natural_key)


def _filler(type_: ColumnType, *, natural: bool) -> Any:
    """What stands for a value that nobody knows."""
    if type_.kind is Kind.CHAR and type_.length == 36:
        return "00000000-0000-0000-0000-000000000000"
    if type_.kind in (Kind.CHAR, Kind.VARCHAR, Kind.TEXT):
        return "Unknown"[: type_.length]
    values = {Kind.BOOLEAN: False, Kind.TIMESTAMP: OPEN_PAST, Kind.DATE: OPEN_PAST[:10]}
    return values.get(type_.kind, UNKNOWN_KEY if natural else 0)


def _problems(model: Definition) -> Iterator[str]:
    """What a definition says that does not agree with itself."""
    named = {
        "key": model.key,
        "natural_key": (model.natural_key,) if model.natural_key else (),
        "measures": (*model.measures.sum, *filter(None, (model.measures.by,))) if model.measures else (),
        "indexes": model.indexes,
        "clickhouse.order_by": model.clickhouse.order_by,
        "totals": (*model.totals.by, *model.totals.sums, *filter(None, (model.totals.rows,)))
        if model.totals
        else (),
    }
    for what, names in named.items():
        for name in names:
            if name not in model.columns:
                yield f"{what} names {name!r}, which is not a column{nearest(name, model.columns)}"
    yield from _problems_of_kind(model)
    for name, column in model.columns.items():
        if not (column.type in COUNTS and model.kind is ModelKind.MART):
            try:
                ColumnType.parse(column.type)
            except ValueError as error:
                yield f"column {name}: {error}"
    if model.is_built:
        yield from _problems_of_inputs(model)


def _problems_of_kind(model: Definition) -> Iterator[str]:
    wanted: dict[ModelKind, tuple[str, ...]] = {
        ModelKind.DIMENSION: ("rows_of", "natural_key"),
        ModelKind.FACT: ("rows_of",),
        ModelKind.MART: ("models",),
        ModelKind.CALENDAR: (),
    }
    for name in wanted[model.kind]:
        if not getattr(model, name):
            yield f"a {model.kind} needs `{name}`"
    if model.history:
        if model.kind is not ModelKind.DIMENSION:
            yield "only a dimension keeps history"
        needed = ("version_at", "valid_from", "valid_to", "is_current")
        if missing := [name for name in needed if name not in model.columns]:
            yield f"a dimension with history has the columns {', '.join(needed)}; missing: {missing}"
    if model.is_built and len(model.key) != 1:
        yield "the key of a dimension or fact is one column"


def _problems_of_inputs(model: Definition) -> Iterator[str]:
    """Joins name inputs that stand before them; columns are made of inputs that there are."""
    known = {model.driver, *((EXISTING,) if model.history else ())}
    for name, join in model.joins.items():
        for reference in (*(one for many in join.match.values() for one in many), *filter(None, (join.at,))):
            if reference.partition(".")[0] not in known:
                yield f"join {name}: {reference!r} is of no input before it{nearest(reference, known)}"
        known.add(name)
    for name, column in model.columns.items():
        for reference in column.of:
            if reference.partition(".")[0] not in known:
                yield f"column {name}: {reference!r} is of no input{nearest(reference, known)}"


def nearest(name: str, known: Any) -> str:
    """A hint for a message: the known name that is nearest."""
    found = get_close_matches(name, list(known), n=1) or get_close_matches(
        name.partition(".")[0], list(known), n=1
    )
    return f"; did you mean {found[0]!r}?" if found else ""
