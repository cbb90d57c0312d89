"""What a target is: a store that shows the runs which the warehouse shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from string import Template
from typing import Any, ClassVar, Protocol, Self

import pyarrow as pa
import yaml
from sqlalchemy import URL, Connection

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import first_line
from tallyhouse.lake import Lake
from tallyhouse.models import Definition
from tallyhouse.models.drift import Change
from tallyhouse.publish import targets
from tallyhouse.settings import ROOT, Settings

Rows = Callable[[str], Iterator[pa.RecordBatch]]
"""All rows that the warehouse has of a model, but for those that the target cannot hold."""
Groups = Sequence[Sequence[Any]]
"""Per group: its value, then numbers, as text."""


@dataclass(frozen=True)
class Place:
    """Where a target is, as its connection says.

    Attributes:
        host: The server, or the path of a file.
        port: Of the server.
        user: The account.
        password: Its password.
        database: Where the star schema is.
        extra: What else the connection says.
    """

    host: str
    port: int | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, target: str) -> Place:
        """That of a target, for commands that have no Airflow."""
        return cls.at(settings, conn_id(target))

    @classmethod
    def at(cls, settings: Settings, connection: str) -> Place:
        """A connection as `config/connections.yaml` has it, for commands that have no Airflow."""
        connections = yaml.safe_load((ROOT / "config" / "connections.yaml").read_text(encoding="utf-8"))
        found = connections[connection]
        # Each value is filled by itself, so that one with YAML's signs in it stays one value.
        told = {
            name: Template(str(found.get(name) or "")).safe_substitute(settings.environment())
            for name in ("host", "port", "login", "password", "schema")
        }
        port = int(told["port"]) if told["port"] else None
        extra = found.get("extra") or {}
        return cls(told["host"], port, told["login"], told["password"], told["schema"], extra)


@dataclass(frozen=True)
class LakeAccess:
    """How a target reaches the lake by itself.

    Attributes:
        endpoint: With its scheme, such as `http://127.0.0.1:9000`.
        access_key: The account.
        secret_key: Its secret.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)


class RowsRefusedError(Exception):
    """A target does not take a model's rows."""

    def __init__(self, model: str, error: Exception) -> None:
        super().__init__(first_line(error))
        self.model = model


@dataclass(frozen=True)
class Migrations:
    """How a target is reached for its migrations, which are in `sql/<target>/migrations`.

    Attributes:
        url: Its address for SQLAlchemy, whose dialect Alembic knows.
        schema: Where its tables are, and Alembic's own.
        create: The statement that makes that.
        adapt: A migration's statement as this server has to be told it.
    """

    url: Callable[[Place], URL]
    schema: str
    create: str
    adapt: Callable[[Connection, str], str] = lambda _, statement: statement


class Target(Protocol):
    """A store that shows published runs; `follow` brings it to what the warehouse shows.

    Attributes:
        title: Its name in messages.
        engine: Whose SQL it speaks, for `models.digest`.
        exclusive: Whether publishes of different pipelines have to wait for one another.
        ranges: By PostgreSQL's type: the least and the greatest value that the target holds, and its own
            name of the type. A type that is not named here holds whatever PostgreSQL does.
        decimals: Digits of its longest decimal.
        errors: What its driver raises when the server, or the file, fails.
        migrations: How they reach it; None where it makes its tables itself.
    """

    title: ClassVar[str]
    engine: ClassVar[str]
    exclusive: ClassVar[bool]
    ranges: ClassVar[Mapping[str, tuple[str, str, str]]]
    decimals: ClassVar[int]
    errors: ClassVar[tuple[type[Exception], ...]]
    migrations: ClassVar[Migrations | None]

    @classmethod
    def open(cls, place: Place, lake: Lake, access: LakeAccess) -> Self:
        """Connects."""

    def close(self) -> None:
        """Disconnects."""

    def prepare(self, rows: Rows) -> None:
        """Makes what is missing of its tables, unless migrations do; may read rows of the warehouse."""

    def changes(self) -> list[Change]:
        """How its tables differ from the definitions; none where it makes them itself."""
        return []

    def shown_runs(self) -> set[str]:
        """The runs that it shows."""

    def forget(self, runs: Sequence[str]) -> None:
        """Shows these runs no longer: the warehouse does not know them, and all models were copied since."""

    def begin(self, pipeline: PipelineContract) -> None:
        """Begins a change of a pipeline's tables, which nobody sees before `show`.

        What an earlier change left behind goes.
        """

    def apply(self, run_id: str, models: Sequence[str]) -> None:
        """Brings a run's increments of these models into the change.

        Raises:
            RowsRefusedError: It does not take them; the change has none of the model's that it refused.
        """

    def copy(self, pipeline: PipelineContract, folders: Mapping[str, str]) -> None:
        """Fills models anew from Parquet of the lake, in the change.

        Args:
            pipeline: Whose models.
            folders: By model, the prefix in the lake below which all its rows are; none where it has none.

        Raises:
            RowsRefusedError: It does not take the rows of a model, which stays as it was in the change.
        """

    def build_marts(self, pipeline: PipelineContract) -> None:
        """Builds the marts from the models, in the change."""

    def show(self, pipeline: PipelineContract, runs: Sequence[str]) -> None:
        """Ends the change by one act: all its tables are seen from now on, and that it shows these runs.

        Raises:
            TallyhouseError: A later publish began a change of its own; this one is not shown.
        """

    def abandon(self) -> None:
        """Forgets the change, if one has begun and is not shown."""

    def totals(self, model: Definition) -> Groups:
        """A model's rows and the sums of its measures, by group; in a change, those of the change.

        So are `digest`, `mart_totals`, `differing` and `ask`.
        """

    def digest(self, model: Definition, parts: Sequence[str] | None) -> tuple[str, str]:
        """How many rows of a model or mart there are, and their digest (`models.digest`), as text.

        Args:
            model: The model or mart.
            parts: Parquet objects of the lake: only rows whose keys they hold. None for all.
        """

    def mart_totals(self, mart: Definition) -> tuple[Groups, Groups]:
        """What a mart's sums should be, by the model that it adds up, and what they are."""

    def differing(self, model: Definition, folder: str) -> int:
        """How many rows of a model are not in the Parquet below a prefix of the lake, or only there."""

    def ask(self, query: str) -> Iterator[Sequence[Any]]:
        """Answers of a query over `dwh`, in the engine's SQL, some thousands of rows at once."""


def known() -> list[str]:
    """Names of all targets that there are."""
    return sorted(module.name for module in iter_modules(targets.__path__))


def load(name: str) -> type[Target]:
    """The class of a target.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in known():
        raise ValueError(f"TARGETS names {name!r}; there are: {', '.join(known())}")
    found: type[Target] = import_module(f"{targets.__name__}.{name}").Target
    return found


def errors() -> tuple[type[Exception], ...]:
    """What the drivers of all targets raise."""
    return tuple(error for name in known() for error in load(name).errors)


def conn_id(name: str) -> str:
    """The connection of a target."""
    return f"{name}_dwh"


def task(name: str) -> str:
    """The task that brings runs to a target, in every DAG."""
    return f"publish.{name}"
